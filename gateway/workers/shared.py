"""The StateStore of a worker: the owner keeps budgets and rates for all workers of this machine.

What a key without a budget, or without rates, does is told and not asked: it costs no wait. While the owner is away,
keys with a budget wait for it a moment and are refused then; rates are counted by this process alone.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from gateway.errors import KeysUnavailableError
from gateway.keys.budget import AMOUNT_MAX_IN_NUSD, Offer
from gateway.keys.limits import Allowance, Bucket, Kind, Limited, Limiter, Pace, Pass
from gateway.keys.purse import LEASE_EXTRA_S, Chain, Grant, Refusal, Usage
from gateway.sharing.base import (
    UNREACHABLE_RETRY_S,
    Later,
    StoreStatus,
)
from gateway.workers.line import OwnerLine
from gateway.workers.link import AwayError, DeclinedError
from gateway.workers.messages import (
    AllowancesAsked,
    Enter,
    HeldAttempt,
    Hold,
    Leave,
    OpenLease,
    Release,
    Reserve,
    Settle,
    UsageAsked,
)
from gateway.workers.shelves import OwnerAnswers, OwnerHints, OwnerSessions, OwnerTries

BUDGET_WAIT_S: Final = 3.0
"""How long a request of a key with a budget waits for an owner that is away or was only just started."""
RATE_WAIT_S: Final = 0.25
"""How long one waits to be counted for all workers; then this worker's own count decides."""
HELD_MAX: Final = 2**31


class _Lease:
    """A request's money as the owner has it too: both do the same sums in the same order."""

    __slots__ = ("amount", "closed", "grant", "holds", "key_id", "until_s")

    def __init__(self, key_id: str, grant: Grant, until_s: float) -> None:
        self.key_id = key_id
        self.grant = grant
        self.amount = grant.amount_in_nusd
        self.until_s = until_s
        self.closed = False
        self.holds: dict[str, tuple[int, float]] = {}

    def held(self) -> int:
        return sum([amount for amount, _ in self.holds.values()])


class OwnerBudgets:
    """Budgets in the owner's Purse.

    Args:
        line: To the owner.
        chain_of: A key and the teams above it.
        now_s: The monotonic clock.
    """

    def __init__(self, line: OwnerLine, chain_of: Callable[[str], Chain], now_s: Callable[[], float]) -> None:
        self._line = line
        self._chain_of = chain_of
        self._now_s = now_s
        self._leases: dict[str, _Lease] = {}

    def has_budget(self, key_id: str) -> bool:
        """Whether a key, or a team above it, has any."""
        for one in self._chain_of(key_id):  # noqa: SIM110 (any() costs four times as much, and this is asked each time)
            if one.limits.has_budget:
                return True
        return False

    def open_leases(self) -> tuple[OpenLease, ...]:
        """What is reserved, for an owner that does not know."""
        return tuple(
            OpenLease(
                lease_id,
                lease.key_id,
                lease.amount,
                lease.until_s,
                lease.closed,
                tuple(HeldAttempt(name, worst, unix_s) for name, (worst, unix_s) in lease.holds.items()),
            )
            for lease_id, lease in self._leases.items()
        )

    async def reserve(
        self, lease_id: str, key_id: str, offers: Sequence[Offer], *, unix_s: float, now_s: float, total_s: float
    ) -> Grant | Refusal:
        """Set aside the most that a request may cost."""
        known = self._leases.get(lease_id)
        if known is not None:
            return known.grant
        asked = Reserve(lease_id, key_id, tuple(offers), unix_s, now_s, total_s)
        until_s = now_s + total_s + LEASE_EXTRA_S
        if not self.has_budget(key_id):
            grant = Grant(lease_id, max((one.worst_in_nusd(one.output_tokens) for one in offers), default=0))
            self._leases[lease_id] = _Lease(key_id, grant, until_s)
            self._line.tell(replace(asked, told=True))
            return grant
        try:
            answer: tuple[Grant | None, Refusal | None] = await self._ask(asked, tuple[Grant | None, Refusal | None])
            found, refusal = answer
        except BaseException:
            self._line.tell(Release(lease_id))
            raise
        if found is None:
            if refusal is None:
                raise RuntimeError("the owner neither granted nor refused")
            return refusal
        self._leases[lease_id] = _Lease(key_id, found, until_s)
        return found

    def hold(self, lease_id: str, attempt_id: str, worst_in_nusd: int, *, unix_s: float) -> Later | None:
        """An Attempt is about to be sent."""
        lease = self._leases.get(lease_id)
        if lease is None or self._now_s() >= lease.until_s:
            raise RuntimeError(f"{attempt_id} was not reserved, or took longer than it could")
        if attempt_id in lease.holds:
            return None
        asked = Hold(lease_id, attempt_id, worst_in_nusd, unix_s)
        if lease.held() + worst_in_nusd <= lease.amount or not self.has_budget(lease.key_id):
            self._note(lease, asked)
            self._line.tell(asked)
            return None
        return Later(lambda: self._hold_more(lease, asked))

    async def _hold_more(self, lease: _Lease, asked: Hold) -> Refusal | None:
        try:
            refusal: Refusal | None = await self._ask(asked, Refusal | None)
        except BaseException:
            self._line.tell(Settle(asked.lease_id, asked.attempt_id, 0))
            raise
        if refusal is None:
            self._note(lease, asked)
        return refusal

    @staticmethod
    def _note(lease: _Lease, asked: Hold) -> None:
        lease.holds[asked.attempt_id] = (asked.worst_in_nusd, asked.unix_s)
        lease.amount = max(lease.amount, lease.held())

    def settle(self, lease_id: str, attempt_id: str, cost_in_nusd: int | None) -> None:
        """An Attempt has ended."""
        lease = self._leases.get(lease_id)
        if lease is None or attempt_id not in lease.holds:
            return
        held, _ = lease.holds.pop(attempt_id)
        cost = held if cost_in_nusd is None else min(max(cost_in_nusd, 0), AMOUNT_MAX_IN_NUSD)
        lease.amount = lease.held() if lease.closed else max(lease.amount - cost, lease.held())
        if lease.closed and not lease.holds:
            del self._leases[lease_id]
        self._line.tell(Settle(lease_id, attempt_id, cost_in_nusd))

    def release(self, lease_id: str) -> None:
        """The request is over."""
        lease = self._leases.get(lease_id)
        if lease is None or lease.closed:
            return
        lease.closed = True
        lease.amount = lease.held()
        if not lease.holds:
            del self._leases[lease_id]
        self._line.tell(Release(lease_id))

    async def usage(self, key_ids: Sequence[str], unix_s: float) -> Mapping[str, Usage]:
        """What keys and their children spent."""
        found: dict[str, Usage] = await self._ask(UsageAsked(tuple(key_ids), unix_s), dict[str, Usage])
        return found

    async def _ask(self, message: Any, kind: Any) -> Any:
        """Ask the owner, within BUDGET_WAIT_S.

        Raises:
            KeysUnavailableError: It is away, or does not know what was spent yet.
        """
        try:
            async with asyncio.timeout(BUDGET_WAIT_S):
                return await self._line.ask_until_heard(message, kind)
        except (TimeoutError, AwayError):
            words = "the process that keeps the budgets is away; it is started again"
            raise KeysUnavailableError(words, retry_after_s=UNREACHABLE_RETRY_S) from None
        except DeclinedError as error:
            retry_after_s = error.retry_after_s or UNREACHABLE_RETRY_S
            raise KeysUnavailableError(str(error), retry_after_s=retry_after_s) from None


class _OwnerPass(Pass):
    """A request that the owner counts too."""

    __slots__ = ("number",)

    def __init__(self, number: int, paces: tuple[Pace, ...], tokens: int) -> None:
        super().__init__(paces, tokens)
        self.number = number


class OwnerRates:
    """Rates counted by the owner.

    Args:
        line: To the owner.
        chain_of: A key and the teams above it.
        limiter: This process's own, for while the owner is away.
    """

    def __init__(self, line: OwnerLine, chain_of: Callable[[str], Chain], limiter: Limiter) -> None:
        self._line = line
        self._chain_of = chain_of
        self._limiter = limiter
        self._number = 0
        self._running: dict[int, tuple[str, int]] = {}

    def running(self) -> tuple[tuple[str, int, int], ...]:
        """Requests that were let in, for an owner that does not know."""
        return tuple((key_id, number, tokens) for number, (key_id, tokens) in self._running.items())

    async def enter(self, key_id: str, tokens: int, now_s: float) -> Pass | Limited:
        """Let a request in, if every limit allows it."""
        limits = [one.limits for one in self._chain_of(key_id)]
        if not any(
            one.requests_per_min is not None or one.tokens_per_min is not None or one.concurrency is not None
            for one in limits
        ):
            return Pass((), tokens)
        self._number = number = self._number % HELD_MAX + 1
        try:
            async with asyncio.timeout(RATE_WAIT_S):
                refused: Limited | None = await self._line.ask(Enter(number, key_id, tokens, now_s), Limited | None)
        except (TimeoutError, AwayError, DeclinedError):
            self._line.tell(Leave(number, 0, now_s))
            return self._limiter.enter(key_id, tokens, now_s)
        except BaseException:
            self._line.tell(Leave(number, 0, now_s))
            raise
        if refused is not None:
            return refused
        self._running[number] = (key_id, tokens)
        paces = tuple(_pace(one.requests_per_min, one.tokens_per_min, now_s) for one in limits)
        return _OwnerPass(number, paces, tokens)

    def leave(self, held: Pass, tokens: int | None, now_s: float) -> None:
        """It is over."""
        if not isinstance(held, _OwnerPass):
            self._limiter.leave(held, tokens, now_s)
        elif not held.left:
            held.left = True
            self._running.pop(held.number, None)
            self._line.tell(Leave(held.number, tokens, now_s))

    async def allowances(self, key_id: str, now_s: float) -> dict[Kind, Allowance]:
        """What is left."""
        try:
            async with asyncio.timeout(RATE_WAIT_S):
                found: dict[Kind, Allowance] = await self._line.ask(
                    AllowancesAsked(key_id, now_s), dict[Kind, Allowance]
                )
        except (TimeoutError, AwayError, DeclinedError):
            return self._limiter.allowances(key_id, now_s)
        return found


def _pace(requests_per_min: int | None, tokens_per_min: int | None, now_s: float) -> Pace:
    """Which limits there are, for whoever asks."""
    pace = Pace()
    pace.requests = None if requests_per_min is None else Bucket(requests_per_min, now_s)
    pace.tokens = None if tokens_per_min is None else Bucket(tokens_per_min, now_s)
    return pace


class OwnerState:
    """All of it.

    Args:
        line: To the owner.
        chain_of: A key and the teams above it.
        limiter: This process's own, for while the owner is away.
        now_s: The monotonic clock.
    """

    def __init__(
        self, line: OwnerLine, chain_of: Callable[[str], Chain], limiter: Limiter, now_s: Callable[[], float]
    ) -> None:
        self._line = line
        self.budgets = OwnerBudgets(line, chain_of, now_s)
        self.rates = OwnerRates(line, chain_of, limiter)
        self.hints = OwnerHints(line)
        self.sessions = OwnerSessions(line)
        self.answers = OwnerAnswers(line)
        self.tries = OwnerTries(line)

    def status(self) -> StoreStatus:
        """Whether the owner is there."""
        up = self._line.up
        reason = "" if up else "the process that keeps budgets and the ledger's file is away; it is started again"
        return StoreStatus("owner", up=up, whole=up, reason=reason, rebuilds=self._line.reconnections)

    async def start(self) -> None:
        """The line is begun elsewhere."""

    async def aclose(self) -> None:
        """The line is ended elsewhere."""

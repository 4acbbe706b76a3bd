"""The StateStore of a gateway that is alone: everything is in this process, and nothing is ever waited for."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from gateway.keys.budget import Offer
from gateway.keys.limits import Allowance, Kind, Limited, Limiter, Pass
from gateway.keys.purse import Chain, Grant, Purse, Refusal, Usage
from gateway.sharing.answer_shelf import AnswerShelf
from gateway.sharing.base import (
    ANSWER_MAX_BYTES,
    ANSWER_TTL_MAX_S,
    SESSION_NAME_MAX_BYTES,
    SESSION_TTL_S,
    SESSIONS_MAX,
    Hint,
    StoreStatus,
)
from gateway.sharing.tries import OwnTries

ANSWERS_MAX_BYTES: Final = 64 * 1024 * 1024
"""All answers that are kept in memory. Where they are more, whoever has most of them gives away what he did not ask for
longest."""
HINTS_MAX: Final = 4096
"""Endpoints and tellers whose hints are kept."""
ANSWER_COST_BYTES: Final = 512
"""What one of them takes beside its own bytes, about."""

Name = TypeVar("Name", bound=Hashable)
Value = TypeVar("Value")


class Shelf(Generic[Name, Value]):
    """Values with an end, within a bound of size; what was not looked at longest makes room. Reads no clock.

    Args:
        size_max: Of all of them together.
    """

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._size = 0
        self._kept: OrderedDict[Name, tuple[Value, float, int]] = OrderedDict()

    def get(self, name: Name, unix_s: float) -> Value | None:
        """What is there and has not ended."""
        found = self._kept.get(name)
        if found is None:
            return None
        if unix_s >= found[1]:
            self.drop(name)
            return None
        self._kept.move_to_end(name)
        return found[0]

    def put(self, name: Name, value: Value, until_unix_s: float, size: int = 1) -> None:
        """Keep it instead of what was there."""
        self.drop(name)
        if size > self._size_max:
            return
        self._kept[name] = (value, until_unix_s, size)
        self._size += size
        while self._size > self._size_max:
            self.drop(next(iter(self._kept)))

    def drop(self, name: Name) -> None:
        """Forget it."""
        found = self._kept.pop(name, None)
        if found is not None:
            self._size -= found[2]

    def items(self, unix_s: float) -> list[tuple[Name, Value]]:
        """All that have not ended."""
        return [(name, value) for name, (value, until_s, _) in self._kept.items() if unix_s < until_s]


class HintBoard:
    """What several tellers say of Endpoints; each hears the others."""

    def __init__(self) -> None:
        self._said: Shelf[tuple[str, str, str], Hint] = Shelf(HINTS_MAX)

    def tell(self, teller: str, hint: Hint) -> None:
        """Somebody says something; what the same said of it before is forgotten."""
        self._said.put((teller, hint.endpoint_id, hint.kind), hint, hint.until_unix_s)

    def heard(self, teller: str, unix_s: float) -> list[Hint]:
        """What all others say."""
        return [hint for (by, _, _), hint in self._said.items(unix_s) if by != teller]


class MemoryBudgets:
    """Budgets in a Purse of this process."""

    __slots__ = ("_chain_of", "purse")

    def __init__(self, chain_of: Callable[[str], Chain], purse: Purse) -> None:
        self._chain_of = chain_of
        self.purse = purse

    def has_budget(self, key_id: str) -> bool:
        """Whether a key, or a team above it, has any."""
        for one in self._chain_of(key_id):  # noqa: SIM110 (any() costs four times as much, and this is asked each time)
            if one.limits.has_budget:
                return True
        return False

    async def reserve(
        self, lease_id: str, key_id: str, offers: Sequence[Offer], *, unix_s: float, now_s: float, total_s: float
    ) -> Grant | Refusal:
        """Set aside the most that a request may cost."""
        return self.purse.reserve(lease_id, key_id, offers, unix_s=unix_s, now_s=now_s, total_s=total_s)

    def hold(self, lease_id: str, attempt_id: str, worst_in_nusd: int, *, unix_s: float) -> Refusal | None:
        """An Attempt is about to be sent."""
        return self.purse.hold(lease_id, attempt_id, worst_in_nusd, unix_s=unix_s)

    def settle(self, lease_id: str, attempt_id: str, cost_in_nusd: int | None) -> None:
        """An Attempt has ended."""
        self.purse.settle(lease_id, attempt_id, cost_in_nusd)

    def release(self, lease_id: str) -> None:
        """The request is over."""
        self.purse.release(lease_id)

    async def usage(self, key_ids: Sequence[str], unix_s: float) -> Mapping[str, Usage]:
        """What keys and their children spent."""
        return {key_id: self.purse.usage(key_id, unix_s) for key_id in key_ids}


class MemoryRates:
    """Rates counted in this process."""

    __slots__ = ("limiter",)

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter

    async def enter(self, key_id: str, tokens: int, now_s: float) -> Pass | Limited:
        """Let a request in, if every limit allows it."""
        return self.limiter.enter(key_id, tokens, now_s)

    def leave(self, held: Pass, tokens: int | None, now_s: float) -> None:
        """It is over."""
        self.limiter.leave(held, tokens, now_s)

    async def allowances(self, key_id: str, now_s: float) -> dict[Kind, Allowance]:
        """What is left."""
        return self.limiter.allowances(key_id, now_s)


class MemoryHints:
    """Nobody else is there to tell, or to hear from."""

    def tell(self, hint: Hint) -> None:
        """Nothing."""

    def heard(self, unix_s: float) -> Sequence[Hint]:  # noqa: ARG002 (others need it)
        """Nothing."""
        return ()


class MemorySessions:
    """Conversations of this process."""

    def __init__(self) -> None:
        self._shelf: Shelf[str, str] = Shelf(SESSIONS_MAX)

    async def find(self, session: str, unix_s: float) -> str | None:
        """Who answered last."""
        return self._shelf.get(session, unix_s)

    def remember(self, session: str, endpoint_id: str, unix_s: float) -> None:
        """This Endpoint answered."""
        if len(session.encode()) <= SESSION_NAME_MAX_BYTES:
            self._shelf.put(session, endpoint_id, unix_s + SESSION_TTL_S)


class MemoryAnswers:
    """Answers kept by this process."""

    def __init__(self, size_max_bytes: int = ANSWERS_MAX_BYTES) -> None:
        self._shelf = AnswerShelf(size_max_bytes)

    async def get(self, tenant: str, digest: str, unix_s: float) -> bytes | None:
        """What was put."""
        return self._shelf.get(tenant, digest, unix_s)

    def put(self, tenant: str, digest: str, data: bytes, ttl_s: float, unix_s: float) -> None:
        """Keep it for a while."""
        if len(data) <= ANSWER_MAX_BYTES and ttl_s > 0:
            until_unix_s = unix_s + min(ttl_s, ANSWER_TTL_MAX_S)
            size = len(data) + ANSWER_COST_BYTES
            self._shelf.put(tenant, digest, data, size=size, until_unix_s=until_unix_s, unix_s=unix_s)

    def drop(self, tenant: str, digest: str) -> None:
        """Forget it."""
        self._shelf.drop(tenant, digest)


class MemoryStore:
    """All of it.

    Args:
        chain_of: A key and the teams above it, by the key's public id.
        purse: The keys' money.
        limiter: How often they may ask.
    """

    def __init__(self, chain_of: Callable[[str], Chain], purse: Purse, limiter: Limiter) -> None:
        self.budgets = MemoryBudgets(chain_of, purse)
        self.rates = MemoryRates(limiter)
        self.hints = MemoryHints()
        self.sessions = MemorySessions()
        self.answers = MemoryAnswers()
        self.tries = OwnTries()

    def status(self) -> StoreStatus:
        """It is always there."""
        purse = self.budgets.purse
        reason = "" if purse.knows_past else "what keys spent before is not known yet"
        return StoreStatus("memory", up=True, whole=purse.knows_past, reason=reason)

    async def start(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to do."""

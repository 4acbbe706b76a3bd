"""Budgets over several processes: Redis keeps the sums, each process its own leases.

What a request may cost is worked out here and then asked for in one step that grants it or says what is left. What was
granted, held and settled is this process's own business; Redis knows of it how much this process has reserved, and how
much it spent. Both are told as changes, each exactly once: whenever it is not certain that Redis has heard one, this
process joins anew and says all it has.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from msgspec import Struct

from gateway.errors import KeysUnavailableError
from gateway.keys.budget import AMOUNT_MAX_IN_NUSD, OUTPUT_MIN_TOKENS, Afforded, Offer, Standing, afford
from gateway.keys.key import KeyRecord
from gateway.keys.purse import UNKNOWN_RETRY_S, Grant, Refusal, Usage
from gateway.sharing.base import UNREACHABLE_RETRY_S, Later
from gateway.sharing.lane import LaneDownError, ScriptError, Word
from gateway.sharing.membership import Member
from gateway.sharing.shared_purse import SharedAccount, SharedPurse, State

ASK_MAX_S: Final = 1.0
"""How long a request of a key with a budget waits for Redis."""
ASKED_MAX: Final = 3
YOUNG_REST_S: Final = 0.05
"""When to ask again where others may not have said yet what they have."""
RACES_MAX: Final = 5
"""How often it is worked out anew, because others were faster."""
SPARE_REQUESTS: Final = 8
"""How many requests like this one a spare is for."""
SPARE_PARTS: Final = 64
"""A spare is at most one of so many parts of what is left."""
LIVES: Final = "what this client key may still spend cannot be asked for now; ask again in a moment"


class Spare(Struct):
    """What is reserved for requests of one key that come while Redis is away."""

    accounts: tuple[SharedAccount, ...]
    amount_in_nusd: int
    used_s: float


class _Ask(Struct, eq=False):
    """A reservation that is on its way."""

    key_id: str
    accounts: tuple[SharedAccount, ...]
    amount: int
    spare: int
    sent_s: float
    granted: bool = False
    orphaned: bool = False
    extra: int = 0
    """Of `spare`, what was granted."""
    states: dict[str, State] = {}


class RedisBudgets:
    """What issued keys may spend, together with all other processes.

    Args:
        member: This process's place among them.
        purse: Its own leases and spending.
        chain_of: A key and the teams above it.
        lease_extra_s: How much longer than the longest request what is reserved lives, if its process is killed.
    """

    def __init__(
        self,
        member: Member,
        purse: SharedPurse,
        chain_of: Callable[[str], Sequence[KeyRecord]],
        lease_extra_s: float,
    ) -> None:
        self.purse = purse
        self._member = member
        self._chain_of = chain_of
        self._extra_s = lease_extra_s
        self._total_s = 0.0
        self._lefts: dict[str, int] = {}
        self.spares: dict[str, Spare] = {}
        self.said_s = 0.0
        """When Redis was told last that what is reserved here lives."""

    @property
    def lease_ms(self) -> int:
        """How long what is reserved lives from now on."""
        return int((self._total_s + self._extra_s) * 1000)

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
        purse = self.purse
        purse.reap(now_s)
        self._total_s = max(self._total_s, total_s)
        if (known := purse.find(lease_id)) is not None:
            return known
        deadline_s = now_s + total_s + self._extra_s
        if not self.has_budget(key_id):
            worst = max((one.worst_in_nusd(one.output_tokens) for one in offers), default=0)
            return purse.admit(Grant(lease_id, worst), key_id, deadline_s)
        if not purse.knows_past:
            raise KeysUnavailableError("what this key has spent is not known yet", retry_after_s=UNKNOWN_RETRY_S)
        member = self._member
        if not (member.is_ready and member.lane.brisk):
            spare = self._from_spare(lease_id, key_id, offers)
            if spare is not None:
                return purse.admit(spare, key_id, deadline_s)
            if member.lane.is_stuck or not await member.until_ready():
                raise KeysUnavailableError(LIVES, retry_after_s=UNREACHABLE_RETRY_S)
        return await self._find_grant(lease_id, key_id, offers, unix_s, deadline_s)

    async def _find_grant(
        self, lease_id: str, key_id: str, offers: Sequence[Offer], unix_s: float, deadline_s: float
    ) -> Grant | Refusal:
        left, certain = self._lefts.get(key_id), False
        states: dict[str, State] = {}
        for _ in range(RACES_MAX):
            if left is None:
                states = await self._look(key_id, unix_s)
                left, certain = self._left(key_id, states), True
            afforded = afford(offers, left)
            if certain and afforded is None:
                break
            if not certain and not _is_all(afforded, offers):
                left = None  # it would be less than was asked for: be sure first
                continue
            assert afforded is not None  # noqa: S101 (see above)
            spare = min(SPARE_REQUESTS * afforded.amount_in_nusd, left // SPARE_PARTS)
            spare -= 0 if (had := self.spares.get(key_id)) is None else had.amount_in_nusd
            ask = await self._ask(key_id, afforded.amount_in_nusd, max(0, spare), unix_s)
            states = ask.states
            if (known := self.purse.find(lease_id)) is not None:
                self._give_back(ask)
                return known
            if ask.granted:
                left = self._left(key_id, states) + ask.amount + ask.extra
                grant = Grant(
                    lease_id,
                    afforded.amount_in_nusd,
                    afforded.output_tokens,
                    afforded.clamped,
                    max(0, left),
                    afforded.endpoints,
                )
                self._land(ask)
                return self.purse.admit(grant, key_id, deadline_s)
            left, certain = self._left(key_id, states), True
        self._return_spares(key_id)
        return self._refusal(key_id, states, offers)

    def hold(self, lease_id: str, attempt_id: str, worst_in_nusd: int, *, unix_s: float) -> Refusal | Later | None:
        """An Attempt is about to be sent."""
        key_id, missing = self.purse.missing(lease_id, attempt_id, worst_in_nusd)
        if missing > 0 and self.has_budget(key_id) and not self._covers_away(key_id, missing):
            return Later(partial(self._hold_more, lease_id, attempt_id, worst_in_nusd, unix_s))
        self.purse.take_hold(lease_id, attempt_id, worst_in_nusd, unix_s=unix_s)
        return None

    async def _hold_more(self, lease_id: str, attempt_id: str, worst_in_nusd: int, unix_s: float) -> Refusal | None:
        """Hold an Attempt for which the lease has to grow."""
        key_id, missing = self.purse.missing(lease_id, attempt_id, worst_in_nusd)
        ask = await self._ask(key_id, max(0, missing), 0, unix_s)
        if not ask.granted:
            standing = min(self._standings(key_id, ask.states), key=_left_of)
            unspent = standing.left_in_nusd + standing.reserved_in_nusd
            return Refusal(standing, worst_in_nusd, final=unspent < missing)
        if not self.purse.is_open(lease_id):
            self._give_back(ask)
            raise KeysUnavailableError("the request is over", retry_after_s=UNREACHABLE_RETRY_S)
        self._land(ask)
        self.purse.take_hold(lease_id, attempt_id, worst_in_nusd, unix_s=unix_s)
        return None

    def settle(self, lease_id: str, attempt_id: str, cost_in_nusd: int | None) -> None:
        """An Attempt has ended."""
        self.purse.settle(lease_id, attempt_id, cost_in_nusd)

    def release(self, lease_id: str) -> None:
        """The request is over."""
        self.purse.release(lease_id)

    async def usage(self, key_ids: Sequence[str], unix_s: float) -> dict[str, Usage]:
        """What keys and their children spent."""
        return {key_id: self.purse.usage(key_id, unix_s) for key_id in key_ids}

    # Asking.

    async def _ask(self, key_id: str, amount: int, spare: int, unix_s: float) -> _Ask:
        """Ask for an amount; once more where what is shared was lost meanwhile, and is put together again soon.

        Raises:
            KeysUnavailableError: Nobody answers, or not in time.
        """
        member = self._member
        for _ in range(ASKED_MAX):
            ask = self._new_ask(key_id, amount, spare)
            try:
                answer = await self._send(ask, unix_s)
            except TimeoutError as error:
                member.lane.note_slow()
                raise KeysUnavailableError(LIVES, retry_after_s=UNREACHABLE_RETRY_S) from error
            except ScriptError as error:
                member.lane.reset("Redis refuses to work")
                raise KeysUnavailableError(LIVES, retry_after_s=UNREACHABLE_RETRY_S) from error
            except LaneDownError:
                answer = None
            if answer is not None and answer[0] != b"young":
                self._lefts[key_id] = self._left(key_id, ask.states)
                return ask
            if answer is not None:
                member.rest(YOUNG_REST_S)
            if not await member.until_ready():
                break
        raise KeysUnavailableError(LIVES, retry_after_s=UNREACHABLE_RETRY_S)

    def _new_ask(self, key_id: str, amount: int, spare: int) -> _Ask:
        sent_s = asyncio.get_running_loop().time()
        return _Ask(key_id, self.purse.chain_accounts(key_id), amount, spare, sent_s, states={})

    async def _send(self, ask: _Ask, unix_s: float) -> list[Any]:
        """Send it. What becomes of it is booked when the answer comes, whoever still waits for it."""
        starts = self.purse.starts(unix_s)
        words: list[Word] = [str(ask.amount), str(ask.spare), SPARE_PARTS, self.lease_ms, *map(str, starts)]
        for record in self._chain_of(ask.key_id):
            limits = record.limits
            budgets = limits.day_in_nusd, limits.week_in_nusd, limits.month_in_nusd, limits.ever_in_nusd
            words += [record.id, *("" if one is None else str(one) for one in budgets)]
        member = self._member
        try:
            future = member.lane.ask(member.command("reserve", *words))
            future.add_done_callback(partial(self._note_answer, ask))
            async with asyncio.timeout(ASK_MAX_S):
                return member.checked(await asyncio.shield(future))
        except BaseException:
            self._give_back(ask)
            raise

    async def _look(self, key_id: str, unix_s: float) -> dict[str, State]:
        """How every account stands that bounds a key."""
        return (await self._ask(key_id, 0, 0, unix_s)).states

    def _note_answer(self, ask: _Ask, future: "asyncio.Future[Any]") -> None:
        """Book what Redis says, at once: nothing else of this process comes in between."""
        if future.cancelled() or future.exception() is not None:
            return  # it joins anew, and says what it has; this is not among it
        answer = future.result()
        if not isinstance(answer, list) or answer[0] not in {b"ok", b"no"}:
            return
        words: list[Any] = answer  # pyright: ignore[reportUnknownVariableType]  # as the script gives it
        for place, account in enumerate(ask.accounts):
            reserved, *spent = (int(one) for one in words[2 + 5 * place : 7 + 5 * place])
            ask.states[account.id] = State(account.id, reserved, tuple(spent))
        if words[0] != b"ok":
            return
        ask.granted = True
        extra = ask.extra = ask.spare if words[1] else 0
        for account in ask.accounts:
            account.told_reserved_in_nusd += ask.amount + extra
            account.told_kept_in_nusd += ask.amount
            account.spare_in_nusd += extra
            account.landing_in_nusd += 0 if ask.orphaned else ask.amount
        self.said_s = max(self.said_s, ask.sent_s)
        if extra:
            spare = self.spares.setdefault(ask.key_id, Spare(ask.accounts, 0, ask.sent_s))
            if spare.accounts != ask.accounts:
                self._drop_spare(ask.key_id)
                spare = self.spares[ask.key_id] = Spare(ask.accounts, 0, ask.sent_s)
            spare.amount_in_nusd += extra
            spare.used_s = ask.sent_s
        if ask.orphaned:
            self.purse.note(ask.accounts)

    def _land(self, ask: _Ask) -> None:
        """What was granted is taken by its request in this very step."""
        for account in ask.accounts:
            account.landing_in_nusd -= ask.amount

    def _give_back(self, ask: _Ask) -> None:
        """Nobody wants it any more."""
        if ask.granted and not ask.orphaned:
            self._land(ask)
            self.purse.note(ask.accounts)
        ask.orphaned = True

    # Spares.

    def _covers_away(self, key_id: str, amount: int) -> bool:
        """Whether nobody can be asked, and what is kept for that covers it: then it is taken."""
        return not self._member.lane.brisk and self._use_spare(key_id, amount)

    def _use_spare(self, key_id: str, amount: int) -> bool:
        spare = self.spares.get(key_id)
        now_s = asyncio.get_running_loop().time()
        if spare is None or spare.amount_in_nusd < amount or now_s > self.said_s + self._extra_s / 2:
            return False
        if spare.accounts != self.purse.chain_accounts(key_id):
            return False
        spare.amount_in_nusd -= amount
        for account in spare.accounts:
            account.spare_in_nusd -= amount
        return True

    def _from_spare(self, lease_id: str, key_id: str, offers: Sequence[Offer]) -> Grant | None:
        """A grant out of what is kept for when nobody can be asked, if that covers all that was asked for."""
        spare = self.spares.get(key_id)
        left = 0 if spare is None else spare.amount_in_nusd
        afforded = afford(offers, left)
        if afforded is None or afforded.clamped or not self._use_spare(key_id, afforded.amount_in_nusd):
            return None
        return Grant(lease_id, afforded.amount_in_nusd, afforded.output_tokens, False, left, afforded.endpoints)  # noqa: FBT003 (not clamped)

    def _return_spares(self, key_id: str) -> None:
        """There is too little for anybody to keep something back."""
        bounding = {record.id for record in self._chain_of(key_id)}
        for name, spare in list(self.spares.items()):
            if any(account.id in bounding for account in spare.accounts):
                self._drop_spare(name)

    def return_idle_spares(self, before_s: float) -> None:
        """Nobody has asked for these since then."""
        for name, spare in list(self.spares.items()):
            if spare.used_s < before_s:
                self._drop_spare(name)

    def _drop_spare(self, key_id: str) -> None:
        spare = self.spares.pop(key_id)
        for account in spare.accounts:
            account.spare_in_nusd -= spare.amount_in_nusd
        self.purse.note(spare.accounts)

    # What is left.

    def _left(self, key_id: str, states: dict[str, State]) -> int:
        return min((one.left_in_nusd for one in self.purse.standings(key_id, states)), default=AMOUNT_MAX_IN_NUSD)

    def _standings(self, key_id: str, states: dict[str, State]) -> list[Standing]:
        standings = self.purse.standings(key_id, states)
        if not standings:  # its budget was taken away at this moment
            raise KeysUnavailableError(LIVES, retry_after_s=UNREACHABLE_RETRY_S)
        return standings

    def _refusal(self, key_id: str, states: dict[str, State], offers: Sequence[Offer]) -> Refusal:
        standings = self._standings(key_id, states)
        unspent = min(one.left_in_nusd + one.reserved_in_nusd for one in standings)
        wanted = [one.worst_in_nusd(OUTPUT_MIN_TOKENS) for one in offers if one.fixed_in_pusd is not None]
        return Refusal(min(standings, key=_left_of), min(wanted, default=None), final=afford(offers, unspent) is None)


def _left_of(standing: Standing) -> int:
    return standing.left_in_nusd


def _is_all(afforded: Afforded | None, offers: Sequence[Offer]) -> bool:
    """Whether it is all that was asked for."""
    if afforded is None or afforded.clamped:
        return False
    return len(afforded.endpoints) == sum(1 for one in offers if one.fixed_in_pusd is not None)

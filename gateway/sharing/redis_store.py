"""The StateStore of a fleet: what is shared is in one Redis, and put together again whenever that loses it."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from gateway.keys.budget import Starts
from gateway.keys.key import WINDOWS, KeyRecord
from gateway.keys.limits import Limiter
from gateway.sharing.base import StoreStatus
from gateway.sharing.lane import Lane, LaneDownError, Link, ScriptError, Word
from gateway.sharing.membership import Member
from gateway.sharing.redis_budgets import RedisBudgets
from gateway.sharing.redis_rates import RATE_WAIT_MAX_S, RedisRates
from gateway.sharing.redis_shelves import RedisAnswers, RedisHints, RedisSessions
from gateway.sharing.shared_purse import WINDOW_LETTERS, SharedAccount, SharedPurse, State
from gateway.sharing.tries import RedisTries

BEAT_EVERY_S: Final = 0.4
"""How often a process says that it is there, and looks what the others say."""
EXTENSIONS: Final = 4
"""How often what is reserved is extended before it could end."""
ACCOUNTS_PER_WORD: Final = 64
"""Accounts in one command."""
SPARE_IDLE_S: Final = 10.0
"""A spare for a key that did not ask for so long is given back."""
GOING_MAX_S: Final = 1.0
"""How long the end waits for what is not told yet."""
_log = logging.getLogger("mixgate.sharing")


class Sharing(Struct, frozen=True):
    """How a process shares."""

    name: str
    """This replica's, different from all others', and the same after a restart."""
    prefix: str = "mixgate:"
    """Of all keys in Redis."""
    lease_extra_s: float = 60.0
    """How much longer than the longest request what a killed process has reserved stays reserved."""
    wait_max_s: float = RATE_WAIT_MAX_S
    """How long a request waits for what it can do without."""


class RedisStore:
    """All that is shared.

    Args:
        make: Connections to Redis.
        sharing: How.
        chain_of: A key and the teams above it, by the key's public id.
        key_ids: All keys there are.
        purse: The keys' money, as far as this process spends it.
        limiter: How often they ask this process.
        unix_time_s: The wall clock.
    """

    def __init__(
        self,
        make: Callable[[], Link],
        sharing: Sharing,
        *,
        chain_of: Callable[[str], Sequence[KeyRecord]],
        key_ids: Callable[[], Sequence[str]],
        purse: SharedPurse,
        limiter: Limiter,
        unix_time_s: Callable[[], float],
    ) -> None:
        boot = secrets.token_hex(8)
        self._sharing = sharing
        self._purse = purse
        self._key_ids = key_ids
        self._unix_time_s = unix_time_s
        self._member = Member(
            make, name=sharing.name, boot=boot, nonce=lambda: secrets.token_hex(8), prefix=sharing.prefix
        )
        self._member.register = self._register
        self._answers_lane = Lane(make, _greet, "answers")
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._looked = 0
        self._remembered: dict[str, list[tuple[str, str, str, str]]] = {}
        purse.on_change = self._wake.set
        lane, prefix, wait_max_s = self._member.lane, sharing.prefix, sharing.wait_max_s
        self.budgets = RedisBudgets(self._member, purse, chain_of, sharing.lease_extra_s)
        self.rates = RedisRates(self._member, limiter, chain_of, wait_max_s)
        self.hints = RedisHints(lane, prefix, sharing.name)
        self.sessions = RedisSessions(lane, prefix, wait_max_s)
        self.answers = RedisAnswers(self._answers_lane, prefix, self._begin_answers, wait_max_s)
        self.tries = RedisTries(self._member)

    def status(self) -> StoreStatus:
        """How it is doing."""
        member, purse = self._member, self._purse
        whole = member.is_ready and purse.knows_past
        reason = member.lane.reason or ("" if whole else "what was shared is being put together")
        return StoreStatus(
            "redis",
            up=member.lane.up,
            whole=whole,
            reason=reason,
            waiting=len(purse.changed),
            rebuilds=max(0, member.rebuilds - 1),
        )

    async def start(self) -> None:
        """Begin to connect, to tell and to listen."""
        self._tasks = [
            asyncio.create_task(self._member_runs()),
            asyncio.create_task(self._keep_telling()),
            asyncio.create_task(self._keep_beating()),
        ]

    async def aclose(self) -> None:
        """Tell the rest, if that takes no longer than a moment, and stop."""
        self.budgets.return_idle_spares(float("inf"))
        with contextlib.suppress(TimeoutError, LaneDownError, ScriptError):
            async with asyncio.timeout(GOING_MAX_S):
                while self._purse.changed and self._member.lane.up:  # noqa: ASYNC110 (a hundred looks at most, once)
                    await asyncio.sleep(0.01)
                await self._member.ask("leave")
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GOING_MAX_S)

    def _begin_answers(self) -> None:
        """The second connection, once somebody wants it."""
        if len(self._tasks) == _TASKS:
            self._tasks.append(asyncio.create_task(self._answers_lane.run()))

    async def _member_runs(self) -> None:
        while not self._purse.knows_past:  # whoever joins says what was spent, so it has to know
            self._wake.clear()
            await self._wake.wait()
        await self._member.lane.run()

    # Telling.

    async def _keep_telling(self) -> None:
        changed, member = self._purse.changed, self._member
        while True:
            await self._wake.wait()
            self._wake.clear()
            while changed and member.lane.up:
                words = self._changes()
                if not words:
                    continue
                sent_s = asyncio.get_running_loop().time()
                try:
                    await member.ask("tell", self.budgets.lease_ms, *words)
                except LaneDownError:
                    break  # all of it is said when this process joins anew
                except ScriptError as error:
                    _log.error("Redis refuses to add up what was spent: %s", error)
                    member.lane.reset("Redis refuses to work")
                    break
                self.budgets.said_s = max(self.budgets.said_s, sent_s)

    def _changes(self) -> list[Word]:
        """What is to be told of some accounts; from here on it counts as told."""
        changed, words = self._purse.changed, list[Word]()
        spans = ",".join(map(str, self._starts()))
        for key_id in list(changed)[:ACCOUNTS_PER_WORD]:
            account = changed.pop(key_id)
            before = account.told_reserved_in_nusd
            reserved, kept, spent = account.take_changes()
            if before or reserved or kept or spent:
                words += [key_id, str(reserved), str(kept), spans, len(spent)]
                for (place, start), amount in spent.items():
                    words += [WINDOW_LETTERS[place], str(start), str(amount)]
        return words

    def _starts(self) -> Starts:
        return self._purse.starts(self._unix_time_s())

    # Joining.

    async def _register(self, link: Link, known: frozenset[str], is_new: bool) -> None:  # noqa: FBT001 (as it is called)
        """Say all that this process has spent and reserved, and where others have lost it, what they had spent."""
        self.budgets.spares.clear()
        accounts = [self._purse.account(key_id) for key_id in known]
        for one in self._purse.accounts():
            one.spare_in_nusd = 0
            if one.id not in known and not one.is_empty:
                accounts.append(one)
            one.take_changes()
        for place in range(0, len(accounts), ACCOUNTS_PER_WORD):
            words: list[Word] = [self.budgets.lease_ms, int(self._member.is_heir)]
            for account in accounts[place : place + ACCOUNTS_PER_WORD]:
                words += self._all_of(account)
            await self._say(link, "register", words)
        counts: list[Word] = [word for pair in self.rates.running().items() for word in pair]
        if counts:
            await self._say(link, "count", counts)
        if is_new:
            rows = [[key_id, *row] for key_id, rows in self._remembered.items() for row in rows]
            for place in range(0, len(rows), ACCOUNTS_PER_WORD):
                await self._say(
                    link, "revive", [word for row in rows[place : place + ACCOUNTS_PER_WORD] for word in row]
                )
        self.budgets.said_s = asyncio.get_running_loop().time()
        _log.info("joined the others as %s, with %d accounts", self._sharing.name, len(accounts))

    def _all_of(self, account: SharedAccount) -> list[Word]:
        account.take_changes()
        self._purse.changed.pop(account.id, None)
        totals = account.totals()
        spans = ",".join(map(str, self._starts()))
        words: list[Word] = [account.id, str(account.told_reserved_in_nusd), str(account.told_kept_in_nusd), spans]
        words.append(len(totals))
        for place, start, amount in totals:
            words += [WINDOW_LETTERS[place], str(start), str(amount)]
        return words

    async def _say(self, link: Link, script: str, words: Sequence[Word]) -> None:
        (answer,) = await link.exchange([self._member.command(script, *words)])
        if isinstance(answer, ScriptError):
            raise answer
        self._member.checked(answer)

    # Beating.

    async def _keep_beating(self) -> None:
        extend_every_s = self._sharing.lease_extra_s / EXTENSIONS
        extended_s = 0.0
        while True:
            await asyncio.sleep(BEAT_EVERY_S)
            if not self._member.lane.up:
                continue
            now_s = asyncio.get_running_loop().time()
            self.budgets.return_idle_spares(now_s - SPARE_IDLE_S)
            if now_s >= extended_s + extend_every_s:
                extended_s = now_s
                self._purse.note([one for one in self._purse.accounts() if one.told_reserved_in_nusd])
            try:
                if self._purse.changed:
                    self._wake.set()
                await self._member.ask("beat")
                await self.hints.fetch(self._unix_time_s())
                await self._look()
            except (LaneDownError, ScriptError) as error:
                _log.debug("nothing was heard of the others: %s", error)

    async def _look(self) -> None:
        """See what others have spent, of some accounts at a time: to be shown, and remembered should Redis lose it."""
        key_ids = self._key_ids()
        if self._looked >= len(key_ids):
            self._looked = 0
        some = key_ids[self._looked : self._looked + ACCOUNTS_PER_WORD]
        self._looked += ACCOUNTS_PER_WORD
        if not some:
            return
        starts = self._starts()
        answer = await self._member.lane.ask_within(self._member.plain("look", *map(str, starts), *some), 1.0)
        for place, key_id in enumerate(some):
            reserved, *spans = answer[5 * place : 5 * place + 5]
            self._note_others(key_id, int(reserved), [_pairs(one) for one in spans], starts)

    def _note_others(self, key_id: str, reserved: int, spans: list[Mapping[str, int]], starts: Starts) -> None:
        account, name = self._purse.account(key_id), self._sharing.name
        spent = tuple(one.get("", 0) - one.get(name, 0) for one in spans)
        account.others = State(key_id, max(0, reserved - account.told_reserved_in_nusd), spent)
        rows = [
            (WINDOW_LETTERS[place], str(starts[place]), other, str(amount))
            for place in range(len(WINDOWS))
            for other, amount in spans[place].items()
            if other and other != name and not other.startswith("p:") and amount
        ]
        if rows:
            self._remembered[key_id] = rows
        else:
            self._remembered.pop(key_id, None)


_TASKS: Final = 3
"""Those of `start`; the fourth is the connection for answers."""


async def _greet(_link: Link) -> None:
    """Nothing is to be said first."""


def _pairs(flat: Any) -> dict[str, int]:
    """A hash as Redis gives it."""
    return {str(flat[place], "utf-8"): int(flat[place + 1]) for place in range(0, len(flat), 2)}

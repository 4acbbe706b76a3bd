"""Rates over several processes. Where Redis does not answer at once, this process's own count decides."""

from collections.abc import Callable, Sequence
from math import floor
from typing import Any, Final

from gateway.keys.key import KeyRecord
from gateway.keys.limits import BUSY_RETRY_S, MINUTE_S, Allowance, Kind, Limited, Limiter, Pace, Pass
from gateway.sharing.lane import LaneDownError, ScriptError, Word
from gateway.sharing.membership import Member
from gateway.sharing.scripts import GONE

RATE_WAIT_MAX_S: Final = 0.05
"""How long a request waits to be counted with those of other processes."""
_KINDS: Final[dict[bytes, Kind]] = {b"requests": "requests", b"tokens": "tokens", b"concurrency": "concurrency"}


class SharedPass(Pass):
    """A request that was counted elsewhere too."""

    __slots__ = ("records",)

    def __init__(self, paces: tuple[Pace, ...], tokens: int, records: Sequence[KeyRecord]) -> None:
        super().__init__(paces, tokens)
        self.records = records


class RedisRates:
    """How often issued keys may ask, together with all other processes.

    Args:
        member: This process's place among them.
        limiter: Its own count, which knows of every request of this process.
        chain_of: A key and the teams above it.
        wait_max_s: How long a request waits for Redis.
    """

    def __init__(
        self,
        member: Member,
        limiter: Limiter,
        chain_of: Callable[[str], Sequence[KeyRecord]],
        wait_max_s: float = RATE_WAIT_MAX_S,
    ) -> None:
        self._member = member
        self._limiter = limiter
        self._chain_of = chain_of
        self._wait_max_s = wait_max_s
        self._running: dict[str, int] = {}

    async def enter(self, key_id: str, tokens: int, now_s: float) -> Pass | Limited:
        """Let a request in, if every limit allows it."""
        records = [one for one in self._chain_of(key_id) if one.limits.has_rate]
        lane = self._member.lane
        if not records or not lane.brisk:
            return self._limiter.enter(key_id, tokens, now_s)
        words: list[Word] = [tokens]
        for one in records:
            limits = one.limits
            words += [one.id, *map(_word, (limits.requests_per_min, limits.tokens_per_min, limits.concurrency))]
        try:
            answer = await lane.ask_within(self._member.command("enter", *words), self._wait_max_s)
        except (LaneDownError, ScriptError):
            return self._limiter.enter(key_id, tokens, now_s)
        if answer[0] == GONE:
            lane.reset("what was shared was lost, and is put together again")
            return self._limiter.enter(key_id, tokens, now_s)
        if answer[0] == b"no":
            return _limited(answer, tokens)
        for one in records:
            self._running[one.id] = self._running.get(one.id, 0) + 1
        held = self._limiter.take(key_id, tokens, now_s)
        return SharedPass(held.paces, tokens, records)

    def leave(self, held: Pass, tokens: int | None, now_s: float) -> None:
        """It is over."""
        if held.left:
            return
        self._limiter.leave(held, tokens, now_s)
        if not isinstance(held, SharedPass):
            return
        change = 0 if tokens is None else max(0, tokens) - held.tokens
        words: list[Word] = []
        for one in held.records:
            self._running[one.id] -= 1
            if not self._running[one.id]:
                del self._running[one.id]
            words += [one.id, -1, change, _word(one.limits.tokens_per_min)]
        member = self._member
        if not member.lane.tell(member.command("exit", *words)) and member.lane.up:
            member.lane.reset("too much waits to be sent")  # whoever joins says how many there are

    async def allowances(self, key_id: str, now_s: float) -> dict[Kind, Allowance]:
        """What is left."""
        records = [one for one in self._chain_of(key_id) if one.limits.has_rate]
        lane = self._member.lane
        if not records or not lane.brisk:
            return self._limiter.allowances(key_id, now_s)
        words: list[Word] = []
        for one in records:
            words += [one.id, _word(one.limits.requests_per_min), _word(one.limits.tokens_per_min)]
        try:
            answer = await lane.ask_within(self._member.plain("peek", *words), self._wait_max_s)
        except (LaneDownError, ScriptError):
            return self._limiter.allowances(key_id, now_s)
        found: dict[Kind, Allowance] = {}
        for place, one in enumerate(records):
            pairs: tuple[tuple[Kind, int | None], ...] = (
                ("requests", one.limits.requests_per_min),
                ("tokens", one.limits.tokens_per_min),
            )
            for side, (kind, per_min) in enumerate(pairs):
                if per_min is None:
                    continue
                allowance = _allowance(per_min, int(answer[2 * place + side]) / 1000)
                if kind not in found or allowance.remaining < found[kind].remaining:
                    found[kind] = allowance
        return found

    def running(self) -> dict[str, int]:
        """Requests on their way that others count too, by account."""
        return self._running


def _word(limit: int | None) -> Word:
    return "" if limit is None else limit


def _limited(answer: Any, tokens: int) -> Limited:
    _, kind, account, limit, wait_ms = answer
    known = _KINDS[bytes(kind)]
    wait_s = None if int(wait_ms) < 0 else max(int(wait_ms) / 1000, BUSY_RETRY_S if known == "concurrency" else 0.0)
    return Limited(known, str(account, "utf-8"), int(limit), tokens if known == "tokens" else 1, wait_s)


def _allowance(per_min: int, taken: float) -> Allowance:
    level = max(0, floor(per_min - taken))
    return Allowance(per_min, level, min(taken, per_min) * MINUTE_S / per_min if per_min else 0.0)

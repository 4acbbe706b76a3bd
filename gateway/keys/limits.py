"""How often a key may ask: token buckets for requests and tokens, and a count of requests at the same time.

A bucket holds a minute's worth and fills evenly. Reads no clock: `now_s` is a monotonic clock in seconds.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal

from msgspec import Struct

from gateway.keys.key import KeyRecord

MINUTE_S: Final = 60.0
BUSY_RETRY_S: Final = 1.0
"""When to come back where too many requests are on their way."""

Kind = Literal["requests", "tokens", "concurrency"]


class Bucket:
    """Fills evenly to a minute's worth; may be owed something, as answers can be longer than was thought."""

    __slots__ = ("_at_s", "_level", "per_min")

    def __init__(self, per_min: int, now_s: float) -> None:
        self.per_min = per_min
        self._level = float(per_min)
        self._at_s = now_s

    def level(self, now_s: float) -> float:
        """What is in it now."""
        if now_s > self._at_s:
            filled = self._level + (now_s - self._at_s) * self.per_min / MINUTE_S
            self._level = min(float(self.per_min), filled)
            self._at_s = now_s
        return self._level

    def wait_s(self, amount: float, now_s: float) -> float:
        """How long until that much is in it; 0 where it is. Infinite where it never will be."""
        missing = amount - self.level(now_s)
        if missing <= 0:
            return 0.0
        return missing * MINUTE_S / self.per_min if 0 < self.per_min >= amount else math.inf

    def take(self, amount: float, now_s: float) -> None:
        """Take it out, or with a negative amount put it back."""
        self._level = min(float(self.per_min), self.level(now_s) - amount)

    def resize(self, per_min: int, now_s: float) -> None:
        """Hold another minute's worth from now on; what was taken stays taken."""
        taken = self.per_min - self.level(now_s)
        self.per_min = per_min
        self._level = per_min - taken


class Limited(Struct, frozen=True, gc=False):
    """A request that is over a limit."""

    kind: Kind
    key_id: str
    """Whose limit: the key's own, or a team's."""
    limit: int
    wanted: int
    retry_after_s: float | None
    """When it would be let in; None: never, as it is larger than a whole minute's worth."""


class Allowance(Struct, frozen=True, gc=False):
    """What is left of a limit."""

    limit: int
    remaining: int
    reset_s: float
    """Until it is whole again."""


class Pace:
    """One key's own limits as they stand."""

    __slots__ = ("requests", "running", "tokens")

    def __init__(self) -> None:
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None
        self.running = 0


class Pass:
    """A request that was let in. It must be left with `Limiter.leave`."""

    __slots__ = ("left", "paces", "tokens")

    def __init__(self, paces: tuple[Pace, ...], tokens: int) -> None:
        self.paces = paces
        self.tokens = tokens
        self.left = False


class Limiter:
    """Lets requests of issued keys in, or says when. A key's limits and those of all teams above it hold."""

    def __init__(self, chain_of: Callable[[str], Sequence[KeyRecord]]) -> None:
        self._chain_of = chain_of
        self._paces: dict[str, Pace] = {}

    def enter(self, key_id: str, tokens: int, now_s: float) -> Pass | Limited:
        """Let a request in, if every limit allows it; otherwise nothing is taken from any.

        Args:
            key_id: The public id of an issued key.
            tokens: An estimate for the prompt and its answer.
            now_s: Now.
        """
        paces: list[Pace] = []
        worst: Limited | None = None
        for record in self._chain_of(key_id):
            pace = self._pace(record, now_s)
            paces.append(pace)
            for one in _over(record, pace, tokens, now_s):
                if worst is None or _later(one, worst):
                    worst = one
        if worst is not None:
            return worst
        return self._take(paces, tokens, now_s)

    @staticmethod
    def _take(paces: list[Pace], tokens: int, now_s: float) -> Pass:
        for pace in paces:
            pace.running += 1
            if pace.requests is not None:
                pace.requests.take(1, now_s)
            if pace.tokens is not None:
                pace.tokens.take(tokens, now_s)
        return Pass(tuple(paces), tokens)

    def take(self, key_id: str, tokens: int, now_s: float) -> Pass:
        """Count a request that was let in by somebody who counts for several processes."""
        paces = [self._pace(record, now_s) for record in self._chain_of(key_id)]
        return self._take(paces, tokens, now_s)

    def leave(self, held: Pass, tokens: int | None, now_s: float) -> None:
        """A request is over. Told twice, it counts once.

        Args:
            held: As `enter` gave it.
            tokens: What it came to; None: nobody knows, so the estimate stands.
            now_s: Now.
        """
        if held.left:
            return
        held.left = True
        change = 0 if tokens is None else max(0, tokens) - held.tokens
        for pace in held.paces:
            pace.running -= 1
            if pace.tokens is not None and change:
                pace.tokens.take(change, now_s)

    def running(self, key_id: str) -> int:
        """Requests of a key and its children on their way."""
        pace = self._paces.get(key_id)
        return 0 if pace is None else pace.running

    def allowances(self, key_id: str, now_s: float) -> dict[Kind, Allowance]:
        """What is left, by limit: of the key's own and its teams' the one with least left."""
        found: dict[Kind, Allowance] = {}
        for record in self._chain_of(key_id):
            pace = self._pace(record, now_s)
            buckets: dict[Kind, Bucket | None] = {"requests": pace.requests, "tokens": pace.tokens}
            for kind, bucket in buckets.items():
                if bucket is None:
                    continue
                one = _allowance(bucket, now_s)
                if kind not in found or one.remaining < found[kind].remaining:
                    found[kind] = one
        return found

    def _pace(self, record: KeyRecord, now_s: float) -> Pace:
        """A key's state, with the limits that it has now."""
        pace = self._paces.get(record.id)
        if pace is None:
            pace = self._paces[record.id] = Pace()
        limits = record.limits
        pace.requests = _fitted(pace.requests, limits.requests_per_min, now_s)
        pace.tokens = _fitted(pace.tokens, limits.tokens_per_min, now_s)
        return pace


def rate_headers(allowances: dict[Kind, Allowance]) -> list[tuple[bytes, bytes]]:
    """OpenAI's `x-ratelimit-*` headers."""
    headers: list[tuple[bytes, bytes]] = []
    for kind, one in allowances.items():
        headers.append((b"x-ratelimit-limit-%b" % kind.encode(), b"%d" % one.limit))
        headers.append((b"x-ratelimit-remaining-%b" % kind.encode(), b"%d" % one.remaining))
        headers.append((b"x-ratelimit-reset-%b" % kind.encode(), _duration(one.reset_s)))
    return headers


def _fitted(bucket: Bucket | None, per_min: int | None, now_s: float) -> Bucket | None:
    if per_min is None:
        return None
    if bucket is None:
        return Bucket(per_min, now_s)
    if bucket.per_min != per_min:
        bucket.resize(per_min, now_s)
    return bucket


def _over(record: KeyRecord, pace: Pace, tokens: int, now_s: float) -> list[Limited]:
    """Every limit of one key that a request is over."""
    found: list[Limited] = []
    most = record.limits.concurrency
    if most is not None and pace.running >= most:
        found.append(Limited("concurrency", record.id, most, 1, BUSY_RETRY_S if most else None))
    wants: tuple[tuple[Kind, Bucket | None, int], ...] = (
        ("requests", pace.requests, 1),
        ("tokens", pace.tokens, tokens),
    )
    for kind, bucket, amount in wants:
        if bucket is not None and (wait_s := bucket.wait_s(amount, now_s)) > 0:
            wait = None if math.isinf(wait_s) else wait_s
            found.append(Limited(kind, record.id, bucket.per_min, amount, wait))
    return found


def _later(one: Limited, other: Limited) -> bool:
    if one.retry_after_s is None or other.retry_after_s is None:
        return one.retry_after_s is None
    return one.retry_after_s > other.retry_after_s


def _allowance(bucket: Bucket, now_s: float) -> Allowance:
    level = bucket.level(now_s)
    missing = bucket.per_min - level
    reset_s = missing * MINUTE_S / bucket.per_min if bucket.per_min else 0.0
    return Allowance(bucket.per_min, max(0, math.floor(level)), reset_s)


def _duration(seconds: float) -> bytes:
    """As OpenAI writes it: `1m30s`, `6s`, `120ms`."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return b"%dms" % milliseconds
    whole = math.ceil(milliseconds / 1000)
    minutes, rest = divmod(whole, 60)
    return b"%dm%ds" % (minutes, rest) if minutes else b"%ds" % rest

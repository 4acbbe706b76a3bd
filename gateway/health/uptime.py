"""Uptime as the market defines it, and the minutes to keep of it. Pure.

An answer counts as good or bad; whoever asked badly, was refused by a rate limit or went away does not count at all.
"""

from collections import deque
from math import inf
from typing import Final

from msgspec import Struct

from gateway.health.histogram import BUCKETS, pack
from gateway.health.kinds import COUNTED, FailureKind
from gateway.observation import MinuteRow

MINUTES_MAX: Final = 1440
"""Minutes of answers that are kept in memory."""
WINDOWS_MINUTES: Final = (5, 30, MINUTES_MAX)
SAMPLES_MIN: Final = 20
"""A window with fewer answers says nothing."""


class Share(Struct, frozen=True, gc=False):
    """Of the answers of one window: which share was good, and of how many."""

    uptime: float | None
    """None without any answer."""
    answers: int


_COLUMNS: Final[dict[FailureKind, str]] = {
    "connect": "fail_connect",
    "overload": "fail_server",
    "server": "fail_server",
    "auth": "fail_server",
    "timeout": "fail_timeout",
    "stall": "fail_timeout",
    "midstream": "fail_mid",
    "rate_limit": "rate_limited",
    "full": "rate_limited",
    "context": "client_err",
    "unsupported": "client_err",
    "client": "client_err",
    "geo": "geo",
    "cancelled": "cancelled",
}
"""Where each kind is counted. `gateway` is our own fault and in no column."""


class _Counts:
    """What came since the last row."""

    __slots__ = ("columns", "ok", "tok_in", "tok_out", "ttft")

    def __init__(self) -> None:
        self.ok = 0
        self.tok_in = 0
        self.tok_out = 0
        self.ttft = [0] * BUCKETS
        self.columns: dict[str, int] = {}


class Uptime:
    """The minutes of one Endpoint, by the monotonic clock: the wall clock may jump as it likes."""

    __slots__ = ("_counts", "_fresh", "_minutes", "_newest", "_newest_ends_s")

    def __init__(self) -> None:
        self._minutes: deque[list[int]] = deque(maxlen=MINUTES_MAX)
        """Minute, good, bad; minutes without any are missing."""
        self._newest: list[int] = []
        """The last of them, and when it ends."""
        self._newest_ends_s = -inf
        self._counts = _Counts()
        self._fresh = False

    def succeed(self, now_s: float, ttft_bucket: int, tok_in: int, tok_out: int) -> None:
        """A good answer. `ttft_bucket` is -1 where there is no such time."""
        self._fresh = True
        counts = self._counts
        counts.ok += 1
        counts.tok_in += tok_in
        counts.tok_out += tok_out
        if ttft_bucket >= 0:
            counts.ttft[ttft_bucket] += 1
        if now_s >= self._newest_ends_s:
            self._minute(int(now_s // 60))
        self._newest[1] += 1

    def fail(self, kind: FailureKind, now_s: float, ttft_bucket: int, tok_in: int, tok_out: int) -> None:
        """Any other end of an Attempt. Tokens count where output came, for they are billed then."""
        column = _COLUMNS.get(kind)
        if column is None:
            return
        self.count(column)
        if tok_out:
            self._counts.tok_in += tok_in
            self._counts.tok_out += tok_out
        if ttft_bucket >= 0:
            self._counts.ttft[ttft_bucket] += 1
        if kind in COUNTED or kind == "auth":
            self._minute(int(now_s // 60))[2] += 1

    def count(self, column: str) -> None:
        """One more in that column of the next row."""
        self._fresh = True
        self._counts.columns[column] = self._counts.columns.get(column, 0) + 1

    def share(self, now_s: float, minutes: int) -> Share:
        """Of the last so many minutes, the running one included."""
        since = int(now_s // 60) - minutes
        good = bad = 0
        for minute, minute_good, minute_bad in reversed(self._minutes):
            if minute <= since:
                break
            good += minute_good
            bad += minute_bad
        return Share(good / (good + bad) if good + bad else None, good + bad)

    def current(self, now_s: float) -> float | None:
        """The share of the shortest of five and thirty minutes that says something."""
        for minutes in WINDOWS_MINUTES[:2]:
            share = self.share(now_s, minutes)
            if share.answers >= SAMPLES_MIN:
                return share.uptime
        return None

    def drain(self, endpoint_id: str, minute: int) -> MinuteRow | None:
        """What came since the last call, as a row of that minute; None if nothing did."""
        if not self._fresh:
            return None
        counts, self._counts, self._fresh = self._counts, _Counts(), False
        return MinuteRow(
            endpoint_id=endpoint_id,
            minute=minute,
            ok=counts.ok,
            ttft_hist=pack(counts.ttft),
            tok_in=counts.tok_in,
            tok_out=counts.tok_out,
            **counts.columns,
        )

    def restore(self, row: MinuteRow, minute: int) -> None:
        """Take up what an earlier process kept, oldest first. `minute` is by the monotonic clock; negative is well."""
        slot = self._minute(minute)
        slot[1] += row.ok
        slot[2] += row.failed

    def _minute(self, minute: int) -> list[int]:
        if not self._newest or self._newest[0] < minute:
            self._newest = [minute, 0, 0]
            self._newest_ends_s = (minute + 1) * 60.0
            self._minutes.append(self._newest)
        return self._newest

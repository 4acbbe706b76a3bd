"""Good and bad answers of the last seconds, exactly: a ring of buckets that expire by themselves. Pure."""

from collections.abc import Sequence
from math import inf
from typing import Final

ENDLESS: Final = 1 << 62


class Ring:
    """Counts over a sliding window.

    The window is moved when it is asked or added to, so no traffic expires as surely as traffic does. A clock that
    goes back adds to the newest bucket.
    """

    __slots__ = ("_bad", "_buckets", "_ends_s", "_epoch", "_ok", "_width_s", "bad", "ok")

    def __init__(self, buckets: int, width_s: float) -> None:
        self._buckets = buckets
        self._width_s = width_s
        self._epoch = -ENDLESS
        self._ends_s = -inf  # when the newest bucket does
        self._ok = [0] * buckets
        self._bad = [0] * buckets
        self.ok = 0
        """Good ones in the window, as of the last call."""
        self.bad = 0

    def advance(self, now_s: float) -> None:
        """Forget what is older than the window."""
        epoch = int(now_s // self._width_s)
        gone = epoch - self._epoch
        if gone <= 0:
            return
        if gone >= self._buckets:
            if self.ok or self.bad:
                self.clear()
        else:
            for passed in range(self._epoch + 1, epoch + 1):
                place = passed % self._buckets
                self.ok -= self._ok[place]
                self.bad -= self._bad[place]
                self._ok[place] = self._bad[place] = 0
        self._epoch = epoch
        self._ends_s = (epoch + 1) * self._width_s

    def add_ok(self, now_s: float) -> None:
        """Count a good one."""
        if now_s >= self._ends_s:
            self.advance(now_s)
        self._ok[self._epoch % self._buckets] += 1
        self.ok += 1

    def add_bad(self, now_s: float) -> None:
        """Count a bad one."""
        self.advance(now_s)
        self._bad[self._epoch % self._buckets] += 1
        self.bad += 1

    def is_bad(self, now_s: float, *, least: int, share: float) -> bool:
        """Whether at least that share of at least so many are bad."""
        self.advance(now_s)
        total = self.ok + self.bad
        return total >= least and self.bad >= share * total

    def clear(self) -> None:
        """Forget everything."""
        self._ok = [0] * self._buckets
        self._bad = [0] * self._buckets
        self.ok = self.bad = 0

    def counts(self) -> Sequence[tuple[int, int]]:
        """Good and bad ones of each bucket, in no useful order: for tests that add them up."""
        return list(zip(self._ok, self._bad, strict=True))

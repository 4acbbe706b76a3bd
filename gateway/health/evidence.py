"""What hints at an Endpoint's state besides Attempts that failed by its fault: free looks, callers' errors. Pure."""

from math import inf
from typing import Final

LOOKS_TO_FALL: Final = 3
LOOKS_TO_RISE: Final = 2
LOOK_HOLDS_S: Final = 300.0
"""After so long without another look, the last ones say nothing."""
COMPLAINTS_S: Final = 60.0
"""How long it is remembered that a caller was told to have asked wrongly."""
COMPLAINTS_MIN: Final = 3
"""So many callers, all told within a minute that they ask wrongly and nobody that it went well: it is not them."""
COMPLAINTS_MAX: Final = 16
"""Callers of whom that is remembered."""


class Looks:
    """Free looks at it: down after three bad ones in a row, up after two good ones."""

    __slots__ = ("_at_s", "_down", "_run")

    def __init__(self) -> None:
        self._down = False
        self._run = 0
        self._at_s = -inf

    def add(self, now_s: float, *, ok: bool) -> None:
        """Take in one."""
        self._at_s = now_s
        self._run = self._run + 1 if ok is self._down else 0
        if self._run >= (LOOKS_TO_RISE if self._down else LOOKS_TO_FALL):
            self.reset(down=not self._down)

    def reset(self, *, down: bool = False) -> None:
        """Start anew: a real request went well, and says more."""
        self._down = down
        self._run = 0

    def is_down(self, now_s: float) -> bool:
        """Whether it looked down, not too long ago."""
        return self._down and now_s - self._at_s < LOOK_HOLDS_S


class Complaints:
    """Who was told that they ask wrongly."""

    __slots__ = ("_told_s",)

    def __init__(self) -> None:
        self._told_s: dict[str, float] = {}

    def add(self, caller: str, now_s: float, last_ok_s: float) -> bool:
        """One more was told. Whether they are so many by now that it cannot be all of them.

        Whoever was told before somebody asked rightly (`last_ok_s`) does not count.
        """
        if caller:
            since_s = max(now_s - COMPLAINTS_S, last_ok_s)
            self._told_s = {who: at_s for who, at_s in self._told_s.items() if at_s > since_s}
            if len(self._told_s) < COMPLAINTS_MAX or caller in self._told_s:
                self._told_s[caller] = now_s
        return len(self._told_s) >= COMPLAINTS_MIN and now_s - last_ok_s >= COMPLAINTS_S

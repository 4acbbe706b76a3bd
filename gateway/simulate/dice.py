"""Draws that depend on what they are for, not on the order in which they are made.

Two policies on the same seed must meet the same luck: the outcome of a request's second Attempt on an Endpoint is a
function of the seed, the request, the Endpoint and the number two, whatever else was asked before it.
"""

from collections.abc import Sequence
from math import cos, exp, log, sqrt, tau
from typing import Final, TypeVar

_MASK: Final = (1 << 64) - 1
_STEP: Final = 0x9E3779B97F4A7C15
_FIRST: Final = 0xBF58476D1CE4E5B9
_SECOND: Final = 0x94D049BB133111EB
_UNIT: Final = 1.0 / (1 << 53)

_T = TypeVar("_T")


def mix(*parts: int) -> int:
    """64 bits that depend on every part and look like nothing in particular (splitmix64's finaliser, chained)."""
    state = 0
    for part in parts:
        state = (state + part + _STEP) & _MASK
        state = ((state ^ (state >> 30)) * _FIRST) & _MASK
        state = ((state ^ (state >> 27)) * _SECOND) & _MASK
        state ^= state >> 31
    return state


class Dice:
    """A sequence of draws that starts from a few numbers."""

    __slots__ = ("_state",)

    def __init__(self, *parts: int) -> None:
        self._state = mix(*parts)

    def unit(self) -> float:
        """Evenly from 0 (included) to 1 (not included)."""
        self._state = (self._state + _STEP) & _MASK
        value = self._state
        value = ((value ^ (value >> 30)) * _FIRST) & _MASK
        value = ((value ^ (value >> 27)) * _SECOND) & _MASK
        return ((value ^ (value >> 31)) >> 11) * _UNIT

    def chance(self, probability: float) -> bool:
        """True that often."""
        return self.unit() < probability

    def between(self, low: float, high: float) -> float:
        """Evenly from `low` to `high`."""
        return low + (high - low) * self.unit()

    def whole(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + int(self.unit() * (high - low + 1))

    def pick(self, choices: Sequence[_T]) -> _T:
        """One of them, evenly."""
        return choices[int(self.unit() * len(choices))]

    def around(self, median: float, spread: float) -> float:
        """Log-normally: half of the draws are under the median; `spread` is the logarithm's standard deviation."""
        normal = sqrt(-2.0 * log(1.0 - self.unit())) * cos(tau * self.unit())
        return median * exp(spread * normal)

    def waiting(self, mean: float) -> float:
        """The time until the next of events that come independently of one another (exponentially)."""
        return -mean * log(1.0 - self.unit())

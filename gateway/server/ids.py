"""Generation ids: `gen-` and a ULID, so that they sort by time and never repeat. https://github.com/ulid/spec."""

import random
import time
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_COUNTER_MAX: Final = 1 << 20
_random = random.SystemRandom()


class GenerationIds:
    """Mints ids. All but the last four characters are spelled out once a millisecond; those count up within it."""

    __slots__ = ("_counter", "_millisecond", "_prefix")

    def __init__(self) -> None:
        self._millisecond = -1
        self._prefix = ""
        self._counter = 0

    def mint(self) -> str:
        """A new id, greater than every earlier one of this process."""
        now_ms = time.time_ns() // 1_000_000
        counter = self._counter + 1
        if now_ms > self._millisecond or counter == _COUNTER_MAX:
            self._millisecond = max(now_ms, self._millisecond + 1)
            self._prefix = f"gen-{_spell(self._millisecond, 10)}{_spell(_random.getrandbits(60), 12)}"
            counter = _random.getrandbits(19)
        self._counter = counter
        return f"{self._prefix}{_PAIRS[counter >> 10]}{_PAIRS[counter & 1023]}"


def _spell(value: int, length: int) -> str:
    """`value` in base 32, `length` characters (even), two at a time."""
    return "".join([_PAIRS[value >> shift & 1023] for shift in range((length - 2) * 5, -1, -10)])

"""Generation ids: `gen-` and a ULID, so that they sort by time and never repeat. https://github.com/ulid/spec."""

import random
import time
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_random = random.SystemRandom()


class GenerationIds:
    """Mints ids. The time part is spelled out once per millisecond, the random part counts up within it."""

    __slots__ = ("_entropy", "_millisecond", "_prefix")

    def __init__(self) -> None:
        self._millisecond = -1
        self._prefix = ""
        self._entropy = 0

    def mint(self) -> str:
        """A new id, greater than every earlier one of this process."""
        now_ms = time.time_ns() // 1_000_000
        if now_ms > self._millisecond:
            self._millisecond = now_ms
            self._prefix = f"gen-{_spell(now_ms, 10)}"
            self._entropy = _random.getrandbits(79)  # the top bit stays free, so counting up cannot overflow
        else:
            self._entropy += 1
        return self._prefix + _spell(self._entropy, 16)


def _spell(value: int, length: int) -> str:
    """`value` in base 32, `length` characters (even), two at a time."""
    pairs = _PAIRS
    return "".join([pairs[value >> shift & 1023] for shift in range((length - 2) * 5, -1, -10)])

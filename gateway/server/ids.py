"""Generation ids: `gen-` and a ULID, so that they sort by time and never repeat. https://github.com/ulid/spec."""

import os
import time
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_COUNTER_MAX: Final = 1 << 20
_COUNTER_START_MAX: Final = (1 << 19) - 1
_HALF: Final = (1 << 30) - 1
"""Of the 60 random bits that are spelled out."""
_POOL_BYTES: Final = 64 * 1024
"""Random bytes taken at once. Each taking lets go of the interpreter's lock, which other threads then want too."""
_SALT_BYTES: Final = 11
"""Of them for a new millisecond: eight for what is spelled out, three for where counting begins."""


class GenerationIds:
    """Mints ids. All but the last four characters are spelled out once a millisecond; those count up within it."""

    __slots__ = ("_counter", "_millisecond", "_pool", "_prefix", "_used", "minted_unix_s")

    def __init__(self) -> None:
        self._millisecond = -1
        self._prefix = ""
        self._counter = 0
        self._pool = b""
        self._used = 0
        self.minted_unix_s = 0
        """When the last one was minted."""

    def mint(self) -> str:
        """A new id, greater than every earlier one of this process."""
        now_ms = time.time_ns() // 1_000_000
        counter = self._counter + 1
        if now_ms > self._millisecond or counter == _COUNTER_MAX:
            self._millisecond = max(now_ms, self._millisecond + 1)
            salt = self._salt()
            high, low = int.from_bytes(salt[:4], "big"), int.from_bytes(salt[4:8], "big")
            self._prefix = f"gen-{_spell(self._millisecond, 10)}{_spell(high & _HALF, 6)}{_spell(low & _HALF, 6)}"
            counter = int.from_bytes(salt[8:], "big") & _COUNTER_START_MAX
        self._counter = counter
        self.minted_unix_s = now_ms // 1000
        return f"{self._prefix}{_PAIRS[counter >> 10]}{_PAIRS[counter & 1023]}"

    def _salt(self) -> bytes:
        """Random bytes that were given nobody else."""
        start = self._used
        if start + _SALT_BYTES > len(self._pool):
            self._pool, start = os.urandom(_POOL_BYTES), 0
        self._used = start + _SALT_BYTES
        return self._pool[start : self._used]


def _spell(value: int, length: int) -> str:
    """`value` in base 32, `length` characters (even), two at a time."""
    return "".join([_PAIRS[value >> shift & 1023] for shift in range((length - 2) * 5, -1, -10)])

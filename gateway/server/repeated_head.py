"""Reads the request heads of one connection. Clients send the same one again and again, but for the length.

A head that differs in nothing but the digits of its Content-Length has been judged already, by `guard` and by the
parser. Comparing is exact and cheaper by a multiple than judging anew; whatever else differs is judged in full.
"""

from typing import Final

from gateway.server.guard import LENGTH, Head, read_head
from gateway.server.limits import CONTENT_LENGTH_MAX_DIGITS

HEAD_REMEMBERED_MAX_BYTES: Final = 4096
"""A longer head is judged every time. This much is kept for each open connection, its client key included."""

MISSES_MAX: Final = 8
"""Heads in a row that were not the last one again: then the client's differ every time, and remembering is in vain."""

_NAME: Final = b"\r\ncontent-length:"
_ZERO: Final = ord("0")
_NINE: Final = ord("9")


class Found:
    """The head that some bytes begin with."""

    __slots__ = ("content_length", "end", "head", "repeated")

    def __init__(self, head: Head, content_length: int, end: int, *, repeated: bool) -> None:
        self.head = head
        """Where it is `repeated` it is shared by all that were, and its own Content-Length is that of the first."""
        self.content_length = content_length
        """As `Head.content_length`, of this one."""
        self.end = end
        """Its size in bytes."""
        self.repeated = repeated
        """Whether it was judged before."""


class HeadReader:
    """The heads of one connection, the last of them remembered."""

    __slots__ = ("_last", "_misses")

    def __init__(self) -> None:
        self._last: _KnownHead | None = None
        self._misses = 0

    def read(self, data: bytes) -> Found | None:
        """The head that `data` begins with; None where it is not all here.

        Raises:
            RefusalError: As `read_head`.
        """
        known = self._last
        if known is not None:
            repeated = known.match(data)
            if repeated is not None:
                self._misses = 0
                return repeated
            self._last = None
            self._misses += 1
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return None
        head = read_head(data[:end])
        return Found(head, head.content_length, end, repeated=False)

    def remember(self, raw: bytes, head: Head) -> None:
        """Know a head again that both judges have read, if it is of the usual kind and not too large.

        Args:
            raw: It, from the request line to the empty line, both included.
            head: What `read` said of it.
        """
        if len(raw) > HEAD_REMEMBERED_MAX_BYTES or self._misses >= MISSES_MAX:
            return
        if head.content_length <= 0 or head.upgrades or head.expects_continue:
            return
        start = raw.lower().find(_NAME) + len(_NAME)
        stop = raw.find(b"\r", start)
        digits = raw[start:stop].lstrip(b" \t")
        if digits == head.fields[LENGTH] and digits[0] != _ZERO:
            self._last = _KnownHead(raw[: stop - len(digits)], raw[stop:], head)


class _KnownHead:
    """One judged head, in two parts: what comes before the digits of its Content-Length, and what behind them."""

    __slots__ = ("_after", "_before", "_head")

    def __init__(self, before: bytes, after: bytes, head: Head) -> None:
        self._before = before
        self._after = after
        self._head = head

    def match(self, data: bytes) -> Found | None:
        """As `HeadReader.read`; None where `data` begins with another head, or not with all of it."""
        before, after = self._before, self._after
        start = len(before)
        if data[:start] != before:
            return None
        # Slices and sums are what the compiler is good at: `startswith`, `find` and `int` take several times as long.
        stop, length, size = start, 0, min(len(data), start + CONTENT_LENGTH_MAX_DIGITS)
        while stop < size and _ZERO <= data[stop] <= _NINE:
            length = length * 10 + data[stop] - _ZERO
            stop += 1
        end = stop + len(after)
        if stop == start or data[start] == _ZERO or data[stop:end] != after:
            return None
        return Found(self._head, length, end, repeated=True)

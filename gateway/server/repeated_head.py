"""Reads the request heads of one connection. Clients send the same one again and again, but for the length.

A head that differs in nothing but the digits of its Content-Length has been judged already, by `guard` and by the
parser. Comparing is exact and cheaper by a multiple than judging anew; whatever else differs is judged in full.
"""

from typing import Final

import msgspec

from gateway.server.guard import Head, read_head
from gateway.server.limits import CONTENT_LENGTH_MAX_DIGITS

HEAD_REMEMBERED_MAX_BYTES: Final = 4096
"""A longer head is judged every time. This much is kept for each open connection, its client key included."""

MISSES_MAX: Final = 8
"""Heads in a row that were not the last one again: then the client's differ every time, and remembering is in vain."""

_NAME: Final = b"\r\ncontent-length:"


class HeadReader:
    """The heads of one connection, the last of them remembered."""

    __slots__ = ("_last", "_misses")

    def __init__(self) -> None:
        self._last: _KnownHead | None = None
        self._misses = 0

    def read(self, data: bytes) -> tuple[Head, int, bool] | None:
        """The head that `data` begins with, its size in bytes, and whether it was judged before.

        None where it is not all here.

        Raises:
            RefusalError: As `read_head`.
        """
        if self._last is not None:
            if (repeated := self._last.match(data)) is not None:
                self._misses = 0
                return repeated
            self._last = None
            self._misses += 1
        end = data.find(b"\r\n\r\n") + 4
        return None if end < 4 else (read_head(data[:end]), end, False)

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
        if digits == head.fields[b"content-length"]:
            self._last = _KnownHead(raw[: stop - len(digits)], raw[stop:], head)


class _KnownHead:
    """One judged head, in two parts: what comes before the digits of its Content-Length, and what behind them."""

    __slots__ = ("_after", "_before", "_head", "_position")

    def __init__(self, before: bytes, after: bytes, head: Head) -> None:
        self._before = before
        self._after = after
        self._head = msgspec.structs.replace(head, headers=head.headers.copy(), fields=head.fields.copy())
        self._position = [name for name, _ in head.headers].index(b"content-length")

    def match(self, data: bytes) -> tuple[Head, int, bool] | None:
        """As `HeadReader.read`; None where `data` begins with another head, or not with all of it."""
        before = self._before
        if not data.startswith(before):
            return None
        start = len(before)
        stop = data.find(b"\r", start, start + CONTENT_LENGTH_MAX_DIGITS + 1)
        if stop < 0 or not data.startswith(self._after, stop):
            return None
        digits = data[start:stop]
        if not digits.isdigit():
            return None
        known = self._head
        headers = known.headers.copy()
        headers[self._position] = (b"content-length", digits)
        fields = known.fields.copy()
        fields[b"content-length"] = digits
        # In the order of the members: by name it takes twice as long.
        head = Head(
            known.line,
            headers,
            fields,
            known.host,
            int(digits),
            known.keep_alive,
            known.expects_continue,
            known.upgrades,
        )
        return head, stop + len(self._after), True

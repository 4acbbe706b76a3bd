"""The head of an answer as bytes: status line and headers, with nothing in them that could end a line early."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

BODILESS_STATUSES: Final = (204, 304)
FRAMING_HEADERS: Final = frozenset({b"connection", b"content-length", b"date", b"transfer-encoding"})
"""Not for the application to send in a `header_block`: the exchange says them."""
STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode("ascii"))
    for status in HTTPStatus
    if status.value >= 200
}


def header_block(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they go over the wire. Worth keeping where they are the same for many answers.

    Args:
        headers: Names in lower case, and values.

    Raises:
        RuntimeError: A name is one of FRAMING_HEADERS, or a value would end its line.
    """
    lines: list[bytes] = []
    for name, value in headers:
        if name in FRAMING_HEADERS:
            raise RuntimeError(f"{name.decode('latin-1')} is not the application's to send")
        lines.append(b"%b: %b\r\n" % (name, value))
    return join_lines(lines)


def join_lines(lines: list[bytes]) -> bytes:
    """Whole lines of a head, in one piece.

    Raises:
        RuntimeError: One holds a second line end, which would start a header, or an answer, of its own.
    """
    head = b"".join(lines)
    count = len(lines)
    if head.count(b"\n") != count or head.count(b"\r") != count or b"\0" in head:
        raise RuntimeError("a response header holds a line end or a NUL")
    return head

"""Server-sent events: bytes in, the `data` of each complete event out. Sans I/O, bounded, any line ending.

https://html.spec.whatwg.org/multipage/server-sent-events.html, less what no model provider uses (ids, retry, names:
the payload says its own type). Comments are dropped here, so they never look like progress.
"""

from typing import Final

from providers.json_values import count_structure

EVENT_MAX_BYTES: Final = 2 * 1024 * 1024
EVENT_STRUCTURE_MAX: Final = 200_000
"""Commas, braces and brackets in one event: what three bytes each can make us keep is a hundred bytes."""
_END: Final = b"\n\n"
_LINE_END: Final = b"\n"
_RETURN: Final = b"\r"
# Looked for with `find`: what `in` does with bytes makes an exception and drops it, each time.
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class EventTooLongError(ValueError):
    """One event passed EVENT_MAX_BYTES without ending, or holds more than EVENT_STRUCTURE_MAX."""


class SseParser:
    """Collects bytes until an event is complete. Feed it any split of the stream."""

    __slots__ = ("_pending", "_pending_bytes")

    def __init__(self) -> None:
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads of the events that these bytes complete.

        Raises:
            EventTooLongError: An event grew past EVENT_MAX_BYTES or EVENT_STRUCTURE_MAX.
        """
        if not self._pending and _is_one(data):
            return [data[6:-2]]
        if not self._may_end(data):
            # Parts are joined once, so an event that drips in costs no more than its length.
            self._hold(data)
            return []
        if self._pending:
            self._pending.append(data)
            data = b"".join(self._pending)
            self._pending.clear()
            self._pending_bytes = 0
        cut = b""
        if data.find(_RETURN) >= 0:
            if data.endswith(b"\r"):  # its line feed may be in the next read
                data, cut = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events = data.split(_END)
        rest = events.pop() + cut
        if rest:
            self._hold(rest)
        payloads: list[bytes] = []
        for event in events:
            if len(event) > EVENT_STRUCTURE_MAX and count_structure(event) > EVENT_STRUCTURE_MAX:
                raise EventTooLongError
            if (payload := _payload(event)) is not None:
                payloads.append(payload)
        return payloads

    def finish(self) -> list[bytes]:
        """The stream is over: the payload of a last event whose blank line never came."""
        rest = b"".join(self._pending).replace(b"\r", b"\n")
        self._pending.clear()
        self._pending_bytes = 0
        payload = _payload(rest)
        return [] if payload is None else [payload]

    def _may_end(self, data: bytes) -> bool:
        """Whether an empty line may be complete with this data."""
        if data.find(_END) >= 0:
            return True
        joint = self._pending[-1][-3:] + data if self._pending else data
        return joint.find(_END) >= 0 or (
            joint.find(_RETURN) >= 0 and (joint.find(b"\n\r") >= 0 or joint.find(b"\r\r") >= 0)
        )

    def _hold(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes > EVENT_MAX_BYTES:
            raise EventTooLongError


def _is_one(data: bytes) -> bool:
    """Whether this is one event of one line and no more, as almost every read of a paced stream is."""
    end = len(data) - 2
    return (
        end <= EVENT_STRUCTURE_MAX
        and data.find(_LINE_END) == end
        and data.startswith(b"data: ")
        and data.endswith(_END)
        and data.find(_RETURN) < 0
    )


def _payload(event: bytes) -> bytes | None:
    """The joined `data` lines of one event, or None where it has none (a comment, a name, an empty line)."""
    if event.startswith(b"data: ") and event.find(_LINE_END) < 0:
        return event[6:]
    lines = [
        line[6:] if line.startswith(b"data: ") else line[5:]
        for line in event.removeprefix(BYTE_ORDER_MARK).split(b"\n")
        if line.startswith(b"data:")
    ]
    return b"\n".join(lines) if lines else None

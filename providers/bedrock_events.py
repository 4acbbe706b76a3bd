"""Amazon's event stream: bytes in any pieces in, whole messages out. Decoded by botocore, bounded by us.

A message is a prelude (total length, headers length, checksum), headers, a payload and a checksum; botocore checks and
reads it. We only cut the stream into messages, so that one that drips in costs no more than its length: botocore's own
buffer copies everything it holds with every piece. https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html

botocore takes a while to import, so that happens at the first stream (in fact before, in the Signer's thread).
"""

import importlib
from functools import cache
from typing import Any, Final

from msgspec import Struct

PRELUDE_BYTES: Final = 12
FRAME_MAX_BYTES: Final = 16 * 1024 * 1024
"""A message over this is refused. Text comes in hundreds of bytes; only generated images need megabytes."""


class Frame(Struct, frozen=True, gc=False):
    """One message of the stream."""

    name: str
    """The event's type, or of a failure the exception's type or the error's code."""
    payload: bytes
    failed: bool = False
    """An exception or an error instead of an event."""


class _BrokenFrameError(ValueError):
    """The bytes are not an event stream, or were damaged on the way: nothing after them can be read."""


class EventStreamParser:
    """Collects bytes until a message is complete. Feed it any split of the stream."""

    __slots__ = ("_buffer", "_held", "_missing", "_prelude_known", "broken")

    def __init__(self) -> None:
        self._buffer = _buffer_class()()
        self._held = bytearray()
        self._missing = PRELUDE_BYTES
        self._prelude_known = False
        self.broken: str | None = None
        """Why nothing more can be read: a wrong checksum, an absurd length, headers that are none."""

    def feed(self, data: bytes) -> list[Frame]:
        """The messages that these bytes complete, up to where the stream is broken."""
        frames: list[Frame] = []
        if self.broken is None:
            try:
                self._cut(data, frames)
            except _BrokenFrameError as error:
                self.broken = str(error)
        return frames

    def _cut(self, data: bytes, frames: list[Frame]) -> None:
        position = 0
        while position < len(data):
            if self._missing == PRELUDE_BYTES and not self._held and not self._prelude_known:
                end = position + int.from_bytes(data[position : position + 4], "big")
                if position + PRELUDE_BYTES < end <= len(data):  # the usual case: a message in one piece
                    frames.append(self._message(data[position:end]))
                    position = end
                    continue
            piece = data[position : position + self._missing]
            self._held += piece
            self._missing -= len(piece)
            position += len(piece)
            if self._missing == 0:
                self._advance(frames)

    def _advance(self, frames: list[Frame]) -> None:
        """The prelude is complete, or what it announced is."""
        if not self._prelude_known:
            total = int.from_bytes(self._held[:4], "big")
            self._offer(bytes(self._held))  # botocore judges the prelude before anybody waits for what it announces
            self._prelude_known = True
            if total > FRAME_MAX_BYTES:
                raise _BrokenFrameError(f"a message of {total} bytes is over the limit")
            self._missing = max(total - PRELUDE_BYTES, 0)
            self._held.clear()
            if self._missing:
                return
        frames.append(self._message(bytes(self._held)))
        self._held.clear()
        self._missing = PRELUDE_BYTES
        self._prelude_known = False

    def _message(self, data: bytes) -> Frame:
        message = self._offer(data)
        if message is None:
            raise _BrokenFrameError("a message is shorter than it says")
        headers = message.headers
        kind = headers.get(":message-type")
        if kind == "event":
            return Frame(str(headers.get(":event-type", "")), message.payload)
        name = headers.get(":exception-type") or headers.get(":error-code") or "unknown"
        said = message.payload or str(headers.get(":error-message", "")).encode()
        return Frame(str(name), said, failed=True)

    def _offer(self, data: bytes) -> Any:
        """What botocore makes of more bytes: a message, or None where it needs more.

        Raises:
            _BrokenFrameError: It makes nothing of them.
        """
        self._buffer.add_data(data)
        try:
            return self._buffer.next()
        except StopIteration:
            return None
        except Exception as error:  # its own errors, and those of struct, dict and text under it
            raise _BrokenFrameError(f"the event stream is damaged: {type(error).__name__}") from error


@cache
def _buffer_class() -> Any:
    # Late, because it is a tenth of a second at start-up for something that only Bedrock needs.
    module: Any = importlib.import_module("botocore.eventstream")
    return module.EventStreamBuffer

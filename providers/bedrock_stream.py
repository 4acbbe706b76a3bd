"""What both of Bedrock's streams share: frames in, events out, and when a stream is whole, cut or broken. Sans I/O."""

from abc import ABC, abstractmethod
from typing import Final

import msgspec

from providers.bedrock_errors import classify_frame
from providers.bedrock_events import EventStreamParser, Frame
from providers.errors import GarbledError, ProviderError, TruncatedError
from providers.messages import AnswerFailed, Event

SKIPPED_CHUNKS_MAX: Final = 1


class FrameDecoder(ABC):
    """Reads an event stream; what one frame means is its subclass's to say."""

    __slots__ = ("_failed", "_finished", "_frames", "_started", "ended", "skipped_chunks")

    def __init__(self) -> None:
        self._frames = EventStreamParser()
        self._started = False
        self._finished = False
        self._failed = False
        self.ended = False
        self.skipped_chunks = 0

    def feed(self, data: bytes) -> list[Event]:
        """Events of the messages that these bytes complete."""
        if self._failed or self.ended:
            return []
        events: list[Event] = []
        for frame in self._frames.feed(data):
            self._read(frame, events)
            if self._failed or self.ended:
                return events
        if self._frames.broken is not None:
            if self._finished:
                self.ended = True  # the answer is whole; what broke was what would have come behind it
            else:
                events.append(self._fail(GarbledError(f"the provider's stream cannot be read: {self._frames.broken}")))
        return events

    def finish(self) -> list[Event]:
        """The stream is over. Without its finish reason it was cut, whatever came before."""
        if self._failed or self._finished:
            return []
        said = "in the middle of the answer" if self._started else "before it said anything"
        return [self._fail(TruncatedError(f"the provider's stream ended {said}"))]

    def _fail(self, error: ProviderError) -> AnswerFailed:
        self._failed = True
        return AnswerFailed(error)

    def _read(self, frame: Frame, events: list[Event]) -> None:
        if frame.failed:
            if self._finished:
                self.ended = True  # the answer is whole; what broke was what would have come behind it
            else:
                events.append(self._fail(classify_frame(frame.name, frame.payload)))
            return
        try:
            self._event(frame, events)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.skipped_chunks += 1
            if self.skipped_chunks > SKIPPED_CHUNKS_MAX:
                events.append(self._fail(GarbledError("the provider sent more than one unreadable event")))

    @abstractmethod
    def _event(self, frame: Frame, events: list[Event]) -> None:
        """Add what a frame means to `events`. Raises what msgspec raises for one that cannot be read."""

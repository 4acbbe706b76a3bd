"""One Attempt on its way: encoded, signed, sent, read step by step, and judged complete or not.

A failure is never raised out of here: it is the last event, an AnswerFailed. What follows from it is the engine's.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway.attempts import Attempt
from gateway.bill import BegunLater
from gateway.upstream import Upstream
from gateway.watch import Watch
from providers.base import Decoder, WireRequest, WireResponse
from providers.elsewhere import may_follow
from providers.errors import (
    AnswerElsewhereError,
    FirstTokenTimeoutError,
    GarbledError,
    ProviderError,
    ServerError,
    StalledError,
    TruncatedError,
)
from providers.json_values import count_structure
from providers.messages import (
    AnswerFailed,
    AnswerStarted,
    ChatRequest,
    ChoiceFinished,
    Event,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)

AFTER_USAGE_TIMEOUT_S: Final = 0.5
"""How long the end mark may take behind finish reasons and usage: with these an answer is complete."""
ERROR_BODY_MAX_BYTES: Final = 64 * 1024
BODY_MAX_BYTES: Final = 32 * 1024 * 1024
TOO_LARGE: Final = "the provider's answer is larger than any answer is"
UPSTREAM_ID_MAX_CHARS: Final = 256
BODY_STRUCTURE_MAX: Final = 1_000_000
"""Commas, braces and brackets in a whole body. Three bytes of JSON can take a hundred bytes of memory."""

# Kinds of events as constants: what is imported is looked up by name each time, which shows in compiled modules.
_TEXT: Final = TextDelta
_REASONING: Final = ReasoningDelta
_REFUSAL: Final = RefusalDelta
_USAGE: Final = UsageReported
_TOOL_CALL: Final = ToolCallDelta
_STARTED: Final = AnswerStarted
_FINISHED: Final = ChoiceFinished
_FAILED: Final = AnswerFailed


class Call:
    """One Attempt on its way. `open` it, then `read` until it is `complete` or has failed."""

    __slots__ = (
        "_after_finish_s",
        "_asked",
        "_caller",
        "_choices",
        "_decoder",
        "_left",
        "_response",
        "_unfinished",
        "_unix_time_s",
        "_upstream",
        "_watch",
        "attempt",
        "complete",
        "elsewhere",
        "headers",
        "refused",
        "stream",
    )

    def __init__(
        self,
        attempt: Attempt,
        upstream: Upstream,
        asked: ChatRequest,
        watch: Watch,
        *,
        stream: bool,
        after_finish_s: float,
        unix_time_s: Callable[[], float],
        caller: str = "",
    ) -> None:
        self.attempt = attempt
        self.refused: ProviderError | BegunLater | None = None
        """Why it must not be sent, if it must not, or who will say that."""
        self.headers: Mapping[str, str] | None = None
        """Sent along."""
        self.stream = stream
        self.complete = False
        self.elsewhere: AnswerElsewhereError | None = None
        """The provider left the answer at a URL, where it is to be fetched."""
        self._asked = asked
        self._caller = caller
        self._upstream = upstream
        self._watch = watch
        self._after_finish_s = after_finish_s
        self._unix_time_s = unix_time_s
        self._response: WireResponse | None = None
        self._decoder: Decoder | None = None
        self._left: _Allowance | None = None
        self._unfinished = self._choices = asked.n or 1

    @property
    def skipped_chunks(self) -> int:
        """Unreadable chunks that were passed over."""
        return 0 if self._decoder is None else self._decoder.skipped_chunks

    @property
    def lagged(self) -> bool:
        """Whether a limit fired so late that it may be our own fault."""
        return self._watch.lagged

    @property
    def unfinished(self) -> bool:
        """Whether a choice has not had its finish reason yet."""
        return self._unfinished > 0

    async def open(self, limit_s: float) -> AnswerFailed | None:
        """Send the request, and wait for the head of the answer (a stream) or all of it.

        Args:
            limit_s: How long the first token of a stream, or the whole answer, may take.
        """
        upstream, attempt, watch = self._upstream, self.attempt, self._watch
        if self.refused is not None:
            refused = await self.refused.answer() if isinstance(self.refused, BegunLater) else self.refused
            if refused is not None:
                return AnswerFailed(refused)
        try:
            wire = upstream.authorize(upstream.dialect.encode(self._asked, attempt.endpoint, stream=self.stream))
            attempt.adapted = wire.adapted
            if self.headers is not None:
                wire = wire.under({**wire.headers, **self.headers})
            if attempt.endpoint.local:
                wire = wire.under(wire.headers, self._caller)
            if upstream.signer is not None:
                wire = await upstream.signer.sign(wire, now_unix_s=self._unix_time_s())
            watch.arm(limit_s, FirstTokenTimeoutError)
            watch.begin()
            attempt.sent = True
            try:
                response = await upstream.transport.send(wire, connect_timeout_s=upstream.connect_timeout_s)
            except asyncio.CancelledError:
                raise watch.verdict() from None
            finally:
                watch.waiting = False
        except ProviderError as error:
            return AnswerFailed(error)
        self._response = response
        attempt.upstream_status = status = response.status
        upstream.note_limits(response.headers, attempt.started_s, self._unix_time_s)
        if 200 <= status < 300:
            # A server that answers a stream's request with one JSON body is understood all the same.
            as_stream = self.stream and not response.headers.get("content-type", "").startswith("application/json")
            self._left = None if as_stream or response.body is not None else _Allowance()
            self._decoder = upstream.dialect.decoder(attempt.endpoint, stream=as_stream, headers=response.headers)
            return None
        body = await self._read_error(response)
        return AnswerFailed(upstream.dialect.error(status, response.headers, body, now_unix_s=self._unix_time_s()))

    async def read(self) -> list[Event]:
        """The next events; a failure is the last of them."""
        events = self.read_now()
        if events is None:
            events = self.take(await self.wait())
        return events if self.elsewhere is None else events + await self.follow()

    # The parts of `read`, for whom every coroutine counts.

    def read_now(self) -> list[Event] | None:
        """All events of an answer that is here as a whole; None: `take` what is waited for, again and again."""
        response = self._response
        assert response is not None  # noqa: S101 (it was opened)
        data = response.body
        if data is None:
            return None
        if len(data) > BODY_STRUCTURE_MAX and not _Allowance().covers(data):
            return [AnswerFailed(GarbledError(TOO_LARGE))]
        return self._feed(data, last=True)

    async def wait(self) -> bytes | AnswerFailed:
        """The next bytes, `b""` at the end."""
        response, watch = self._response, self._watch
        assert response is not None  # noqa: S101 (it was opened)
        watch.begin()
        error: ProviderError
        try:
            return await response.read()
        except asyncio.CancelledError:
            error = watch.verdict()
        except ProviderError as failure:
            error = failure
        finally:
            watch.waiting = False
        # Once every choice has its finish reason nothing that matters can be missing.
        return AnswerFailed(error) if self._unfinished > 0 else b""

    def take(self, data: bytes | AnswerFailed) -> list[Event]:
        """What was waited for, as events. Then look whether the rest is `elsewhere`, and `follow`."""
        if not isinstance(data, bytes):
            return [data]
        if self._left is not None and not self._left.covers(data):
            return [AnswerFailed(GarbledError(TOO_LARGE))]
        return self._feed(data, last=not data)

    def adopt(self, task: "asyncio.Task[Any] | None") -> None:
        """Let another task read from here on; None: whichever reads next."""
        self._watch.adopt(task)

    def arm_idle(self, limit_s: float) -> None:
        """From the first content on, the time between two steps is what counts."""
        if self._unfinished > 0 and self._response is not None:
            self._watch.arm(limit_s, StalledError)

    def close(self) -> None:
        """Stop, wherever it is. Idempotent, never blocks."""
        self._watch.disarm()
        if self._response is not None:
            self._response.close()
            self._response = None

    def _feed(self, data: bytes, *, last: bool) -> list[Event]:
        """What these bytes say, and what it means if they are the last ones."""
        decoder, response = self._decoder, self._response
        assert decoder is not None  # noqa: S101 (it was opened)
        assert response is not None  # noqa: S101 (it was opened)
        events = decoder.feed(data) if data else []
        if not last:
            if events:
                self._note_progress(events)
            if not decoder.ended:
                return events
        elif events:
            self._note_counts(events)
        if _has_failed(events):
            return self._look_elsewhere(events)
        closing = decoder.finish()
        if closing:
            self._note_counts(closing)
            events += closing
        if _has_failed(events):
            return self._look_elsewhere(events)
        if self._misses_choices(decoder, closing):
            events.append(AnswerFailed(TruncatedError("the provider's stream ended before every choice was complete")))
            return events
        response.close(ended=True)
        self._response = None
        self.complete = True
        self.attempt.counted = self.attempt.usage is not None
        self._watch.disarm()
        return events

    def _misses_choices(self, decoder: Decoder, closing: list[Event]) -> bool:
        """Whether a stream of several choices stopped, without saying that this was all, before each had its end."""
        if not self.stream or decoder.ended or self._choices == 1:
            return False
        if any(one.param == "n" and one.action == "dropped" for one in self.attempt.adapted):
            return False
        return self._unfinished > sum(type(event) is _FINISHED for event in closing)

    def _note_progress(self, events: list[Event]) -> None:
        """The provider goes on; once every choice is finished, only the end may still come, and soon."""
        if self._unfinished > 0:
            self._watch.progress()
        self._note_counts(events)
        for event in events:
            if type(event) is _FINISHED:
                self._unfinished -= 1
                if self._unfinished == 0:
                    self._watch.arm(self._after_finish_s, StalledError)
            elif type(event) is _USAGE and self._unfinished <= 0:
                # Only the end mark is missing, which says nothing.
                self.attempt.counted = True
                self._watch.arm(min(self._after_finish_s, AFTER_USAGE_TIMEOUT_S), StalledError)

    def _note_counts(self, events: list[Event]) -> None:
        """What the provider counted, and how much it sent: that is billed, whatever becomes of it here."""
        attempt = self.attempt
        for event in events:
            if type(event) is _TEXT or type(event) is _REASONING or type(event) is _REFUSAL:
                if text := event.text:
                    attempt.pieces += 1
                    attempt.chars += len(text)
            elif type(event) is _USAGE:
                attempt.usage = event.usage
            elif type(event) is _TOOL_CALL:
                attempt.pieces += 1
                attempt.chars += len(event.arguments)
            elif type(event) is _STARTED and event.upstream_id is not None:
                attempt.upstream_id = event.upstream_id[:UPSTREAM_ID_MAX_CHARS]

    def _look_elsewhere(self, events: list[Event]) -> list[Event]:
        """An answer that failed: what is left of its events where the failure is that it has to be fetched."""
        last = events[-1]
        if isinstance(last, AnswerFailed) and isinstance(last.error, AnswerElsewhereError):
            self.elsewhere = last.error
            return events[:-1]
        return events

    async def follow(self) -> list[Event]:
        """Go on reading `elsewhere`: once, and only where the provider is configured to leave answers."""
        attempt, upstream, elsewhere = self.attempt, self._upstream, self.elsewhere
        assert elsewhere is not None  # noqa: S101 (it is)
        self.elsewhere = None
        if attempt.followed or not may_follow(elsewhere.url, attempt.endpoint):
            return [AnswerFailed(elsewhere)]
        attempt.followed = True
        if self._response is not None:
            self._response.close(ended=True)
            self._response = None
        # Without our key: whoever keeps the answer is not who the key is for.
        wire = WireRequest(url=elsewhere.url, body=b"", headers={"accept": "application/json"}, method="GET")
        self._watch.begin()
        try:
            response = await upstream.transport.send(wire, connect_timeout_s=upstream.connect_timeout_s)
        except asyncio.CancelledError:
            return [AnswerFailed(self._watch.verdict())]
        except ProviderError as error:
            return [AnswerFailed(error)]
        finally:
            self._watch.waiting = False
        self._response = response
        if response.status != 200:
            message = f"the answer that the provider left elsewhere could not be fetched (HTTP {response.status})"
            return [AnswerFailed(ServerError(message, upstream_status=response.status))]
        self._decoder = upstream.dialect.decoder(attempt.endpoint, stream=False, headers=response.headers)
        return []

    async def _read_error(self, response: WireResponse) -> bytes:
        """What a non-2xx answer says, as far as it is worth reading."""
        if response.body is not None:
            return response.body[:ERROR_BODY_MAX_BYTES]
        parts: list[bytes] = []
        size_bytes = 0
        while size_bytes < ERROR_BODY_MAX_BYTES:
            data = await self.wait()
            if isinstance(data, AnswerFailed) or not data:
                break  # its status alone decides; what it still had to say was cut off
            parts.append(data)
            size_bytes += len(data)
        return b"".join(parts)


def _has_failed(events: list[Event]) -> bool:
    return bool(events) and type(events[-1]) is _FAILED


def pop_failure(events: list[Event]) -> AnswerFailed | None:
    """Take the failure off that events end with, if they do."""
    if events and type(events[-1]) is _FAILED:
        failed = events.pop()
        assert isinstance(failed, AnswerFailed)  # noqa: S101 (seen above)
        return failed
    return None


class _Allowance:
    """How much of one whole body is still acceptable. Streams are judged event by event instead."""

    __slots__ = ("_size_bytes", "_structure")

    def __init__(self) -> None:
        self._size_bytes = BODY_MAX_BYTES
        self._structure = BODY_STRUCTURE_MAX

    def covers(self, data: bytes) -> bool:
        """Take these bytes off. False once it is too much."""
        self._size_bytes -= len(data)
        self._structure -= count_structure(data)
        return self._size_bytes >= 0 and self._structure >= 0

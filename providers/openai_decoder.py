"""Answers of OpenAI-compatible servers, whole or streamed, as Events.

Liberal in what it reads: servers differ in every corner that the published schema leaves open.
"""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

from providers.call_numbers import CallNumbers
from providers.errors import GarbledError, ProviderError, ServerError, TruncatedError
from providers.json_values import elements, members
from providers.messages import (
    AnswerFailed,
    AnswerStarted,
    ChoiceFinished,
    Event,
    ExtrasDelta,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from providers.openai_errors import classify_in_band
from providers.openai_shapes import Choice, Completion, Function, Json, Logprobs, Message, ToolCall
from providers.openai_usage import read_usage
from providers.sse import EventTooLongError, SseParser

SKIPPED_CHUNKS_MAX: Final = 1
CHOICE_INDEX_MAX: Final = 127
"""An index outside 0 and this is no number of a choice: every index that is seen is remembered."""

FINISH_REASONS: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "function_call",
}
BROKEN_REASONS: Final = frozenset({"error", "abort", "cancelled"})
"""Not an end but a failure that calls itself one (OpenRouter and Mistral say `error`, vLLM says `abort`)."""

InBand: TypeAlias = Callable[[Any], ProviderError]
"""The error that an `error` object inside a 200 or a stream stands for."""


_completion: Final = msgspec.json.Decoder(Completion, strict=False)
_encoder: Final = msgspec.json.Encoder()


class BodyDecoder:
    """Reads one whole JSON answer. `in_band` says what an error inside it means."""

    __slots__ = ("_in_band", "_parts", "ended", "skipped_chunks")

    def __init__(self, in_band: InBand = classify_in_band) -> None:
        self.ended = False
        self.skipped_chunks = 0
        self._in_band = in_band
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[Event]:
        """Keep the bytes; a JSON text means nothing before its end."""
        self._parts.append(data)
        return []

    def finish(self) -> list[Event]:
        """The whole answer as events."""
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        try:
            completion = _completion.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return [AnswerFailed(GarbledError(_not_json(body)))]
        choices, error, usage = completion.choices, completion.error, completion.usage
        if not choices and error is None:
            error = _bare_error(body)
        if error is not None:
            return [AnswerFailed(self._in_band(error))]
        if not choices:
            return [AnswerFailed(ServerError("the provider answered 200 with nothing in it"))]
        self.ended = True  # the end of its JSON is the provider's own word that this was all
        events: list[Event] = [_started(completion)]
        for position, choice in enumerate(choices):
            failure = _whole_choice(choice, position, events, self._in_band)
            if failure is not None:
                return [AnswerFailed(failure)]
        if usage is not None:
            events.append(UsageReported(read_usage(usage)))
        return events


def _not_json(body: bytes) -> str:
    if not body.strip():
        return "the provider answered 200 with an empty body"
    page = body.lstrip()[:1] == b"<"
    return f"the provider answered 200 with {'a web page' if page else 'something that is not a chat completion'}"


def _bare_error(payload: bytes) -> Json:
    """An error without an `error` member around it: Mistral's form, and that of old vLLM."""
    try:
        said = msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # the codec passes over what it has no use for unread
    return said if members(said).get("object") == "error" else None


def _whole_choice(choice: Choice, position: int, events: list[Event], in_band: InBand) -> ProviderError | None:
    if choice.error is not None:
        return in_band(choice.error)
    message = choice.message
    if message is None:
        return ServerError("the provider answered a choice without a message")
    index = choice.index
    if index is None:
        index = position
    if not 0 <= index <= CHOICE_INDEX_MAX:
        return GarbledError("the provider numbers its choices past any count")
    calls = message.tool_calls
    if calls is not None:
        for place, call in enumerate(calls):
            call.index = place  # a whole list is in order, whatever its numbers say
    before = len(events)
    _content(message, choice.logprobs, index, events)
    reason = choice.finish_reason
    if reason in BROKEN_REASONS:
        return ServerError(f"the provider ended the answer with finish_reason {reason!r}")
    if not reason and len(events) == before:
        return ServerError("the provider answered a choice with nothing in it, and no reason for that")
    # A null reason on a whole body: nothing was cut, its framing said that it is complete.
    meant = FINISH_REASONS.get(reason or "stop", "stop")
    events.append(ChoiceFinished(meant, index, choice.native_finish_reason or reason))
    return None


class StreamDecoder:
    """Reads server-sent chunks as they come. `in_band` says what an error among them means."""

    __slots__ = ("_calls", "_failed", "_in_band", "_open", "_sse", "_started", "ended", "skipped_chunks")

    def __init__(self, in_band: InBand = classify_in_band) -> None:
        self._sse = SseParser()
        self._in_band = in_band
        self._calls = CallNumbers()
        self._started = False
        self.ended = False
        self._failed = False
        self._open: dict[int, bool] = {}
        self.skipped_chunks = 0

    def feed(self, data: bytes) -> list[Event]:
        """Events of the chunks that these bytes complete."""
        try:
            payloads = self._sse.feed(data)
        except EventTooLongError:
            return [self._fail(GarbledError("the provider sent an event over the size limit"))]
        return self._read(payloads)

    def finish(self) -> list[Event]:
        """The stream is over. Without a finish reason for every choice it was cut, whatever came before."""
        events = self._read(self._sse.finish())
        if self._failed:
            return events
        if not self._open:
            events.append(self._fail(TruncatedError("the provider's stream ended before it said anything")))
        elif any(self._open.values()):
            events.append(self._fail(TruncatedError("the provider's stream ended in the middle of the answer")))
        return events

    def _fail(self, error: ProviderError) -> AnswerFailed:
        self._failed = True
        return AnswerFailed(error)

    def _read(self, payloads: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for payload in payloads:
            if self.ended or self._failed:
                break
            if payload == b"[DONE]":
                self.ended = True
                break
            try:
                chunk = _completion.decode(payload)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self.skipped_chunks += 1
                if self.skipped_chunks > SKIPPED_CHUNKS_MAX:
                    events.append(self._fail(GarbledError("the provider sent more than one unreadable chunk")))
                continue
            if chunk.choices is None and chunk.error is None:
                chunk.error = _bare_error(payload)
            self._chunk(chunk, events)
        return events

    def _chunk(self, chunk: Completion, events: list[Event]) -> None:
        if chunk.error is not None:
            events.append(self._fail(self._in_band(chunk.error)))
            return
        if not self._started:
            self._started = True
            events.append(_started(chunk))
        for choice in chunk.choices or ():
            self._choice(choice, events)
            if self._failed:
                return
        if chunk.usage is not None:
            events.append(UsageReported(read_usage(chunk.usage)))

    def _choice(self, choice: Choice, events: list[Event]) -> None:
        index = choice.index or 0
        if not 0 <= index <= CHOICE_INDEX_MAX or self._calls.too_many:
            events.append(self._fail(GarbledError("the provider numbers its choices or calls past any count")))
            return
        is_open = self._open.get(index)
        if is_open is None:
            is_open = self._open[index] = True
        message = choice.delta or choice.message
        if message is not None:
            _content(message, choice.logprobs, index, events, self._calls)
        reason = choice.finish_reason
        if choice.error is not None:
            events.append(self._fail(self._in_band(choice.error)))
        elif not reason:
            return
        elif reason in BROKEN_REASONS:
            events.append(self._fail(ServerError(f"the provider ended the answer with finish_reason {reason!r}")))
        elif is_open:
            self._open[index] = False
            meant = FINISH_REASONS.get(reason, "stop")
            events.append(ChoiceFinished(meant, index, choice.native_finish_reason or reason))


def _started(completion: Completion) -> AnswerStarted:
    return AnswerStarted(
        completion.id, completion.model, completion.provider, completion.system_fingerprint, completion.service_tier
    )


def _content(
    message: Message, logprobs: Logprobs | None, index: int, events: list[Event], calls: CallNumbers | None = None
) -> None:
    """What a message or delta carries, in the order a reader would want it: thinking, text, calls."""
    thinking = message.reasoning or message.reasoning_content
    if thinking or message.reasoning_details:
        events.append(ReasoningDelta(thinking or "", index, message.reasoning_details))
    content = message.content
    text = content if content is None or isinstance(content, str) else _flatten(content, index, events)
    entries = None if logprobs is None or not logprobs.content else _token_entries(logprobs.content)
    if text or entries:
        events.append(TextDelta(text or "", index, entries))
    if message.refusal:
        events.append(RefusalDelta(message.refusal, index))
    if message.tool_calls:
        _tool_calls(message.tool_calls, index, events, calls or CallNumbers())
    if message.function_call is not None:
        called = {"name": message.function_call.name, "arguments": _arguments(message.function_call.arguments)}
        # Who asks in the old way, with `functions`, reads the answer in the old way.
        events.append(ExtrasDelta({"function_call": {name: text for name, text in called.items() if text}}, index))
    if message.annotations or message.images or message.audio:
        rest = {"annotations": message.annotations, "images": message.images, "audio": message.audio}
        events.append(ExtrasDelta({name: value for name, value in rest.items() if value}, index))


def _token_entries(entries: list[Any]) -> list[Any]:
    """OpenAI's token entries, with the members that it promises and some servers leave out."""
    return [
        {
            "bytes": None,
            **entry,
            "top_logprobs": [{"bytes": None, **other} for other in map(members, elements(entry.get("top_logprobs")))],
        }
        for entry in map(members, entries)
        if "token" in entry
    ]


def _flatten(parts: list[Any], index: int, events: list[Event]) -> str:
    """Text of a content list; `thinking` becomes reasoning, `reference` an extra member (Mistral's forms)."""
    text: list[str] = []
    for part in map(members, parts):
        if part.get("type") == "thinking":
            inner = part.get("thinking")
            thought = inner if isinstance(inner, str) else _flatten(elements(inner), index, [])
            events.append(ReasoningDelta(thought, index))
        elif part.get("type") == "reference":
            events.append(ExtrasDelta({"references": elements(part.get("reference_ids"))}, index))
        elif isinstance(part.get("text"), str):
            text.append(part["text"])
    return "".join(text)


def _tool_calls(sent: list[ToolCall], index: int, events: list[Event], calls: CallNumbers) -> None:
    for position, call in enumerate(sent):
        function = call.function or Function()
        place, is_new = calls.place(position if call.index is None else call.index, index, call.id, function.name)
        events.append(
            ToolCallDelta(
                place,
                index,
                (call.id or f"call_{index}_{place}") if is_new else None,
                (function.name or "") if is_new else None,
                _arguments(function.arguments),
            )
        )


def _arguments(arguments: str | dict[str, Any] | None) -> str:
    """Arguments as JSON text; some servers send them parsed."""
    if isinstance(arguments, dict):
        return _encoder.encode(arguments).decode()
    return arguments or ""

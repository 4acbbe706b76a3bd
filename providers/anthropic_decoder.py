"""Anthropic's answers, a whole Message or its server-sent events, as Events.

https://platform.claude.com/docs/en/build-with-claude/streaming. Not passed on, because a chat completion has no place
for them: the blocks by which tools that Anthropic runs itself (web search, code, MCP) report their calls and results,
compaction blocks, and citations of documents that have no URL. What such tools found is in the text.
"""

from collections.abc import Mapping

import msgspec

from providers.anthropic_errors import classify_in_band
from providers.anthropic_wire import (
    Block,
    Delta,
    Json,
    StopDetails,
    WireEvent,
    WireMessage,
    WireUsage,
    event_decoder,
    inclusive,
    merge,
    message_decoder,
)
from providers.error_bodies import no_answer
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
    Usage,
    UsageReported,
)
from providers.sse import EventTooLongError, SseParser

FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "length",
    "compaction": "length",
}
"""`pause_turn` and `compaction` are answers that are not complete: like a cut one, the client may have it go on."""
SERVICE_TIERS = {"standard": "default", "priority": "priority"}
REASONING_FORMAT = "anthropic-claude-v1"
"""OpenRouter's name for thinking blocks that have to go back as they came."""
BLOCKS_MAX = 4096
"""More blocks, or citations, in one answer are a provider's mistake."""
SKIPPED_CHUNKS_MAX = 1

_encoder = msgspec.json.Encoder()


class _OpenBlock:
    """A block of a stream, from its start to its stop."""

    __slots__ = ("call", "citations", "has_arguments", "input", "start")

    def __init__(self, block: Block, call: int | None, start: int) -> None:
        self.call = call
        """Which tool call it is, from 0; None for anything else."""
        self.input = block.input
        self.has_arguments = False
        self.citations = list(elements(block.citations))
        self.start = start
        """Where its text begins in the answer's, in characters."""


class _Answer:
    """What both decoders gather of one answer."""

    __slots__ = ("annotations", "calls", "chars", "counted", "explanation", "stop_reason")

    def __init__(self) -> None:
        self.annotations: list[dict[str, Json]] = []
        self.calls = 0
        self.chars = 0
        self.counted = Usage()
        self.explanation: str | None = None
        self.stop_reason: str | None = None

    def text(self, text: str, events: list[Event]) -> None:
        if text:
            self.chars += len(text)
            events.append(TextDelta(text))

    def cite(self, citation: Json, start: int) -> None:
        """Keep a citation of something with a URL, for the text from `start` to here."""
        said = members(citation)
        url = said.get("url") or said.get("source")
        if not isinstance(url, str) or url[:4].lower() != "http" or len(self.annotations) >= BLOCKS_MAX:
            return
        title = said.get("title")
        cited: dict[str, Json] = {
            "url": url,
            "title": title if isinstance(title, str) else "",
            "start_index": start,
            "end_index": self.chars,
        }
        if isinstance(quoted := said.get("cited_text"), str):
            cited["content"] = quoted
        self.annotations.append({"type": "url_citation", "url_citation": cited})

    def count(self, usage: WireUsage, events: list[Event]) -> None:
        """Take in cumulative counts; what this report leaves out stays as it was."""
        self.counted = merge(self.counted, usage)
        events.append(UsageReported(inclusive(self.counted)))

    def stop(self, reason: str | None, details: StopDetails | None) -> None:
        self.stop_reason = reason or self.stop_reason
        if details is not None and isinstance(details.explanation, str):
            self.explanation = details.explanation

    def end(self, events: list[Event]) -> None:
        """What closes an answer that is complete."""
        if self.annotations:
            events.append(ExtrasDelta({"annotations": self.annotations}))
        if self.stop_reason == "refusal" and self.explanation:
            events.append(RefusalDelta(self.explanation))
        reason = FINISH_REASONS.get(self.stop_reason or "end_turn", "stop")
        events.append(ChoiceFinished(reason, 0, self.stop_reason))


class MessageDecoder:
    """Reads one whole Message."""

    skipped_chunks = 0
    ended = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[Event]:
        """Keep the bytes; a JSON text means nothing before its end."""
        self._parts.append(data)
        return []

    def finish(self) -> list[Event]:
        """The whole answer as events."""
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        try:
            message = message_decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return [AnswerFailed(GarbledError(no_answer(body, "a Message")))]
        if message.error is not None:
            return [AnswerFailed(classify_in_band(message.error, message.request_id))]
        if message.content is None or not (message.content or message.stop_reason):
            return [AnswerFailed(ServerError("the provider answered 200 with nothing in it"))]
        if len(message.content) > BLOCKS_MAX:
            return [AnswerFailed(GarbledError(f"the provider answered with over {BLOCKS_MAX} blocks"))]
        events: list[Event] = [_started(message)]
        answer = _Answer()
        for index, block in enumerate(message.content):
            _whole_block(block, index, answer, events)
        answer.stop(message.stop_reason, message.stop_details)
        if message.usage is not None:
            answer.count(message.usage, events)
        answer.end(events)
        return events


def _whole_block(block: Block, index: int, answer: _Answer, events: list[Event]) -> None:
    if block.type == "text":
        start = answer.chars
        answer.text(_text(block.text), events)
        for citation in elements(block.citations):
            answer.cite(citation, start)
    elif block.type in ("thinking", "redacted_thinking"):
        _thought(block, index, events)
    elif block.type == "tool_use":
        arguments = _arguments(block.input) or "{}"
        events.append(ToolCallDelta(answer.calls, 0, _text(block.id), _text(block.name), arguments))
        answer.calls += 1


def _thought(block: Block, index: int, events: list[Event]) -> None:
    """A thinking block, as much of it as is there."""
    if block.type == "redacted_thinking":
        detail = {"type": "reasoning.encrypted", "data": _text(block.data)}
        events.append(ReasoningDelta("", 0, [{**detail, "format": REASONING_FORMAT, "index": index}]))
        return
    text, signature = _text(block.thinking), _text(block.signature)
    if text or signature:
        events.append(ReasoningDelta(text, 0, [_detail(index, text, signature)]))


def _detail(index: int, text: str, signature: str | None) -> dict[str, Json]:
    detail: dict[str, Json] = {"type": "reasoning.text", "text": text}
    if signature:
        detail["signature"] = signature
    return {**detail, "format": REASONING_FORMAT, "index": index}


class StreamDecoder:
    """Reads server-sent events as they come. Names that nobody here knows are passed over, as Anthropic asks."""

    __slots__ = ("_answer", "_blocks", "_closed", "_failed", "_sse", "_started", "_starts", "ended", "skipped_chunks")

    def __init__(self) -> None:
        self._sse = SseParser()
        self._answer = _Answer()
        self._blocks: dict[int, _OpenBlock] = {}
        self._starts = 0
        self._started = False
        self._closed = False
        self._failed = False
        self.ended = False
        self.skipped_chunks = 0

    def feed(self, data: bytes) -> list[Event]:
        """Events of the chunks that these bytes complete."""
        if self._failed or self.ended:
            return []
        try:
            payloads = self._sse.feed(data)
        except EventTooLongError:
            return [self._fail(GarbledError("the provider sent an event over the size limit"))]
        return self._read(payloads)

    def finish(self) -> list[Event]:
        """The stream is over. Without a reason to stop it was cut, whatever came before."""
        if self._failed or self.ended:
            return []
        events = self._read(self._sse.finish())
        if not (self._failed or self.ended or self._closed):
            when = "in the middle of the answer" if self._started else "before it said anything"
            events.append(self._fail(TruncatedError(f"the provider's stream ended {when}")))
        return events

    def _fail(self, error: ProviderError) -> AnswerFailed:
        self._failed = True
        return AnswerFailed(error)

    def _read(self, payloads: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for payload in payloads:
            if self.ended or self._failed:
                break
            try:
                event = event_decoder.decode(payload)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self.skipped_chunks += 1
                if self.skipped_chunks > SKIPPED_CHUNKS_MAX:
                    events.append(self._fail(GarbledError("the provider sent more than one unreadable chunk")))
                continue
            self._event(event, events)
        return events

    def _event(self, event: WireEvent, events: list[Event]) -> None:
        match event.type:
            case "content_block_delta" if event.delta is not None:
                self._delta(event.delta, event.index, events)
            case "content_block_start" if event.content_block is not None:
                self._start(event.content_block, event.index, events)
            case "content_block_stop":
                self._stop(event.index, events)
            case "message_start" if event.message is not None:
                self._begin(event.message, events)
            case "message_delta":
                self._progress(event, events)
            case "message_stop":
                self.ended = True
                self._close(events)
            case _ if event.error is not None or event.type == "error":
                events.append(self._fail(classify_in_band(event.error, event.request_id)))
            case _:
                pass

    def _progress(self, event: WireEvent, events: list[Event]) -> None:
        if event.delta is not None:
            self._answer.stop(event.delta.stop_reason, event.delta.stop_details)
        if event.usage is not None:
            self._answer.count(event.usage, events)
        if self._answer.stop_reason is not None:
            self._close(events)

    def _close(self, events: list[Event]) -> None:
        """There is a reason why it stopped, so it is complete, whether or not `message_stop` follows."""
        if self._closed:
            return
        self._closed = True
        for index in tuple(self._blocks):
            self._stop(index, events)
        self._answer.end(events)

    def _begin(self, message: WireMessage, events: list[Event]) -> None:
        if self._started:
            return
        self._started = True
        events.append(_started(message))
        if message.usage is not None:
            self._answer.count(message.usage, events)

    def _start(self, block: Block, index: int, events: list[Event]) -> None:
        self._starts += 1
        if self._starts > BLOCKS_MAX:
            events.append(self._fail(GarbledError(f"the provider answered with over {BLOCKS_MAX} blocks")))
            return
        call = None
        if block.type == "tool_use":
            call = self._answer.calls
            self._answer.calls += 1
            events.append(ToolCallDelta(call, 0, _text(block.id), _text(block.name)))
        elif block.type in ("thinking", "redacted_thinking"):
            _thought(block, index, events)
        self._blocks[index] = _OpenBlock(block, call, self._answer.chars)
        if block.type == "text":
            self._answer.text(_text(block.text), events)

    def _delta(self, delta: Delta, index: int, events: list[Event]) -> None:
        if delta.text is not None:
            self._answer.text(delta.text, events)
        elif delta.partial_json is not None:
            block = self._blocks.get(index)
            if block is not None and block.call is not None and delta.partial_json:
                block.has_arguments = True
                events.append(ToolCallDelta(block.call, 0, arguments=delta.partial_json))
        elif delta.thinking:
            events.append(ReasoningDelta(delta.thinking, 0, [_detail(index, delta.thinking, None)]))
        elif delta.signature:
            events.append(ReasoningDelta("", 0, [_detail(index, "", delta.signature)]))
        elif delta.citation is not None:
            block = self._blocks.get(index)
            if block is not None and len(block.citations) < BLOCKS_MAX:
                block.citations.append(delta.citation)

    def _stop(self, index: int, events: list[Event]) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        for citation in block.citations:
            self._answer.cite(citation, block.start)
        if block.call is not None and not block.has_arguments:
            # A call without arguments streams no piece of them, and one given whole at the start streams none either.
            events.append(ToolCallDelta(block.call, 0, arguments=_arguments(block.input) or "{}"))


def _started(message: WireMessage) -> AnswerStarted:
    tier = message.usage.service_tier if message.usage is not None else None
    return AnswerStarted(
        message.id, message.model, service_tier=SERVICE_TIERS.get(tier) if isinstance(tier, str) else None
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _arguments(value: object) -> str:
    """Arguments as JSON text; empty where there are none."""
    return _encoder.encode(value).decode() if value and isinstance(value, dict) else ""

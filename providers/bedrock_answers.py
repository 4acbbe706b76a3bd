"""Reads Converse's answers, whole or streamed, into Events. Sans I/O.

Text blocks of a stream have no start event, usage comes in a `metadata` event behind the end, and payloads carry a
padding member that means nothing. Tools that Bedrock runs by itself (`server_tool_use`) are no calls for the client to
make, so they travel beside the answer's text, as `server_tools`.
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from providers.bedrock_events import Frame
from providers.bedrock_stream import FrameDecoder
from providers.error_bodies import no_answer
from providers.errors import GarbledError, ServerError
from providers.json_values import elements, members
from providers.messages import (
    AnswerFailed,
    AnswerStarted,
    ChoiceFinished,
    Event,
    ExtrasDelta,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReported,
)

TOKENS_MAX: Final = 1_000_000_000
"""A usage figure above this is a provider's mistake, not a count."""
FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
SERVER_TOOL: Final = "server_tool_use"
"""The type of a call that Bedrock makes by itself. The client's own have no type, or `tool_use`."""
BROKEN_REASONS: Final = frozenset({"malformed_model_output", "malformed_tool_use"})
"""Not an end but a failure of the model: what it said cannot be used."""


class _Usage(Struct, gc=False):
    inputTokens: Any = None  # noqa: N815 (the wire's own name)
    outputTokens: Any = None  # noqa: N815 (the wire's own name)
    cacheReadInputTokens: Any = None  # noqa: N815 (the wire's own name)
    cacheWriteInputTokens: Any = None  # noqa: N815 (the wire's own name)


class _Message(Struct, gc=False):
    content: list[dict[str, Any]] | None = None


class _Output(Struct, gc=False):
    message: _Message | None = None


class _Answer(Struct, gc=False):
    output: _Output | None = None
    stopReason: str | None = None  # noqa: N815 (the wire's own name)
    usage: _Usage | None = None


class _ToolUse(Struct, gc=False):
    input: str = ""


class _Delta(Struct, gc=False):
    text: str | None = None
    toolUse: _ToolUse | None = None  # noqa: N815 (the wire's own name)
    reasoningContent: dict[str, Any] | None = None  # noqa: N815 (the wire's own name)
    toolResult: list[Any] | None = None  # noqa: N815 (the wire's own name)
    citation: dict[str, Any] | None = None
    image: dict[str, Any] | None = None


class _BlockDelta(Struct, gc=False):
    delta: _Delta
    contentBlockIndex: int = 0  # noqa: N815 (the wire's own name)


class _BlockStart(Struct, gc=False):
    start: dict[str, Any] = field(default_factory=dict[str, Any])
    contentBlockIndex: int = 0  # noqa: N815 (the wire's own name)


class _BlockStop(Struct, gc=False):
    contentBlockIndex: int = 0  # noqa: N815 (the wire's own name)


class _Stop(Struct, gc=False):
    stopReason: str = "end_turn"  # noqa: N815 (the wire's own name)


class _Metadata(Struct, gc=False):
    usage: _Usage | None = None


_answer = msgspec.json.Decoder(_Answer, strict=False)
_block_delta = msgspec.json.Decoder(_BlockDelta)
_block_start = msgspec.json.Decoder(_BlockStart)
_block_stop = msgspec.json.Decoder(_BlockStop)
_stop = msgspec.json.Decoder(_Stop)
_metadata = msgspec.json.Decoder(_Metadata)
_encoder = msgspec.json.Encoder()


class BodyDecoder:
    """Reads one whole Converse answer."""

    skipped_chunks = 0
    ended = False

    def __init__(self, request_id: str | None) -> None:
        self._request_id = request_id
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[Event]:
        """Keep the bytes; a JSON text means nothing before its end."""
        self._parts.append(data)
        return []

    def finish(self) -> list[Event]:
        """The whole answer as events."""
        body = b"".join(self._parts)
        try:
            answer = _answer.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return [AnswerFailed(GarbledError(no_answer(body, "its own protocol")))]
        if answer.output is None or answer.output.message is None:
            return [AnswerFailed(ServerError("the provider answered 200 with nothing in it"))]
        reason = answer.stopReason or "end_turn"
        if reason in BROKEN_REASONS:
            return [AnswerFailed(_malformed(reason))]
        events: list[Event] = [AnswerStarted(self._request_id)]
        _blocks(answer.output.message.content or [], events)
        events.append(ChoiceFinished(FINISH_REASONS.get(reason, "stop"), 0, reason))
        if answer.usage is not None:
            events.append(UsageReported(_usage(answer.usage)))
        return events


class StreamDecoder(FrameDecoder):
    """Reads the events of a ConverseStream as they come."""

    __slots__ = (
        "_calls",
        "_request_id",
        "_spans",
        "_text_chars",
        "_unsaid",
    )

    def __init__(self, request_id: str | None) -> None:
        super().__init__()
        self._request_id = request_id
        self._calls: dict[int, int | None] = {}
        """Our number of the tool call in a content block; None where Bedrock runs the tool itself."""
        self._unsaid: set[int] = set()
        """Content blocks of calls whose arguments have not begun."""
        self._spans: dict[int, int] = {}
        self._text_chars = 0

    def _event(self, frame: Frame, events: list[Event]) -> None:
        name = frame.name
        if not self._started:
            self._started = True
            events.append(AnswerStarted(self._request_id))
        if name == "contentBlockDelta":
            block = _block_delta.decode(frame.payload)
            text = block.delta.text
            if text is not None:
                if text:
                    self._spans.setdefault(block.contentBlockIndex, self._text_chars)
                    self._text_chars += len(text)
                    events.append(TextDelta(text))
                return
            self._delta(block.delta, block.contentBlockIndex, events)
        elif name == "contentBlockStart":
            start = _block_start.decode(frame.payload)
            self._start(start.start, start.contentBlockIndex, events)
        elif name == "contentBlockStop":
            self._end_block(_block_stop.decode(frame.payload).contentBlockIndex, events)
        elif name == "messageStop":
            self._stop(_stop.decode(frame.payload).stopReason, events)
        elif name == "metadata":
            usage = _metadata.decode(frame.payload).usage
            if usage is not None:
                events.append(UsageReported(_usage(usage)))
            self.ended = self._finished

    def _start(self, start: dict[str, Any], block: int, events: list[Event]) -> None:
        tool = members(start.get("toolUse"))
        if not tool or tool.get("type") == SERVER_TOOL:
            self._calls[block] = None
            if tool or "toolResult" in start:
                events.append(ExtrasDelta({"server_tools": [{"index": block, **start}]}))
            return
        number = sum(place is not None for place in self._calls.values())
        self._calls[block] = number
        self._unsaid.add(block)
        events.append(ToolCallDelta(number, 0, _text(tool.get("toolUseId")), _text(tool.get("name"))))

    def _end_block(self, block: int, events: list[Event]) -> None:
        if block in self._unsaid:  # a call without arguments: JSON text all the same
            self._unsaid.discard(block)
            events.append(ToolCallDelta(self._calls[block] or 0, 0, None, None, "{}"))

    def _delta(self, delta: _Delta, block: int, events: list[Event]) -> None:
        if delta.toolUse is not None:
            number = self._calls.get(block)
            if number is not None:
                if delta.toolUse.input:
                    self._unsaid.discard(block)
                    events.append(ToolCallDelta(number, 0, None, None, delta.toolUse.input))
            else:
                events.append(ExtrasDelta({"server_tools": [{"index": block, "input": delta.toolUse.input}]}))
        elif delta.reasoningContent is not None:
            events.append(_reasoning_delta(delta.reasoningContent, block))
        elif delta.toolResult is not None:
            events.append(ExtrasDelta({"server_tools": [{"index": block, "result": delta.toolResult}]}))
        elif delta.citation is not None:
            events.append(
                _citations([delta.citation], self._spans.setdefault(block, self._text_chars), self._text_chars)
            )
        elif delta.image is not None and (image := _image(delta.image)) is not None:
            events.append(image)

    def _stop(self, reason: str, events: list[Event]) -> None:
        if reason in BROKEN_REASONS:
            events.append(self._fail(_malformed(reason)))
        elif not self._finished:
            self._finished = True
            events.append(ChoiceFinished(FINISH_REASONS.get(reason, "stop"), 0, reason))


def count(value: object) -> int | None:
    """A token count as Bedrock wrote it, or None where it cannot be one (absent, negative, absurd)."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value[:12])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= TOKENS_MAX:
        return None
    return value


def _usage(usage: _Usage) -> Usage:
    """Bedrock's input count leaves out what was read from or written to the cache; ours holds all three."""
    fresh, read, written = map(count, (usage.inputTokens, usage.cacheReadInputTokens, usage.cacheWriteInputTokens))
    return Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=count(usage.outputTokens),
        cached_input_tokens=read,
        cache_write_tokens=written,
    )


def _blocks(blocks: list[dict[str, Any]], events: list[Event]) -> None:
    calls, chars = 0, 0
    for number, block in enumerate(blocks):
        said = len(events)
        tool = members(block.get("toolUse"))
        if isinstance(text := block.get("text"), str):
            if text:
                events.append(TextDelta(text))
        elif tool and tool.get("type") != SERVER_TOOL:
            arguments = _encoder.encode(tool.get("input", {})).decode()
            events.append(ToolCallDelta(calls, 0, _text(tool.get("toolUseId")), _text(tool.get("name")), arguments))
            calls += 1
        elif tool or "toolResult" in block:
            events.append(ExtrasDelta({"server_tools": [{"index": number, **block}]}))
        elif content := members(block.get("reasoningContent")):
            events.append(_reasoning_delta(members(content.get("reasoningText")) or content, number))
        elif cited := members(block.get("citationsContent")):
            _cited(cited, chars, events)
        elif (image := _image(members(block.get("image")))) is not None:
            events.append(image)
        chars += sum(len(event.text) for event in events[said:] if isinstance(event, TextDelta))


def _cited(cited: dict[str, Any], start: int, events: list[Event]) -> None:
    text = "".join(str(members(piece).get("text", "")) for piece in elements(cited.get("content")))
    if text:
        events.append(TextDelta(text))
    sources = [members(citation) for citation in elements(cited.get("citations"))]
    if sources:
        events.append(_citations(sources, start, start + len(text)))


def _citations(citations: list[dict[str, Any]], start: int, end: int) -> ExtrasDelta:
    """Web pages in the form that OpenAI's clients know; other sources as Bedrock names them."""
    annotations: list[Any] = []
    others: list[Any] = []
    for citation in citations:
        url = members(members(citation.get("location")).get("web")).get("url")
        if isinstance(url, str):
            page = {"url": url, "title": str(citation.get("title") or url), "start_index": start, "end_index": end}
            annotations.append({"type": "url_citation", "url_citation": page})
        else:
            others.append(citation)
    found = {"annotations": annotations, "citations": others}
    return ExtrasDelta({name: value for name, value in found.items() if value})


def _reasoning_delta(content: dict[str, Any], index: int) -> ReasoningDelta:
    """Thinking, with the signature or the sealed bytes that the next turn has to hand back."""
    text, signature, sealed = (_text(content.get(name)) for name in ("text", "signature", "redactedContent"))
    if sealed is not None:
        return ReasoningDelta("", 0, [{"type": "reasoning.encrypted", "data": sealed, "index": index}])
    detail: dict[str, Any] = {"type": "reasoning.text", "text": text or "", "index": index}
    if signature is not None:
        detail["signature"] = signature
    return ReasoningDelta(text or "", 0, [detail])


def _image(image: dict[str, Any]) -> ExtrasDelta | None:
    data = members(image.get("source")).get("bytes")
    if not isinstance(data, str):
        return None
    url = f"data:image/{image.get('format', 'png')};base64,{data}"
    return ExtrasDelta({"images": [{"type": "image_url", "image_url": {"url": url}}]})


def _malformed(reason: str) -> ServerError:
    return ServerError(f"the model's answer cannot be used: the provider ended it with {reason}", upstream_code=reason)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

"""The Bedrock dialect for Mistral's older models by InvokeModel: their own `[INST]` prompt, text in and text out.

Converse does the same and more; this one is for accounts and models that have InvokeModel only. The answer's body says
nothing of tokens: a whole answer has the counts in its headers, a stream in its last chunk.
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-mistral-text-completion.html
"""

import binascii
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from providers.base import NO_HEADERS, Adaptation, Decoder, Endpoint, WireRequest
from providers.bedrock_answers import count
from providers.bedrock_errors import classify
from providers.bedrock_events import Frame
from providers.bedrock_limits import dropped, sampling
from providers.bedrock_stream import FrameDecoder
from providers.bedrock_turns import BLANK_LINE, conversation
from providers.error_bodies import no_answer
from providers.errors import GarbledError, ProviderError, ServerError, UnsupportedError
from providers.messages import (
    AnswerFailed,
    AnswerStarted,
    ChatRequest,
    ChoiceFinished,
    Event,
    FinishReason,
    TextDelta,
    Usage,
    UsageReported,
)

STOPS_MAX: Final = 10
FINISH_REASONS: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}
_HEADERS: Final = {"content-type": "application/json", "accept": "application/json"}
_NO_SYSTEM: Final = {"system": False, "tools": False, "vision": False, "reasoning": False}
_encoder = msgspec.json.Encoder()


class BedrockInvoke:
    """Speaks to bedrock-runtime's InvokeModel operations with Mistral's native format."""

    name = "bedrock_invoke"

    def encode(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> WireRequest:
        """The conversation as one prompt.

        Raises:
            UnsupportedError: Tools, a format of the answer, or anything else than text is wanted.
        """
        form = request.response_format
        if form is not None and form.type != "text":
            raise UnsupportedError(
                f"this model on Bedrock has no response_format {form.type[:40]!r}", param="response_format"
            )
        notes = dropped(request)
        if request.tools or request.functions:
            if request.tool_choice != "none":
                raise UnsupportedError("this model knows no tools", param="tools")
            notes.append(Adaptation("tools", "dropped", "none of them may be called"))
        notes += [Adaptation(name, "dropped", "Bedrock has no such parameter") for name in request.extra or ()]
        drawn = sampling(request, endpoint, notes, stops_max=STOPS_MAX)
        body: dict[str, Any] = {
            "prompt": _prompt(request, endpoint, notes),
            "max_tokens": drawn.max_tokens,
            "temperature": drawn.temperature,
            "top_p": drawn.top_p,
            "top_k": drawn.top_k,
            "stop": drawn.stop or None,
        }
        return WireRequest(
            url=f"{endpoint.base_url}/model/{quote(endpoint.upstream_model, safe='')}/"
            + ("invoke-with-response-stream" if stream else "invoke"),
            body=_encoder.encode({name: value for name, value in body.items() if value is not None}),
            headers=_HEADERS,
            stream=stream,
            adapted=tuple(notes),
        )

    def decoder(
        self,
        endpoint: Endpoint,  # noqa: ARG002 (part of the seam)
        *,
        stream: bool,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Decoder:
        """A fresh decoder for one answer; `headers` hold the token counts of a whole one."""
        return StreamDecoder(headers) if stream else BodyDecoder(headers)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, *, now_unix_s: float) -> ProviderError:
        """What a non-2xx answer means."""
        return classify(status, headers, body, now_unix_s)

    def authorize(self, api_key: str) -> Mapping[str, str]:
        """A Bedrock API key is a bearer token and replaces the signature."""
        return {"authorization": f"Bearer {api_key}"}


def _prompt(request: ChatRequest, endpoint: Endpoint, notes: list[Adaptation]) -> str:
    """The first Mixtral's template: system text at the head of the first user turn, every answer closed by `</s>`."""
    can = msgspec.structs.replace(endpoint.capabilities, **_NO_SYSTEM)
    talk = conversation(request, msgspec.structs.replace(endpoint, capabilities=can), notes)
    parts = ["<s>"]
    for place, turn in enumerate(talk.turns):
        texts: list[str] = []
        for block in turn["content"]:
            if "text" in block:
                texts.append(block["text"])
            elif "cachePoint" not in block:
                raise UnsupportedError("this model takes text alone", param="messages")
        text = BLANK_LINE.join(texts)
        if turn["role"] == "user":
            parts.append(f"[INST] {text} [/INST]")
        else:
            parts.append(f" {text}" + ("</s>" if place < len(talk.turns) - 1 else ""))
    return "".join(parts)


class _Output(Struct, gc=False):
    text: str = ""
    stop_reason: str | None = None


class _Metrics(Struct, gc=False):
    inputTokenCount: Any = None  # noqa: N815 (the wire's own name)
    outputTokenCount: Any = None  # noqa: N815 (the wire's own name)


class _Chunk(Struct, gc=False):
    """A whole answer, or one piece of a streamed one."""

    outputs: list[_Output] = field(default_factory=list[_Output])
    metrics: _Metrics | None = field(default=None, name="amazon-bedrock-invocationMetrics")


class _Envelope(Struct, gc=False):
    bytes: str = ""


_chunk = msgspec.json.Decoder(_Chunk)
_envelope = msgspec.json.Decoder(_Envelope)


def _reported(headers: Mapping[str, str]) -> UsageReported | None:
    read = count(headers.get("x-amzn-bedrock-input-token-count"))
    written = count(headers.get("x-amzn-bedrock-output-token-count"))
    if read is None and written is None:
        return None
    return UsageReported(Usage(input_tokens=read, output_tokens=written))


class BodyDecoder:
    """Reads one whole InvokeModel answer."""

    skipped_chunks = 0
    ended = False

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[Event]:
        """Keep the bytes; a JSON text means nothing before its end."""
        self._parts.append(data)
        return []

    def finish(self) -> list[Event]:
        """The whole answer as events."""
        body = b"".join(self._parts)
        try:
            answer = _chunk.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return [AnswerFailed(GarbledError(no_answer(body, "its own protocol")))]
        if not answer.outputs:
            return [AnswerFailed(ServerError("the provider answered 200 with nothing in it"))]
        events: list[Event] = [AnswerStarted(self._headers.get("x-amzn-requestid"))]
        for choice, output in enumerate(answer.outputs):
            if output.text:
                events.append(TextDelta(output.text, choice))
            reason = output.stop_reason or "stop"
            events.append(ChoiceFinished(FINISH_REASONS.get(reason, "stop"), choice, reason))
        usage = _reported(self._headers)
        if usage is not None:
            events.append(usage)
        return events


def _piece(payload: bytes) -> _Chunk:
    """The model's own JSON out of its base64 envelope.

    Raises:
        msgspec.DecodeError: It is neither.
    """
    try:
        return _chunk.decode(binascii.a2b_base64(_envelope.decode(payload).bytes))
    except ValueError as error:
        raise msgspec.DecodeError("the chunk is no base64 text") from error


class StreamDecoder(FrameDecoder):
    """Reads the chunks of InvokeModelWithResponseStream as they come."""

    __slots__ = ("_headers",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__()
        self._headers = headers

    def _event(self, frame: Frame, events: list[Event]) -> None:
        if frame.name == "chunk":
            self._chunk(_piece(frame.payload), events)

    def _chunk(self, chunk: _Chunk, events: list[Event]) -> None:
        if not self._started:
            self._started = True
            events.append(AnswerStarted(self._headers.get("x-amzn-requestid")))
        for output in chunk.outputs[:1]:
            if output.text and not self._finished:
                events.append(TextDelta(output.text))
            if output.stop_reason and not self._finished:
                self._finished = True
                reason = output.stop_reason
                events.append(ChoiceFinished(FINISH_REASONS.get(reason, "stop"), 0, reason))
        if chunk.metrics is not None:
            read, written = count(chunk.metrics.inputTokenCount), count(chunk.metrics.outputTokenCount)
            events.append(UsageReported(Usage(input_tokens=read, output_tokens=written)))
            self.ended = self._finished

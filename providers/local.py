"""The dialect of our own llama.cpp worker: JSON lines over a local socket. See local_backend/ for the other side.

The local backend imports nothing of ours and we nothing of it; this file and its frames are the contract between them.
"""

from collections.abc import Mapping

import msgspec

from providers.base import NO_HEADERS, Decoder, Endpoint, WireRequest
from providers.errors import (
    BadRequestError,
    ContextLengthError,
    GarbledError,
    OverloadedError,
    ProviderError,
    ServerError,
    TruncatedError,
    UnknownModelError,
    UnsupportedError,
)
from providers.local_lines import ErrorAnswer, Line
from providers.messages import (
    AnswerFailed,
    ChatRequest,
    ChoiceFinished,
    Event,
    Message,
    TextDelta,
    Usage,
    UsageReported,
)
from providers.retry_after import parse_retry_after

_BY_CODE: Mapping[str, type[ProviderError]] = {
    "context_length_exceeded": ContextLengthError,
    "invalid_request": BadRequestError,
    "local_queue_full": OverloadedError,
    "local_queue_deadline": OverloadedError,
    "local_not_ready": OverloadedError,
    "local_unknown_model": UnknownModelError,
    "local_worker_crashed": OverloadedError,  # a 503: it is started again at once
}


_line = msgspec.json.Decoder(Line)
_error_answer = msgspec.json.Decoder(ErrorAnswer)
_encoder = msgspec.json.Encoder()


class Local:
    """Speaks to the worker process on this machine."""

    name = "local"

    def encode(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> WireRequest:
        """The worker's own request.

        Raises:
            UnsupportedError: The request holds images, audio or a tool that must be called.
        """
        if request.tools and request.tool_choice not in (None, "auto", "none"):
            raise UnsupportedError("the local model cannot be made to call a tool", param="tool_choice")
        if request.logit_bias:
            raise UnsupportedError("the local model takes no logit_bias", param="logit_bias")
        wanted = request.response_format
        schema = None
        if wanted is not None and wanted.type in ("json_schema", "json_object"):
            schema = wanted.json_schema.schema if wanted.json_schema is not None else wanted.schema
        last = request.messages[-1]
        stop = request.stop
        body = {
            "model": endpoint.upstream_model,
            "messages": [_turn(message) for message in request.messages],
            "max_tokens": request.output_limit_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "min_p": request.min_p,
            "seed": request.seed,
            "stop": [stop] if isinstance(stop, str) else stop,
            "n": request.n,
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            "repeat_penalty": request.repetition_penalty,
            "logprobs": request.logprobs,
            "top_logprobs": request.top_logprobs,
            "prefill": last.role == "assistant" or None,
            "json_schema": schema,
            "json_object": (wanted is not None and wanted.type == "json_object") or None,
        }
        return WireRequest(
            url=f"local:{endpoint.upstream_model}",
            body=_encoder.encode({name: value for name, value in body.items() if value is not None}),
            stream=stream,
        )

    def decoder(
        self,
        endpoint: Endpoint,  # noqa: ARG002 (part of the seam)
        *,
        stream: bool,
        headers: Mapping[str, str] = NO_HEADERS,  # noqa: ARG002 (part of the seam)
    ) -> Decoder:
        """A fresh decoder; the lines are the same for both ways of asking."""
        return LineDecoder(stream=stream)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, *, now_unix_s: float) -> ProviderError:
        """What the worker, or the client in front of it, refused."""
        try:
            error = _error_answer.decode(body).error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return ServerError(f"the local worker answered {status} without a reason", upstream_status=status)
        kind = _BY_CODE.get(error.code, BadRequestError if status < 500 else ServerError)
        return kind(
            error.message or f"the local worker answered {status} without a reason",
            upstream_status=status,
            upstream_code=error.code or None,
            retry_after_s=parse_retry_after(headers, now_unix_s),
            param=error.param,
        )

    def authorize(self, api_key: str) -> Mapping[str, str]:  # noqa: ARG002 (part of the seam)
        """Nothing: the socket belongs to this user."""
        return {}


def _turn(message: Message) -> dict[str, str]:
    """A message as the worker takes it: a role and one text."""
    content = message.content
    if content is None:
        text = ""
    elif isinstance(content, str):
        text = content
    else:
        for part in content:
            if part.type not in ("text", "refusal"):
                raise UnsupportedError(f"the local model reads text only, not {part.type}", param="messages")
        text = "\n\n".join(part.text or part.refusal or "" for part in content)
    return {"role": "system" if message.role == "developer" else message.role, "content": text}


class LineDecoder:
    """Reads the worker's JSON lines."""

    __slots__ = ("_failed", "_open", "_rest", "_stream", "ended", "skipped_chunks")

    def __init__(self, *, stream: bool) -> None:
        self.ended = False
        self._stream = stream
        self._rest = b""
        self._open: dict[int, bool] = {}
        self._failed = False
        self.skipped_chunks = 0

    def feed(self, data: bytes) -> list[Event]:
        """Events of the lines that these bytes complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [self._event(line) for line in lines if not self._failed]

    def finish(self) -> list[Event]:
        """The worker closed the answer.

        With a choice that has not finished it was cut, and so was a whole answer without its usage line: whoever waits
        for all of it loses nothing by asking again.
        """
        if self._failed or (self._open and not any(self._open.values()) and (self.ended or self._stream)):
            return []
        self._failed = True
        return [AnswerFailed(TruncatedError("the local worker stopped in the middle of the answer"))]

    def _event(self, raw: bytes) -> Event:
        try:
            line = _line.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._failed = True
            return AnswerFailed(GarbledError("the local worker sent a line that is not its own protocol"))
        if line.t == "text":
            self._open.setdefault(line.choice, True)
            return TextDelta(line.text, line.choice, line.logprobs)
        if line.t == "finish":
            self._open[line.choice] = False
            return ChoiceFinished(line.reason, line.choice, line.reason)
        if line.t == "usage":
            self.ended = True  # it is the last line of a good answer
            return UsageReported(
                Usage(
                    input_tokens=line.input_tokens,
                    output_tokens=line.output_tokens,
                    cached_input_tokens=line.cached_input_tokens,
                )
            )
        self._failed = True
        kind = _BY_CODE.get(line.code, ServerError)
        return AnswerFailed(
            kind(
                line.message,
                upstream_status=line.status,
                upstream_code=line.code,
                retry_after_s=line.retry_after_s,
            )
        )

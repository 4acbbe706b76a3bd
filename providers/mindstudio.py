"""MindStudio: one text in, one text out, through its `generateText` step. No dialogue, no stream, no token counts.

The form in which a dialogue becomes one text: system messages go into `preamble`, joined by an empty line. A single
user message is sent as it is. Of several turns each becomes `User: ...`, `Assistant: ...` or `Tool result: ...`, with
an empty line between them and `Assistant:` at the end; a last assistant turn stays open, to be gone on with. The answer
is one delta. Its billing header counts credits, not US dollars, so no cost is taken from it.
`reference/providers.md` section 1.7 says what is known; the vendor publishes a client, but no reference of this API.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from providers.base import NO_HEADERS, Adaptation, Decoder, Endpoint, WireRequest
from providers.error_bodies import kind_of_status, no_answer, read_json, words_for
from providers.errors import (
    AnswerElsewhereError,
    BadRequestError,
    CredentialsError,
    GarbledError,
    ProviderError,
    RateLimitedError,
    ServerError,
    UnsupportedError,
)
from providers.json_values import members
from providers.messages import (
    AnswerFailed,
    AnswerStarted,
    ChatRequest,
    ChoiceFinished,
    Event,
    Message,
    TextDelta,
)
from providers.retry_after import parse_retry_after

TEMPERATURE_MAX: Final = 1.0
TEMPERATURE_DEFAULT: Final = 0.7
"""A model's settings replace the step's as a whole, so a temperature always goes along."""
OUTPUT_DEFAULT_TOKENS: Final = 2500
"""The longest answer of its Mixtral, for a row that does not say."""

_HEADERS = {"content-type": "application/json", "accept": "application/json"}
_SPEAKERS = {"user": "User", "assistant": "Assistant", "tool": "Tool result", "function": "Tool result"}
_encoder = msgspec.json.Encoder()
_IDLE: Mapping[str, tuple[Any, ...]] = {
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "top_a": (0,),
    "stop": ((), ""),
    "seed": (),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "parallel_tool_calls": (True, False),
    "reasoning": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "modalities": (["text"], []),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "metadata": ({},),
    "user": (),
    "safety_identifier": (),
    "prompt_cache_key": (),
    "cache_control": (),
    "plugins": ([],),
    "transforms": ([],),
}
"""What the step has no setting for, and the values under which leaving it out changes nothing."""

_BY_CODE: Mapping[str, type[ProviderError]] = {
    "invalid_step_config": BadRequestError,
    "invalid_api_key": CredentialsError,
    "insufficient_credits": CredentialsError,
    "rate_limit_exceeded": RateLimitedError,
}


class MindStudio:
    """Speaks to MindStudio's direct execution of steps."""

    name = "mindstudio"

    def encode(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> WireRequest:  # noqa: ARG002
        """The request as one step. It is never sent as a stream: the one text comes whole.

        Raises:
            UnsupportedError: It wants tools, several choices, a schema, or something read that is not text.
        """
        _refuse_unsayable(request)
        adapted = [
            Adaptation(name, "dropped", "a MindStudio step has no such setting")
            for name, idle in _IDLE.items()
            if (value := getattr(request, name)) is not None and value not in idle
        ]
        adapted += [Adaptation(name, "dropped", "nobody here knows it") for name in _unknown(request)]
        preamble, message = _flatten(request.messages, adapted)
        step: dict[str, Any] = {
            "message": message,
            "source": "user",
            "modelOverride": {
                "model": endpoint.upstream_model,
                "temperature": _temperature(request, adapted),
                "maxResponseTokens": _limit(request, endpoint, adapted),
                "preamble": preamble,
                "ignorePreamble": not preamble,
            },
            "structuredOutputType": "text",
            "chatHistoryMode": "exclude",
        }
        if request.response_format is not None and request.response_format.type == "json_object":
            step["structuredOutputType"] = "json"
        return WireRequest(
            url=f"{endpoint.base_url}/steps/generateText/execute",
            body=_encoder.encode({"step": step}),
            headers=_HEADERS,
            adapted=tuple(adapted),
        )

    def decoder(
        self,
        endpoint: Endpoint,  # noqa: ARG002 (part of the seam)
        *,
        stream: bool,  # noqa: ARG002 (a streamed request gets the same one text)
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Decoder:
        """A fresh decoder for one answer, whole in any case."""
        return StepDecoder(headers.get("x-mindstudio-thread-id"))

    def error(self, status: int, headers: Mapping[str, str], body: bytes, *, now_unix_s: float) -> ProviderError:
        """What a non-2xx answer means: `{"code", "message"}`."""
        said = members(read_json(body))
        said = members(said.get("error")) or said
        code = said.get("code") if isinstance(said.get("code"), str) else None
        message = said.get("message")
        kind = _BY_CODE.get(code or "") or kind_of_status(status)
        return kind(
            words_for(status, message if isinstance(message, str) else "", body, kind),
            upstream_status=status,
            upstream_code=code,
            request_id=headers.get("x-request-id"),
            retry_after_s=parse_retry_after(headers, now_unix_s),
        )

    def authorize(self, api_key: str) -> Mapping[str, str]:
        """A bearer token."""
        return {"authorization": f"Bearer {api_key}"}


def _refuse_unsayable(request: ChatRequest) -> None:
    if (request.tools and request.tool_choice != "none") or request.functions:
        raise UnsupportedError("MindStudio's models call no tools", param="tools" if request.tools else "functions")
    if request.n is not None and request.n > 1:
        raise UnsupportedError("MindStudio gives one answer, not several", param="n")
    wanted = request.response_format
    if wanted is not None and (wanted.type not in ("text", "json_object") or wanted.schema is not None):
        raise UnsupportedError(f"MindStudio cannot be held to {wanted.type}", param="response_format")


def _unknown(request: ChatRequest) -> list[str]:
    return [name for name in members(request.extra) if name != "stream_options"]


def _temperature(request: ChatRequest, adapted: list[Adaptation]) -> float:
    temperature = TEMPERATURE_DEFAULT if request.temperature is None else request.temperature
    if temperature > TEMPERATURE_MAX:
        adapted.append(Adaptation("temperature", "clamped", f"to {TEMPERATURE_MAX}"))
        return TEMPERATURE_MAX
    return temperature


def _limit(request: ChatRequest, endpoint: Endpoint, adapted: list[Adaptation]) -> int:
    most = endpoint.max_output_tokens or OUTPUT_DEFAULT_TOKENS
    asked = request.output_limit_tokens
    if asked is None or asked <= most:
        return asked or most
    name = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    adapted.append(Adaptation(name, "clamped", f"to {most}, the longest answer there"))
    return most


def _flatten(messages: tuple[Message, ...], adapted: list[Adaptation]) -> tuple[str, str]:
    """System text and the rest of the dialogue, each as one text."""
    preamble: list[str] = []
    turns: list[tuple[str, str]] = []
    for position, message in enumerate(messages):
        text = _text(message, f"messages[{position}]")
        if message.role in ("system", "developer"):
            preamble.append(text)
        else:
            turns.append((_SPEAKERS[message.role], text))
        if message.name and message.role in ("system", "developer", "user", "assistant"):
            adapted.append(Adaptation(f"messages[{position}].name", "dropped", "turns have no names there"))
    if not turns:
        raise UnsupportedError("MindStudio needs a message besides the system text", param="messages")
    if len(turns) == 1 and turns[0][0] == "User":
        return "\n\n".join(preamble), turns[0][1]
    adapted.append(
        Adaptation("messages", "folded", "the dialogue goes as one text, each turn after its speaker's name")
    )
    texts = [f"{speaker}: {text}" if text else f"{speaker}:" for speaker, text in turns]
    if turns[-1][0] != "Assistant":
        texts.append("Assistant:")
    return "\n\n".join(preamble), "\n\n".join(texts)


def _text(message: Message, path: str) -> str:
    content = message.content
    parts: list[str] = []
    if isinstance(content, str):
        parts.append(content)
    for place, part in enumerate(content if isinstance(content, tuple) else ()):
        if part.type not in ("text", "refusal"):
            raise UnsupportedError(f"MindStudio reads text only, not {part.type}", param=f"{path}.content[{place}]")
        parts.append(part.text or part.refusal or "")
    if message.refusal:
        parts.append(message.refusal)
    calls = [call.function for call in message.tool_calls or ()] + [message.function_call]
    parts += [f"(calls {call.name} with {call.arguments or '{}'})" for call in calls if call is not None]
    return "\n".join(parts)


class _Answer(Struct, gc=False):
    output: Any = None
    value: Any = None
    """The same as `output`, in an answer that was left at a URL."""
    outputUrl: str | None = None  # noqa: N815 (the vendor's name)


_answer = msgspec.json.Decoder(_Answer)


class StepDecoder:
    """Reads the one JSON answer of a step."""

    skipped_chunks = 0

    def __init__(self, thread_id: str | None = None) -> None:
        self.ended = False
        self._thread_id = thread_id
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[Event]:
        """Keep the bytes; a JSON text means nothing before its end."""
        self._parts.append(data)
        return []

    def finish(self) -> list[Event]:
        """The answer as one text, or where it was left."""
        body = b"".join(self._parts)
        try:
            answer = _answer.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return [AnswerFailed(GarbledError(no_answer(body, "a step result")))]
        output = members(answer.value if answer.output is None else answer.output)
        text = output.get("content")
        if isinstance(text, dict | list):  # JSON was asked for, and comes parsed
            text = _encoder.encode(text).decode()
        if isinstance(text, str):
            self.ended = True
            return [AnswerStarted(self._thread_id), TextDelta(text), ChoiceFinished("stop")]
        if answer.outputUrl is not None and answer.output is None and answer.value is None:
            return [AnswerFailed(AnswerElsewhereError(answer.outputUrl))]
        return [AnswerFailed(_nothing(body))]


def _nothing(body: bytes) -> ProviderError:
    said = members(read_json(body))
    if "error" in said or "code" in said:  # in an answer of 200 its words may be about anything, so they stay here
        return ServerError("the provider reported an error inside its answer")
    return ServerError("the provider answered 200 with no text in it")

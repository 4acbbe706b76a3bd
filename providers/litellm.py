"""The dialect of the litellm library, for vendors that nothing else here speaks: OpenAI's words, a closed list of them.

The library reads many more arguments than a client may choose (keys, hosts, files, callbacks), and fetches images by
their URL, so that only what is named here reaches it. Carried by providers/litellm_transport.py.
https://docs.litellm.ai/docs/completion/input
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from providers.base import NO_HEADERS, Adaptation, Decoder, Endpoint, WireRequest
from providers.errors import ProviderError, UnsupportedError
from providers.json_values import members
from providers.messages import ChatRequest, Message, Part, Tool
from providers.openai_decoder import BodyDecoder, StreamDecoder
from providers.openai_errors import classify

SCHEME: Final = "litellm:"
"""What a request's URL begins with; the vendor's base URL follows where one is configured."""

PARAMETERS: Final = (
    "n",
    "stop",
    "seed",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "response_format",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "reasoning_effort",
    "user",
)
"""Members of a request that are handed over as they are."""
SENT: Final = frozenset({*PARAMETERS, "model", "messages", "max_tokens", "tools", "stream", "stream_options"})
"""Everything that a body may hold."""

_OURS: Final = frozenset({"models", "provider", "route", "transforms", "usage", "session_id", "trace", "debug"})
"""Spent on routing and accounting here: not the provider's to know."""
_LIMITS: Final = frozenset({"max_tokens", "max_completion_tokens"})
_MESSAGE: Final = ("role", "content", "name", "tool_calls", "tool_call_id", "function_call", "cache_control", "prefix")

_encoder = msgspec.json.Encoder()


class Litellm:
    """Speaks to whatever the library knows; the model's id says whom, as in `vertex_ai/gemini-2.5-pro`."""

    name = "litellm"

    def encode(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> WireRequest:
        """The call's arguments as JSON.

        Raises:
            UnsupportedError: The request has the library fetch something, or has a tool that is no function.
        """
        body: dict[str, Any] = {
            "model": endpoint.upstream_model,
            "messages": [
                _message(message, f"messages[{position}]") for position, message in enumerate(request.messages)
            ],
            "max_tokens": request.output_limit_tokens,
            "tools": None if request.tools is None else [_tool(tool) for tool in request.tools],
            "stream": stream or None,
            "stream_options": {"include_usage": True} if stream else None,
            **{name: getattr(request, name) for name in PARAMETERS},
        }
        return WireRequest(
            url=f"{SCHEME}{endpoint.base_url}",
            body=_encoder.encode({name: value for name, value in body.items() if value is not None}),
            stream=stream,
            adapted=tuple(_dropped(request)),
        )

    def decoder(
        self,
        endpoint: Endpoint,  # noqa: ARG002 (part of the seam)
        *,
        stream: bool,
        headers: Mapping[str, str] = NO_HEADERS,  # noqa: ARG002 (part of the seam)
    ) -> Decoder:
        """OpenAI's: the transport writes the library's answers as OpenAI would."""
        return StreamDecoder() if stream else BodyDecoder()

    def error(self, status: int, headers: Mapping[str, str], body: bytes, *, now_unix_s: float) -> ProviderError:
        """OpenAI's table: the transport writes the library's exceptions as OpenAI would."""
        return classify(status, headers, body, now_unix_s)

    def authorize(self, api_key: str) -> Mapping[str, str]:
        """The header that the transport takes the key from."""
        return {"authorization": f"Bearer {api_key}"}


def _dropped(request: ChatRequest) -> list[Adaptation]:
    known = {*PARAMETERS, *_OURS, *_LIMITS, "model", "messages", "tools", "stream", "stream_options", "extra"}
    detail = "not among what the litellm library is given"
    names = [
        name for name in request.__struct_fields__ if name not in known and getattr(request, name) not in (None, "")
    ]
    return [Adaptation(name, "dropped", detail) for name in (*names, *(request.extra or {}))]


def _message(message: Message, place: str) -> dict[str, Any]:
    turn: dict[str, Any] = {name: getattr(message, name) for name in _MESSAGE}
    turn["role"] = "system" if message.role == "developer" else message.role
    if isinstance(message.content, tuple):
        turn["content"] = [_part(part, place) for part in message.content]
    return {name: value for name, value in turn.items() if value is not None or name == "content"}


def _part(part: Part, place: str) -> dict[str, Any]:
    """A part of a message whose content is all there: nothing is fetched for a client."""
    kept: dict[str, Any] = {"type": part.type, "cache_control": part.cache_control}
    if part.type == "text":
        kept["text"] = part.text or ""
    elif part.type == "refusal":
        kept |= {"type": "text", "text": part.refusal or ""}
    elif part.type == "image_url":
        image = {"url": part.image_url} if isinstance(part.image_url, str) else members(part.image_url)
        kept["image_url"] = {"url": _inline(image.get("url"), place), "detail": _word(image.get("detail"))}
    elif part.type == "input_audio":
        sound = members(part.input_audio)
        kept["input_audio"] = {"data": _base64(sound.get("data"), place), "format": _word(sound.get("format"))}
    elif part.type == "file":
        file = members(part.file)
        kept["file"] = {"file_data": _inline(file.get("file_data"), place), "filename": _word(file.get("filename"))}
    else:
        raise UnsupportedError(f"content of type {part.type} cannot be sent there", param=place)
    return _written(kept)


def _tool(tool: Tool) -> dict[str, Any]:
    if tool.type != "function" or tool.function is None:
        raise UnsupportedError(f"tools of type {tool.type} cannot be sent there", param="tools")
    return _written({"type": "function", "function": tool.function, "cache_control": tool.cache_control})


def _inline(url: object, place: str) -> str:
    if not isinstance(url, str) or not url.startswith("data:"):
        raise UnsupportedError("images and files are sent there as data: URLs only, nothing is fetched", param=place)
    return url


def _base64(data: object, place: str) -> str:
    if not isinstance(data, str) or ":" in data:
        raise UnsupportedError("audio is sent there as base64 only", param=place)
    return data


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and "/" not in value else None


def _written(members_of: dict[str, Any]) -> dict[str, Any]:
    """Without what was not given, one level down too."""
    return {name: _bare(value) for name, value in members_of.items() if value is not None}


def _bare(value: Any) -> Any:
    inner = members(value)
    return {key: item for key, item in inner.items() if item is not None} if inner else value

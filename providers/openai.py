"""The OpenAI chat-completions dialect: vLLM, Ollama, LM Studio, llama-server, Groq and every other compatible server.

https://platform.openai.com/docs/api-reference/chat; `reference/providers.md` section 1.1 says what else was seen.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from providers.base import NO_HEADERS, Decoder, Endpoint, WireRequest
from providers.errors import ProviderError
from providers.messages import ChatRequest, Message, StreamOptions, merge_extra
from providers.openai_decoder import BodyDecoder, StreamDecoder
from providers.openai_errors import classify
from providers.tokens import output_limit

_encoder: Final = msgspec.json.Encoder()


class OpenAi:
    """Speaks to any server with a `/chat/completions`."""

    name = "openai"

    def encode(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> WireRequest:
        """The request as this server takes it: its own model id, our own routing members left out."""
        quirks = endpoint.quirks
        limit = output_limit(request)
        newer = quirks.output_limit_field == "max_completion_tokens"
        body = replace(
            _without_routing(request, keep=quirks.router_fields),
            model=endpoint.upstream_model,
            messages=request.messages if quirks.developer_role else _without_developer(request.messages),
            stream=True if stream else None,
            stream_options=StreamOptions(include_usage=True) if stream and quirks.stream_usage else None,
            max_tokens=None if newer else limit,
            max_completion_tokens=limit if newer else None,
        )
        return WireRequest(
            url=f"{endpoint.base_url}/chat/completions",
            body=_body(body, request.extra if quirks.unknown_fields else None),
            headers=_HEADERS,
            stream=stream,
        )

    def decoder(
        self,
        endpoint: Endpoint,  # noqa: ARG002 (part of the seam)
        *,
        stream: bool,
        headers: Mapping[str, str] = NO_HEADERS,  # noqa: ARG002 (part of the seam)
    ) -> Decoder:
        """A fresh decoder for one answer."""
        return StreamDecoder() if stream else BodyDecoder()

    def error(self, status: int, headers: Mapping[str, str], body: bytes, *, now_unix_s: float) -> ProviderError:
        """What a non-2xx answer means."""
        return classify(status, headers, body, now_unix_s)

    def authorize(self, api_key: str) -> Mapping[str, str]:
        """A bearer token."""
        return {"authorization": f"Bearer {api_key}"}


_HEADERS: Final = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


def _without_routing(request: ChatRequest, *, keep: bool) -> ChatRequest:
    """The request without what is meant for a router: for us, or with `keep` for another one behind us.

    Most say nothing of the kind, and looking costs a fraction of writing them anew.
    """
    if (
        request.models is None
        and request.provider is None
        and request.plugins is None
        and request.transforms is None
        and request.route is None
        and request.usage is None
        and request.session_id is None
        and request.trace is None
        and request.debug is None
        and request.extra is None
    ):
        return request
    return replace(
        request,
        models=request.models if keep else None,
        provider=request.provider if keep else None,
        plugins=request.plugins if keep else None,
        session_id=request.session_id if keep else None,
        trace=request.trace if keep else None,
        transforms=None,
        route=None,
        usage=None,
        debug=None,
        extra=None,
    )


def _without_developer(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    for message in messages:
        if message.role == "developer":
            break
    else:
        return messages
    return tuple(replace(message, role="system") if message.role == "developer" else message for message in messages)


def _body(request: ChatRequest, extra: Mapping[str, Any] | None) -> bytes:
    if not extra:
        return _encoder.encode(request)
    if request.stream_options is None and "stream_options" in extra:  # servers refuse it where nothing is streamed
        extra = {name: value for name, value in extra.items() if name != "stream_options"}
    builtins = msgspec.to_builtins(request)
    merge_extra(builtins, extra)
    return _encoder.encode(builtins)

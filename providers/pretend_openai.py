"""How servers with OpenAI's chat completions talk, and those that differ from them in an error's form only."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from providers.json_values import elements, members
from providers.pretence import EVENT_HEADERS, JSON_HEADERS, Reply, Said, SaidCall, Spoken, Trouble

DONE: Final = b"data: [DONE]\n\n"
_encoder = msgspec.json.Encoder()

Error = tuple[int, Mapping[str, Any]]
"""A status, and the body."""


def _error(status: int, message: str, code: str | None, kind: str = "invalid_request_error") -> Error:
    return status, {"error": {"message": message, "type": kind, "param": None, "code": code}}


OPENAI_ERRORS: Final[Mapping[Trouble, Error]] = {
    "rate_limit": _error(429, "Rate limit reached for requests", "rate_limit_exceeded", "requests"),
    "server": _error(500, "The server had an error while processing your request", None, "server_error"),
    "overloaded": _error(503, "The engine is currently overloaded, please try again later", None, "server_error"),
    "context": _error(
        400, "This model's maximum context length is 32 tokens, however you requested 40", "context_length_exceeded"
    ),
    "policy": _error(400, "Your request was rejected by our content policy", "content_policy_violation"),
    "prefill": _error(400, "The last message must not be from the assistant", "invalid_value"),
}


def _router_error(status: int, message: str) -> Error:
    return status, {"error": {"message": message, "code": status, "metadata": {"provider_name": "Pretended"}}}


OPENROUTER_ERRORS: Final[Mapping[Trouble, Error]] = {
    "rate_limit": _router_error(429, "Provider returned error"),
    "server": _router_error(500, "Internal Server Error"),
    "overloaded": _router_error(503, "No instances available"),
    "context": _router_error(400, "This endpoint's maximum context length is 32 tokens. However, you requested 40"),
    "policy": _router_error(403, "Your input was flagged by moderation"),
    "prefill": _router_error(400, "The last message must not be from the assistant"),
}


def _mistral_error(status: int, message: str, kind: str, code: str) -> Error:
    return status, {"object": "error", "message": message, "type": kind, "param": None, "code": code}


MISTRAL_ERRORS: Final[Mapping[Trouble, Error]] = {
    "rate_limit": _mistral_error(429, "Rate limit exceeded", "rate_limited", "1300"),
    "server": _mistral_error(500, "Internal server error", "internal_server_error", "3000"),
    "overloaded": _mistral_error(503, "Service unavailable", "service_unavailable", "3505"),
    "context": _mistral_error(
        400,
        "Prompt contains 40 tokens and 0 draft tokens, too large for model with 32 maximum context length",
        "invalid_request_invalid_args",
        "3051",
    ),
    "policy": _mistral_error(403, "The request was blocked by a moderation guardrail", "guardrail", "1900"),
    "prefill": _mistral_error(
        400,
        "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant",
        "invalid_request_message_order",
        "3230",
    ),
}


class PretendedOpenAi:
    """A server with `/chat/completions`.

    Args:
        errors: How it puts what went wrong.
    """

    streams = True
    counts = True

    def __init__(self, errors: Mapping[Trouble, Error] = OPENAI_ERRORS) -> None:
        self._errors = errors

    def whole(self, said: Said) -> Reply:
        """One `chat.completion`."""
        message: dict[str, Any] = {"role": "assistant", "content": "".join(said.pieces) or None}
        if said.calls:
            message["tool_calls"] = [_call(call) for call in said.calls]
        choice = {"index": 0, "message": message, "finish_reason": said.reason}
        body = {**_head(said, "chat.completion"), "choices": [choice], "usage": _usage(said)}
        return Reply(200, JSON_HEADERS, _encoder.encode(body))

    def stream(self, said: Said) -> Spoken:
        """Chunks: the role, the text, calls, the reason, the usage."""
        calls = [{"index": place, **_call(call)} for place, call in enumerate(said.calls)]
        return Spoken(
            headers=EVENT_HEADERS,
            opening=_chunk(said, {"role": "assistant", "content": ""}),
            pieces=tuple(_chunk(said, {"content": piece}) for piece in said.pieces),
            closing=(_chunk(said, {"tool_calls": calls}) if calls else b"")
            + _chunk(said, {}, said.reason)
            + _event({**_head(said, "chat.completion.chunk"), "choices": [], "usage": _usage(said)}),
            end=DONE,
        )

    def refuse(self, trouble: Trouble) -> Reply | None:
        """An error's status and body."""
        status, body = self._errors[trouble]
        return Reply(status, JSON_HEADERS, _encoder.encode(body))

    def fail_inside(self, *, stream: bool) -> bytes:
        """An `error` where the choices should be."""
        body = {"error": {"message": "Provider returned error", "code": 502, "type": "server_error"}}
        return _event(body) + DONE if stream else _encoder.encode(body)

    def garble(self) -> bytes | None:
        """A chunk whose JSON stops in the middle."""
        return b'data: {"id":"pretended","choices":[{"index":0,"delta":{"conte\n\n'

    def prefill(self, body: bytes) -> str:
        """The content of a last message of the assistant's."""
        return last_assistant_text(body)


def last_assistant_text(body: bytes) -> str:
    """The text of the last of a request's `messages`, if it is the assistant's."""
    messages = elements(members(msgspec.json.decode(body)).get("messages"))
    last = members(messages[-1]) if messages else {}
    if last.get("role") != "assistant":
        return ""
    content = last.get("content")
    if isinstance(content, str):
        return content
    return "".join(str(members(part).get("text", "")) for part in elements(content))


def _head(said: Said, kind: str) -> dict[str, Any]:
    return {"id": "pretended", "object": kind, "created": 1, "model": said.model}


def _usage(said: Said) -> dict[str, int]:
    return {
        "prompt_tokens": said.input_tokens,
        "completion_tokens": said.output_tokens,
        "total_tokens": said.input_tokens + said.output_tokens,
    }


def _call(call: SaidCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _chunk(said: Said, delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return _event({**_head(said, "chat.completion.chunk"), "choices": [choice]})


def _event(body: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % _encoder.encode(body)

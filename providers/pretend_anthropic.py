"""How Anthropic's Messages API talks. https://platform.claude.com/docs/en/build-with-claude/streaming."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from providers.messages import FinishReason
from providers.pretence import EVENT_HEADERS, JSON_HEADERS, Reply, Said, Spoken, Trouble
from providers.pretend_openai import last_assistant_text

_encoder = msgspec.json.Encoder()
_REASONS: Final[Mapping[FinishReason, str]] = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_ERRORS: Final[Mapping[Trouble, tuple[int, str, str]]] = {
    "rate_limit": (429, "rate_limit_error", "This request would exceed your organization's rate limit"),
    "server": (500, "api_error", "Internal server error"),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "context": (400, "invalid_request_error", "prompt is too long: 40 tokens > 32 maximum"),
    "policy": (400, "invalid_request_error", "Output blocked by content filtering policy"),
    "prefill": (
        400,
        "invalid_request_error",
        "This model does not support assistant message prefill. The conversation must end with a user message.",
    ),
}


class PretendedAnthropic:
    """A server with `/messages`."""

    streams = True
    counts = True

    def whole(self, said: Said) -> Reply:
        """One Message."""
        content: list[dict[str, Any]] = [{"type": "text", "text": "".join(said.pieces)}] if said.pieces else []
        for call in said.calls:
            arguments: Any = msgspec.json.decode(call.arguments)
            content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": arguments})
        usage = {"input_tokens": said.input_tokens, "output_tokens": said.output_tokens}
        body = {**_head(said, content), "stop_reason": _REASONS.get(said.reason, "end_turn"), "usage": usage}
        return Reply(200, JSON_HEADERS, _encoder.encode(body))

    def stream(self, said: Said) -> Spoken:
        """Events: the message's start, a block of text, blocks of calls, the message's end."""
        start = {**_head(said, []), "stop_reason": None, "usage": {"input_tokens": said.input_tokens}}
        opening = _event("message_start", message=start) + _event("ping")
        closing: list[bytes] = []
        if said.pieces:
            opening += _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            closing.append(_event("content_block_stop", index=0))
        for place, call in enumerate(said.calls, len(closing)):
            block: dict[str, Any] = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": call.arguments}
            closing.append(_event("content_block_start", index=place, content_block=block))
            closing.append(_event("content_block_delta", index=place, delta=delta))
            closing.append(_event("content_block_stop", index=place))
        stopped = {"stop_reason": _REASONS.get(said.reason, "end_turn"), "stop_sequence": None}
        closing.append(_event("message_delta", delta=stopped, usage={"output_tokens": said.output_tokens}))
        return Spoken(
            headers=EVENT_HEADERS,
            opening=opening,
            pieces=tuple(
                _event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
                for piece in said.pieces
            ),
            closing=b"".join(closing),
            end=_event("message_stop"),
        )

    def refuse(self, trouble: Trouble) -> Reply | None:
        """An error's status and body."""
        status, kind, message = _ERRORS[trouble]
        return Reply(status, JSON_HEADERS, _encoder.encode(_error(kind, message)))

    def fail_inside(self, *, stream: bool) -> bytes:
        """An `error` event, or a body that is one."""
        body = _error("overloaded_error", "Overloaded")
        return b"event: error\ndata: %b\n\n" % _encoder.encode(body) if stream else _encoder.encode(body)

    def garble(self) -> bytes | None:
        """An event whose JSON stops in the middle."""
        return b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"del\n\n'

    def prefill(self, body: bytes) -> str:
        """The content of a last message of the assistant's."""
        return last_assistant_text(body)


def _head(said: Said, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "msg_pretended", "type": "message", "role": "assistant", "model": said.model, "content": content}


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_pretended"}


def _event(kind: str, **members: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encoder.encode({"type": kind, **members}))

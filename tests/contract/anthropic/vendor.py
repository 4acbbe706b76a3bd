"""Anthropic's own SDK as the judge: what it reads in an answer, and whether its types know a request."""

import json
from typing import Any

import httpx2
from anthropic._models import construct_type
from anthropic._streaming import SSEDecoder
from anthropic.lib.streaming._beta_messages import accumulate_event as accumulate_beta
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent
from anthropic.types.beta.message_create_params import MessageCreateParamsNonStreaming as BetaWhole
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming as Whole
from anthropic.types.message_create_params import MessageCreateParamsStreaming as Streaming
from pydantic import TypeAdapter

STOP_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "length",
}
SAMPLING = ("temperature", "top_p", "top_k")
"""Not in the types any more: the SDK speaks the version that refuses them. Checked by range instead."""

_message = {False: Message, True: BetaMessage}
_event = {False: RawMessageStreamEvent, True: BetaRawMessageStreamEvent}
_whole = {False: TypeAdapter(Whole), True: TypeAdapter(BetaWhole)}
_streaming = TypeAdapter(Streaming)


def read_whole(body: bytes, *, beta: bool) -> Any:
    """A whole answer as the SDK's Message, made as its client makes it: older answers lack members of newer types."""
    return construct_type(type_=_message[beta], value=json.loads(body))


def read_stream(body: bytes, *, beta: bool) -> Any:
    """A stream as the SDK's accumulated Message: its own parser, its own types, its own rule for joining."""
    message, pieces = None, {}
    for sse in SSEDecoder().iter_bytes(iter([body])):
        if sse.event in (None, "ping") or not sse.data:
            continue
        event = construct_type(type_=_event[beta], value=json.loads(sse.data))
        if beta:
            message = accumulate_beta(
                event=event, current_snapshot=message, json_bufs=pieces, request_headers=httpx2.Headers()
            )
        else:
            message = accumulate_event(event=event, current_snapshot=message, json_bufs=pieces)
    return message


def meaning(message: Any) -> dict[str, Any]:
    """What of a Message a chat completion can say."""
    of_type: dict[str, list[Any]] = {}
    for block in message.content:
        of_type.setdefault(block.type, []).append(block)
    used = message.usage
    cached, written = used.cache_read_input_tokens, used.cache_creation_input_tokens
    details = used.output_tokens_details
    return {
        "id": message.id,
        "model": message.model,
        "text": "".join(block.text for block in of_type.get("text", ())),
        "reasoning": "".join(block.thinking for block in of_type.get("thinking", ())),
        "blocks": [
            {"type": "thinking", "thinking": block.thinking, "signature": block.signature}
            if block.type == "thinking"
            else {"type": "redacted_thinking", "data": block.data}
            for block in message.content
            if block.type in ("thinking", "redacted_thinking")
        ],
        "calls": [(block.id, block.name, block.input) for block in of_type.get("tool_use", ())],
        "finish": STOP_REASONS[message.stop_reason],
        "native": message.stop_reason,
        "usage": (
            used.input_tokens + (cached or 0) + (written or 0),
            used.output_tokens,
            cached,
            written,
            None if details is None else details.thinking_tokens,
        ),
    }


def check_request(body: dict[str, Any], *, beta: bool = False) -> None:
    """Fails unless the SDK's types know every member of this request and every value is one of theirs."""
    known = {name: value for name, value in body.items() if name not in SAMPLING}
    if tools := known.get("tools"):
        assert all(tool.get("input_schema", {"type": "object"})["type"] == "object" for tool in tools)
        # A schema is the client's own; the types name three of its members and would lose the rest.
        known["tools"] = [
            {**tool, "input_schema": {"type": "object"}} if "input_schema" in tool else tool for tool in tools
        ]
    adapter = _streaming if body.get("stream") and not beta else _whole[beta]
    if beta:
        known.pop("stream", None)
    # The types are lazy about lists and silent about members that they do not know: what they read must be all of it.
    assert _all_of(adapter.validate_python(known)) == known
    assert 0 <= body.get("temperature", 0) <= 1
    assert 0 <= body.get("top_p", 0) <= 1
    assert body.get("top_k", 1) >= 1


def _all_of(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _all_of(inner) for key, inner in value.items()}
    if isinstance(value, str | int | float | None):
        return value
    return [_all_of(inner) for inner in value]


def pieces(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def raw_body(response: dict[str, Any]) -> bytes:
    """A recorded answer's bytes. Whole ones were kept parsed."""
    body = response["body"]
    return body["text"].encode() if "text" in body else json.dumps(body["json"], ensure_ascii=False).encode()

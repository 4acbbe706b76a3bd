"""One streamed answer in every dialect's own bytes, and the request it answers: what the codecs are timed with."""

import base64
import json
import struct
from binascii import crc32
from typing import Any

PIECES = tuple(f" word{n}" for n in range(200))
HEAD = {"id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "up"}
SYSTEM = "You are a careful assistant that answers questions about logistics. " * 4
QUESTION = "Please explain how a warehouse schedules its trucks on a busy day, in detail and with numbers. " * 2


def request_body() -> bytes:
    """A chat request of 20 messages with the usual settings."""
    turns = [{"role": "assistant" if n % 2 else "user", "content": QUESTION} for n in range(19)]
    body = {
        "model": "m",
        "messages": [{"role": "system", "content": SYSTEM}, *turns],
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 256,
        "stop": ["END"],
        "stream": True,
    }
    return json.dumps(body).encode()


def streams() -> dict[str, list[bytes]]:
    """The chunks of text of one answer, as each comes from the network, by dialect. The last ones end it."""
    converse = [
        _event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": p}, "p": "abcd"}) for p in PIECES
    ]
    invoke = [_event("chunk", {"bytes": _base64({"outputs": [{"text": p, "stop_reason": None}]})}) for p in PIECES]
    compatible = [_sse({**HEAD, "choices": [_choice({"content": piece})]}) for piece in PIECES]
    deltas = [{"type": "text_delta", "text": piece} for piece in PIECES]
    return {
        "openai": compatible,
        "openrouter": [
            _sse({**HEAD, "provider": "Some", "choices": [{**_choice({"role": "assistant", "content": piece})}]})
            for piece in PIECES
        ],
        "mistral": compatible,
        "anthropic": [
            _sse({"type": "content_block_delta", "index": 0, "delta": delta}, name="content_block_delta")
            for delta in deltas
        ],
        "bedrock_converse": converse,
        "bedrock_invoke": invoke,
        "local": [json.dumps({"t": "text", "choice": 0, "text": piece}).encode() + b"\n" for piece in PIECES],
    }


def openings() -> dict[str, bytes]:
    """What must come before the text, where a dialect wants that. Not timed."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "up", "content": [], "stop_reason": None}
    start = {"type": "message_start", "message": {**message, "usage": {"input_tokens": 4, "output_tokens": 1}}}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    return {
        "anthropic": _sse(start, name="message_start") + _sse(block, name="content_block_start"),
        "bedrock_converse": _event("messageStart", {"role": "assistant", "p": "abcd"}),
    }


def _choice(delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}


def _sse(payload: dict[str, Any], name: str = "") -> bytes:
    lead = f"event: {name}\n" if name else ""
    return f"{lead}data: {json.dumps(payload)}\n\n".encode()


def _base64(payload: dict[str, Any]) -> str:
    return base64.b64encode(json.dumps(payload).encode()).decode()


def _event(kind: str, payload: dict[str, Any]) -> bytes:
    """One message of Amazon's event stream."""
    headers = b""
    for name, value in ((":event-type", kind), (":content-type", "application/json"), (":message-type", "event")):
        headers += (
            struct.pack("!B", len(name)) + name.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
        )
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack("!I", crc32(prelude)) + headers + body
    return message + struct.pack("!I", crc32(message))

"""The bytes that a pretended provider answers with: OpenAI's chat completions, good ones and broken ones."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

import msgspec

from gateway.simulate.world import RetryAfter

STREAM_HEADERS: Final = {"content-type": "text/event-stream"}
JSON_HEADERS: Final = {"content-type": "application/json"}
PAGE_HEADERS: Final = {"content-type": "text/html"}
DONE: Final = b"data: [DONE]\n\n"
BAD_CHUNK: Final = b'data: {"id":"c","choices":[{"delta":{"cont\n\n'
PAGE: Final = b"<!doctype html><title>Bad gateway</title><h1>Something went wrong</h1>"
ERROR_CHUNK: Final = b'data: {"error":{"message":"the model crashed","type":"server_error","code":502}}\n\n'
ABSURD_RETRY_AFTER: Final = "1000000000"
_encode: Final = msgspec.json.Encoder().encode
_HEAD: Final = b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1767225600,"model":"m","choices":['


def text_chunk(text: str) -> bytes:
    """A piece of a streamed text."""
    return b"data: " + _HEAD + b'{"index":0,"delta":{"content":' + _encode(text) + b'},"finish_reason":null}]}\n\n'


def role_chunk() -> bytes:
    """How a stream begins: no content yet."""
    delta = b'{"role":"assistant","content":""}'
    return b"data: " + _HEAD + b'{"index":0,"delta":' + delta + b',"finish_reason":null}]}\n\n'


def call_chunk(arguments: str, *, first: bool) -> bytes:
    """A piece of a streamed tool call."""
    call: dict[str, object] = {"index": 0, "function": {"arguments": arguments}}
    if first:
        call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": arguments}}
    delta = b'{"tool_calls":[' + _encode(call) + b"]}"
    return b"data: " + _HEAD + b'{"index":0,"delta":' + delta + b',"finish_reason":null}]}\n\n'


def finish_chunk(reason: str) -> bytes:
    """Why a stream is complete."""
    return b"data: " + _HEAD + b'{"index":0,"delta":{},"finish_reason":"' + reason.encode() + b'"}]}\n\n'


def usage_chunk(input_tokens: int, output_tokens: int) -> bytes:
    """What a stream used."""
    return b"data: " + _HEAD + b'],"usage":' + _usage(input_tokens, output_tokens) + b"}\n\n"


def whole_answer(text: str, reason: str, input_tokens: int, output_tokens: int, *, call: bool) -> bytes:
    """A whole answer: text, or one tool call whose arguments are that text."""
    message: dict[str, object] = {"role": "assistant", "content": text}
    if call:
        function = {"name": "look_up", "arguments": text}
        message = {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
    choice = _encode({"index": 0, "message": message, "finish_reason": reason})
    return _HEAD + choice + b'],"usage":' + _usage(input_tokens, output_tokens) + b"}"


def refusal(message: str, code: str | None) -> bytes:
    """The body of an answer that is not 2xx."""
    return _encode({"error": {"message": message, "type": "error", "code": code}})


def retry_headers(form: RetryAfter, wait_s: float, now_unix_s: float) -> tuple[Mapping[str, str], float]:
    """Headers that say when to come back, and how many seconds from now they mean.

    Args:
        form: How it is said.
        wait_s: How long there is no room.
        now_unix_s: The wall clock.
    """
    whole_s = -(-wait_s // 1)
    due_s = int(now_unix_s + whole_s)
    said: dict[RetryAfter, tuple[Mapping[str, str], float]] = {
        "none": ({}, 0.0),
        "seconds": ({"retry-after": str(int(whole_s))}, whole_s),
        "milliseconds": ({"retry-after-ms": str(int(whole_s * 1000))}, whole_s),
        "garbage": ({"retry-after": "soon"}, 0.0),
        "past": ({"retry-after": "-5"}, 0.0),
        "absurd": ({"retry-after": ABSURD_RETRY_AFTER}, float(ABSURD_RETRY_AFTER)),
    }
    if form == "date":
        moment = format_datetime(datetime.fromtimestamp(due_s, UTC), usegmt=True)
        return {"retry-after": moment}, max(0.0, due_s - now_unix_s)
    return said[form]


def _usage(input_tokens: int, output_tokens: int) -> bytes:
    total = input_tokens + output_tokens
    return b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (input_tokens, output_tokens, total)

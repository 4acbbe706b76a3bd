"""What each dialect's provider sends for a few answers: the cases of the contract that all dialects keep."""

import json
from dataclasses import dataclass, field
from typing import Any

from providers.errors import (
    BadRequestError,
    ContextLengthError,
    CredentialsError,
    OverloadedError,
    RateLimitedError,
    ServerError,
    UnknownModelError,
)
from tests.fakes import bedrock

TEXT = "Na\u00efve caf\u00e9 \u2014 \u4e2d\u6587 \U0001f600 done."


@dataclass(frozen=True)
class Case:
    """A good answer as bytes, and what it means."""

    body: bytes
    stream: bool
    texts: dict[int, str] = field(default_factory=dict)
    calls: dict[tuple[int, int], tuple[str, str, str]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    tokens: tuple[int, int] | None = (7, 5)


def sse(*chunks: Any, end: str = "\n\n", done: bool = True) -> bytes:
    payloads = [json.dumps(chunk, ensure_ascii=False) for chunk in chunks] + (["[DONE]"] if done else [])
    return "".join(f"data: {payload}{end}" for payload in payloads).encode()


def chunk(delta: Any = None, reason: str | None = None, index: int = 0, **members: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": index, "delta": delta, "finish_reason": reason}]
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": choices, **members}


USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
PIECES = [TEXT[start : start + 4] for start in range(0, len(TEXT), 4)]
CALL = {"id": "call_a", "type": "function", "function": {"name": "look_up", "arguments": '{"q": "\u00e9"}'}}
CALL_STARTS = [{"index": 0, "id": "call_a", "type": "function", "function": {"name": "look_up", "arguments": ""}}]
CALL_RESTS = [{"index": 0, "function": {"arguments": piece}} for piece in ('{"q', '": "\u00e9', '"}')]
SECOND = [{"index": 1, "id": "call_b", "type": "function", "function": {"name": "add", "arguments": "{}"}}]
CALLS = {(0, 0): ("call_a", "look_up", '{"q": "\u00e9"}')}

OPENAI = {
    "text streamed": Case(
        sse(chunk({"role": "assistant", "content": ""}), *(chunk({"content": piece}) for piece in PIECES))[:-14]
        + sse(chunk({}, "stop"), chunk(usage=USAGE)),
        stream=True,
        texts={0: TEXT},
        reasons={0: "stop"},
    ),
    "text streamed with CRLF and comments, no end mark": Case(
        b": OPENROUTER PROCESSING\r\n\r\n"
        + sse(*(chunk({"content": piece}) for piece in PIECES), end="\r\n\r\n", done=False)
        + b": OPENROUTER PROCESSING\r\n\r\n"
        + sse(chunk({}, "length", usage=USAGE), end="\r\n\r\n", done=False),
        stream=True,
        texts={0: TEXT},
        reasons={0: "length"},
    ),
    "tool calls streamed": Case(
        sse(
            chunk({"role": "assistant", "content": None, "tool_calls": CALL_STARTS}),
            *(chunk({"tool_calls": [piece]}) for piece in CALL_RESTS),
            chunk({"tool_calls": SECOND}),
            chunk({}, "tool_calls"),
            chunk(usage=USAGE),
        ),
        stream=True,
        calls={**CALLS, (0, 1): ("call_b", "add", "{}")},
        reasons={0: "tool_calls"},
    ),
    "two choices streamed": Case(
        sse(
            chunk({"content": "one"}),
            chunk({"content": "eins"}, index=1),
            chunk({"content": " two"}),
            chunk({}, "stop", 1),
            chunk({}, "length"),
            chunk(usage=USAGE),
        ),
        stream=True,
        texts={0: "one two", 1: "eins"},
        reasons={0: "length", 1: "stop"},
    ),
    "text whole": Case(
        json.dumps(
            {
                "id": "x",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
                "usage": USAGE,
            }
        ).encode(),
        stream=False,
        texts={0: TEXT},
        reasons={0: "stop"},
    ),
    "tool calls whole": Case(
        json.dumps(
            {"choices": [{"message": {"tool_calls": [CALL]}, "finish_reason": "tool_calls"}], "usage": USAGE}
        ).encode(),
        stream=False,
        calls=CALLS,
        reasons={0: "tool_calls"},
    ),
}


def lines(*values: Any) -> bytes:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode()


LOCAL_USAGE = {"t": "usage", "input_tokens": 7, "output_tokens": 5, "cached_input_tokens": 0}
LOCAL_TEXT = lines(
    *({"t": "text", "choice": 0, "text": piece} for piece in PIECES),
    {"t": "finish", "choice": 0, "reason": "stop"},
    LOCAL_USAGE,
)
LOCAL = {
    "text streamed": Case(LOCAL_TEXT, stream=True, texts={0: TEXT}, reasons={0: "stop"}),
    "text whole": Case(LOCAL_TEXT, stream=False, texts={0: TEXT}, reasons={0: "stop"}),
    "two choices": Case(
        lines(
            {"t": "text", "choice": 1, "text": "eins"},
            {"t": "text", "choice": 0, "text": "one"},
            {"t": "finish", "choice": 1, "reason": "length"},
            {"t": "finish", "choice": 0, "reason": "stop"},
            LOCAL_USAGE,
        ),
        stream=True,
        texts={0: "one", 1: "eins"},
        reasons={0: "stop", 1: "length"},
    ),
}

MISTRAL_THOUGHT = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
    {"type": "text", "text": TEXT[:4]},
    {"type": "reference", "reference_ids": [1]},
]
MISTRAL_CALLS = [
    {"index": 0, "id": "aB3dE6gH9", "function": {"name": "look_up", "arguments": {"q": "\u00e9"}}},
    {"index": 0, "id": "bB3dE6gH9", "function": {"name": "add", "arguments": "{}"}},
]
MISTRAL = {
    "content in parts, usage in the last chunk": Case(
        sse(
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": MISTRAL_THOUGHT}),
            chunk({"content": TEXT[4:]}),
            chunk({"content": ""}, "stop", usage=USAGE),
        ),
        stream=True,
        texts={0: TEXT},
        reasons={0: "stop"},
    ),
    "two whole calls under one index": Case(
        sse(
            chunk({"tool_calls": MISTRAL_CALLS[:1]}),
            chunk({"tool_calls": MISTRAL_CALLS[1:]}, "tool_calls", usage=USAGE),
        ),
        stream=True,
        calls={(0, 0): ("aB3dE6gH9", "look_up", '{"q":"\u00e9"}'), (0, 1): ("bB3dE6gH9", "add", "{}")},
        reasons={0: "tool_calls"},
    ),
    "whole, cut by the model's own length": Case(
        json.dumps(
            {"choices": [{"message": {"content": MISTRAL_THOUGHT}, "finish_reason": "model_length"}], "usage": USAGE}
        ).encode(),
        stream=False,
        texts={0: TEXT[:4]},
        reasons={0: "length"},
    ),
}

CASES = {"openai": OPENAI, "openrouter": OPENAI, "litellm": OPENAI, "local": LOCAL}
CASES["mistral"] = MISTRAL

OPENAI_ERRORS = [
    (400, {"error": {"message": "bad", "param": "tools"}}, BadRequestError),
    (400, {"error": {"message": "x", "code": "context_length_exceeded"}}, ContextLengthError),
    (401, {"error": {"message": "no"}}, CredentialsError),
    (402, {"error": {"message": "pay"}}, CredentialsError),
    (404, {"error": {"message": "what"}}, UnknownModelError),
    (429, {"error": {"message": "slow down"}}, RateLimitedError),
    (500, {"error": {"message": "boom"}}, ServerError),
    (502, "<html>bad gateway</html>", ServerError),
    (503, {"error": {"message": "busy"}}, OverloadedError),
    (529, {"error": {"message": "busy"}}, OverloadedError),
    (599, "", ServerError),
]
LOCAL_ERRORS = [
    (400, {"error": {"message": "bad", "code": "invalid_request", "param": "stop"}}, BadRequestError),
    (400, {"error": {"message": "9 of 8 tokens", "code": "context_length_exceeded"}}, ContextLengthError),
    (404, {"error": {"message": "what", "code": "local_unknown_model"}}, UnknownModelError),
    (503, {"error": {"message": "full", "code": "local_queue_full"}}, OverloadedError),
    (503, {"error": {"message": "gone", "code": "local_worker_crashed"}}, OverloadedError),
    (500, "garbage", ServerError),
]
ERRORS = {"openai": OPENAI_ERRORS, "openrouter": OPENAI_ERRORS, "litellm": OPENAI_ERRORS, "local": LOCAL_ERRORS}
ERRORS["mistral"] = [
    (
        400,
        {"object": "error", "message": "bad order", "type": "invalid_request_message_order", "code": "3230"},
        BadRequestError,
    ),
    (
        400,
        {
            "message": "Prompt contains 9 tokens and 0 draft tokens, too large for model with 8 maximum context length",
            "code": 3051,
        },
        ContextLengthError,
    ),
    (
        400,
        {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "code": "1500"},
        UnknownModelError,
    ),
    (401, {"message": "Unauthorized", "request_id": "r"}, CredentialsError),
    (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "no"}]}, BadRequestError),
    (
        429,
        {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "code": "1300"},
        RateLimitedError,
    ),
    (429, {"object": "error", "message": "Service tier capacity exceeded for this model."}, OverloadedError),
    (500, "<html>oops</html>", ServerError),
    (503, {"message": "busy"}, OverloadedError),
]


def anthropic_events(*blocks: tuple[dict[str, Any], list[dict[str, Any]]], reason: str) -> bytes:
    """A stream of whole blocks: how each starts, and the deltas that fill it."""
    head = {"id": "msg_1", "type": "message", "model": "up", "role": "assistant", "content": [], "stop_reason": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**head, "usage": {"input_tokens": 4, "output_tokens": 1}}},
        {"type": "ping"},
    ]
    for index, (start, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        events.append({"type": "content_block_stop", "index": index})
    usage = {"output_tokens": 5, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 1}
    events.append({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage})
    events.append({"type": "message_stop"})
    parts = (f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)
    return "".join(parts).encode()


def anthropic_message(reason: str, *content: dict[str, Any]) -> bytes:
    usage = {"input_tokens": 7, "output_tokens": 5, "cache_read_input_tokens": 0}
    head = {"id": "msg_1", "type": "message", "model": "up", "role": "assistant", "stop_reason": reason}
    return json.dumps({**head, "content": content, "usage": usage}).encode()


ANTHROPIC = {
    "text streamed": Case(
        anthropic_events(
            ({"type": "thinking", "thinking": ""}, [{"type": "thinking_delta", "thinking": "Hm."}]),
            ({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in PIECES]),
            reason="end_turn",
        ),
        stream=True,
        texts={0: TEXT},
        reasons={0: "stop"},
    ),
    "tool calls streamed, one without arguments": Case(
        anthropic_events(
            (
                {"type": "tool_use", "id": "call_a", "name": "look_up", "input": {}},
                [{"type": "input_json_delta", "partial_json": piece} for piece in ("", '{"q', '": "\u00e9', '"}')],
            ),
            ({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1}}, []),
            ({"type": "tool_use", "id": "call_b", "name": "add", "input": {}}, []),
            reason="tool_use",
        ),
        stream=True,
        calls={**CALLS, (0, 1): ("call_b", "add", "{}")},
        reasons={0: "tool_calls"},
    ),
    "text whole, in two blocks, cut": Case(
        anthropic_message("max_tokens", {"type": "text", "text": TEXT[:4]}, {"type": "text", "text": TEXT[4:]}),
        stream=False,
        texts={0: TEXT},
        reasons={0: "length"},
    ),
    "tool call whole": Case(
        anthropic_message("tool_use", {"type": "tool_use", "id": "call_b", "name": "add", "input": {}}),
        stream=False,
        calls={(0, 0): ("call_b", "add", "{}")},
        reasons={0: "tool_calls"},
    ),
}
CASES["anthropic"] = ANTHROPIC


def anthropic_error(kind: str, message: str, **details: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message, "details": details}, "request_id": "req_1"}


ERRORS["anthropic"] = [
    (400, anthropic_error("invalid_request_error", "messages: field required"), BadRequestError),
    (
        400,
        anthropic_error("invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"),
        ContextLengthError,
    ),
    (400, anthropic_error("invalid_request_error", "Your credit balance is too low to go on."), CredentialsError),
    (401, anthropic_error("authentication_error", "invalid x-api-key"), CredentialsError),
    (402, anthropic_error("billing_error", "pay"), CredentialsError),
    (403, anthropic_error("permission_error", "not yours"), CredentialsError),
    (404, anthropic_error("not_found_error", "model: x"), UnknownModelError),
    (413, anthropic_error("request_too_large", "over 32 MB"), ContextLengthError),
    (429, anthropic_error("rate_limit_error", "slow down"), RateLimitedError),
    (500, anthropic_error("api_error", "Internal server error"), ServerError),
    (502, "<html>bad gateway</html>", ServerError),
    (504, anthropic_error("timeout_error", "too slow"), ServerError),
    (529, anthropic_error("overloaded_error", "Overloaded"), OverloadedError),
    (520, "", ServerError),
]


def bedrock_call(call_id: str, name: str, *pieces: str, index: int = 1) -> list[bytes]:
    start = {"toolUse": {"toolUseId": call_id, "name": name}}
    deltas = [{"contentBlockIndex": index, "delta": {"toolUse": {"input": piece}}} for piece in pieces]
    return [
        bedrock.event("contentBlockStart", {"contentBlockIndex": index, "start": start}),
        *(bedrock.event("contentBlockDelta", delta) for delta in deltas),
        bedrock.event("contentBlockStop", {"contentBlockIndex": index}),
    ]


BEDROCK_END = [
    bedrock.event("messageStop", {"stopReason": "tool_use"}),
    bedrock.event("metadata", {"usage": {**bedrock.tokens(4, 5), "cacheReadInputTokens": 3}, "metrics": {}}),
]
CASES["bedrock_converse"] = {
    "text streamed": Case(b"".join(bedrock.text_events(*PIECES)), stream=True, texts={0: TEXT}, reasons={0: "stop"}),
    "tool calls streamed, one without arguments": Case(
        b"".join(
            [
                *bedrock_call("call_a", "look_up", '{"q', '": "\u00e9', '"}', index=0),
                *bedrock_call("call_b", "add", index=1),
                *BEDROCK_END,
            ]
        ),
        stream=True,
        calls={**CALLS, (0, 1): ("call_b", "add", "{}")},
        reasons={0: "tool_calls"},
    ),
    "text whole, in two blocks, cut": Case(
        json.dumps(bedrock.answer({"text": TEXT[:4]}, {"text": TEXT[4:]}, reason="max_tokens")).encode(),
        stream=False,
        texts={0: TEXT},
        reasons={0: "length"},
    ),
    "tool call whole": Case(
        json.dumps(
            bedrock.answer({"toolUse": {"toolUseId": "call_b", "name": "add", "input": {}}}, reason="tool_use")
        ).encode(),
        stream=False,
        calls={(0, 0): ("call_b", "add", "{}")},
        reasons={0: "tool_calls"},
    ),
}
CASES["bedrock_invoke"] = {
    "text streamed": Case(
        b"".join([*(bedrock.chunk(text=piece) for piece in PIECES), bedrock.chunk(reason="stop", metrics=(7, 5))]),
        stream=True,
        texts={0: TEXT},
        reasons={0: "stop"},
    ),
    "text whole, its tokens in headers": Case(
        json.dumps({"outputs": [{"text": TEXT, "stop_reason": "length"}]}).encode(),
        stream=False,
        texts={0: TEXT},
        reasons={0: "length"},
        tokens=None,
    ),
}
ERRORS["bedrock_converse"] = [
    (400, {"message": "The provided model identifier is invalid."}, UnknownModelError),
    (400, {"message": "Input is too long for requested model."}, ContextLengthError),
    (400, {"message": "1 validation error detected"}, BadRequestError),
    (403, {"message": "You don't have access to the model with the specified model ID."}, CredentialsError),
    (404, {"message": "no such thing"}, UnknownModelError),
    (424, {"message": "The model broke."}, ServerError),
    (429, {"message": "Too many requests, please wait before trying again."}, RateLimitedError),
    (429, {"__type": "ModelNotReadyException", "message": "The model is not ready."}, OverloadedError),
    (500, {"message": "Internal"}, ServerError),
    (502, "<html>bad gateway</html>", ServerError),
    (503, {"message": "Busy"}, OverloadedError),
]
ERRORS["bedrock_invoke"] = ERRORS["bedrock_converse"]

CASES["mindstudio"] = {
    "text": Case(
        json.dumps({"output": {"content": TEXT}}, ensure_ascii=False).encode(),
        stream=False,
        texts={0: TEXT},
        reasons={0: "stop"},
        tokens=None,
    ),
    "text where a stream was asked for": Case(
        json.dumps({"output": {"content": TEXT}}).encode(),
        stream=True,
        texts={0: TEXT},
        reasons={0: "stop"},
        tokens=None,
    ),
    "text that was left elsewhere": Case(
        json.dumps({"value": {"content": TEXT}}).encode(),
        stream=False,
        texts={0: TEXT},
        reasons={0: "stop"},
        tokens=None,
    ),
}
ERRORS["mindstudio"] = [
    (400, {"code": "invalid_step_config", "message": "no such model"}, BadRequestError),
    (401, {"code": "invalid_api_key", "message": "no"}, CredentialsError),
    (402, {"message": "out of credits"}, CredentialsError),
    (404, {"code": "not_found", "message": "what"}, UnknownModelError),
    (429, {"code": "rate_limited", "message": "slow down"}, RateLimitedError),
    (500, {"code": "internal", "message": "boom"}, ServerError),
    (502, "<html>bad gateway</html>", ServerError),
    (503, {"message": "busy"}, OverloadedError),
]

"""Recorded exchanges with Mistral: what the vendor's own client makes of the bytes, and what we would have sent."""

import json
import os
from collections import Counter
from pathlib import Path

import httpx
import pytest
from mistralai.client import Mistral as MistralClient
from mistralai.client.models import ChatCompletionRequest as ClientRequest
from mistralai.client.models import UsageInfo

from gateway.server.openai_request import decode_chat
from providers.base import Capabilities, Endpoint
from providers.errors import (
    BadRequestError,
    ContentPolicyError,
    ContextLengthError,
    CredentialsError,
    OverloadedError,
    RateLimitedError,
    ServerError,
    UnknownModelError,
    UnsupportedError,
)
from providers.messages import (
    AnswerFailed,
    ChoiceFinished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReported,
)
from providers.mistral import Mistral
from tests.fakes.specs import needs_specs, validator

SHARED = Path(os.environ.get("SHARED_DIR", Path(__file__).parents[4] / "shared"))
RECORDINGS = Path(os.environ.get("RECORDINGS_DIR", SHARED / "recordings")) / "mistral"
FILES = sorted(RECORDINGS.glob("*.json"))
CHAT = "/v1/chat/completions"
SIZES = (1, 2, 3, 7, 64, None)
BASE = "https://api.mistral.ai/v1"

needs_recordings = pytest.mark.skipif(not FILES, reason=f"no recordings at {RECORDINGS}")


def load(path):
    return json.loads(path.read_text())


CHATS = [path for path in FILES if load(path)["request"]["path"] == CHAT]
ANSWERED = [path for path in CHATS if load(path)["response"]["status"] == 200]
REFUSED = [path for path in CHATS if path not in ANSWERED]
each_answer = pytest.mark.parametrize("path", ANSWERED, ids=lambda path: path.stem[-50:])


def answer_bytes(recording):
    body = recording["response"]["body"]
    return body["text"].encode() if "text" in body else json.dumps(body["json"]).encode()


def is_stream(recording):
    return recording["response"]["headers"]["content-type"].startswith("text/event-stream")


def decode(raw, size, *, stream):
    decoder = Mistral().decoder(endpoint("m"), stream=stream)
    step = size or len(raw)
    events = [event for start in range(0, len(raw), step) for event in decoder.feed(raw[start : start + step])]
    return events + decoder.finish()


def endpoint(model, *, thinks=False):
    return Endpoint(
        id=f"mistral/{model}",
        provider="mistral",
        model=model,
        upstream_model=model,
        base_url=BASE,
        capabilities=Capabilities(reasoning=thinks),
    )


def ours(events):
    """Text, thinking, calls, reason and usage of our events."""
    assert not any(isinstance(event, AnswerFailed) for event in events)
    calls = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            name, arguments = calls.get(event.index, (None, ""))
            calls[event.index] = (name or event.name, arguments + event.arguments)
    usage = next((event.usage for event in events if isinstance(event, UsageReported)), Usage())
    return {
        "text": "".join(event.text for event in events if isinstance(event, TextDelta)),
        "thinking": "".join(event.text for event in events if isinstance(event, ReasoningDelta)),
        "calls": [(name, json.loads(arguments)) for _, (name, arguments) in sorted(calls.items())],
        "ids": [event.id for event in events if isinstance(event, ToolCallDelta) and event.id],
        "reasons": [event.reason for event in events if isinstance(event, ChoiceFinished)],
        "usage": (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens),
    }


def theirs(recording):
    """The same of what the vendor's client decodes from the same bytes, over its own HTTP stack."""
    raw = answer_bytes(recording)
    kind = recording["response"]["headers"]["content-type"]
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=raw, headers={"content-type": kind}))
    with httpx.Client(transport=transport) as http:
        client = MistralClient(api_key="k", client=http)
        asked = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        if is_stream(recording):
            with client.chat.stream(**asked) as events:
                chunks = [event.data for event in events]
        else:
            chunks = [client.chat.complete(**asked)]
    return fold(chunks)


def fold(chunks):
    text, thinking, calls, reasons, usage = [], [], [], [], None
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            message = choice.delta if hasattr(choice, "delta") else choice.message
            parts = message.content if isinstance(message.content, list) else []
            if isinstance(message.content, str):
                text.append(message.content)
            for part in parts:
                if part.type == "thinking":
                    thinking += [inner.text for inner in part.thinking if inner.type == "text"]
                elif part.type == "text":
                    text.append(part.text)
            calls += message.tool_calls or []
            if choice.finish_reason:
                reasons.append(choice.finish_reason)
    usage = usage or UsageInfo.model_construct(prompt_tokens=None, completion_tokens=None)
    extra = usage.model_dump()
    cached = (extra.get("prompt_tokens_details") or {}).get("cached_tokens", extra.get("num_cached_tokens"))
    return {
        "text": "".join(text),
        "thinking": "".join(thinking),
        "calls": [(call.function.name, parsed(call.function.arguments)) for call in calls],
        "ids": [call.id for call in calls],
        "reasons": reasons,
        "usage": (usage.prompt_tokens, usage.completion_tokens, cached),
    }


def parsed(arguments):
    return json.loads(arguments) if isinstance(arguments, str) else arguments


@needs_recordings
@each_answer
def test_a_recorded_answer_is_what_the_vendors_client_decodes_at_every_chunking(path):
    recording = load(path)
    expected = theirs(recording)
    raw = answer_bytes(recording)
    for size in SIZES:
        assert ours(decode(raw, size, stream=is_stream(recording))) == expected


def plain(body):
    """A vendor request without the ways of saying nothing: defaults, and a list of one text for that text."""
    body = {name: value for name, value in body.items() if (name, value) != ("stream", False)}
    body["messages"] = [plain_message(message) for message in body["messages"]]
    if "tools" in body:
        body["tools"] = [{"type": "function", **tool} for tool in body["tools"]]
    return body


def plain_message(message):
    message = {name: value for name, value in message.items() if (name, value) != ("prefix", False)}
    content = message.get("content") or ""
    if isinstance(content, list) and len(content) == 1 and content[0]["type"] == "text":
        content = content[0]["text"]
    calls = [
        {name: value for name, value in {"type": "function", **call}.items() if name != "index"}
        for call in message.get("tool_calls") or ()
    ]
    return {**message, "content": content, **({"tool_calls": calls} if calls else {})}


@needs_recordings
@needs_specs
@each_answer
def test_a_recorded_request_asked_of_us_is_sent_as_it_was(path):
    asked = load(path)["request"]["body"]["json"]
    as_client = {("seed" if name == "random_seed" else name): value for name, value in asked.items()}
    request = decode_chat(json.dumps(as_client).encode())
    wire = Mistral().encode(request, endpoint(request.model), stream=bool(request.stream))
    body = json.loads(wire.body)
    validator("mistral", "ChatCompletionRequest").validate(body)
    ClientRequest.model_validate(body)
    assert plain(body) == plain(asked)
    assert wire.adapted == ()


@pytest.mark.skipif(not REFUSED, reason=f"no recorded error of Mistral at {RECORDINGS}")
@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.stem[-50:])
def test_a_recorded_error_is_of_the_class_that_its_status_calls_for(path):
    recording = load(path)
    status, headers = recording["response"]["status"], recording["response"]["headers"]
    error = Mistral().error(status, headers, answer_bytes(recording), now_unix_s=0)
    kinds = {
        400: (BadRequestError, ContextLengthError, UnknownModelError, UnsupportedError, ContentPolicyError),
        401: (CredentialsError,),
        403: (CredentialsError, ContentPolicyError),
        404: (UnknownModelError,),
        422: (BadRequestError, UnsupportedError, ContextLengthError),
        429: (RateLimitedError, OverloadedError),
        503: (OverloadedError,),
    }
    assert isinstance(error, kinds.get(status, (ServerError,)))
    assert error.upstream_status == status


@needs_recordings
def test_every_recording_is_accounted_for(capsys):
    counts = Counter()
    for path in FILES:
        recording = load(path)
        if recording["request"]["path"] != CHAT:
            counts[f"skipped: {recording['request']['path']} is not a chat"] += 1
        elif path in REFUSED:
            counts["errors"] += 1
        else:
            counts["streams" if is_stream(recording) else "whole answers"] += 1
    with capsys.disabled():
        print(f"\nmistral recordings: {dict(counts)}")  # noqa: T201 (the counts are asked for)
    assert sum(counts.values()) == len(FILES)
    assert CHATS

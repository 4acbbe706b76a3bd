"""Recorded answers of real providers, at any chunking, against what the vendor's own client library reads in them."""

import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from openai._models import construct_type
from openai._streaming import SSEDecoder
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from providers.errors import ProviderError
from providers.messages import AnswerFailed
from tests.contract.test_dialects import CHUNK_SIZES, DIALECTS, decode, meaning, succeeded

SHARED = Path(os.environ.get("SHARED_DIR", Path(__file__).parents[3] / "shared"))
RECORDINGS = Path(os.environ.get("RECORDINGS_DIR", SHARED / "recordings"))
PROVIDERS = ("openai", "openrouter", "groq", "together", "deepseek", "cerebras", "ollama", "zai")
COUNTS = Counter()


def load(folder):
    """Name, dialect, status and body of each recorded chat completion; `stream` by how it was recorded."""
    for path in sorted((RECORDINGS / folder).glob("*.json")):
        recording = json.loads(path.read_text())
        if recording["request"]["path"].endswith("/chat/completions"):
            response = recording["response"]
            stream = "text" in response["body"]
            raw = response["body"]["text"] if stream else json.dumps(response["body"]["json"], ensure_ascii=False)
            dialect = "openrouter" if folder == "openrouter" else "openai"
            yield pytest.param(dialect, response, raw.encode(), stream, id=f"{folder}/{path.stem[-60:]}")


RECORDED = [case for folder in PROVIDERS for case in load(folder)]
ANSWERS = [case for case in RECORDED if case.values[1]["status"] == 200]
ERRORS = [case for case in RECORDED if case.values[1]["status"] != 200]
absent = pytest.mark.skipif(not RECORDED, reason=f"no recordings at {RECORDINGS}")


def usage_of(usage):
    return None if usage is None else (usage.prompt_tokens, usage.completion_tokens)


def read_whole(body):
    """What the vendor's types say of a whole answer, in the form that `meaning` has."""
    completion = construct_type(type_=ChatCompletion, value=json.loads(body))  # as the client does by default
    texts, calls, reasons = {}, {}, {}
    for choice in completion.choices:
        if choice.message.content:
            texts[choice.index] = choice.message.content
        for place, call in enumerate(choice.message.tool_calls or ()):
            calls[choice.index, place] = (call.id, call.function.name, call.function.arguments)
        reasons[choice.index] = choice.finish_reason
    return texts, calls, reasons, usage_of(completion.usage)


def read_stream(body):
    """The same of a stream: the vendor's own parser of events, its own types, its own rule for joining."""
    texts, calls, reasons, usage = {}, {}, {}, None
    for event in SSEDecoder().iter_bytes(iter([body])):
        if event.data.startswith("[DONE]"):
            break
        chunk = construct_type(type_=ChatCompletionChunk, value=json.loads(event.data))
        usage = usage_of(chunk.usage) or usage
        for choice in chunk.choices:
            if choice.delta.content:
                texts[choice.index] = texts.get(choice.index, "") + choice.delta.content
            for call in choice.delta.tool_calls or ():
                old = calls.get((choice.index, call.index), ("", "", ""))
                new = (call.id or "", call.function.name or "", call.function.arguments or "")
                calls[choice.index, call.index] = tuple(a + b for a, b in zip(old, new, strict=True))
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    return texts, calls, reasons, usage


@absent
@pytest.mark.parametrize(("dialect", "response", "body", "stream"), ANSWERS)
def test_a_recorded_answer_means_what_the_vendors_client_reads(dialect, response, body, stream):
    expected = (read_stream if stream else read_whole)(body)
    first = None
    for size in CHUNK_SIZES:
        events = decode(dialect, body, stream=stream, size=size)
        assert succeeded(events), events[-1]
        assert meaning(events) == expected
        assert events == (first or events)
        first = first or events
    COUNTS["streams" if stream else "whole answers"] += 1
    COUNTS["tool calls"] += len(expected[1])


@absent
@pytest.mark.parametrize(("dialect", "response", "body", "stream"), ERRORS)
def test_a_recorded_error_is_told_as_the_clients_fault(dialect, response, body, stream):
    error = DIALECTS[dialect].error(response["status"], response["headers"], body, now_unix_s=0)
    assert isinstance(error, ProviderError)
    assert error.message == json.loads(body)["error"]["message"][:2000]
    COUNTS["errors"] += 1


@absent
@pytest.mark.parametrize(("dialect", "response", "body", "stream"), [case for case in ANSWERS if case.values[3]][::3])
def test_a_recorded_stream_cut_anywhere_is_no_success_before_its_end(dialect, response, body, stream):
    whole = meaning(decode(dialect, body, stream=True, size=1_000_000))[:3]
    for size in range(0, len(body), max(1, len(body) // 300)):
        events = decode(dialect, body[:size], stream=True, size=1_000_000)
        assert isinstance(events[-1], AnswerFailed) or meaning(events)[:3] == whole


@absent
def test_the_count_is_said():
    sys.stdout.write(f"\nrecordings replayed at {len(CHUNK_SIZES)} chunkings: {dict(COUNTS)}\n")
    assert not COUNTS or COUNTS["whole answers"] > 100

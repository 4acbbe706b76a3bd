"""Recorded traffic of the Messages API: answers as the SDK reads them, requests said again with the same meaning."""

import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from gateway.server.openai_answer import AnswerHead, whole_answer
from providers.anthropic import Anthropic
from providers.messages import AnswerFailed, ChoiceFinished, ExtrasDelta
from tests.contract.anthropic.chat_of import NoChatRequestError, chat_of
from tests.contract.anthropic.ours import endpoint_for, ours
from tests.contract.anthropic.vendor import check_request, meaning, pieces, raw_body, read_stream, read_whole
from tests.fakes.specs import needs_specs, validator

SHARED = Path(os.environ.get("SHARED_DIR", Path(__file__).parents[4] / "shared"))
RECORDINGS = Path(os.environ.get("RECORDINGS_DIR", SHARED / "recordings"))
CHUNK_SIZES = (1, 2, 3, 7, 64, 1_000_000)
COUNTS = Counter()
SKIPPED = Counter()
RECORDED = [pytest.param(path, id=path.stem) for path in sorted((RECORDINGS / "anthropic").glob("*.json"))]
STREAMS = [case for case in RECORDED if "text" in json.loads(case.values[0].read_text())["response"]["body"]]
absent = pytest.mark.skipif(not RECORDED, reason=f"no recordings at {RECORDINGS / 'anthropic'}")


def load(path):
    recording = json.loads(path.read_text())
    assert recording["request"]["path"] == "/v1/messages"
    assert recording["response"]["status"] == 200
    return recording, "beta" in (recording["request"]["query"] or "")


@absent
@pytest.mark.parametrize("path", RECORDED)
def test_a_recorded_answer_means_what_the_sdk_reads(path):
    recording, beta = load(path)
    body = raw_body(recording["response"])
    stream = "text" in recording["response"]["body"]
    message = (read_stream if stream else read_whole)(body, beta=beta)
    expected = meaning(message)
    for size in CHUNK_SIZES:
        decoder = Anthropic().decoder(endpoint_for(recording["request"]["body"]["json"]), stream=stream)
        events = [event for piece in pieces(body, size) for event in decoder.feed(piece)] + decoder.finish()
        assert ours(events) == expected
        assert decoder.ended == stream
        assert decoder.skipped_chunks == 0
    cited = [c for block in message.content for c in getattr(block, "citations", None) or ()]
    with_url = [citation for citation in cited if getattr(citation, "url", None)]
    told = [event.members["annotations"] for event in events if isinstance(event, ExtrasDelta)]
    assert sum(map(len, told)) == len(with_url)
    COUNTS["streams" if stream else "whole answers"] += 1
    COUNTS["tool calls"] += len(expected["calls"])
    COUNTS["thinking blocks"] += len(expected["blocks"])
    COUNTS["citations"] += len(with_url)


@absent
@needs_specs
@pytest.mark.parametrize("path", RECORDED)
def test_what_a_client_gets_of_it_is_a_chat_completion(path):
    recording, _ = load(path)
    body = raw_body(recording["response"])
    decoder = Anthropic().decoder(endpoint_for({"model": "m"}), stream="text" in recording["response"]["body"])
    events = decoder.feed(body) + decoder.finish()
    answer = whole_answer(AnswerHead("gen-01", 1, "m", "a"), events, {})
    validator("openai", "CreateChatCompletionResponse").validate(json.loads(answer))
    validator("openrouter", "ChatResult").validate(json.loads(answer))


@absent
@pytest.mark.parametrize("path", STREAMS)
def test_a_recorded_stream_cut_anywhere_is_no_success(path):
    recording, _ = load(path)
    body = raw_body(recording["response"]).rstrip()
    reason = body.rindex(b'"message_delta"')
    last = body.rindex(b"data: ", 0, reason) + len(b'data: {"type":"message_delta"')
    for size in range(0, last, max(1, last // 300)):
        decoder = Anthropic().decoder(endpoint_for({"model": "m"}), stream=True)
        events = decoder.feed(body[:size]) + decoder.finish()
        assert isinstance(events[-1], AnswerFailed)
        assert not any(isinstance(event, ChoiceFinished) for event in events)


def plain(body):
    """A request in one spelling: texts as blocks, turns of one role joined, members that ask for nothing left out."""
    turns = []
    for message in body["messages"]:
        blocks = [spelled(block) for block in as_blocks(message["content"])]
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": message["role"], "content": blocks})
    said = {name: value for name, value in body.items() if name not in ("messages", "system", "stream", "tools")}
    said["messages"] = turns
    said["system"] = as_blocks(body.get("system") or [])
    said["tools"] = [{name: value for name, value in tool.items() if value} for tool in body.get("tools", [])]
    if "effort" in body.get("output_config", {}):
        said.pop("thinking", None)  # an effort in chat terms is a wish to think; Anthropic also takes it alone
    elif body.get("thinking", {}).get("type") == "adaptive":
        said["thinking"] = {"type": "adaptive"}  # ours asks for a summary, which only says what is shown of it
    return said


def spelled(block):
    if block["type"] == "tool_result":
        content = [spelled(inner) for inner in as_blocks(block["content"])]
        return {"type": "tool_result", "tool_use_id": block["tool_use_id"], "content": content}
    return block


def as_blocks(content):
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


@absent
@pytest.mark.parametrize("path", RECORDED)
def test_a_recorded_request_is_said_again_with_the_same_meaning(path):
    recording, beta = load(path)
    body = recording["request"]["body"]["json"]
    try:
        request = chat_of(body)
    except NoChatRequestError as error:
        SKIPPED[str(error)] += 1
        pytest.skip(str(error))
    wire = Anthropic().encode(request, endpoint_for(body), stream=bool(body.get("stream")))
    again = json.loads(wire.body)
    check_request(again, beta=beta)
    assert plain(again) == plain(body)
    assert again.get("stream", False) == body.get("stream", False)
    assert [told for told in wire.adapted if told.action != "merged"] == []
    COUNTS["requests"] += 1


@absent
def test_the_counts_are_said():
    counted = f"{len(RECORDED)} recordings at {len(CHUNK_SIZES)} chunkings: {dict(COUNTS)}"
    reasons = "".join(f"\n  {count} requests skipped: {reason}" for reason, count in SKIPPED.items())
    sys.stdout.write(f"\nanthropic: {counted}{reasons}\n")
    if COUNTS:
        assert COUNTS["whole answers"] + COUNTS["streams"] == len(RECORDED)
        assert COUNTS["requests"] + sum(SKIPPED.values()) == len(RECORDED)

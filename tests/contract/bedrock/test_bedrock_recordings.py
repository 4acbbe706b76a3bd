"""Recorded Bedrock traffic: answers against botocore's own parsers, requests against its service model."""

import json
import sys
from collections import Counter

import pytest

from providers.base import Capabilities, Endpoint, Price
from providers.bedrock_converse import BedrockConverse
from providers.bedrock_invoke import BedrockInvoke
from providers.errors import BadRequestError, UnknownModelError, UnsupportedError
from providers.messages import (
    AnswerFailed,
    ChoiceFinished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from tests.contract.bedrock.chat_of import NoChatRequestError, chat_of
from tests.contract.bedrock.judge import RECORDINGS, body_of, check, fold, load, params_of, whole

SIZES = (1, 2, 3, 7, 64, 1_000_000_000)
ALL_ON = Capabilities(
    system=True, tools=True, json_schema=True, prefill=True, vision=True, reasoning=True, json_object=True
)
ENDPOINT = Endpoint(
    id="bedrock/x",
    provider="bedrock",
    model="m",
    upstream_model="us.mistral.pixtral-large-2502-v1:0",
    base_url="https://bedrock-runtime.us-east-1.amazonaws.com",
    capabilities=ALL_ON,
    price=Price(cache_read_in_pusd=1),
)
RECORDED = load()
CONVERSE = {name: one for name, one in RECORDED.items() if "/converse" in one["request"]["path"]}
ANSWERED = {name: one for name, one in CONVERSE.items() if one["response"]["status"] == 200}
REFUSED = {name: one for name, one in CONVERSE.items() if one["response"]["status"] != 200}
INVOKED = {
    name: one
    for name, one in RECORDED.items()
    if "/invoke" in one["request"]["path"] and "/mistral." in one["request"]["path"]
}
COUNTS = Counter()
absent = pytest.mark.skipif(not RECORDED, reason=f"no recordings at {RECORDINGS}")


@pytest.fixture(scope="module", autouse=True)
def counts():
    yield
    COUNTS["other models' own formats, not ours to speak"] = len(RECORDED) - len(CONVERSE) - len(INVOKED)
    sys.stderr.write(f"\nbedrock: {dict(COUNTS)}\n")


def decode(dialect, raw, headers, *, stream, size):
    decoder = dialect.decoder(ENDPOINT, stream=stream, headers=headers)
    events = [event for start in range(0, len(raw), size) for event in decoder.feed(raw[start : start + size])]
    return events + decoder.finish()


def ours(events):
    assert not any(isinstance(event, AnswerFailed) for event in events)
    calls = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            call_id, name, arguments = calls.get(event.index, (None, None, ""))
            calls[event.index] = (call_id or event.id, name or event.name, arguments + event.arguments)
    (reason,) = (event.reason for event in events if isinstance(event, ChoiceFinished))
    (usage,) = (event.usage for event in events if isinstance(event, UsageReported))
    return (
        "".join(event.text for event in events if isinstance(event, TextDelta)),
        "".join(event.text for event in events if isinstance(event, ReasoningDelta)),
        [(call_id, name, json.loads(arguments)) for _, (call_id, name, arguments) in sorted(calls.items())],
        reason,
        (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.cache_write_tokens),
    )


@absent
@pytest.mark.parametrize("name", ANSWERED)
def test_an_answer_means_what_botocore_reads_in_it(name):
    response = ANSWERED[name]["response"]
    raw, headers = body_of(response), response["headers"]
    stream = "base64" in response["body"]
    expected = fold(raw) if stream else whole(raw, headers)
    for size in SIZES:
        assert ours(decode(BedrockConverse(), raw, headers, stream=stream, size=size)) == expected
    COUNTS["converse-stream answers" if stream else "converse answers"] += 1


@absent
@pytest.mark.parametrize("name", INVOKED)
def test_an_invoked_answer_has_its_text_and_the_counts_of_its_headers(name):
    response = INVOKED[name]["response"]
    raw, headers = body_of(response), response["headers"]
    said = json.loads(raw)["outputs"][0]
    for size in SIZES:
        text, _, calls, reason, usage = ours(decode(BedrockInvoke(), raw, headers, stream=False, size=size))
        assert (text, calls, reason) == (said["text"], [], said["stop_reason"])
        counted = tuple(int(headers[f"x-amzn-bedrock-{side}-token-count"]) for side in ("input", "output"))
        assert usage == (*counted, None, None)
    COUNTS["invoke answers of Mistral's models"] += 1


KINDS = {
    "The provided model identifier is invalid.": UnknownModelError,
    "This model doesn't support": UnsupportedError,
    "The model returned the following errors: Malformed input request": BadRequestError,
}


@absent
@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_has_the_class_that_its_words_call_for(name):
    response = REFUSED[name]["response"]
    error = BedrockConverse().error(response["status"], response["headers"], body_of(response), now_unix_s=0)
    message = response["body"]["json"]["message"]
    (kind,) = (kind for words, kind in KINDS.items() if message.startswith(words))
    assert type(error) is kind
    assert error.upstream_status == 400
    assert error.message == message
    COUNTS["errors"] += 1


@absent
@pytest.mark.parametrize("name", ANSWERED)
def test_a_request_that_was_answered_is_made_again_with_the_same_meaning(name):
    recorded = ANSWERED[name]["request"]["body"]
    asked = recorded.get("json") or json.loads(recorded["text"] + "}")  # one was recorded without its last brace
    try:
        request = chat_of(asked)
    except NoChatRequestError as reason:
        COUNTS[f"not made again: {reason}"] += 1
        pytest.skip(str(reason))
    wire = BedrockConverse().encode(request, ENDPOINT, stream=False)
    check(params_of(wire))
    assert plain(json.loads(wire.body)) == plain(asked)
    COUNTS["requests made again"] += 1


def plain(body):
    """A request without what means nothing: defaults, merged neighbours, how a tool's JSON result is written."""
    body = {name: value for name, value in body.items() if value not in ({}, [], None)}
    turns = []
    for message in body["messages"]:
        content = list(map(_plain_block, message["content"]))
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1]["content"] += content
        else:
            turns.append({"role": message["role"], "content": content})
    for turn in turns:
        turn["content"] = sorted(_joined(turn["content"]), key=lambda block: "toolResult" not in block)
    body["messages"] = turns
    config = body.get("toolConfig")
    if config is not None:
        if config.get("toolChoice") == {"auto": {}}:
            config = {name: value for name, value in config.items() if name != "toolChoice"}
        for tool in config["tools"]:
            if tool.get("toolSpec", {}).get("strict") is False:
                del tool["toolSpec"]["strict"]
        body["toolConfig"] = config
    output = body.get("outputConfig")
    if output is not None:
        definition = output["textFormat"]["structure"]["jsonSchema"]
        definition["schema"] = json.loads(definition["schema"])
    return body


def _joined(blocks):
    """Text that neighbours text is one text with a blank line between, wherever the turns were cut."""
    joined = []
    for block in blocks:
        if joined and "text" in block and "text" in joined[-1]:
            joined[-1] = {"text": f"{joined[-1]['text']}\n\n{block['text']}"}
        else:
            joined.append(block)
    return joined


def _plain_block(block):
    if "toolResult" in block:
        result = {name: value for name, value in block["toolResult"].items() if name not in ("status", "type")}
        result["content"] = [
            {"text": json.dumps(item["json"])} if "json" in item else _plain_block(item) for item in result["content"]
        ]
        return {"toolResult": result}
    if "document" in block:
        return {"document": {name: value for name, value in block["document"].items() if name != "name"}}
    return block

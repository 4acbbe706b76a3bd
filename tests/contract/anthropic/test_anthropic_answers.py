"""Generated answers of every block type, whole and streamed at any chunking, against what the SDK reads in them."""

import json
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.anthropic import Anthropic
from providers.messages import ExtrasDelta
from tests.contract.anthropic.ours import endpoint_for, ours
from tests.contract.anthropic.requests import JSON, NAMES, WORDS
from tests.contract.anthropic.vendor import STOP_REASONS, meaning, pieces, read_stream, read_whole

GENERATED = 2000 if os.environ.get("MIXGATE_TEST_FULL") else 200
COUNTS = st.integers(0, 10**6)
INPUTS = st.dictionaries(WORDS, JSON, max_size=3)
CITED = st.fixed_dictionaries(
    {
        "type": st.just("web_search_result_location"),
        "url": st.just("https://e.org"),
        "title": WORDS,
        "cited_text": WORDS,
        "encrypted_index": st.just("x"),
    }
)
BLOCKS = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": WORDS, "citations": st.none() | st.lists(CITED)}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": WORDS, "signature": NAMES}),
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": WORDS}),
    st.fixed_dictionaries({"type": st.just("tool_use"), "id": NAMES, "name": NAMES, "input": INPUTS}),
    st.fixed_dictionaries(
        {"type": st.just("server_tool_use"), "id": NAMES, "name": st.just("web_search"), "input": INPUTS}
    ),
    st.fixed_dictionaries({"type": st.just("web_search_tool_result"), "tool_use_id": NAMES, "content": st.just([])}),
)
USAGES = st.fixed_dictionaries(
    {"input_tokens": COUNTS, "output_tokens": COUNTS},
    optional={
        "cache_creation_input_tokens": COUNTS | st.none(),
        "cache_read_input_tokens": COUNTS | st.none(),
        "output_tokens_details": st.fixed_dictionaries({"thinking_tokens": COUNTS}),
    },
)
MESSAGES = st.fixed_dictionaries(
    {
        "id": NAMES,
        "type": st.just("message"),
        "role": st.just("assistant"),
        "model": NAMES,
        "content": st.lists(BLOCKS, max_size=6),
        "stop_reason": st.sampled_from(list(STOP_REASONS)),
        "stop_sequence": st.none() | WORDS,
        "usage": USAGES,
    }
)


def split(data, text):
    """The text in pieces, empty ones too."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def start_and_deltas(data, block):
    """How a block is streamed."""
    kind = block["type"]
    if kind == "text":
        cited = [{"type": "citations_delta", "citation": citation} for citation in block["citations"] or ()]
        said = [{"type": "text_delta", "text": piece} for piece in split(data, block["text"])]
        return {**block, "text": "", "citations": None if block["citations"] is None else []}, cited + said
    if kind == "thinking":
        said = [{"type": "thinking_delta", "thinking": piece} for piece in split(data, block["thinking"])]
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {**block, "thinking": "", "signature": ""}, [*said, signed]
    if kind in ("tool_use", "server_tool_use"):
        text = json.dumps(block["input"], ensure_ascii=data.draw(st.booleans())) if block["input"] else ""
        said = [{"type": "input_json_delta", "partial_json": piece} for piece in split(data, text)]
        return {**block, "input": {}}, said
    return block, []


def stream_of(data, message):
    """The message as its stream, pings and an event of tomorrow in between."""
    usage = {**message["usage"], "output_tokens": 1}
    head = {**message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    events = [{"type": "message_start", "message": head}]
    for index, block in enumerate(message["content"]):
        start, deltas = start_and_deltas(data, block)
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += data.draw(st.sampled_from([[], [{"type": "ping"}]]))
        events += ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        events.append({"type": "content_block_stop", "index": index})
    stopped = {name: message[name] for name in ("stop_reason", "stop_sequence")}
    said = data.draw(st.sampled_from([("output_tokens",), tuple(message["usage"])]))
    counted = {name: message["usage"][name] for name in ("output_tokens", *said)}
    events += [{"type": "message_delta", "delta": stopped, "usage": counted}, {"type": "message_stop"}]
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    ascii_only = data.draw(st.booleans())
    return "".join(
        f"event: {event['type']}{end}data: {json.dumps(event, ensure_ascii=ascii_only)}{end}{end}" for event in events
    ).encode()


def annotations(events):
    return [note for event in events if isinstance(event, ExtrasDelta) for note in event.members["annotations"]]


@settings(max_examples=GENERATED, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), MESSAGES)
def test_a_generated_answer_means_what_the_sdk_reads(data, message):
    whole = json.dumps(message).encode()
    decoder = Anthropic().decoder(endpoint_for({"model": "m"}), stream=False)
    events = decoder.feed(whole) + decoder.finish()
    assert ours(events) == meaning(read_whole(whole, beta=False))
    stream = stream_of(data, message)
    expected = meaning(read_stream(stream, beta=False))
    for size in (1, data.draw(st.integers(2, 200)), len(stream)):
        decoder = Anthropic().decoder(endpoint_for({"model": "m"}), stream=True)
        streamed = [event for piece in pieces(stream, size) for event in decoder.feed(piece)] + decoder.finish()
        assert ours(streamed) == expected
        assert annotations(streamed) == annotations(events)
    assert len(annotations(events)) == sum(len(block.get("citations") or ()) for block in message["content"])

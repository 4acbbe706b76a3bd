"""Every body we return, against the OpenAPI that OpenAI publishes; and a whole answer equals the fold of its stream."""

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import ModelNotFoundError
from gateway.server.errors import error_answer
from gateway.server.openai_answer import AnswerHead, ChunkEncoder, error_chunk, whole_answer
from providers.errors import ProviderError, RateLimitedError, TruncatedError
from providers.messages import (
    AnswerStarted,
    ChoiceFinished,
    ExtrasDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReported,
)
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.provider import chunk, completion, fails, fake_provider, says, stream_chunks, streams
from tests.fakes.specs import needs_specs, validator

pytestmark = needs_specs
HEAD = AnswerHead("gen-01", 1_790_000_000, 'mixtral "8x7b" \u00e9', "p0")

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
TOKEN = st.fixed_dictionaries(
    {
        "token": TEXT,
        "logprob": st.floats(-100, 0),
        "bytes": st.none() | st.lists(st.integers(0, 255), max_size=4),
    }
)
ENTRY = st.tuples(TOKEN, st.lists(TOKEN, max_size=2)).map(lambda pair: {**pair[0], "top_logprobs": pair[1]})
CITATION = {"start_index": 0, "end_index": 1, "url": "https://example.org", "title": "t"}
DETAILS = [{"type": "reasoning.text", "text": "x"}]
COUNT = st.none() | st.integers(0, 10**9)
USAGE = st.builds(
    Usage,
    input_tokens=COUNT,
    output_tokens=COUNT,
    cached_input_tokens=COUNT,
    cache_write_tokens=COUNT,
    reasoning_tokens=COUNT,
)


@st.composite
def call_events(draw, choice):
    """Tool calls of one choice: each starts once, its arguments come in pieces."""
    events = []
    for index in range(draw(st.integers(0, 3))):
        pieces = draw(st.lists(TEXT, max_size=3))
        events.append(ToolCallDelta(index, choice, f"call_{choice}_{index}", draw(TEXT), draw(TEXT)))
        events += [ToolCallDelta(index, choice, arguments=piece) for piece in pieces]
    return events


@st.composite
def choice_events(draw, choice):
    """All events of one choice, its end last."""
    kinds = st.one_of(
        st.builds(TextDelta, TEXT, st.just(choice), st.none() | st.lists(ENTRY, min_size=1, max_size=2)),
        st.builds(
            ReasoningDelta, TEXT, st.just(choice), st.none() | st.just([{"type": "reasoning.text", "text": "x"}])
        ),
        st.builds(RefusalDelta, TEXT, st.just(choice)),
    )
    events = draw(st.lists(kinds, max_size=6)) + draw(call_events(choice))
    if draw(st.booleans()):
        citation = {"type": "url_citation", "url_citation": CITATION}
        events.append(ExtrasDelta({"annotations": [citation]}, choice))
    reason = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter", "function_call"]))
    return [*events, ChoiceFinished(reason, choice, draw(st.none() | TEXT))]


@st.composite
def answers(draw):
    """A whole answer: choices interleaved in any order, usage at the end, in between or not at all."""
    queues = [draw(choice_events(choice)) for choice in range(draw(st.integers(1, 3)))]
    events = [AnswerStarted("up-1", "real", None, draw(st.none() | TEXT))] if draw(st.booleans()) else []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        events.append(queue.pop(0))
        if draw(st.integers(0, 9)) == 0:
            events.append(UsageReported(draw(USAGE)))
    return events + ([UsageReported(draw(USAGE))] if draw(st.booleans()) else [])


def payloads(stream):
    """The parsed chunks of a stream; it must end with the end mark."""
    *data, done, rest = stream.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [json.loads(line.removeprefix(b"data: ")) for line in data if not line.startswith(b":")]


def write_stream(events, cuts, *, include_usage):
    """As the gateway writes it: events in batches as they came, then the end."""
    started = next((event for event in events if isinstance(event, AnswerStarted)), None)
    encoder = ChunkEncoder(HEAD, include_usage=include_usage, started=started)
    places = sorted({0, len(events), *(cut % (len(events) + 1) for cut in cuts)})
    parts = [encoder.encode(events[start:end]) for start, end in itertools.pairwise(places)]
    return b"".join(parts) + encoder.end({})


def new_choice():
    return {"content": "", "refusal": "", "reasoning": "", "details": [], "calls": {}, "logprobs": [], "extras": {}}


def fold_stream(chunks):
    """What a client puts together from chunks."""
    choices, usage = {}, None
    for parsed in chunks:
        usage = parsed.get("usage") or usage
        for choice in parsed["choices"]:
            index = choice["index"]
            assert (index not in choices) == ("role" in choice["delta"])
            whole = choices.setdefault(index, new_choice())
            fold_delta(whole, choice["delta"])
            whole["logprobs"] += (choice["logprobs"] or {}).get("content") or []
            if choice["finish_reason"] is not None:
                assert "reason" not in whole
                whole["reason"] = (choice["finish_reason"], choice["native_finish_reason"])
    return choices, usage


def fold_delta(whole, delta):
    for name in ("content", "refusal", "reasoning"):
        whole[name] += delta.get(name) or ""
    whole["details"] += delta.get("reasoning_details", [])
    for call in delta.get("tool_calls", ()):
        known = whole["calls"].setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
        known["id"] += call.get("id", "")
        known["name"] += call["function"].get("name", "")
        known["arguments"] += call["function"]["arguments"]
    if "annotations" in delta:
        whole["extras"]["annotations"] = delta["annotations"]


def unfold(choice):
    """A whole choice in the form that `fold_stream` makes."""
    message = choice["message"]
    calls = {place: {"id": call["id"], **call["function"]} for place, call in enumerate(message.get("tool_calls", ()))}
    return {
        "content": message["content"] or "",
        "refusal": message["refusal"] or "",
        "reasoning": message.get("reasoning", ""),
        "details": message.get("reasoning_details", []),
        "calls": calls,
        "logprobs": (choice["logprobs"] or {}).get("content") or [],
        "extras": {name: message[name] for name in ("annotations",) if name in message},
        "reason": (choice["finish_reason"], choice["native_finish_reason"]),
    }


@given(answers(), st.lists(st.integers(0, 50), max_size=5), st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_answer_is_valid_whole_and_streamed_and_both_say_the_same(events, cuts, include_usage):
    whole = json.loads(whole_answer(HEAD, events, {}))
    validator("openai", "CreateChatCompletionResponse").validate(whole)
    chunks = payloads(write_stream(events, cuts, include_usage=include_usage))
    for parsed in chunks:
        validator("openai", "CreateChatCompletionStreamResponse").validate(parsed)
        assert ("usage" in parsed) == include_usage
        assert {name: parsed[name] for name in ("id", "created", "model", "provider", "system_fingerprint")} == {
            name: whole[name] for name in ("id", "created", "model", "provider", "system_fingerprint")
        }
    choices, usage = fold_stream(chunks)
    assert choices == {choice["index"]: unfold(choice) for choice in whole["choices"]}
    if include_usage:
        assert chunks[-1]["choices"] == []
        assert usage == whole.get("usage", {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})


@given(USAGE)
@settings(max_examples=60, deadline=None)
def test_usage_in_part_is_still_valid(usage):
    body = json.loads(
        whole_answer(HEAD, [TextDelta("a"), ChoiceFinished("stop"), UsageReported(usage)], {"skipped_chunks": 1})
    )
    validator("openai", "CompletionUsage").validate(body["usage"])
    assert body["usage"]["total_tokens"] == (usage.input_tokens or 0) + (usage.output_tokens or 0)
    assert body["mixgate"] == {"skipped_chunks": 1}


ERRORS = [
    ModelNotFoundError("no", param="model"),
    RateLimitedError("slow", upstream_code="c", retry_after_s=1),
    TruncatedError("\u00e9"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_an_error_has_all_four_members_and_its_source(error):
    body = json.loads(error_answer(error))
    validator("openai", "ErrorResponse").validate(body)
    assert body["error"]["source"] in ("gateway", "provider")


def test_an_error_in_a_stream_is_an_error_body_and_nothing_else():
    (body,) = payloads(error_chunk(error_answer(ERRORS[2]), None, ERRORS[2]))
    validator("openai", "ErrorResponse").validate(body)
    assert set(body) == {"error"}


def test_metadata_stands_beside_the_error_of_a_stream():
    failure = ERRORS[2]
    (body,) = payloads(error_chunk(error_answer(failure), HEAD, failure, {"attempt": 1}))
    assert body["openrouter_metadata"] == {"attempt": 1}
    assert "openrouter_metadata" not in body["error"]


def all_kinds(kind):
    return [kind, *(inner for child in kind.__subclasses__() for inner in all_kinds(child))]


@pytest.mark.parametrize("kind", all_kinds(ProviderError), ids=lambda kind: kind.__name__)
def test_every_failure_has_a_word_in_openrouters_closed_list(kind):
    failure = kind("x")
    (body,) = payloads(error_chunk(error_answer(failure), HEAD, failure))
    validator("openrouter", "ChatStreamChunk").validate(body)
    assert body["error"]["metadata"]["code"] == kind.code


# ---- over sockets

LOGPROBS = {"content": [{"token": "a", "logprob": -0.5}]}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
CALLING = {"message": {"role": "assistant", "content": None, "tool_calls": [CALL]}, "finish_reason": "tool_calls"}
REPLIES = {
    "text": says("Na\u00efve \U0001f600 text."),
    "empty text": fails(200, completion("")),
    "logprobs without their details": fails(200, completion("a", logprobs=LOGPROBS)),
    "tool call": fails(200, completion("", **CALLING)),
    "refusal": fails(200, completion("", message={"role": "assistant", "content": None, "refusal": "No."})),
    "no usage": fails(200, {"choices": [{"message": {"content": "a"}}]}),
}


async def stream_payloads(client, body, path="/v1"):
    response = await client.post(f"{path}/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return payloads(response.content)


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
async def test_bodies_from_the_socket_are_valid(tmp_path, reply):
    async with fake_provider(reply) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            for path in ("/v1", "/api/v1"):
                whole = await running.client.post(f"{path}/chat/completions", json=chat())
                assert whole.status_code == 200
                validator("openai", "CreateChatCompletionResponse").validate(whole.json())
                validator("openrouter", "ChatResult").validate(whole.json())
                for parsed in await stream_payloads(running.client, chat(stream=True), path):
                    validator("openai", "CreateChatCompletionStreamResponse").validate(parsed)
                    validator("openrouter", "ChatStreamChunk").validate(parsed)


async def test_a_broken_stream_ends_in_openrouters_form_on_its_own_path(tmp_path):
    parts = [*stream_chunks("a b c", finish_reason=None, usage=False)[:3], 0.05]
    async with fake_provider(streams(*parts, cut=True)) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            chunks = await stream_payloads(running.client, chat(stream=True), "/api/v1")
    for parsed in chunks:
        validator("openrouter", "ChatStreamChunk").validate(parsed)
    assert chunks[-1]["choices"][0]["finish_reason"] == "error"


async def test_a_stream_that_breaks_ends_with_a_valid_error(tmp_path):
    parts = [*stream_chunks("a b c", finish_reason=None, usage=False)[:3], 0.05]
    async with fake_provider(streams(*parts, cut=True)) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            *chunks, error = await stream_payloads(running.client, chat(stream=True))
    for parsed in chunks:
        validator("openai", "CreateChatCompletionStreamResponse").validate(parsed)
    validator("openai", "ErrorResponse").validate(error)


async def test_streamed_tool_calls_are_valid(tmp_path):
    started = {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]}
    more = {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}
    async with fake_provider(streams(chunk(started), chunk(more), chunk({}, "tool_calls"))) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            for parsed in await stream_payloads(running.client, chat(stream=True)):
                validator("openai", "CreateChatCompletionStreamResponse").validate(parsed)


async def test_models_and_errors_from_the_socket_are_valid(tmp_path):
    async with fake_provider(fails(500)) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            for path in ("/v1", "/api/v1"):
                listed = (await running.client.get(f"{path}/models")).json()
                validator("openai", "ListModelsResponse").validate(listed)
                assert [model["id"] for model in listed["data"]] == ["m"]
                model = (await running.client.get(f"{path}/models/m")).json()
                validator("openai", "Model").validate(model)
                assert model == listed["data"][0]
                for response in (
                    await running.client.get(f"{path}/models/nobody"),
                    await running.client.get(f"{path}/nothing"),
                    await running.client.delete(f"{path}/models"),
                    await running.client.post(f"{path}/chat/completions", json=chat()),
                    await running.client.post(f"{path}/chat/completions", content=b"{"),
                    await running.client.post(f"{path}/chat/completions", json=chat() | {"messages": []}),
                    await running.client.get(f"{path}/models", headers={"host": "evil.example"}),
                ):
                    assert response.status_code >= 400
                    validator("openai", "ErrorResponse").validate(response.json())
                    assert response.json()["error"]["source"] in ("gateway", "provider")

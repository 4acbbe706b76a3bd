import json

import msgspec
import pytest

from providers.base import Endpoint
from providers.errors import (
    CredentialsError,
    GarbledError,
    OverloadedError,
    RateLimitedError,
    ServerError,
    TruncatedError,
)
from providers.messages import (
    AnswerFailed,
    AnswerStarted,
    ChatRequest,
    ChoiceFinished,
    ExtrasDelta,
    Message,
    ReasoningDelta,
    RefusalDelta,
    StreamOptions,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReported,
)
from providers.openai import OpenAi
from providers.quirks import Quirks

DIALECT = OpenAi()
ENDPOINT = Endpoint(id="p/up", provider="p", model="m", upstream_model="up", base_url="http://127.0.0.1:1/v1")
HI = Message(role="user", content="hi")


def encode(request, *, stream=False, **quirks):
    endpoint = msgspec.structs.replace(ENDPOINT, quirks=Quirks(**quirks))
    return json.loads(DIALECT.encode(request, endpoint, stream=stream).body)


def stream_of(*chunks, done=True):
    payloads = [chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode() for chunk in chunks]
    return b"".join(b"data: %b\n\n" % payload for payload in [*payloads, *([b"[DONE]"] if done else [])])


def read_stream(*chunks, done=True):
    decoder = DIALECT.decoder(ENDPOINT, stream=True)
    return decoder.feed(stream_of(*chunks, done=done)) + decoder.finish()


def read_body(body):
    decoder = DIALECT.decoder(ENDPOINT, stream=False)
    assert decoder.feed(body if isinstance(body, bytes) else json.dumps(body).encode()) == []
    return decoder.finish()


def delta(members, reason=None, index=0, **more):
    return {"choices": [{"index": index, "delta": members, "finish_reason": reason, **more}]}


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def failure(events):
    assert isinstance(events[-1], AnswerFailed)
    return events[-1].error


# ---- encode


def test_a_request_goes_to_its_url_under_the_providers_own_model_id():
    wire = DIALECT.encode(ChatRequest(messages=(HI,), model="m"), ENDPOINT, stream=False)
    assert (wire.url, wire.method) == ("http://127.0.0.1:1/v1/chat/completions", "POST")
    assert json.loads(wire.body) == {"model": "up", "messages": [{"role": "user", "content": "hi"}]}


def test_usage_is_asked_for_with_every_stream_where_the_server_takes_that():
    request = ChatRequest(messages=(HI,), stream=True, stream_options=StreamOptions(include_usage=False))
    assert encode(request, stream=True)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in encode(request, stream=True, stream_usage=False)
    assert "stream_options" not in encode(request)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(
    "asked", [{"max_tokens": 5}, {"max_completion_tokens": 5}, {"max_tokens": 9, "max_completion_tokens": 5}]
)
def test_the_output_limit_goes_under_the_name_that_the_server_knows(field, asked):
    body = encode(ChatRequest(messages=(HI,), **asked), output_limit_field=field)
    assert {name: value for name, value in body.items() if name.startswith("max")} == {field: 5}


def test_developer_messages_are_system_messages_where_the_role_is_unknown():
    request = ChatRequest(messages=(Message(role="developer", content="x"), HI))
    assert encode(request)["messages"][0]["role"] == "system"
    assert encode(request, developer_role=True)["messages"][0]["role"] == "developer"


def test_routing_members_go_only_to_a_router():
    members = {
        "models": ("a",),
        "provider": {"order": ["x"]},
        "plugins": [{"id": "web"}],
        "session_id": "s",
        "trace": {},
    }
    request = ChatRequest(messages=(HI,), route="fallback", usage={"include": True}, debug={}, **members)
    assert set(encode(request)) == {"model", "messages"}
    assert set(encode(request, router_fields=True)) == {"model", "messages", *members}


# ---- decode


def test_everything_an_answer_can_hold_becomes_events_in_reading_order():
    events = read_stream(
        {"id": "i", "model": "real", "provider": "who", "system_fingerprint": "fp", "service_tier": "t", "choices": []},
        delta({"role": "assistant", "content": "", "reasoning": "hm", "reasoning_details": [{"type": "x"}]}),
        delta({"reasoning_content": "so"}),
        delta({"content": "a", "annotations": [{"type": "url_citation"}]}),
        delta({"refusal": "no"}),
        delta({}, "stop", native_finish_reason="eos"),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
    )
    assert events == [
        AnswerStarted("i", "real", "who", "fp", "t"),
        ReasoningDelta("hm", 0, [{"type": "x"}]),
        ReasoningDelta("so"),
        TextDelta("a"),
        ExtrasDelta({"annotations": [{"type": "url_citation"}]}),
        RefusalDelta("no"),
        ChoiceFinished("stop", 0, "eos"),
        UsageReported(Usage(input_tokens=3, output_tokens=4)),
    ]


def test_content_lists_with_thinking_are_told_apart():
    content = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "a"}, 5]
    events = read_body({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]})
    assert events[1:3] == [ReasoningDelta("hm"), TextDelta("a")]


def test_token_entries_get_the_members_that_openai_promises():
    sent = [
        {"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "b", "logprob": -2}]},
        {"token": "c", "logprob": 0},
        7,
    ]
    events = read_stream(delta({"content": "ac"}, "stop", logprobs={"content": sent}))
    assert of(TextDelta, events)[0].logprobs == [
        {"token": "a", "logprob": -0.1, "bytes": None, "top_logprobs": [{"token": "b", "logprob": -2, "bytes": None}]},
        {"token": "c", "logprob": 0, "bytes": None, "top_logprobs": []},
    ]


USAGES = {
    "openai": (
        {
            "prompt_tokens": 9,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 2},
            "cost": 0.0000123,
        },
        Usage(
            input_tokens=9,
            output_tokens=5,
            cached_input_tokens=4,
            cache_write_tokens=1,
            reasoning_tokens=2,
            cost_in_nusd=12_300,
        ),
    ),
    "nulls": ({"prompt_tokens": None, "prompt_tokens_details": None}, Usage()),
    "nothing": ({}, Usage()),
    "negative, absurd and of the wrong type": (
        {"prompt_tokens": -1, "completion_tokens": 10**12, "prompt_tokens_details": {"cached_tokens": True}},
        Usage(),
    ),
    "details that are no object": (
        {"prompt_tokens": 1, "prompt_tokens_details": [], "completion_tokens_details": 5},
        Usage(input_tokens=1),
    ),
    "a fraction": ({"prompt_tokens": 3.0}, Usage(input_tokens=3)),
    "a cost in words": ({"prompt_tokens": 1, "cost": "0.5"}, Usage(input_tokens=1, cost_in_nusd=500_000_000)),
    "a cost taken apart": ({"prompt_tokens": 1, "cost": {"total_cost": 0.1}}, Usage(input_tokens=1)),
    "a negative cost": ({"cost": -1}, Usage()),
    "an exact cost": ({"cost": 0.1}, Usage(cost_in_nusd=100_000_000)),
}


@pytest.mark.parametrize(("sent", "expected"), USAGES.values(), ids=USAGES)
def test_usage_is_believed_as_far_as_it_can_be_true(sent, expected):
    message = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": sent}
    assert of(UsageReported, read_body(message)) == [UsageReported(expected)]
    assert of(UsageReported, read_stream(delta({"content": "a"}, "stop"), {"usage": sent})) == [UsageReported(expected)]


def pieces(*calls, index=0):
    return [delta({"tool_calls": [call]}, index=index) for call in calls]


def whole(content, reason):
    return read_body({"choices": [{"message": {"content": content}, "finish_reason": reason}]})


def call(index=None, call_id=None, name=None, arguments=None):
    sent = {"id": call_id, "function": {"name": name, "arguments": arguments}}
    return sent if index is None else {"index": index, **sent}


TWO_CALLS = [
    ToolCallDelta(0, 0, "a", "f", "{"),
    ToolCallDelta(0, 0, None, None, "}"),
    ToolCallDelta(1, 0, "b", "f", "{}"),
]
NUMBERINGS = {
    "as OpenAI does": pieces(call(0, "a", "f", "{"), call(0, None, None, "}"), call(1, "b", "f", "{}")),
    "from 1": pieces(call(1, "a", "f", "{"), call(1, None, None, "}"), call(2, "b", "f", "{}")),
    "all 0": pieces(call(0, "a", "f", "{"), call(0, None, None, "}"), call(0, "b", "f", "{}")),
    "none": pieces(call(None, "a", "f", "{"), call(None, None, None, "}"), call(None, "b", "f", "{}")),
    "id and name with every piece": pieces(call(0, "a", "f", "{"), call(0, "a", "f", "}"), call(1, "b", "f", "{}")),
    "another id with every piece": pieces(call(0, "a", "f", "{"), call(0, "x", None, "}"), call(1, "b", "f", "{}")),
    "empty words instead of none": pieces(call(0, "a", "f", "{"), call(0, "", "", "}"), call(1, "b", "f", "{}")),
}


@pytest.mark.parametrize("chunks", NUMBERINGS.values(), ids=NUMBERINGS)
def test_parallel_calls_are_told_apart_however_they_are_numbered(chunks):
    assert of(ToolCallDelta, read_stream(*chunks, delta({}, "tool_calls"))) == TWO_CALLS


def test_calls_of_several_choices_are_numbered_apart():
    chunks = [*pieces(call(0, "a", "f", "{}")), *pieces(call(0, "b", "g", "{}"), index=1)]
    events = read_stream(*chunks, delta({}, "tool_calls"), delta({}, "tool_calls", 1))
    assert of(ToolCallDelta, events) == [ToolCallDelta(0, 0, "a", "f", "{}"), ToolCallDelta(0, 1, "b", "g", "{}")]


def test_a_call_without_an_id_gets_one_so_that_it_can_be_answered():
    (found,) = of(ToolCallDelta, read_stream(*pieces(call(0, None, "f", "{}")), delta({}, "tool_calls")))
    assert found.id


def test_parsed_arguments_become_text_again_and_whole_calls_keep_their_order():
    calls = [{"index": 0, "id": "a", "function": {"name": "f", "arguments": {"x": [1]}}}, call(0, "b", "f", "{}")]
    events = read_body({"choices": [{"message": {"tool_calls": calls}, "finish_reason": "tool_calls"}]})
    assert of(ToolCallDelta, events) == [
        ToolCallDelta(0, 0, "a", "f", '{"x":[1]}'),
        ToolCallDelta(1, 0, "b", "f", "{}"),
    ]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [("stop", "stop"), ("eos", "stop"), ("max_tokens", "length"), ("tool_use", "tool_calls"), ("whatever", "stop")],
)
def test_finish_reasons_are_openais_with_the_servers_own_beside(sent, expected):
    assert ChoiceFinished(expected, 0, sent) in read_stream(delta({"content": "a"}, sent))
    assert ChoiceFinished(expected, 0, sent) in read_body(
        {"choices": [{"message": {"content": "a"}, "finish_reason": sent}]}
    )


@pytest.mark.parametrize("reason", ["error", "abort", "cancelled"])
def test_a_failure_that_calls_itself_an_end_is_a_failure(reason):
    assert type(failure(read_stream(delta({"content": "a"}), delta({}, reason)))) is ServerError
    assert type(failure(whole("a", reason))) is ServerError


def test_a_whole_body_without_a_reason_is_complete_a_stream_is_not():
    assert ChoiceFinished("stop", 0, None) in read_body({"choices": [{"message": {"content": "a"}}]})
    assert type(failure(read_body({"choices": [{"message": {"content": None}}]}))) is ServerError
    assert type(failure(read_stream(delta({"content": "a"})))) is TruncatedError
    assert type(failure(read_stream(delta({"content": "a"}), delta({"content": "b"}, "stop", 1)))) is TruncatedError
    assert type(failure(read_stream())) is TruncatedError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429, "message": "slow"}, RateLimitedError),
        ({"code": 503, "message": "busy"}, OverloadedError),
        ({"code": "server_error", "message": "x"}, ServerError),
        ({"code": 401, "message": "x"}, CredentialsError),
        ("text", ServerError),
        ([], ServerError),
        (0, ServerError),
    ],
)
def test_an_error_inside_an_answer_is_a_failure_of_its_own_kind(error, kind):
    assert type(failure(read_body({"error": error}))) is kind
    assert type(failure(read_stream(delta({"content": "a"}), {"error": error}))) is kind
    assert type(failure(read_stream(delta({"content": "a"}, "stop", error=error)))) is kind


def test_nothing_follows_an_end_mark_or_a_failure():
    after = delta({"content": "more"})
    decoder = DIALECT.decoder(ENDPOINT, stream=True)
    events = decoder.feed(stream_of(delta({"content": "a"}, "stop")) + stream_of(after))
    assert decoder.ended
    assert [event.text for event in of(TextDelta, events)] == ["a"]
    assert decoder.feed(stream_of(after)) == decoder.finish() == []
    events = read_stream({"error": "x"}, after, {"error": "y"})
    assert len(of(AnswerFailed, events)) == len(events) == 1


def test_one_unreadable_chunk_is_counted_a_second_is_a_failure():
    decoder = DIALECT.decoder(ENDPOINT, stream=True)
    good = delta({"content": "a"}, "stop")
    events = decoder.feed(stream_of(b"{broken", good)) + decoder.finish()
    assert (decoder.skipped_chunks, of(AnswerFailed, events)) == (1, [])
    assert type(failure(read_stream(b"{broken", b'{"choices": 5}', good))) is GarbledError


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"", "empty body"), (b"<html>", "web page"), (b"{}", "nothing in it"), (b"hello", "not a chat completion")],
)
def test_what_is_no_answer_is_put_into_words(body, words):
    assert words in failure(read_body(body)).message

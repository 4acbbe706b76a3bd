import json

import pytest

from providers.base import Endpoint
from providers.errors import (
    ContextLengthError,
    GarbledError,
    OverloadedError,
    ServerError,
    TruncatedError,
    UnsupportedError,
)
from providers.local import Local
from providers.messages import (
    AnswerFailed,
    ChatRequest,
    ChoiceFinished,
    Function,
    JsonSchema,
    Message,
    Part,
    ResponseFormat,
    TextDelta,
    Tool,
    Usage,
    UsageReported,
)

DIALECT = Local()
ENDPOINT = Endpoint(id="local/x", provider="local", model="m", upstream_model="x", base_url="", local=True)
HI = Message(role="user", content="hi")
FINISH = {"t": "finish", "choice": 0, "reason": "stop"}
USAGE = {"t": "usage", "input_tokens": 3, "output_tokens": 2, "cached_input_tokens": 1}


def encode(*messages, **members):
    wire = DIALECT.encode(ChatRequest(messages=messages or (HI,), **members), ENDPOINT, stream=True)
    assert wire.url == "local:x"
    return json.loads(wire.body)


def read(*lines, rest=b"", stream=True):
    decoder = DIALECT.decoder(ENDPOINT, stream=stream)
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines) + rest
    return decoder.feed(data) + decoder.finish()


def test_only_what_was_asked_is_said():
    assert encode() == {"model": "x", "messages": [{"role": "user", "content": "hi"}]}


def test_every_setting_reaches_the_worker():
    asked = {
        "temperature": 0.1,
        "top_p": 0.2,
        "top_k": 3,
        "min_p": 0.4,
        "seed": 5,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 4,
    }
    others = {"presence_penalty": 0.5, "frequency_penalty": 0.6}
    body = encode(stop="x", max_completion_tokens=9, repetition_penalty=1.1, **asked, **others)
    expected = {"stop": ["x"], "max_tokens": 9, "repeat_penalty": 1.1, **asked, **others}
    assert {name: body[name] for name in expected} == expected


def test_parts_are_joined_and_developers_are_systems():
    parts = (Part(type="text", text="a"), Part(type="text", text="b"))
    body = encode(Message(role="developer", content="s"), Message(role="user", content=parts), Message(role="user"))
    assert body["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a\n\nb"},
        {"role": "user", "content": ""},
    ]


def test_a_last_assistant_message_is_to_be_continued():
    assert encode(HI, Message(role="assistant", content="So"))["prefill"] is True
    assert "prefill" not in encode()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (ResponseFormat(type="text"), {}),
        (ResponseFormat(type="json_object"), {"json_object": True}),
        (
            ResponseFormat(type="json_object", schema={"type": "array"}),
            {"json_object": True, "json_schema": {"type": "array"}},
        ),
        (ResponseFormat(type="json_schema", json_schema=JsonSchema(schema={"a": 1})), {"json_schema": {"a": 1}}),
    ],
)
def test_a_wanted_form_is_passed_on(wanted, expected):
    body = encode(response_format=wanted)
    assert {name: body[name] for name in body if name.startswith("json")} == expected


@pytest.mark.parametrize(
    "asked",
    [
        {"tools": (Tool(function=Function(name="f")),), "tool_choice": "required"},
        {"logit_bias": {"1": 5}},
        {"messages": (Message(role="user", content=(Part(type="image_url", image_url="x"),)),)},
    ],
    ids=["forced tool", "logit_bias", "image"],
)
def test_what_it_cannot_do_is_said_before_it_is_asked(asked):
    with pytest.raises(UnsupportedError) as caught:
        DIALECT.encode(ChatRequest(**{"messages": (HI,), **asked}), ENDPOINT, stream=True)
    assert caught.value.param in asked


def test_lines_become_events():
    entries = [{"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}]
    assert read(
        {"t": "text", "text": "a", "logprobs": entries}, {"t": "text", "choice": 0, "text": "b"}, FINISH, USAGE
    ) == [
        TextDelta("a", 0, entries),
        TextDelta("b"),
        ChoiceFinished("stop", 0, "stop"),
        UsageReported(Usage(input_tokens=3, output_tokens=2, cached_input_tokens=1)),
    ]


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (USAGE,),
        ({"t": "text", "text": "a"},),
        ({"t": "text", "text": "a"}, USAGE),
        ({"t": "text", "text": "a"}, {"t": "text", "text": "b", "choice": 1}, FINISH, USAGE),
    ],
    ids=["nothing", "usage alone", "no end", "usage without an end", "one of two ended"],
)
def test_an_answer_without_its_end_was_cut(lines):
    events = read(*lines)
    assert isinstance(events[-1], AnswerFailed)
    assert isinstance(events[-1].error, TruncatedError)


def test_the_line_that_counts_is_known_to_be_the_last_one():
    """So that an answer's end needs no turn of its own to be seen."""
    decoder = DIALECT.decoder(ENDPOINT, stream=True)
    decoder.feed(json.dumps(FINISH).encode() + b"\n")
    assert not decoder.ended
    decoder.feed(json.dumps(USAGE).encode() + b"\n")
    assert decoder.ended


@pytest.mark.parametrize("rest", [b"", json.dumps(USAGE).encode()], ids=["no usage", "half a line of it"])
def test_without_its_usage_a_whole_answer_was_cut_and_a_stream_was_not(rest):
    assert isinstance(read(FINISH, rest=rest, stream=False)[-1], AnswerFailed)
    assert [type(event) for event in read(FINISH, rest=rest)] == [ChoiceFinished]


@pytest.mark.parametrize("line", [b"{broken\n", b"[]\n", b'{"t":"finish","reason":"bored"}\n', b"\xff\n", b"\n"])
def test_a_line_that_is_none_is_garbled(line):
    (failed,) = read(rest=line + json.dumps(FINISH).encode() + b"\n")
    assert isinstance(failed.error, GarbledError)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("local_worker_crashed", OverloadedError),
        ("local_queue_full", OverloadedError),
        ("context_length_exceeded", ContextLengthError),
        ("new", ServerError),
    ],
)
def test_an_error_line_says_what_kind_it_is(code, kind):
    line = {"t": "error", "status": 503, "code": code, "message": "m", "retry_after_s": 1.5}
    (failed,) = read(line)
    assert type(failed.error) is kind
    assert (failed.error.message, failed.error.retry_after_s) == ("m", 1.5)


def test_a_refusal_keeps_its_words_and_its_wait():
    body = json.dumps({"error": {"message": "full", "code": "local_queue_full", "param": None}}).encode()
    error = DIALECT.error(503, {"retry-after": "2"}, body, now_unix_s=0)
    assert (type(error), error.message, error.retry_after_s) == (OverloadedError, "full", 2.0)

"""MindStudio's dialect: what becomes of a dialogue, and of the one text that comes back."""

import json

import pytest

from providers.base import Endpoint
from providers.errors import (
    AnswerElsewhereError,
    BadRequestError,
    CredentialsError,
    GarbledError,
    RateLimitedError,
    ServerError,
    UnsupportedError,
)
from providers.messages import (
    AnswerFailed,
    AnswerStarted,
    ChatRequest,
    ChoiceFinished,
    Function,
    FunctionCall,
    Message,
    Part,
    ResponseFormat,
    TextDelta,
    Tool,
    ToolCall,
    UsageReported,
)
from providers.mindstudio import MindStudio

ENDPOINT = Endpoint(
    id="p/up", provider="p", model="m", upstream_model="up", base_url="https://x.test/v2", max_output_tokens=2500
)
HI = Message(role="user", content="hi")


def encode(*messages, **members):
    wire = MindStudio().encode(ChatRequest(messages=messages or (HI,), **members), ENDPOINT, stream=True)
    assert wire.url == "https://x.test/v2/steps/generateText/execute"
    assert not wire.stream
    return json.loads(wire.body)["step"], {(change.param, change.action) for change in wire.adapted}


def test_one_user_message_is_sent_as_it_is():
    step, adapted = encode(Message(role="user", content=(Part(type="text", text="a"), Part(type="text", text="b"))))
    assert step == {
        "message": "a\nb",
        "source": "user",
        "modelOverride": {
            "model": "up",
            "temperature": 0.7,
            "maxResponseTokens": 2500,
            "preamble": "",
            "ignorePreamble": True,
        },
        "structuredOutputType": "text",
        "chatHistoryMode": "exclude",
    }
    assert adapted == set()


def test_a_dialogue_becomes_one_text_by_the_form_that_is_documented():
    call = ToolCall(id="c", function=FunctionCall(name="f", arguments='{"q":1}'))
    step, adapted = encode(
        Message(role="system", content="Be brief."),
        HI,
        Message(role="assistant", content="yes?", tool_calls=(call,)),
        Message(role="tool", tool_call_id="c", content="42"),
        Message(role="developer", content="In French."),
        Message(role="user", content="go on", name="Ann"),
    )
    assert step["message"] == (
        'User: hi\n\nAssistant: yes?\n(calls f with {"q":1})\n\nTool result: 42\n\nUser: go on\n\nAssistant:'
    )
    assert step["modelOverride"]["preamble"] == "Be brief.\n\nIn French."
    assert step["modelOverride"]["ignorePreamble"] is False
    assert adapted == {("messages", "folded"), ("messages[5].name", "dropped")}


def test_a_last_assistant_turn_stays_open():
    step, _ = encode(HI, Message(role="assistant", content="Once upon"))
    assert step["message"] == "User: hi\n\nAssistant: Once upon"


def test_its_limits_hold_and_are_told():
    step, adapted = encode(temperature=1.7, max_tokens=4000, seed=1, stop=("x",), top_p=0.5, user="u", extra={"new": 1})
    assert (step["modelOverride"]["temperature"], step["modelOverride"]["maxResponseTokens"]) == (1.0, 2500)
    assert adapted == {
        ("temperature", "clamped"),
        ("max_tokens", "clamped"),
        ("seed", "dropped"),
        ("stop", "dropped"),
        ("top_p", "dropped"),
        ("user", "dropped"),
        ("new", "dropped"),
    }


def test_json_is_asked_for_by_its_own_name():
    step, _ = encode(response_format=ResponseFormat(type="json_object"))
    assert step["structuredOutputType"] == "json"


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"tools": (Tool(function=Function(name="f")),)}, "tools"),
        ({"functions": (Function(name="f"),)}, "functions"),
        ({"n": 2}, "n"),
        ({"response_format": ResponseFormat(type="json_schema")}, "response_format"),
        (
            {"messages": (Message(role="user", content=(Part(type="image_url", image_url="x"),)),)},
            "messages[0].content[0]",
        ),
        ({"messages": (Message(role="system", content="x"),)}, "messages"),
    ],
)
def test_what_cannot_be_said_is_refused(members, param):
    with pytest.raises(UnsupportedError) as caught:
        MindStudio().encode(ChatRequest(**{"messages": (HI,), **members}), ENDPOINT, stream=False)
    assert caught.value.param == param


def decode(body, headers=None, *, stream=False):
    decoder = MindStudio().decoder(ENDPOINT, stream=stream, headers=headers or {})
    return decoder.feed(body) + decoder.finish()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("member", ["output", "value"])
def test_the_one_text_is_one_delta_and_nobody_knows_how_many_tokens_it_took(member, stream):
    headers = {"x-mindstudio-thread-id": "t1", "x-mindstudio-billing-cost": "12.5"}
    told = decode(json.dumps({member: {"content": "Salut"}}).encode(), headers, stream=stream)
    assert told == [AnswerStarted("t1"), TextDelta("Salut"), ChoiceFinished("stop")]
    assert not any(isinstance(event, UsageReported) for event in told)  # its cost is in credits, whatever one is worth


def test_json_that_comes_parsed_becomes_text():
    assert TextDelta('{"a":[1]}') in decode(b'{"output":{"content":{"a":[1]}}}')


def test_an_answer_that_was_left_elsewhere_says_where():
    (told,) = decode(b'{"outputUrl":"https://bucket.test/1"}')
    assert isinstance(told, AnswerFailed)
    assert isinstance(told.error, AnswerElsewhereError)
    assert told.error.url == "https://bucket.test/1"
    assert "bucket" not in told.error.message


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", GarbledError),
        (b"<html>", GarbledError),
        (b"[" * 100_000, GarbledError),
        (b"{}", ServerError),
        (b'{"output":{}}', ServerError),
        (b'{"output":{"content":5}}', ServerError),
        (b'{"outputUrl":7}', GarbledError),
        (b'{"code":"x","message":"secret"}', ServerError),
    ],
)
def test_nonsense_is_a_failure(body, kind):
    (told,) = decode(body)
    assert type(told.error) is kind
    assert "secret" not in told.error.message


def test_errors_are_read():
    error = MindStudio().error(
        429, {"retry-after": "9", "x-request-id": "r1"}, b'{"code":"rate_limited","message":"20 at once"}', now_unix_s=0
    )
    assert type(error) is RateLimitedError
    assert (error.retry_after_s, error.upstream_code, error.request_id) == (9.0, "rate_limited", "r1")
    error = MindStudio().error(400, {}, b'{"code":"invalid_step_config","message":"no model up"}', now_unix_s=0)
    assert type(error) is BadRequestError
    assert error.message == "no model up"
    assert type(MindStudio().error(403, {}, b"", now_unix_s=0)) is CredentialsError
    assert type(MindStudio().error(302, {}, b"", now_unix_s=0)) is GarbledError

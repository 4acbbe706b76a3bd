"""What every dialect keeps, whoever the provider: the list is `providers.DIALECTS`, and none may go without cases."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers import DIALECTS
from providers.base import Endpoint
from providers.errors import ProviderError
from providers.messages import (
    AnswerFailed,
    ChatRequest,
    ChoiceFinished,
    Message,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from tests.contract.dialect_cases import CASES, ERRORS

CHUNK_SIZES = (1, 2, 3, 7, 64, 1_000_000)
KEY = "sk-planted-0123456789"
WHOLE_ONLY = {"mindstudio"}
"""They answer in one piece whatever was asked."""
ENDPOINT = Endpoint(id="p/up", provider="p", model="m", upstream_model="up", base_url="http://127.0.0.1:1/v1")
ANSWERS = [(dialect, name) for dialect in DIALECTS for name in CASES.get(dialect, ())]
FAILURES = [(dialect, *error) for dialect in DIALECTS for error in ERRORS.get(dialect, ())]


def decode(dialect, body, *, stream, size):
    """Events of a body fed in pieces of one size, neighbouring text joined by nobody."""
    decoder = DIALECTS[dialect].decoder(ENDPOINT, stream=stream)
    events = []
    for start in range(0, len(body), size):
        events += decoder.feed(body[start : start + size])
    return events + decoder.finish()


def texts_in(value):
    """Every string in a JSON value, wherever a dialect has its place for it."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in texts_in(each)]


def succeeded(events):
    return not any(isinstance(event, AnswerFailed) for event in events)


def meaning(events):
    """Texts, tool calls, finish reasons and token counts of an answer."""
    texts, calls, reasons, tokens = {}, {}, {}, None
    for event in events:
        if isinstance(event, TextDelta) and event.text:
            texts[event.choice] = texts.get(event.choice, "") + event.text
        elif isinstance(event, ToolCallDelta):
            call_id, name, arguments = calls.get((event.choice, event.index), ("", "", ""))
            place = (event.choice, event.index)
            calls[place] = (call_id + (event.id or ""), name + (event.name or ""), arguments + event.arguments)
        elif isinstance(event, ChoiceFinished):
            assert event.choice not in reasons
            reasons[event.choice] = event.reason
        elif isinstance(event, UsageReported):
            tokens = (event.usage.input_tokens, event.usage.output_tokens)
    return texts, calls, reasons, tokens


def test_every_dialect_has_cases():
    assert set(DIALECTS) == set(CASES) == set(ERRORS)
    assert all(dialect.name == name for name, dialect in DIALECTS.items())


@pytest.mark.parametrize("size", CHUNK_SIZES)
@pytest.mark.parametrize(("dialect", "name"), ANSWERS)
def test_any_chunking_means_the_same(dialect, name, size):
    case = CASES[dialect][name]
    events = decode(dialect, case.body, stream=case.stream, size=size)
    assert succeeded(events)
    assert meaning(events) == (case.texts, case.calls, case.reasons, case.tokens)
    assert events == decode(dialect, case.body, stream=case.stream, size=len(case.body))


@pytest.mark.parametrize(("dialect", "name"), ANSWERS)
def test_an_answer_cut_at_any_byte_is_no_success_unless_all_of_it_was_said(dialect, name):
    case = CASES[dialect][name]
    successes = 0
    for size in range(len(case.body)):
        events = decode(dialect, case.body[:size], stream=case.stream, size=64)
        assert sum(isinstance(event, AnswerFailed) for event in events) <= 1
        if succeeded(events):
            texts, calls, reasons, _ = meaning(events)
            assert (texts, calls, reasons) == (case.texts, case.calls, case.reasons)
            successes += 1
        else:
            assert isinstance(events[-1], AnswerFailed)
            assert isinstance(events[-1].error, ProviderError)
            assert events[-1].error.retryable
    assert successes < len(case.body) / 2


@pytest.mark.parametrize(("dialect", "name"), ANSWERS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_answer_never_makes_a_decoder_raise(dialect, name, data):
    case = CASES[dialect][name]
    start = data.draw(st.integers(0, len(case.body)))
    end = data.draw(st.integers(start, min(len(case.body), start + 20)))
    body = case.body[:start] + data.draw(st.binary(max_size=20)) + case.body[end:]
    events = decode(dialect, body, stream=case.stream, size=data.draw(st.sampled_from(CHUNK_SIZES)))
    failures = [event for event in events if isinstance(event, AnswerFailed)]
    assert failures in ([], events[-1:])
    assert all(isinstance(failure.error, ProviderError) for failure in failures)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b"{}",
        b"\0" * 100,
        b"\xff" * 100,
        b"<html>down</html>",
        b"[" * 100_000,
        b"data: {}\n\n",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_nonsense_is_a_failure(dialect, stream, body):
    for size in (7, 1_000_000):
        events = decode(dialect, body, stream=stream, size=size)
        assert isinstance(events[-1], AnswerFailed)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_request_is_valid_json_without_any_key(dialect, stream):
    spoken = DIALECTS[dialect]
    request = ChatRequest(
        messages=(
            Message(role="system", content="Be brief."),
            Message(role="user", content='\u00e9 \U0001f600 \0 "\n'),
        ),
        model="m",
        stream=stream,
        max_tokens=5,
        stop=("a",),
        temperature=0.5,
        extra={"x": 1},
    )
    wire = spoken.encode(request, ENDPOINT, stream=stream)
    assert any(request.messages[-1].content in text for text in texts_in(json.loads(wire.body)))
    assert wire.stream == (stream and dialect not in WHOLE_ONLY)
    assert all(name == name.lower() for name in wire.headers)
    signed = spoken.authorize(KEY)
    assert all(name == name.lower() for name in signed)
    assert KEY not in wire.url
    assert KEY.encode() not in wire.body
    assert not {"authorization", "x-api-key"} & set(wire.headers)
    assert spoken.encode(request, ENDPOINT, stream=stream) == wire


@pytest.mark.parametrize(("dialect", "status", "body", "kind"), FAILURES)
def test_a_status_and_body_say_what_went_wrong(dialect, status, body, kind):
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    error = DIALECTS[dialect].error(status, {"retry-after": "3"}, raw, now_unix_s=0)
    assert type(error) is kind
    assert error.upstream_status == status
    assert 400 <= error.status < 600


@pytest.mark.parametrize("dialect", DIALECTS)
@given(
    st.integers(300, 999),
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=10),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "message", "code", "type", "param", "detail", "metadata"]), inner
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)
@settings(max_examples=150, deadline=None)
def test_any_error_body_is_read_without_failing(dialect, status, body):
    error = DIALECTS[dialect].error(status, {}, body, now_unix_s=0)
    assert isinstance(error, ProviderError)
    assert error.message


REMOTE = [name for name in DIALECTS if name != "local"]
"""The local worker is ours: what it says of its failures is meant for clients."""
SECRET = "Traceback: db password hunter2 at 10.0.0.7"


@pytest.mark.parametrize("dialect", REMOTE)
@pytest.mark.parametrize("status", [401, 402, 403, 500, 501, 502, 503, 504, 529, 599])
@pytest.mark.parametrize(
    "shape",
    [
        {"error": {"message": SECRET, "type": SECRET}},
        {"error": SECRET},
        {"detail": SECRET},
        {"message": SECRET},
        [{"error": {"message": SECRET}}],
    ],
    ids=["openai", "text", "detail", "message", "list"],
)
def test_what_a_provider_says_of_its_own_failure_is_not_passed_on(dialect, status, shape):
    assert SECRET not in DIALECTS[dialect].error(status, {}, json.dumps(shape).encode(), now_unix_s=0).message


@pytest.mark.parametrize("dialect", REMOTE)
@pytest.mark.parametrize("code", [500, "502", 503, 401])
@pytest.mark.parametrize("stream", [True, False])
def test_nor_is_it_when_it_comes_inside_an_answer(dialect, code, stream):
    body = json.dumps({"error": {"code": code, "message": SECRET}}).encode()
    events = decode(dialect, b"data: %b\n\n" % body if stream else body, stream=stream, size=1_000_000)
    assert isinstance(events[-1], AnswerFailed)
    assert SECRET not in events[-1].error.message

"""What a pretended provider says, its dialect's own Decoder reads back: same text, calls, reason, usage and errors."""

import pytest

from providers import DIALECTS
from providers.base import Capabilities, Endpoint
from providers.errors import (
    BadRequestError,
    ContentPolicyError,
    ContextLengthError,
    OverloadedError,
    RateLimitedError,
    ServerError,
    UnsupportedError,
)
from providers.messages import (
    AnswerFailed,
    ChatRequest,
    ChoiceFinished,
    Message,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from providers.pretence import EMPTY, PAGE, Said, SaidCall
from providers.pretending import PRETENDERS

ENDPOINT = Endpoint(
    id="p/up",
    provider="p",
    model="m",
    upstream_model="up",
    base_url="http://127.0.0.1:1/v1",
    capabilities=Capabilities(system=True, prefill=True),
)
TEXT = "Na\u00efve caf\u00e9 \u2014 \u4e2d\u6587 \U0001f600 done, and more of it."
PIECES = tuple(TEXT[start : start + 4] for start in range(0, len(TEXT), 4))
SAID = Said(pieces=PIECES, input_tokens=7, output_tokens=len(PIECES))
CALLS = (SaidCall("aB3dE6gH9", "look_up", '{"q": "\u00e9"}'), SaidCall("bB3dE6gH9", "add", '{"a": 1}'))
NO_TOOLS = {"bedrock_invoke", "mindstudio", "local"}
CHUNK_SIZES = (1, 3, 64, 1_000_000)
NAMES = list(DIALECTS)
PREFILL = "The sky is"


def decode(name, body, headers, *, stream, size=1_000_000):
    decoder = DIALECTS[name].decoder(ENDPOINT, stream=stream, headers=headers)
    events = []
    for start in range(0, len(body), size):
        events += decoder.feed(body[start : start + size])
    return events + decoder.finish(), decoder


def joined(events):
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def calls_of(events):
    calls = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            call = calls.setdefault(event.index, ["", "", ""])
            for place, part in enumerate((event.id, event.name, event.arguments)):
                call[place] += part or ""
    return [SaidCall(*call) for _, call in sorted(calls.items())]


def assert_read_back(name, events, said):
    assert not [event for event in events if isinstance(event, AnswerFailed)]
    assert joined(events) == "".join(said.pieces)
    assert [event.reason for event in events if isinstance(event, ChoiceFinished)] == [said.reason]
    if PRETENDERS[name].counts:
        usage = [event.usage for event in events if isinstance(event, UsageReported)][-1]
        assert (usage.input_tokens, usage.output_tokens) == (said.input_tokens, said.output_tokens)


def test_every_dialect_can_be_pretended():
    assert set(PRETENDERS) == set(DIALECTS)


@pytest.mark.parametrize("reason", ["stop", "length"])
@pytest.mark.parametrize("name", NAMES)
def test_a_whole_answer_is_read_back(name, reason):
    said = Said(pieces=PIECES, input_tokens=7, output_tokens=9, reason="stop" if name == "mindstudio" else reason)
    reply = PRETENDERS[name].whole(said)
    events, _ = decode(name, reply.body, reply.headers, stream=False)
    assert_read_back(name, events, said)


@pytest.mark.parametrize("size", CHUNK_SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_a_streamed_answer_is_read_back_however_it_is_cut(name, size):
    spoken = PRETENDERS[name].stream(SAID)
    events, _ = decode(name, spoken.whole, spoken.headers, stream=True, size=size)
    assert_read_back(name, events, SAID)


@pytest.mark.parametrize("name", [name for name in NAMES if PRETENDERS[name].streams])
def test_each_piece_of_text_is_in_its_own_bytes(name):
    spoken = PRETENDERS[name].stream(SAID)
    decoder = DIALECTS[name].decoder(ENDPOINT, stream=True, headers=spoken.headers)
    assert joined(decoder.feed(spoken.opening)) == ""
    assert tuple(joined(decoder.feed(piece)) for piece in spoken.pieces) == PIECES
    assert any(isinstance(event, UsageReported) for event in decoder.feed(spoken.closing))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in NO_TOOLS])
def test_calls_are_read_back(name, stream):
    said = Said(pieces=("Well.",), calls=CALLS, reason="tool_calls", input_tokens=7, output_tokens=9)
    if stream:
        spoken = PRETENDERS[name].stream(said)
        events, _ = decode(name, spoken.whole, spoken.headers, stream=True)
    else:
        reply = PRETENDERS[name].whole(said)
        events, _ = decode(name, reply.body, reply.headers, stream=False)
    assert_read_back(name, events, said)
    read = calls_of(events)
    assert [(call.id, call.name) for call in read] == [(call.id, call.name) for call in CALLS]
    assert [call.arguments.replace(" ", "") for call in read] == [call.arguments.replace(" ", "") for call in CALLS]


@pytest.mark.parametrize("name", [name for name in NAMES if PRETENDERS[name].garble()])
def test_one_garbled_chunk_is_passed_over(name):
    spoken = PRETENDERS[name].stream(SAID)
    body = spoken.opening + b"".join(spoken.pieces[:3]) + PRETENDERS[name].garble()
    body += b"".join(spoken.pieces[3:]) + spoken.closing + spoken.end
    events, decoder = decode(name, body, spoken.headers, stream=True)
    assert_read_back(name, events, SAID)
    assert decoder.skipped_chunks == 1


KINDS = {
    "rate_limit": (RateLimitedError,),
    "server": (ServerError,),
    "overloaded": (OverloadedError,),
    "context": (ContextLengthError,),
    "policy": (ContentPolicyError,),
    "prefill": (BadRequestError, UnsupportedError),
}


@pytest.mark.parametrize("trouble", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_an_error_means_what_it_says(name, trouble):
    reply = PRETENDERS[name].refuse(trouble)
    if reply is None:
        assert (name, trouble) in {("mindstudio", "policy"), ("mindstudio", "prefill"), ("local", "policy")}
        return
    error = DIALECTS[name].error(reply.status, {**reply.headers, "retry-after": "2"}, reply.body, now_unix_s=0)
    busy = name == "local" and trouble in ("rate_limit", "server")
    expected = (OverloadedError,) if busy else KINDS[trouble]
    assert type(error) in expected
    assert error.retry_after_s == 2


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_answer_is_not_taken_for_one(name, stream):
    for body in (PRETENDERS[name].fail_inside(stream=stream), PAGE.body, EMPTY.body):
        events, _ = decode(name, body, {}, stream=stream)
        assert isinstance(events[-1], AnswerFailed)
        assert events[-1].error.retryable


@pytest.mark.parametrize("name", NAMES)
def test_a_prefill_is_found_in_the_request(name):
    asked = Message(role="user", content="What colour is the sky?\n\nAnd the sea?")
    plain = DIALECTS[name].encode(ChatRequest(messages=(asked,), model="m"), ENDPOINT, stream=True)
    begun = ChatRequest(messages=(asked, Message(role="assistant", content=PREFILL)), model="m")
    assert PRETENDERS[name].prefill(plain.body) == ""
    assert PRETENDERS[name].prefill(DIALECTS[name].encode(begun, ENDPOINT, stream=True).body) == PREFILL

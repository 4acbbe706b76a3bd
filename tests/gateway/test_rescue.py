"""Going on with a cut answer: what was delivered and what is joined to it are one text, or there is none."""

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.delivered import DELIVERED_MAX_CHARS, Delivered, is_plain
from gateway.rescue import ECHO_MIN_CHARS, DivergedError, Rescue
from providers.base import Capabilities
from providers.errors import BadRequestError, ResetError, ServerError, TruncatedError, UnsupportedError
from providers.messages import (
    AnswerFailed,
    AnswerStarted,
    ChatRequest,
    ChoiceFinished,
    ExtrasDelta,
    Function,
    Message,
    ReasoningDelta,
    RefusalDelta,
    ResponseFormat,
    TextDelta,
    Tool,
    ToolCallDelta,
    Usage,
    UsageReported,
)
from tests.fakes.catalogues import endpoint

USER = Message(role="user", content="tell it")
REQUEST = ChatRequest(messages=(USER,), model="m", stream=True)
CONTINUES, ASKED = endpoint("c/x", capabilities=Capabilities(prefill=True)), endpoint("a/x")
STARTED = AnswerStarted("gen", "up", 1)
USAGE = UsageReported(Usage(input_tokens=9, output_tokens=4))

# Few letters and many repetitions: every wrong seam would be a likely one.
texts = st.one_of(
    st.text(st.sampled_from("ab \n"), min_size=1, max_size=60),
    st.text(min_size=1, max_size=40),
    st.builds(
        lambda part, times: part * times, st.sampled_from(["a", "ab", "ha ha", "\u65e5\u672c"]), st.integers(1, 30)
    ),
)


@st.composite
def chunks(draw, text):
    """The text in pieces, empty ones among them."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def cut_answers(draw):
    """A whole text, and how much of it was delivered."""
    text = draw(texts)
    return text, draw(st.integers(1, len(text)))


def rescue_after(delivered, target, request=REQUEST):
    """The Rescue of an answer of which so much was delivered, asked of this Endpoint; and what that is asked."""
    seen = Delivered()
    seen.add([STARTED, *(TextDelta(letter) for letter in delivered)])
    assert seen.can_go_on
    rescue = Rescue(seen, TruncatedError("cut"))
    return rescue, rescue.ask(request, target)


def joined(rescue, pieces, *, ends=True):
    """What is new in an answer of these pieces of text: the text, and its failure if there is one."""
    events = [STARTED, *(TextDelta(piece) for piece in pieces), *([ChoiceFinished("stop")] if ends else [])]
    text, finished = "", 0
    for event in events:
        out = rescue.join([event])
        if out and isinstance(out[-1], AnswerFailed):
            assert len(out) == 1
            return text, out[-1].error
        text += "".join(one.text for one in out if isinstance(one, TextDelta))
        finished += sum(isinstance(one, ChoiceFinished) for one in out)
        assert not any(isinstance(one, AnswerStarted) for one in out)
    assert finished == ends
    return text, None


# ---- whatever the text, wherever the cut, however it comes


@given(cut_answers(), st.data())
def test_asked_again_it_gives_exactly_the_rest(answer, data):
    text, cut = answer
    rescue, asked = rescue_after(text[:cut], ASKED)
    assert asked is REQUEST
    new, failure = joined(rescue, data.draw(chunks(text)))
    assert (failure, text[:cut] + new) == (None, text)


@given(cut_answers(), st.data())
def test_a_prefill_gives_exactly_the_rest(answer, data):
    """Told all but the blanks at the end, it says these itself, as anybody does who goes on with that text."""
    text, cut = answer
    given_text = text[:cut].rstrip()
    assume(given_text)
    assume(len(given_text) < ECHO_MIN_CHARS or not text[len(given_text) :].startswith(given_text))
    rescue, asked = rescue_after(text[:cut], CONTINUES)
    assert asked.messages == (USER, Message(role="assistant", content=given_text, prefix=True))
    new, failure = joined(rescue, data.draw(chunks(text[len(given_text) :])))
    assert (failure, text[:cut] + new) == (None, text)


@given(cut_answers(), st.data())
def test_a_prefill_that_swallows_the_blanks_gives_the_rest_too(answer, data):
    text, cut = answer
    given_text, rest = text[:cut].rstrip(), text[cut:]
    assume(given_text)
    assume(rest.strip() == rest)
    assume(len(given_text) < ECHO_MIN_CHARS or not rest.startswith(given_text))
    rescue, _ = rescue_after(text[:cut], CONTINUES)
    new, failure = joined(rescue, data.draw(chunks(rest)))
    assert (failure, text[:cut] + new) == (None, text)


@given(cut_answers(), st.data())
def test_a_prefill_that_comes_back_is_not_said_twice(answer, data):
    text, cut = answer
    start = "." * ECHO_MIN_CHARS
    rescue, _ = rescue_after(start + text[:cut], CONTINUES)
    new, failure = joined(rescue, data.draw(chunks(start + text)))
    assert (failure, text[:cut] + new) == (None, text)


def test_with_nothing_but_blanks_there_is_nothing_to_go_on_with():
    rescue, asked = rescue_after(" \n", CONTINUES)
    assert (rescue.by, asked) == ("again", REQUEST)


@given(cut_answers(), texts, st.data())
def test_another_answer_is_never_joined(answer, other, data):
    text, cut = answer
    assume(not other.startswith(text[:cut]))
    rescue, _ = rescue_after(text[:cut], ASKED)
    new, failure = joined(rescue, data.draw(chunks(other)))
    assert new == ""
    assert isinstance(failure, DivergedError)
    assert failure.code == TruncatedError.code
    assert not rescue.flowing


@given(cut_answers(), st.data())
def test_an_answer_that_ends_before_the_cut_is_another_one(answer, data):
    text, cut = answer
    shorter = text[: data.draw(st.integers(0, cut - 1))]
    rescue, _ = rescue_after(text[:cut], ASKED)
    new, failure = joined(rescue, data.draw(chunks(shorter)))
    assert (new, type(failure)) == ("", DivergedError)


@given(cut_answers(), st.data())
def test_what_is_cut_again_has_given_nothing_that_is_not_the_rest(answer, data):
    text, cut = answer
    second = data.draw(st.integers(0, len(text)))
    rescue, _ = rescue_after(text[:cut], ASKED)
    new, failure = joined(rescue, data.draw(chunks(text[:second])), ends=False)
    assert failure is None
    assert text[:cut] + new == text[: max(cut, second)]
    assert rescue.flowing == (second > cut)


@given(cut_answers(), st.data())
def test_events_may_come_together(answer, data):
    text, cut = answer
    rescue, _ = rescue_after(text[:cut], ASKED)
    events = [STARTED, *(TextDelta(piece) for piece in data.draw(chunks(text))), ChoiceFinished("stop"), USAGE]
    out = rescue.join(events)
    assert text[:cut] + "".join(one.text for one in out if isinstance(one, TextDelta)) == text
    assert [type(one) for one in out if not isinstance(one, TextDelta)] == [ChoiceFinished, UsageReported]


# ---- one thing at a time


def test_an_answer_that_was_cut_at_its_very_end_just_ends():
    rescue, _ = rescue_after("All.", ASKED)
    assert joined(rescue, ["Al", "l."]) == ("", None)
    assert rescue.flowing


def test_a_prefill_that_has_nothing_to_add_just_ends():
    rescue, _ = rescue_after("All.", CONTINUES)
    assert joined(rescue, []) == ("", None)


def test_thoughts_come_before_the_text_and_so_too_late():
    rescue, _ = rescue_after("All", CONTINUES)
    assert rescue.join([STARTED, ReasoningDelta("hm")]) == []
    assert not rescue.flowing
    assert rescue.join([TextDelta(" of it")]) == [TextDelta(" of it")]


@pytest.mark.parametrize("target", [ASKED, CONTINUES])
@pytest.mark.parametrize("event", [RefusalDelta("I can't"), ToolCallDelta(0, name="f")])
def test_a_refusal_or_a_call_goes_on_with_no_text(event, target):
    rescue, _ = rescue_after("All", target)
    (failed,) = rescue.join([STARTED, event])
    assert isinstance(failed.error, DivergedError)


def test_a_second_try_begins_anew():
    rescue, _ = rescue_after("one two", ASKED)
    assert rescue.join([TextDelta("one")]) == []
    rescue.ask(REQUEST, ASKED)
    assert joined(rescue, ["one two", " three"]) == (" three", None)


def test_who_took_no_prefill_is_asked_again():
    rescue, asked = rescue_after("one", CONTINUES)
    assert (rescue.by, len(asked.messages)) == ("prefill", 2)
    rescue.refused.add(CONTINUES.id)
    assert rescue.ask(REQUEST, CONTINUES) is REQUEST
    assert rescue.by == "again"


def test_the_clients_own_start_goes_first():
    begun = msgspec.structs.replace(REQUEST, messages=(USER, Message(role="assistant", content="Once")))
    _, asked = rescue_after(" upon", CONTINUES, begun)
    assert asked.messages == (USER, Message(role="assistant", content="Once upon", prefix=True))
    calls = msgspec.structs.replace(REQUEST, messages=(USER, Message(role="assistant", content=None)))
    _, asked = rescue_after("So", CONTINUES, calls)
    assert asked.messages == (USER, Message(role="assistant", content="So", prefix=True))


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"max_tokens": 100}, {"max_tokens": 99}),
        ({"max_completion_tokens": 100}, {"max_completion_tokens": 99}),
        ({"max_tokens": 1}, {"max_tokens": 1}),
        ({}, {"max_tokens": None, "max_completion_tokens": None}),
    ],
)
def test_what_was_delivered_counts_towards_the_length_that_was_asked_for(limits, left):
    request = msgspec.structs.replace(REQUEST, **limits)
    rescue, asked = rescue_after("o", CONTINUES, request)
    assert rescue.tokens == 1
    assert {name: getattr(asked, name) for name in left} == left
    assert rescue_after("o", ASKED, request)[1] is request


def test_the_usage_of_a_prefill_counts_both_parts():
    rescue, _ = rescue_after("o", CONTINUES)
    (event,) = rescue.join([USAGE])
    assert event.usage == Usage(input_tokens=9, output_tokens=5)
    rescue.ask(REQUEST, ASKED)
    assert rescue.join([USAGE]) == [USAGE]
    unknown = UsageReported(Usage(input_tokens=9))
    assert rescue.join([unknown]) == [unknown]
    assert rescue.tokens == 1


@pytest.mark.parametrize(
    ("target", "error", "refusal", "blame"),
    [
        (CONTINUES, BadRequestError("no prefill"), True, "unsupported"),
        (CONTINUES, UnsupportedError("no prefill"), True, "unsupported"),
        (CONTINUES, ServerError("x"), False, None),
        (ASKED, BadRequestError("x"), False, None),
        (ASKED, DivergedError("x"), False, "gateway"),
        (ASKED, ResetError("x"), False, None),
    ],
)
def test_nobody_is_blamed_for_what_was_our_idea(target, error, refusal, blame):
    rescue, _ = rescue_after("one", target)
    assert (rescue.is_refusal(error), rescue.blame(error)) == (refusal, blame)


def test_a_prefill_that_flows_was_not_refused():
    rescue, _ = rescue_after("one", CONTINUES)
    rescue.join([TextDelta(" two")])
    assert not rescue.is_refusal(BadRequestError("x"))


# ---- what can be rescued at all


@pytest.mark.parametrize(
    ("members", "plain"),
    [
        ({}, True),
        ({"n": 1}, True),
        ({"n": 2}, False),
        ({"tools": (Tool(function=Function(name="f")),)}, False),
        ({"functions": (Function(name="f"),)}, False),
        ({"logprobs": True}, False),
        ({"response_format": ResponseFormat(type="text")}, True),
        ({"response_format": ResponseFormat(type="json_object")}, False),
        ({"modalities": ["text", "audio"]}, False),
    ],
)
def test_only_an_answer_that_is_text_and_nothing_else_is_gone_on_with(members, plain):
    assert is_plain(msgspec.structs.replace(REQUEST, **members)) == plain


@pytest.mark.parametrize(
    "event",
    [
        ReasoningDelta("hm"),
        RefusalDelta("no"),
        ToolCallDelta(0),
        ExtrasDelta({"images": []}),
        ChoiceFinished("stop"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_has_more_than_text_by_now_cannot_go_on_elsewhere(event):
    delivered = Delivered()
    delivered.add([STARTED, TextDelta("one"), USAGE])
    assert delivered.can_go_on
    delivered.add([event])
    assert not delivered.can_go_on


def test_nothing_and_too_much_cannot_go_on_either():
    delivered = Delivered()
    delivered.add([STARTED, TextDelta("")])
    assert not delivered.can_go_on
    delivered.add([TextDelta("x" * DELIVERED_MAX_CHARS)])
    assert (delivered.can_go_on, delivered.tokens, len(delivered.text)) == (True, 1, DELIVERED_MAX_CHARS)
    delivered.add([TextDelta("x")])
    assert not delivered.can_go_on
    assert delivered.text == "", "what cannot be gone on with is not kept"

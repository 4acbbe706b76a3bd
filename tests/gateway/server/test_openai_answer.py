"""One JSON body from the events of an answer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.server.openai_answer import AnswerHead, whole_answer
from providers.messages import (
    AnswerStarted,
    ChoiceFinished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReported,
)

HEAD = AnswerHead("gen-1", 1_763_760_000, "mixtral", "demo")
COUNTS = st.none() | st.integers(0, 10**9)
USAGES = st.builds(
    Usage,
    input_tokens=COUNTS,
    output_tokens=COUNTS,
    cached_input_tokens=COUNTS,
    cache_write_tokens=COUNTS,
    reasoning_tokens=COUNTS,
    cost_in_nusd=COUNTS,
)


@given(
    text=st.text(max_size=40),
    at=st.integers(0, 40),
    choice=st.integers(0, 3),
    fingerprint=st.none() | st.text(max_size=8),
    reason=st.sampled_from(["stop", "length", "content_filter"]),
    native=st.none() | st.text(max_size=8),
    usage=USAGES,
    notes=st.sampled_from([{}, {"skipped_chunks": 1}]),
)
def test_a_text_in_one_piece_is_answered_as_the_same_text_in_two(
    text, at, choice, fingerprint, reason, native, usage, notes
):
    started = AnswerStarted(system_fingerprint=fingerprint)
    last = (ChoiceFinished(reason, choice, native), UsageReported(usage))
    one = [started, TextDelta(text, choice), *last]
    two = [started, TextDelta(text[:at], choice), TextDelta(text[at:], choice), *last]
    assert whole_answer(HEAD, one, notes) == whole_answer(HEAD, two, notes)
    assert whole_answer(HEAD, tuple(one), notes) == whole_answer(HEAD, one, notes)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([TextDelta("a", logprobs=[{"token": "a"}])], {"content": "a"}),
        ([ReasoningDelta("hm"), TextDelta("a")], {"content": "a", "reasoning": "hm"}),
        ([RefusalDelta("no")], {"content": None, "refusal": "no"}),
        ([ToolCallDelta(0, 0, "c1", "f", "{}")], {"content": None}),
        ([], {"content": ""}),
    ],
)
def test_an_answer_of_another_shape_is_put_together(events, message):
    body = whole_answer(HEAD, [AnswerStarted(), *events, ChoiceFinished("stop"), UsageReported(Usage())], {})
    choice = json.loads(body)["choices"][0]
    assert message.items() <= choice["message"].items()
    assert (choice["logprobs"] is not None) == any(getattr(event, "logprobs", None) for event in events)


def test_the_end_of_another_choice_is_no_end_of_this_one():
    events = [AnswerStarted(), TextDelta("a", 0), ChoiceFinished("stop", 1), UsageReported(Usage())]
    first, second = json.loads(whole_answer(HEAD, events, {}))["choices"]
    assert (first["message"]["content"], first["finish_reason"]) == ("a", None)
    assert (second["message"]["content"], second["finish_reason"]) == ("", "stop")

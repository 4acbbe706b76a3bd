"""How an answer is kept: the same answer, in few pieces; and what is no whole answer."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cache.entry import Kept, is_whole, joined, pack, unbilled, unpack
from gateway.server.openai_answer import AnswerHead, whole_answer
from providers.messages import (
    AnswerStarted,
    ChoiceFinished,
    Event,
    ExtrasDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReported,
)

HEAD = AnswerHead("gen-1", 1, "m", "p")
TEXT = st.text(max_size=6)
CHOICE = st.integers(0, 2)
PIECES = st.one_of(
    st.builds(TextDelta, TEXT, CHOICE, st.none() | st.lists(st.fixed_dictionaries({"token": TEXT}), max_size=2)),
    st.builds(ReasoningDelta, TEXT, CHOICE, st.none() | st.lists(st.fixed_dictionaries({"d": TEXT}), max_size=1)),
    st.builds(RefusalDelta, TEXT, CHOICE),
    st.builds(
        ToolCallDelta, st.integers(0, 1), CHOICE, st.none() | st.just("call"), st.none() | st.just("f"), arguments=TEXT
    ),
    st.builds(ExtrasDelta, st.dictionaries(st.sampled_from(["images", "annotations"]), TEXT, max_size=1), CHOICE),
)
ANSWERS = st.lists(PIECES, max_size=20).map(
    lambda pieces: [
        AnswerStarted("id", "up", system_fingerprint="fp"),
        *pieces,
        *(ChoiceFinished("stop", choice, "end") for choice in range(3)),
    ]
)


def kept(events: tuple[Event, ...], **others: Any) -> Kept:
    facts: dict[str, Any] = {
        "source_id": "gen-0",
        "made_unix_s": 1.5,
        "ttl_s": 300,
        "endpoint": "p/m",
        "emulated": ("tools",),
        "cost_in_nusd": 123,
    }
    return Kept(**(facts | others), events=events)


@given(ANSWERS)
def test_what_is_read_again_is_the_same_answer(events: list[Event]):
    packed = pack(kept(joined(events)))
    assert packed is not None
    again = unpack(packed)
    assert again is not None
    assert again == kept(joined(events))
    assert whole_answer(HEAD, again.events, {}) == whole_answer(HEAD, events, {})
    assert len(again.events) <= len(events)


def test_a_long_stream_becomes_one_piece():
    events = [TextDelta("a") for _ in range(1000)]
    assert joined([AnswerStarted(), *events, ChoiceFinished("stop"), UsageReported(Usage(output_tokens=5))]) == (
        AnswerStarted(),
        TextDelta("a" * 1000),
        ChoiceFinished("stop"),
    )


@given(st.binary(max_size=200))
def test_other_bytes_are_no_entry(data: bytes):
    assert unpack(data) is None


def test_an_entry_of_another_version_is_not_read():
    packed = pack(kept((TextDelta("a"),)))
    assert packed is not None
    row = msgspec.msgpack.decode(packed)
    for changed in (
        [row[0] + 1, *row[1:]],
        [*row[:-1], [[99, {}]]],
        [*row[:-1], [[-1, {}]]],
        [*row[:-1], [[1, {"x": 1}]]],
    ):
        assert unpack(msgspec.msgpack.encode(changed)) is None


def test_what_no_bytes_stand_for_is_not_kept():
    assert pack(kept((ExtrasDelta({"a": 2**70}),))) is None
    assert pack(kept((TextDelta("\ud800"),))) is None


def test_only_usage_is_taken_off_what_is_shared():
    events: list[Event] = [TextDelta("a"), UsageReported(Usage(input_tokens=5, output_tokens=5))]
    assert unbilled(events) == [TextDelta("a"), UsageReported(Usage(input_tokens=0, output_tokens=0))]


@pytest.mark.parametrize(
    ("ends", "choices", "limited", "whole"),
    [
        (["stop"], 1, False, True),
        (["tool_calls"], 1, False, True),
        (["function_call"], 1, False, True),
        (["length"], 1, False, False),
        (["length"], 1, True, True),
        (["content_filter"], 1, True, False),
        (["stop", "stop"], 2, False, True),
        (["stop"], 2, False, False),
        (["stop", "content_filter"], 2, False, False),
        ([], 1, False, False),
    ],
)
def test_what_counts_as_all_of_an_answer(ends: list[Any], choices: int, limited: bool, whole: bool):
    events: list[Event] = [TextDelta("a"), *(ChoiceFinished(reason, place) for place, reason in enumerate(ends))]
    assert is_whole(events, choices, may_be_long=limited) is whole

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.messages import ChatRequest, Message, ToolCall, merge_extra, unknown_members

NAMES = st.sampled_from(["a", "b", "c", "0", "1"])
TREES = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans(),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=12,
)


def prune(value, keep):
    """`value` with some members of its objects left out."""
    if isinstance(value, dict):
        return {name: prune(inner, keep) for name, inner in value.items() if keep()}
    if isinstance(value, list):
        return [prune(inner, keep) for inner in value]
    return value


@given(st.dictionaries(NAMES, TREES, max_size=4), st.data())
@settings(max_examples=300, deadline=None)
def test_what_was_not_understood_comes_back_where_it_was(sent, data):
    understood = prune(sent, lambda: data.draw(st.booleans()))
    merged = json.loads(json.dumps(understood))
    merge_extra(merged, unknown_members(sent, understood) or {})
    assert merged == sent


@given(st.dictionaries(NAMES, TREES, max_size=4))
@settings(max_examples=100, deadline=None)
def test_what_was_understood_whole_leaves_nothing(sent):
    assert unknown_members(sent, sent) is None


def test_what_is_there_already_stays():
    body = {"model": "ours", "messages": [{"role": "user"}]}
    merge_extra(body, {"model": "theirs", "messages": {"0": {"role": "system", "x": 1}}, "y": 2})
    assert body == {"model": "ours", "messages": [{"role": "user", "x": 1}], "y": 2}


def test_nulls_are_not_kept():
    assert unknown_members({"a": None, "b": {"c": None}}, {"b": {}}) is None


@pytest.mark.parametrize(("members", "limit"), [({}, None), ({"max_tokens": 3}, 3), ({"max_completion_tokens": 4}, 4)])
def test_the_output_limit_has_two_spellings(members, limit):
    assert ChatRequest(messages=(Message(role="user"),), **members).output_limit_tokens == limit


def test_what_was_not_given_is_not_written():
    request = ChatRequest(messages=(Message(role="assistant", tool_calls=(ToolCall(id="a"),)),), n=1)
    assert json.loads(msgspec.json.encode(request)) == {
        "messages": [{"role": "assistant", "tool_calls": [{"id": "a", "type": "function"}]}],
        "n": 1,
    }

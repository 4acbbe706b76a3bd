"""What makes two requests the same: whatever may change the answer, and nothing else."""

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.cache.key import Asked, digest_of
from gateway.keys.ring import NO_GRANTS, Grants
from gateway.server.openai_request import decode_chat
from providers.messages import ChatRequest

BASE: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
CHANGES: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hi!"}],
    "max_tokens": 5,
    "max_completion_tokens": 5,
    "n": 2,
    "stop": "x",
    "seed": 1,
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "min_p": 0.5,
    "top_a": 0.5,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 0.5,
    "logit_bias": {"5": 1},
    "logprobs": True,
    "top_logprobs": 2,
    "response_format": {"type": "json_object"},
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "none",
    "parallel_tool_calls": False,
    "functions": [{"name": "f"}],
    "function_call": "none",
    "reasoning": {"effort": "low"},
    "reasoning_effort": "low",
    "verbosity": "low",
    "modalities": ["text"],
    "audio": {"voice": "x"},
    "prediction": {"type": "content"},
    "web_search_options": {},
    "service_tier": "flex",
    "store": True,
    "metadata": {"a": "b"},
    "user": "u",
    "safety_identifier": "s",
    "prompt_cache_key": "p",
    "cache_control": {"type": "ephemeral"},
    "provider": {"order": ["a"]},
    "plugins": [{"id": "web"}],
    "transforms": ["middle-out"],
    "route": "fallback",
    "session_id": "s",
    "trace": {"a": 1},
    "usage": {"include": True},
    "debug": {"a": 1},
    "unheard_of": 1,
}
"""A value for each member of a request that is not the usual one."""
DELIVERY = {"model", "models", "stream", "stream_options"}
"""How it is delivered, and by which name its Route was asked for; the Routes themselves count apart."""

ASKED = Asked(
    tenant="key:a/a",
    routes=("m",),
    suffix=None,
    catalogue="c",
    grants=NO_GRANTS,
    request=decode_chat(b'{"messages":[{"role":"user"}]}'),
)


def digest(body: bytes | dict[str, Any], **others: Any) -> str:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = digest_of(replace(ASKED, request=decode_chat(text), **others))
    assert found is not None
    return found


def test_every_member_of_a_request_is_either_tried_here_or_delivery():
    assert set(CHANGES) - {"unheard_of"} | DELIVERY | {"extra"} == set(ChatRequest.__struct_fields__)


@pytest.mark.parametrize("member", sorted(CHANGES))
def test_any_member_that_may_change_the_answer_makes_another_request(member: str):
    assert digest(BASE | {member: CHANGES[member]}) != digest(BASE)


@pytest.mark.parametrize(
    "delivery",
    [
        {"stream": True},
        {"stream": False},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"model": "alias"},
    ],
)
def test_how_it_is_delivered_does_not(delivery: dict[str, Any]):
    assert digest(BASE | delivery) == digest(BASE)


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "key:b/b"},
        {"tenant": "key:a/"},
        {"routes": ("m", "n")},
        {"routes": ("n",)},
        {"suffix": ":floor"},
        {"catalogue": "d"},
        {"grants": Grants(models=("m",))},
        {"grants": Grants(data="no_training")},
    ],
)
def test_whose_it_is_and_where_it_may_go_make_another_request(other: dict[str, Any]):
    assert digest(BASE, **other) != digest(BASE)


def test_texts_that_join_to_the_same_are_not_the_same():
    one, other = ([{"role": "user", "content": text} for text in texts] for texts in (["ab", "c"], ["a", "bc"]))
    assert digest(BASE | {"messages": one}) != digest(BASE | {"messages": other})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
OTHERS = sorted(set(CHANGES) - {"tools", "messages"})


def tooled(members: set[str], schema: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    tools = [{"function": {"name": "f", "parameters": schema}}]
    return BASE | {name: CHANGES[name] for name in sorted(members)} | {"tools": tools} | extra


BODIES = st.builds(
    tooled,
    st.sets(st.sampled_from(OTHERS)),
    st.dictionaries(st.text(max_size=5), JSON, max_size=4),
    st.dictionaries(st.sampled_from(["x1", "x2"]), JSON, max_size=2),
)


def shuffled(value: Any, dice: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(one, dice)) for key, one in value.items()]
        dice.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        return [shuffled(one, dice) for one in value]
    return value


@given(BODIES, st.randoms(), st.sampled_from([None, 1, 4]), st.booleans())
def test_order_of_members_spacing_and_escapes_do_not_count(
    body: dict[str, Any], dice: random.Random, indent: int | None, ascii_only: bool
):
    other = json.dumps(shuffled(body, dice), indent=indent, ensure_ascii=ascii_only).encode()
    assert digest(other) == digest(body)


@given(BODIES, st.sampled_from(OTHERS))
def test_taking_any_member_away_makes_another_request(body: dict[str, Any], member: str):
    with_it = body | {member: CHANGES[member]}
    without = {name: value for name, value in with_it.items() if name != member}
    assert digest(with_it) != digest(without)


def test_a_request_that_cannot_be_written_down_never_comes_twice():
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    request = msgspec.structs.replace(decode_chat(json.dumps(BASE).encode()), metadata=deep)
    assert digest_of(replace(ASKED, request=request)) is None

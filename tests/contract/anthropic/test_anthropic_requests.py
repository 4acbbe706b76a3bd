"""Whatever a client asks, Anthropic is sent what its own types and its stated rules allow, or nothing at all."""

import json
import os
import re
from itertools import pairwise

import msgspec
import pytest
from hypothesis import HealthCheck, given, reject, settings

from providers.anthropic import Anthropic
from providers.errors import UnsupportedError
from providers.messages import ChatRequest
from tests.contract.anthropic.requests import ENDPOINTS, REQUESTS
from tests.contract.anthropic.vendor import check_request

GENERATED = 2000 if os.environ.get("MIXGATE_TEST_FULL") else 200


def check_blocks(turn):
    """The rules of a turn that the types leave out."""
    content = turn["content"]
    if isinstance(content, str):
        assert content.strip()
        return
    assert content
    kinds = [block["type"] for block in content]
    assert kinds == sorted(kinds, key=lambda kind: kind != "tool_result")
    for block in content:
        if block["type"] == "text":
            assert block["text"].strip()
        for name in ("id", "tool_use_id"):
            assert re.fullmatch(r"[a-zA-Z0-9_-]+", block.get(name, "x"))
        if block["type"] in ("thinking", "redacted_thinking"):
            assert turn["role"] == "assistant"
            assert "cache_control" not in block
        if block["type"] == "thinking":
            assert block["signature"]


def check_rules(body, endpoint):
    """The rules of a request that the types leave out."""
    roles = [turn["role"] for turn in body["messages"]]
    assert roles[0] == "user"
    if "system" not in roles:
        assert all(before != after for before, after in pairwise(roles))
    thinking = body.get("thinking", {"type": "disabled"})
    choice = body.get("tool_choice", {"type": "auto"})
    if thinking["type"] == "enabled":
        assert 1024 <= thinking["budget_tokens"] < body["max_tokens"]
        assert choice["type"] in ("auto", "none")
        assert roles[-1] != "assistant" or body["messages"][-1]["content"][-1]["type"] == "tool_use"
    if thinking["type"] != "disabled":
        assert body.get("temperature", 1) == 1
        assert body.get("top_p", 1) >= 0.95
        assert "top_k" not in body
    assert not {"temperature", "top_p"} <= set(body)
    assert endpoint.quirks.sampling or not {"temperature", "top_p", "top_k"} & set(body)
    assert "tool_choice" not in body or body["tools"]
    if choice["type"] == "tool":
        assert choice["name"] in [tool["name"] for tool in body["tools"]]
    assert all(stop.strip() for stop in body.get("stop_sequences", ()))
    assert body["max_tokens"] <= (endpoint.max_output_tokens or 10**9)


@settings(max_examples=GENERATED, deadline=None, suppress_health_check=list(HealthCheck))
@given(REQUESTS, ENDPOINTS)
def test_a_generated_request_is_valid_or_refused(asked, endpoint):
    request = msgspec.convert(asked, ChatRequest)
    try:
        wire = Anthropic().encode(request, endpoint, stream=bool(len(asked) % 2))
    except UnsupportedError:
        reject()  # not one of those that are counted
    body = json.loads(wire.body)
    check_request(body)
    check_rules(body, endpoint)
    for turn in body["messages"]:
        check_blocks(turn)
    assert all(told.param and told.detail for told in wire.adapted)
    assert wire.body == Anthropic().encode(request, endpoint, stream=wire.stream).body


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": 1},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "hint": 1}]}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"tools": [{"name": "f", "parameters": {}}]},
        {"output_config": {"effort": "ultra"}},
        {"temperature": 1.5},
    ],
)
def test_the_judge_itself_finds_what_is_wrong(wrong):
    good = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    check_request(good)
    with pytest.raises((AssertionError, ValueError)):
        check_request({**good, **wrong})

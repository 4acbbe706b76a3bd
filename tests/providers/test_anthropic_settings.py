"""What the Anthropic dialect makes of everything but the conversation: tools, sampling, thinking, the account."""

import pytest

from tests.providers.anthropic_asks import TOOL, USER, body, call, endpoint, told, wire


@pytest.mark.parametrize(
    ("choice", "parallel", "sent"),
    [
        ("auto", None, {"type": "auto"}),
        ("required", None, {"type": "any"}),
        ("none", False, {"type": "none"}),
        ({"type": "function", "function": {"name": "f"}}, None, {"type": "tool", "name": "f"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("auto", True, {"type": "auto"}),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
            None,
            {"type": "any"},
        ),
    ],
)
def test_tool_choice_in_its_words(choice, parallel, sent):
    other = {"type": "function", "function": {"name": "g"}}
    said = body(tools=[TOOL, other], tool_choice=choice, parallel_tool_calls=parallel)
    assert said["tool_choice"] == sent
    narrowed = isinstance(choice, dict) and choice["type"] == "allowed_tools"
    assert [tool["name"] for tool in said["tools"]] == (["f"] if narrowed else ["f", "g"])


def test_a_choice_of_no_tool_is_told():
    named = {"type": "function", "function": {"name": "nobody"}}
    assert told(tools=[TOOL], tool_choice=named) == {("tool_choice", "dropped")}
    assert told(tool_choice="required") == {("tool_choice", "dropped")}
    assert told(tool_choice="auto") == set()


def test_tools_of_its_own_pass_and_other_types_do_not():
    own = {"type": "web_search_20250305"}
    extra = {"tools": {"0": {"name": "web_search", "max_uses": 2}}}
    said = body(tools=[own, {"type": "custom"}, TOOL], extra=extra)
    assert said["tools"][0] == {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
    assert len(said["tools"]) == 2
    assert told(tools=[own, {"type": "custom"}, TOOL], extra=extra) == {("tools[1]", "dropped")}


def test_strict_tools_and_answers_need_a_model_that_holds_to_schemas():
    strict = {"type": "function", "function": {"name": "f", "strict": True}}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    said = body(tools=[strict], response_format=wanted)
    assert said["tools"][0]["strict"] is True
    assert said["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    loose = endpoint(able=("tools",))
    said = body(tools=[strict], response_format=wanted, at=loose)
    assert "strict" not in said["tools"][0]
    assert "output_config" not in said
    assert told(tools=[strict], response_format=wanted, at=loose) == {
        ("tools[0].function.strict", "dropped"),
        ("response_format", "dropped"),
    }
    assert told(response_format={"type": "json_object"}) == {("response_format", "dropped")}
    assert told(response_format={"type": "text"}) == set()


@pytest.mark.parametrize(
    ("asked", "sent", "changes"),
    [
        ({"temperature": 0.3}, {"temperature": 0.3}, set()),
        ({"temperature": 1.7}, {"temperature": 1.0}, {("temperature", "clamped")}),
        ({"temperature": 0.3, "top_p": 1}, {"temperature": 0.3}, set()),
        ({"temperature": 0.3, "top_p": 0.5}, {"temperature": 0.3}, {("top_p", "dropped")}),
        ({"top_p": 0.5, "top_k": 4}, {"top_p": 0.5, "top_k": 4}, set()),
        ({"top_k": -1}, {}, set()),
    ],
)
def test_sampling_within_its_ranges(asked, sent, changes):
    said = body(**asked)
    assert {name: said[name] for name in ("temperature", "top_p", "top_k") if name in said} == sent
    assert told(**asked) == changes


def test_no_sampling_where_the_model_takes_none():
    newer = endpoint(sampling=False)
    asked = {"temperature": 0.3, "top_p": 1, "top_k": 4}
    assert not {"temperature", "top_p", "top_k"} & set(body(at=newer, **asked))
    assert told(at=newer, **asked) == {("temperature", "dropped"), ("top_k", "dropped")}


def test_stops_without_anything_to_see_are_left_out():
    assert body(stop=["\n\n", "END", ""])["stop_sequences"] == ["END"]
    assert told(stop=["\n\n", "END"]) == {("stop", "dropped")}
    assert "stop_sequences" not in body(stop="\n")


@pytest.mark.parametrize(
    ("asked", "limit", "sent"),
    [
        ({"reasoning_effort": "high"}, 10_000, 8000),
        ({"reasoning_effort": "minimal"}, 10_000, 1024),
        ({"reasoning": {"effort": "xhigh"}}, 10_000, 9500),
        ({"reasoning": {"enabled": True}}, 10_000, 5000),
        ({"reasoning": {"max_tokens": 3000}}, 10_000, 3000),
        ({"reasoning": {"max_tokens": 20_000}}, 10_000, 9999),
        ({"reasoning": {"max_tokens": 10}}, 10_000, 1024),
        ({"reasoning_effort": "high"}, 900_000, 128_000),
    ],
)
def test_a_budget_to_think_with(asked, limit, sent):
    assert body(max_tokens=limit, **asked)["thinking"] == {"type": "enabled", "budget_tokens": sent}


def test_a_budget_that_is_changed_is_told():
    assert told(max_tokens=10_000, reasoning={"max_tokens": 10}) == {("reasoning.max_tokens", "clamped")}
    assert told(max_tokens=10_000, reasoning_effort="ultra") == {("reasoning_effort", "dropped")}


@pytest.mark.parametrize(
    "asked",
    [
        {"max_tokens": 1024},
        {"tools": [TOOL], "tool_choice": "required"},
        {"messages": [USER, {"role": "assistant", "content": "Well"}]},
        {
            "messages": [
                USER,
                {"role": "assistant", "tool_calls": [call()]},
                {"role": "tool", "tool_call_id": "c1", "content": "1"},
            ]
        },
    ],
    ids=["small limit", "forced tool", "prefill", "unsigned tool loop"],
)
def test_what_cannot_go_with_a_thinking_budget_goes_before_it(asked):
    messages = asked.pop("messages", [USER])
    assert "thinking" not in body(*messages, reasoning_effort="high", **asked)
    assert told(*messages, reasoning_effort="high", **asked) == {("reasoning", "dropped")}


def test_effort_for_models_that_set_their_own_budget():
    newer = endpoint(thinking="effort")
    said = body(reasoning_effort="minimal", tools=[TOOL], tool_choice="required", at=newer)
    assert said["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert said["output_config"] == {"effort": "low"}
    hidden = body(reasoning={"effort": "max", "exclude": True}, at=newer)
    assert hidden["thinking"] == {"type": "adaptive", "display": "omitted"}
    assert body(reasoning_effort="none", at=newer)["thinking"] == {"type": "disabled"}
    assert told(reasoning={"max_tokens": 2000}, at=newer) == {("reasoning.max_tokens", "dropped")}


def test_no_thinking_where_there_is_none():
    dull = endpoint(able=())
    assert "thinking" not in body(reasoning_effort="high", at=dull)
    assert told(reasoning_effort="high", at=dull) == {("reasoning", "dropped")}
    assert told(reasoning_effort="none", at=dull) == set()


def test_thinking_fixes_the_sampling():
    asked = {"max_tokens": 4096, "reasoning_effort": "low", "temperature": 0.2, "top_p": 0.96, "top_k": 3}
    said = body(**asked)
    assert "temperature" not in said
    assert "top_k" not in said
    assert said["top_p"] == 0.96
    assert told(**asked) == {("temperature", "dropped"), ("top_k", "dropped")}


@pytest.mark.parametrize(
    ("asked", "sent", "changes"),
    [
        ({"user": "u-1"}, {"user_id": "u-1"}, set()),
        ({"user": "a@b.org"}, None, {("user", "dropped")}),
        ({"safety_identifier": "s"}, {"user_id": "s"}, set()),
        ({"metadata": {"user_id": "m"}}, {"user_id": "m"}, set()),
        ({"metadata": {"team": "x"}}, None, {("metadata", "dropped")}),
    ],
)
def test_the_user_is_an_opaque_id(asked, sent, changes):
    assert body(**asked).get("metadata") == sent
    assert told(**asked) == changes


def test_cache_marks_pass():
    mark = {"type": "ephemeral"}
    tool = {**TOOL, "cache_control": mark}
    said = body({**USER, "cache_control": mark}, tools=[tool], cache_control={"type": "ephemeral", "ttl": "5m"})
    assert said["messages"][0]["content"] == [{"type": "text", "text": "hi", "cache_control": mark}]
    assert said["tools"][0]["cache_control"] == mark
    assert said["cache_control"] == {"type": "ephemeral", "ttl": "5m"}
    assert told(cache_control={"type": "forever"}) == {("cache_control", "dropped")}


@pytest.mark.parametrize(
    ("name", "value", "neutral"),
    [
        ("n", 2, 1),
        ("seed", 1, None),
        ("logprobs", True, False),
        ("top_logprobs", 3, None),
        ("logit_bias", {"1": 2}, {}),
        ("presence_penalty", 0.5, 0),
        ("frequency_penalty", -1, 0.0),
        ("repetition_penalty", 1.1, 1),
        ("min_p", 0.1, 0),
        ("modalities", ["text", "audio"], ["text"]),
        ("store", True, False),
        ("service_tier", "flex", "auto"),
    ],
)
def test_what_it_has_no_word_for_is_dropped_and_told(name, value, neutral):
    assert name not in body(**{name: value})
    assert told(**{name: value}) == {(name, "dropped")}
    assert told(**{name: neutral}) == set()


def test_unknown_members_are_dropped_and_told():
    extra = {"thinking": {"type": "enabled"}, "messages": {"0": {"x": 1}}}
    assert body(extra=extra) == body()
    assert told(extra=extra) == {("thinking.type", "dropped"), ("messages.0.x", "dropped")}
    assert told(extra={"a\r\nset-cookie: x": 1}) == {("a__set-cookie__x", "dropped")}
    assert len(wire(extra={str(number): 1 for number in range(1000)}).adapted) == 32

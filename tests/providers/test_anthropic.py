"""What the Anthropic dialect says, member by member. Recorded traffic and the SDK judge it in tests/contract."""

import base64
import json

import msgspec
import pytest

from providers.anthropic import API_VERSION, DEFAULT_OUTPUT_TOKENS, Anthropic
from providers.anthropic_messages import OPENING_TEXT
from providers.base import Capabilities, Endpoint
from providers.errors import UnsupportedError
from providers.messages import ChatRequest
from providers.quirks import Quirks

DIALECT = Anthropic()
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
PNG = "data:image/png;base64,iVBORw0KGgo="
EVERYTHING = ("system", "tools", "json_object", "json_schema", "prefill", "vision", "reasoning")


def endpoint(*, able=EVERYTHING, most=None, **quirks):
    return Endpoint(
        id="a/up",
        provider="a",
        model="m",
        upstream_model="claude-up",
        base_url="https://api.anthropic.com/v1",
        max_output_tokens=most,
        capabilities=Capabilities(**dict.fromkeys(able, True)),
        quirks=Quirks(**quirks),
    )


def wire(*messages, at=None, stream=False, **members):
    request = msgspec.convert({"model": "m", "messages": list(messages or [USER]), **members}, ChatRequest)
    return DIALECT.encode(request, at or endpoint(), stream=stream)


def body(*messages, **members):
    return json.loads(wire(*messages, **members).body)


def told(*messages, **members):
    return {(item.param, item.action) for item in wire(*messages, **members).adapted}


def call(call_id="c1", arguments="{}", name="f"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_plain_request_needs_nothing_else():
    said = wire(at=endpoint(able=()))
    assert json.loads(said.body) == {"model": "claude-up", "max_tokens": DEFAULT_OUTPUT_TOKENS, "messages": [USER]}
    assert said.url == "https://api.anthropic.com/v1/messages"
    assert said.headers["anthropic-version"] == API_VERSION == "2023-06-01"
    assert said.adapted == ()


def test_the_key_goes_in_its_own_header():
    assert DIALECT.authorize("k") == {"x-api-key": "k"}


def test_a_stream_is_asked_for_in_the_body():
    assert body(stream=True)["stream"] is True
    assert "stream" not in body()


@pytest.mark.parametrize(
    ("asked", "most", "sent", "changes"),
    [
        ({}, None, DEFAULT_OUTPUT_TOKENS, set()),
        ({}, 8192, 8192, set()),
        ({"max_tokens": 100}, 8192, 100, set()),
        ({"max_completion_tokens": 7, "max_tokens": 9}, None, 7, set()),
        ({"max_tokens": 10_000}, 8192, 8192, {("max_tokens", "clamped")}),
    ],
)
def test_there_is_always_an_output_limit(asked, most, sent, changes):
    assert body(at=endpoint(most=most), **asked)["max_tokens"] == sent
    assert told(at=endpoint(most=most), **asked) == changes


def test_instructions_stand_apart():
    marked = [{"type": "text", "text": "b", "cache_control": {"type": "ephemeral", "ttl": "1h", "x": 1}}]
    said = body({"role": "system", "content": "a"}, {"role": "developer", "content": marked}, USER)
    assert said["system"] == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]
    assert said["messages"] == [USER]


def test_instructions_in_mid_conversation_move_to_the_top_unless_the_model_takes_them():
    asked = (USER, {"role": "system", "content": "now in French"})
    assert body(*asked)["system"] == [{"type": "text", "text": "now in French"}]
    assert told(*asked) == {("messages[1].role", "folded")}
    late = endpoint(late_system=True)
    assert body(*asked, at=late)["messages"][1] == {
        "role": "system",
        "content": [{"type": "text", "text": "now in French"}],
    }
    assert told(*asked, at=late) == set()


def test_instructions_alone_become_the_users_turn():
    asked = {"role": "system", "content": "say hi"}
    assert body(asked)["messages"] == [{"role": "user", "content": [{"type": "text", "text": "say hi"}]}]
    assert told(asked) == {("messages", "folded")}


def test_nothing_at_all_cannot_be_said():
    with pytest.raises(UnsupportedError):
        wire({"role": "user", "content": " \n"})


def test_turns_of_one_role_are_joined():
    asked = (USER, {"role": "user", "content": "there"})
    both = [{"type": "text", "text": "hi"}, {"type": "text", "text": "there"}]
    assert body(*asked)["messages"] == [{"role": "user", "content": both}]
    assert told(*asked) == {("messages[1].role", "merged")}


def test_a_conversation_begins_with_the_user():
    asked = ({"role": "assistant", "content": "hello"}, USER)
    assert body(*asked)["messages"][0] == {"role": "user", "content": OPENING_TEXT}
    assert told(*asked) == {("messages[0]", "folded")}


def test_blank_text_is_left_out():
    said = body({"role": "user", "content": [{"type": "text", "text": " "}, {"type": "text", "text": "x"}]})
    assert said["messages"] == [{"role": "user", "content": [{"type": "text", "text": "x"}]}]


def test_tool_calls_and_their_results_are_blocks_in_turn():
    asked = (
        USER,
        {"role": "assistant", "content": "let me see", "tool_calls": [call("a", '{"x": 1.0}'), call("b", "")]},
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "two"}]},
        {"role": "user", "content": "go on"},
    )
    assert body(*asked, tools=[TOOL])["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "let me see"},
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1.0}},
                {"type": "tool_use", "id": "b", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "one"},
                {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "two"}]},
                {"type": "text", "text": "go on"},
            ],
        },
    ]
    assert told(*asked, tools=[TOOL]) == set()


def test_results_stand_first_in_their_turn_whatever_was_said_before_them():
    asked = (
        USER,
        {"role": "assistant", "tool_calls": [call()]},
        {"role": "user", "content": "hurry"},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    )
    assert [block["type"] for block in body(*asked)["messages"][2]["content"]] == ["tool_result", "text"]


def test_numbers_in_arguments_are_not_touched():
    text = '{"id": 123456789012345678901234567890, "x": 1.10}'
    assert text.encode() in wire(USER, {"role": "assistant", "tool_calls": [call(arguments=text)]}).body


@pytest.mark.parametrize("arguments", ["{", "[1]", "null", '{"x": NaN}', "[" * 100_000])
def test_arguments_that_are_no_object_stay_readable(arguments):
    asked = (USER, {"role": "assistant", "tool_calls": [call(arguments=arguments)]})
    assert body(*asked)["messages"][1]["content"][0]["input"] == {"_raw": arguments}
    assert told(*asked) == {("messages[1].tool_calls", "folded")}


def test_foreign_ids_fit_and_still_match():
    asked = (
        USER,
        {"role": "assistant", "tool_calls": [call("functions.f:0"), call("functions.f_0")]},
        {"role": "tool", "tool_call_id": "functions.f:0", "content": "1"},
    )
    _, calls, results = body(*asked)["messages"]
    ids = [block["id"] for block in calls["content"]]
    assert results["content"][0]["tool_use_id"] == ids[0]
    assert len(set(ids)) == 2
    assert all(part.replace("_", "").replace("-", "").isalnum() for part in ids)


def test_the_older_function_calls_match_too():
    asked = (
        USER,
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
    )
    said = body(*asked, functions=[{"name": "f"}], function_call={"name": "f"})
    assert said["messages"][2]["content"][0]["tool_use_id"] == said["messages"][1]["content"][0]["id"]
    assert said["tools"] == [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]
    assert said["tool_choice"] == {"type": "tool", "name": "f"}


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
        ),
        (
            {"type": "image_url", "image_url": "https://e.org/a.png"},
            {"type": "image", "source": {"type": "url", "url": "https://e.org/a.png"}},
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
                "title": "a.pdf",
            },
        ),
        (
            {"type": "file", "file": {"file_data": "data:text/plain;base64," + base64.b64encode(b"hey").decode()}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hey"}},
        ),
        (
            {"type": "file", "file": {"file_id": "file_01"}},
            {"type": "document", "source": {"type": "file", "file_id": "file_01"}},
        ),
    ],
)
def test_images_and_files_are_blocks(part, block):
    assert body({"role": "user", "content": [part]})["messages"][0]["content"] == [block]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://e.org/a.png"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,PHN2"}},
        {"type": "image_url"},
        {"type": "file", "file": {"file_id": "file-openai"}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}},
        {"type": "file", "file": {"file_data": "data:application/zip;base64,UEs="}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "video_url"},
    ],
)
def test_what_it_cannot_see_is_left_to_another_endpoint(part):
    with pytest.raises(UnsupportedError):
        wire({"role": "user", "content": [part]})


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


def test_thinking_goes_back_as_it_came_in_whatever_pieces():
    details = [
        {"type": "reasoning.text", "text": "Let", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.text", "text": " me", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.text", "text": "", "signature": "S", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": "D", "format": "anthropic-claude-v1", "index": 1},
    ]
    asked = (USER, {"role": "assistant", "content": "ok", "reasoning": "Let me", "reasoning_details": details}, USER)
    assert body(*asked)["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Let me", "signature": "S"},
        {"type": "redacted_thinking", "data": "D"},
        {"type": "text", "text": "ok"},
    ]
    assert told(*asked) == set()


@pytest.mark.parametrize(
    "said",
    [
        {"reasoning": "hm"},
        {"reasoning_content": "hm"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x", "format": "openai-responses-v1"}]},
        {"reasoning_details": ["x", 1]},
    ],
)
def test_thinking_without_its_signature_cannot_go_back(said):
    asked = (USER, {"role": "assistant", "content": "ok", **said}, USER)
    content = body(*asked)["messages"][1]["content"]
    assert content in ("ok", [{"type": "text", "text": "ok"}])
    if said.get("reasoning_details") != ["x", 1]:
        assert {what for what, _ in told(*asked)} <= {"messages[1].reasoning", "messages[1].reasoning_details"}
        assert told(*asked)


def test_a_model_goes_on_from_a_text_only_where_it_can():
    asked = (USER, {"role": "assistant", "content": "The answer is \n"})
    assert body(*asked)["messages"][1] == {"role": "assistant", "content": "The answer is"}
    assert told(*asked) == {("messages[1].content", "dropped")}
    with pytest.raises(UnsupportedError):
        wire(*asked, at=endpoint(able=()))


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

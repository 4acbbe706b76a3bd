"""What the Anthropic dialect makes of a conversation. Recorded traffic and the SDK judge it in tests/contract."""

import base64
import json

import pytest

from providers.anthropic import API_VERSION, DEFAULT_OUTPUT_TOKENS
from providers.anthropic_messages import OPENING_TEXT
from providers.errors import UnsupportedError
from tests.providers.anthropic_asks import DIALECT, PNG, TOOL, USER, body, call, endpoint, told, wire


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

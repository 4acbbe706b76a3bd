"""Mistral's dialect, rule by rule."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import Adaptation, Capabilities, Endpoint
from providers.errors import (
    BadRequestError,
    ContentPolicyError,
    ContextLengthError,
    CredentialsError,
    GarbledError,
    OverloadedError,
    RateLimitedError,
    ServerError,
    UnknownModelError,
    UnsupportedError,
)
from providers.messages import (
    AnswerFailed,
    ChatRequest,
    ChoiceFinished,
    ExtrasDelta,
    Function,
    FunctionCall,
    JsonSchema,
    Message,
    Part,
    ReasoningDelta,
    ResponseFormat,
    StreamOptions,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    UsageReported,
)
from providers.mistral import JSON_HINT, Mistral
from providers.mistral_messages import ToolIds

PLAIN = Endpoint(id="p/up", provider="p", model="m", upstream_model="up", base_url="http://127.0.0.1:1/v1")
THINKING = Endpoint(
    id="p/up",
    provider="p",
    model="m",
    upstream_model="up",
    base_url="http://127.0.0.1:1/v1",
    capabilities=Capabilities(reasoning=True),
)
HI = Message(role="user", content="hi")
BYE = Message(role="user", content="bye")


def encode(*messages, endpoint=PLAIN, stream=False, **members):
    wire = Mistral().encode(ChatRequest(messages=messages or (HI,), **members), endpoint, stream=stream)
    return json.loads(wire.body), {(change.param, change.action) for change in wire.adapted}


def calls(*ids, content=None):
    return Message(
        role="assistant",
        content=content,
        tool_calls=tuple(ToolCall(id=one, function=FunctionCall(name="f", arguments="{}")) for one in ids),
    )


def result(call_id, content="done", name=None):
    return Message(role="tool", tool_call_id=call_id, content=content, name=name)


def test_a_plain_request_is_what_the_api_takes_and_no_more():
    body, adapted = encode(stream=True, stream_options=StreamOptions(include_usage=True), stop=())
    assert body == {"model": "up", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    assert adapted == set()


def test_members_get_the_names_that_mistral_has_for_them():
    body, adapted = encode(seed=7, max_completion_tokens=9, max_tokens=5, temperature=1.5, n=2, prompt_cache_key="k")
    assert body["random_seed"] == 7
    assert (body["max_tokens"], body["temperature"], body["n"], body["prompt_cache_key"]) == (9, 1.5, 2, "k")
    assert not {"seed", "max_completion_tokens"} & set(body)
    assert adapted == set()


def test_values_out_of_its_bounds_are_clamped_and_told():
    body, adapted = encode(temperature=2.0, seed=-1)
    assert body["temperature"] == 1.5
    assert body["random_seed"] >= 0
    assert adapted == {("temperature", "clamped"), ("seed", "clamped")}


def test_what_asks_for_nothing_is_left_out_in_silence():
    _, adapted = encode(
        top_k=0, repetition_penalty=1, store=False, service_tier="auto", logprobs=False, models=("a",), usage={"a": 1}
    )
    assert adapted == set()


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"logit_bias": {"1": 1.0}}, "logit_bias"),
        ({"logprobs": True}, "logprobs"),
        ({"top_k": 5}, "top_k"),
        ({"user": "u"}, "user"),
        ({"verbosity": "low"}, "verbosity"),
        ({"store": True}, "store"),
        ({"extra": {"min_tokens": 2}}, "min_tokens"),
        ({"extra": {"safe_prompt": "maybe"}}, "safe_prompt"),
        ({"prediction": {"type": "content", "content": 5}}, "prediction"),
    ],
)
def test_what_it_cannot_be_told_is_dropped_and_told(members, param):
    body, adapted = encode(**members)
    assert param not in body
    assert adapted == {(param, "dropped")}


def test_its_own_members_pass_where_they_are_sound():
    body, adapted = encode(extra={"safe_prompt": True, "prompt_mode": "reasoning", "random_seed": 4})
    assert (body["safe_prompt"], body["prompt_mode"], body["random_seed"]) == (True, "reasoning", 4)
    assert adapted == set()


def test_roles_and_names_become_those_it_knows():
    body, adapted = encode(
        Message(role="developer", content="Be brief."), Message(role="user", content="hi", name="Ann")
    )
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert adapted == {("messages[1].name", "dropped")}


def test_a_trailing_assistant_turn_is_a_prefix():
    body, _ = encode(HI, Message(role="assistant", content="Once", prefix=False))
    assert body["messages"][-1] == {"role": "assistant", "content": "Once", "prefix": True}


def test_an_assistant_turn_before_the_end_is_none():
    body, _ = encode(HI, Message(role="assistant", content="Once", prefix=True), BYE)
    assert body["messages"][1] == {"role": "assistant", "content": "Once"}


def test_system_text_after_an_answer_goes_as_user_text():
    body, adapted = encode(HI, Message(role="assistant", content="yes"), Message(role="system", content="French!"), BYE)
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user", "user"]
    assert adapted == {("messages[2]", "folded")}


def test_a_conversation_of_system_text_alone_ends_as_user_text():
    body, adapted = encode(Message(role="system", content="Tell a joke."))
    assert body["messages"] == [{"role": "user", "content": "Tell a joke."}]
    assert adapted == {("messages[0]", "folded")}


def test_a_user_turn_after_a_tools_result_is_bridged():
    body, adapted = encode(HI, calls("aB3dE6gH9"), result("aB3dE6gH9"), BYE)
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "tool", "assistant", "user"]
    assert body["messages"][3]["content"] == "OK"
    assert adapted == {("messages[3]", "folded")}


def test_tool_ids_of_its_own_stay_and_others_become_nine_characters():
    body, adapted = encode(HI, calls("aB3dE6gH9", "call_of_another_provider"), result("call_of_another_provider"))
    first, second = (call["id"] for call in body["messages"][1]["tool_calls"])
    assert first == "aB3dE6gH9"
    assert second == body["messages"][2]["tool_call_id"]
    assert len(second) == 9
    assert second.isalnum()
    assert adapted == set()


def test_calls_under_one_id_are_told_apart_by_the_order_of_their_results():
    body, _ = encode(HI, calls("x", "x"), result("x", "one"), result("x", "two"))
    ids = [call["id"] for call in body["messages"][1]["tool_calls"]]
    assert len(set(ids)) == 2
    assert [message["tool_call_id"] for message in body["messages"][2:]] == ids


def test_a_result_without_an_id_belongs_to_the_first_open_call_of_its_name():
    body, _ = encode(HI, calls("a", "b"), Message(role="tool", content="1"), Message(role="tool", content="2"))
    ids = [call["id"] for call in body["messages"][1]["tool_calls"]]
    assert [message["tool_call_id"] for message in body["messages"][2:]] == ids


def test_a_result_that_comes_late_joins_the_others():
    body, _ = encode(HI, calls("a", "b"), result("a"), BYE, result("b"))
    assert [one["role"] for one in body["messages"]] == ["user", "assistant", "tool", "tool", "assistant", "user"]


def test_a_result_without_its_call_goes_as_user_text():
    body, adapted = encode(HI, result("gone", "42", name="f"))
    assert body["messages"][1] == {"role": "user", "content": "Result of f:\n42"}
    assert adapted == {("messages[1]", "folded")}


def test_legacy_function_turns_are_tool_turns():
    body, _ = encode(
        HI,
        Message(role="assistant", function_call=FunctionCall(name="f", arguments='{"a":1}')),
        Message(role="function", name="f", content="1"),
    )
    call = body["messages"][1]["tool_calls"][0]
    assert call["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert body["messages"][2] == {"role": "tool", "content": "1", "tool_call_id": call["id"], "name": "f"}


@given(st.lists(st.text(max_size=20), max_size=200))
def test_short_ids_are_one_to_one_stable_and_reversible(ids):
    shortened = ToolIds(ids)
    short = {one: shortened.shorten(one) for one in ids}
    assert len(set(short.values())) == len(short)
    assert all(len(one) == 9 and one.isascii() and one.isalnum() for one in short.values())
    assert {shortened.originals()[value] for value in short.values()} == set(ids)
    again = ToolIds(ids)
    assert {one: again.shorten(one) for one in ids} == short


def test_a_hash_that_meets_an_id_in_use_moves_aside():
    taken = ToolIds(["call_1"]).shorten("call_1")
    assert ToolIds([taken]).shorten("call_1") != taken


def test_a_tool_without_parameters_gets_empty_ones():
    body, adapted = encode(tools=(Tool(function=Function(name="f")), Tool(type="web_search")), tool_choice="required")
    assert body["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    ]
    assert body["tool_choice"] == "required"
    assert adapted == {("tools[1]", "dropped")}


def test_allowed_tools_are_the_only_ones_sent():
    body, _ = encode(
        tools=(Tool(function=Function(name="f")), Tool(function=Function(name="g"))),
        tool_choice={
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]},
        },
    )
    assert [tool["function"]["name"] for tool in body["tools"]] == ["g"]
    assert body["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"functions": (Function(name="f"),)}, "functions"),
        ({"tools": tuple(Tool(function=Function(name=f"f{n}")) for n in range(129))}, "tools"),
        ({"tool_choice": {"type": "custom"}, "tools": (Tool(function=Function(name="f")),)}, "tool_choice"),
        ({"response_format": ResponseFormat(type="grammar")}, "response_format"),
    ],
)
def test_what_cannot_be_left_out_without_changing_the_meaning_is_refused(members, param):
    with pytest.raises(UnsupportedError) as caught:
        encode(**members)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "part",
    [
        Part(type="video_url"),
        Part(type="image_url", image_url={"file_id": "x"}),
        Part(type="file", file={"file_id": "file-abc"}),
        Part(type="document_url"),
    ],
)
def test_parts_that_it_cannot_read_are_refused(part):
    with pytest.raises(UnsupportedError):
        encode(Message(role="user", content=(part,)))


def test_an_image_in_a_system_message_is_refused():
    with pytest.raises(UnsupportedError):
        encode(Message(role="system", content=(Part(type="image_url", image_url="x"),)), HI)


def test_a_conversation_with_nothing_in_it_is_refused():
    with pytest.raises(UnsupportedError):
        encode(Message(role="assistant", content=""))


def test_files_go_as_documents_and_audio_as_its_bytes():
    body, _ = encode(
        Message(
            role="user",
            content=(
                Part(type="file", file={"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}),
                Part(type="input_audio", input_audio={"data": "AA==", "format": "wav"}),
            ),
        )
    )
    assert body["messages"][0]["content"] == [
        {"type": "document_url", "document_url": "data:application/pdf;base64,AA==", "document_name": "a.pdf"},
        {"type": "input_audio", "input_audio": "AA=="},
    ]


def test_json_mode_says_json_in_the_prompt():
    body, adapted = encode(response_format=ResponseFormat(type="json_object"))
    assert body["messages"][0] == {"role": "system", "content": JSON_HINT}
    assert adapted == {("response_format", "folded")}
    body, adapted = encode(Message(role="user", content="As JSON."), response_format=ResponseFormat(type="json_object"))
    assert len(body["messages"]) == 1
    assert adapted == set()


def test_a_schema_is_sent_as_one():
    wanted = ResponseFormat(
        type="json_schema", json_schema=JsonSchema(name="a", schema={"type": "object"}, strict=True)
    )
    body, _ = encode(response_format=wanted)
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": True},
    }


@pytest.mark.parametrize(
    ("asked", "sent", "told"),
    [
        ({"reasoning_effort": "high"}, "high", False),
        ({"reasoning_effort": "medium"}, "high", True),
        ({"reasoning_effort": "minimal"}, "none", True),
        ({"reasoning_effort": "none"}, "none", False),
        ({"reasoning": {"effort": "high"}}, "high", False),
        ({"reasoning": {"enabled": False}}, "none", False),
    ],
)
def test_efforts_are_one_of_two(asked, sent, told):
    body, adapted = encode(endpoint=THINKING, **asked)
    assert body["reasoning_effort"] == sent
    assert bool(adapted) == told
    body, _ = encode(**asked)
    assert "reasoning_effort" not in body


def test_earlier_thinking_goes_back_to_a_model_that_thinks():
    thought = Message(role="assistant", content="yes", reasoning="Hm.")
    body, adapted = encode(HI, thought, BYE, endpoint=THINKING)
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
        {"type": "text", "text": "yes"},
    ]
    assert adapted == set()
    body, adapted = encode(HI, thought, BYE)
    assert body["messages"][1]["content"] == "yes"
    assert adapted == {("messages[1].reasoning", "dropped")}


def test_an_adaptation_says_what_became_of_it():
    wire = Mistral().encode(ChatRequest(messages=(HI,), temperature=2.0), PLAIN, stream=False)
    assert wire.adapted == (Adaptation("temperature", "clamped", "to 1.5"),)


def events(body, *, stream):
    decoder = Mistral().decoder(PLAIN, stream=stream)
    return decoder.feed(body) + decoder.finish()


def whole(message, reason="stop", **members):
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": reason}], **members}).encode()


def test_content_in_parts_is_thinking_text_and_references():
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}, {"type": "tool_reference", "tool": "t"}]},
        {"type": "text", "text": "See"},
        {"type": "reference", "reference_ids": [1, 2]},
        {"type": "text", "text": " there."},
    ]
    told = events(whole({"content": parts}), stream=False)
    assert ReasoningDelta("Hm.") in told
    assert TextDelta("See there.") in told
    assert ExtrasDelta({"references": [1, 2]}) in told


def test_arguments_that_are_an_object_become_text():
    call = {"id": "aB3dE6gH9", "function": {"name": "f", "arguments": {"q": 1}}}
    told = events(whole({"tool_calls": [call]}, "tool_calls"), stream=False)
    assert next(event for event in told if isinstance(event, ToolCallDelta)).arguments == '{"q":1}'


@pytest.mark.parametrize(
    "spelling",
    [
        {"prompt_tokens_details": {"cached_tokens": 3}},
        {"prompt_token_details": {"cached_tokens": 3}},
        {"num_cached_tokens": 3},
    ],
)
def test_cached_tokens_are_found_under_every_spelling(spelling):
    told = events(whole({"content": "x"}, usage={"prompt_tokens": 5, "completion_tokens": 1, **spelling}), stream=False)
    usage = next(event.usage for event in told if isinstance(event, UsageReported))
    assert (usage.input_tokens, usage.cached_input_tokens) == (5, 3)


def test_an_answer_that_met_the_models_own_length_was_cut():
    assert ChoiceFinished("length", 0, "model_length") in events(whole({"content": "x"}, "model_length"), stream=False)


@pytest.mark.parametrize("stream", [True, False])
def test_finishing_with_an_error_is_a_failure(stream):
    body = whole({"content": "x"}, "error")
    told = events(b"data: %b\n\n" % body if stream else body, stream=stream)
    assert isinstance(told[-1], AnswerFailed)
    assert isinstance(told[-1].error, ServerError)


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_inside_a_200_is_what_it_says(stream):
    body = (
        b'{"object":"error","message":"Rate limit exceeded","type":"rate_limited","code":"1300","raw_status_code":429}'
    )
    told = events(b"data: %b\n\n" % body if stream else body, stream=stream)
    assert isinstance(told[-1], AnswerFailed)
    assert isinstance(told[-1].error, RateLimitedError)


def refuse(status, body, headers=None):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Mistral().error(status, headers or {}, raw, now_unix_s=0.0)


TOO_LONG = "Prompt contains 9 tokens and 0 draft tokens, too large for model with 8 maximum context length"


def refusal(message, kind="invalid_request_error", code=None):
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, refusal(TOO_LONG, "invalid_request_invalid_args", "3051"), ContextLengthError),
        (400, refusal("top_k sampling is not enabled for this model", code="3051"), UnsupportedError),
        (400, refusal("n must be 1", "invalid_request_invalid_args", "3051"), BadRequestError),
        (400, refusal("Invalid model: open-mixtral-8x7b", "invalid_model", "1500"), UnknownModelError),
        (400, refusal("Expected last role User", "invalid_request_message_order", "3230"), BadRequestError),
        (400, refusal("bad id", "invalid_function_call", "3280"), BadRequestError),
        (401, {"message": "Unauthorized", "request_id": "r1"}, CredentialsError),
        (403, {"detail": "forbidden"}, CredentialsError),
        (403, refusal("blocked by guardrail"), ContentPolicyError),
        (404, b"", UnknownModelError),
        (422, refusal({"detail": [{"type": "extra_forbidden", "msg": "no"}]}), BadRequestError),
        (429, refusal("Rate limit exceeded", "rate_limited", "1300"), RateLimitedError),
        (429, refusal("Service tier capacity exceeded for this model.", code="3505"), OverloadedError),
        (500, b"<html>", ServerError),
        (503, {"message": "x"}, OverloadedError),
        (302, b"", GarbledError),
    ],
)  # fmt: skip
def test_errors_are_of_the_class_that_they_call_for(status, body, kind):
    assert type(refuse(status, body)) is kind


@pytest.mark.parametrize(
    "body",
    [
        refusal({"detail": [{"type": "x", "loc": ["body", "messages", 0, "name"], "msg": "Extra inputs"}]}),
        refusal([{"type": "x", "loc": ["body", "messages", 0, "name"], "msg": "Extra inputs"}]),
        {"detail": [{"type": "x", "loc": ["body", "messages", 0, "name"], "msg": "Extra inputs"}]},
    ],
)
def test_a_validation_error_names_the_member_in_every_shape(body):
    error = refuse(422, body)
    assert error.message == "messages[0].name: Extra inputs"
    assert error.param == "messages[0].name"


def test_how_long_to_stay_away_and_the_request_id_come_from_the_headers():
    error = refuse(429, refusal("slow"), {"retry-after": "7", "mistral-correlation-id": "c1"})
    assert (error.retry_after_s, error.request_id) == (7.0, "c1")
    error = refuse(
        429, refusal("slow"), {"x-ratelimit-remaining-req-minute": "0", "x-ratelimit-remaining-tokens-month": "5"}
    )
    assert error.retry_after_s == 60.0
    assert refuse(429, refusal("slow"), {"x-ratelimit-remaining-req-10-second": "0"}).retry_after_s == 10.0
    assert refuse(429, refusal("slow"), {"x-ratelimit-remaining-tokens-month": "0"}).retry_after_s == 300.0
    assert refuse(429, refusal("slow")).retry_after_s is None
    assert refuse(401, {"message": "Unauthorized", "request_id": "r1"}).request_id == "r1"

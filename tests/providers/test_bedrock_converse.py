"""Converse: what a model cannot do is folded, clamped, dropped or refused, and said; every event has its meaning."""

import base64
import json

import msgspec
import pytest

from providers.base import Capabilities, Endpoint, Price
from providers.bedrock_converse import BedrockConverse
from providers.errors import (
    BadRequestError,
    GarbledError,
    OverloadedError,
    RateLimitedError,
    ServerError,
    TruncatedError,
    UnsupportedError,
)
from providers.messages import (
    AnswerFailed,
    AnswerStarted,
    ChatRequest,
    ChoiceFinished,
    ExtrasDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReported,
)
from tests.fakes.bedrock import answer, event, exception, text_events, tokens

MIXTRAL = Endpoint(
    id="bedrock/mixtral",
    provider="bedrock",
    model="m",
    upstream_model="mistral.mixtral-8x7b-instruct-v0:1",
    base_url="https://bedrock-runtime.us-east-1.amazonaws.com",
    max_output_tokens=4096,
)
ABLE = msgspec.structs.replace(
    MIXTRAL,
    capabilities=Capabilities(system=True, tools=True, json_schema=True, prefill=True, vision=True, reasoning=True),
    price=Price(cache_read_in_pusd=1),
)
PNG = "data:image/png;base64," + base64.b64encode(b"png").decode()
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def encode(endpoint=MIXTRAL, messages=None, *, stream=False, **members):
    request = msgspec.convert({"messages": messages or [{"role": "user", "content": "hi"}], **members}, ChatRequest)
    wire = BedrockConverse().encode(request, endpoint, stream=stream)
    return wire, json.loads(wire.body)


def turns(*messages, endpoint=MIXTRAL):
    return encode(endpoint, list(messages))[1]["messages"]


def said(role, text):
    return {"role": role, "content": text}


def decode(*pieces, stream=True):
    raw = b"".join(pieces)
    decoder = BedrockConverse().decoder(MIXTRAL, stream=stream, headers={"x-amzn-requestid": "r-1"})
    return decoder.feed(raw) + decoder.finish()


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("mistral.mixtral-8x7b-instruct-v0:1", "mistral.mixtral-8x7b-instruct-v0%3A1"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.mistral.x-v1:0",
            "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.mistral.x-v1%3A0",
        ),
        ("../../admin?x#y", "..%2F..%2Fadmin%3Fx%23y"),
    ],
)
def test_a_model_id_is_one_encoded_segment_of_the_path(model, path):
    endpoint = msgspec.structs.replace(MIXTRAL, upstream_model=model)
    assert encode(endpoint)[0].url == f"{MIXTRAL.base_url}/model/{path}/converse"
    assert encode(endpoint, stream=True)[0].url == f"{MIXTRAL.base_url}/model/{path}/converse-stream"


def test_the_answers_limit_is_always_sent_and_nothing_else_that_was_not_asked():
    assert encode()[1] == {
        "messages": [{"role": "user", "content": [{"text": "hi"}]}],
        "inferenceConfig": {"maxTokens": 4096},
    }


def test_system_text_is_folded_into_the_first_user_turn_where_the_model_knows_none():
    wire, body = encode(
        MIXTRAL,
        [
            said("system", "Be terse."),
            said("user", "Hi"),
            said("assistant", "Yo"),
            said("developer", "x"),
            said("user", "?"),
        ],
    )
    assert "system" not in body
    assert [turn["content"] for turn in body["messages"]] == [
        [{"text": "Be terse.\n\nx\n\nHi"}],
        [{"text": "Yo"}],
        [{"text": "?"}],
    ]
    assert ("messages", "folded") in {(note.param, note.action) for note in wire.adapted}


def test_system_text_has_its_place_where_the_model_knows_it():
    _, body = encode(ABLE, [said("system", "Be terse."), said("user", "Hi")])
    assert body["system"] == [{"text": "Be terse."}]
    assert body["messages"] == [{"role": "user", "content": [{"text": "Hi"}]}]


@pytest.mark.parametrize("endpoint", [MIXTRAL, ABLE])
def test_system_text_alone_becomes_the_users_turn(endpoint):
    assert turns(said("system", "Greet."), endpoint=endpoint) == [{"role": "user", "content": [{"text": "Greet."}]}]


def test_neighbours_of_one_role_are_one_turn_with_a_blank_line_between():
    wire, body = encode(MIXTRAL, [said("user", "a"), said("user", "b"), said("assistant", " "), said("user", "c")])
    assert body["messages"] == [{"role": "user", "content": [{"text": "a\n\nb\n\nc"}]}]
    assert [(note.param, note.action) for note in wire.adapted] == [
        ("messages[1]", "merged"),
        ("messages[2]", "dropped"),
        ("messages[3]", "merged"),
    ]


@pytest.mark.parametrize(
    ("messages", "members"),
    [
        ([said("assistant", "I begin"), said("user", "x")], {}),
        ([said("user", "x"), said("assistant", "go on")], {}),
        ([said("user", " \n")], {}),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}], {}),
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], {}),
        ([said("user", "x"), {"role": "tool", "tool_call_id": "a", "content": "y"}], {}),
        (None, {"tools": [TOOL]}),
        (None, {"n": 2}),
        (None, {"response_format": {"type": "json_object"}}),
        (None, {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}),
    ],
)
def test_what_mixtral_cannot_do_is_refused_so_that_another_may(messages, members):
    with pytest.raises(UnsupportedError) as caught:
        encode(MIXTRAL, messages, **members)
    assert caught.value.retryable


@pytest.mark.parametrize(
    "url", ["https://x.test/a.png", "http://169.254.169.254/", "s3://bucket/a.png", "file:///etc/passwd", "a"]
)
def test_no_url_is_handed_on_for_bedrock_or_us_to_fetch(url):
    for part in ({"type": "image_url", "image_url": {"url": url}}, {"type": "file", "file": {"file_data": url}}):
        with pytest.raises(UnsupportedError):
            encode(ABLE, [{"role": "user", "content": [part]}])


@pytest.mark.parametrize(
    "url", ["data:image/png;base64,%%%", "data:image/png;base64,", "data:image/bmp;base64,AAAA", "data:image/png,x"]
)
def test_a_broken_image_is_refused(url):
    with pytest.raises(UnsupportedError):
        encode(ABLE, [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])


def test_images_and_documents_go_as_bytes_under_names_of_their_own():
    pdf = "data:application/pdf;base64,AAAA"
    (turn,) = turns(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look"},
                {"type": "image_url", "image_url": PNG},
                {"type": "file", "file": {"file_data": pdf, "filename": "q3_report.final.pdf"}},
                {"type": "file", "file": {"file_data": pdf, "filename": "q3/report.final"}},
                {"type": "file", "file": {"file_data": pdf}},
            ],
        },
        endpoint=ABLE,
    )
    source = {"bytes": "AAAA"}
    assert turn["content"] == [
        {"text": "Look"},
        {"image": {"format": "png", "source": {"bytes": PNG.partition(",")[2]}}},
        {"document": {"format": "pdf", "name": "q3 report final", "source": source}},
        {"document": {"format": "pdf", "name": "q3 report", "source": source}},
        {"document": {"format": "pdf", "name": "document", "source": source}},
    ]


def test_ranges_are_clamped_and_the_rest_is_dropped_and_said():
    wire, body = encode(
        temperature=1.7, top_p=0.9, top_k=500, max_tokens=9000, stop=["a", "", "b"], seed=3, logprobs=True, user="u",
        store=False, parallel_tool_calls=False, service_tier="flex", presence_penalty=0, extra={"nonsense": 1},
    )  # fmt: skip
    assert body["inferenceConfig"] == {"maxTokens": 4096, "temperature": 1, "topP": 0.9, "stopSequences": ["a", "b"]}
    assert body["additionalModelRequestFields"] == {"top_k": 200}
    assert {(note.param, note.action) for note in wire.adapted} == {
        ("temperature", "clamped"),
        ("max_tokens", "clamped"),
        ("top_k", "clamped"),
        *((name, "dropped") for name in ("seed", "logprobs", "user", "service_tier", "nonsense")),
    }


def test_bedrocks_own_members_and_fitting_metadata_go_on():
    guard = {"guardrailIdentifier": "abc", "guardrailVersion": "1"}
    _, body = encode(
        metadata={"team": "a"}, top_k=5, extra={"guardrailConfig": guard, "additionalModelRequestFields": {"x": 1}}
    )
    assert body["guardrailConfig"] == guard
    assert body["additionalModelRequestFields"] == {"top_k": 5, "x": 1}
    assert body["requestMetadata"] == {"team": "a"}


CALLED = {
    "role": "assistant",
    "content": "Let me see.",
    "tool_calls": [
        {"id": "call_1", "function": {"name": "f", "arguments": '{"q": 1}'}},
        {"id": "\u00e9" * 99, "function": {"name": "g", "arguments": "nonsense"}},
    ],
}
RESULTS = [
    {"role": "tool", "tool_call_id": "call_1", "content": "one"},
    {"role": "tool", "tool_call_id": "\u00e9" * 99, "content": [{"type": "text", "text": "two"}]},
]


def test_calls_and_their_results_are_turns_of_their_own_and_results_share_one():
    wire, body = encode(ABLE, [said("user", "x"), CALLED, *RESULTS, said("user", "and?")], tools=[TOOL])
    _, assistant, results = body["messages"]
    strange = assistant["content"][2]["toolUse"]["toolUseId"]
    assert assistant["content"] == [
        {"text": "Let me see."},
        {"toolUse": {"toolUseId": "call_1", "name": "f", "input": {"q": 1}}},
        {"toolUse": {"toolUseId": strange, "name": "g", "input": {"arguments": "nonsense"}}},
    ]
    assert results["content"] == [
        {"toolResult": {"toolUseId": "call_1", "content": [{"text": "one"}]}},
        {"toolResult": {"toolUseId": strange, "content": [{"text": "two"}]}},
        {"text": "and?"},
    ]
    assert [tool["toolSpec"]["name"] for tool in body["toolConfig"]["tools"]] == ["f", "g"]
    assert {note.param for note in wire.adapted} == {"messages[1].tool_calls[1].arguments", "messages[4]", "tools"}


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", None),
        ("required", {"any": {}}),
        ({"type": "function", "function": {"name": "f"}}, {"tool": {"name": "f"}}),
    ],
)
def test_a_tool_choice_has_bedrocks_words(choice, sent):
    assert encode(ABLE, tools=[TOOL], tool_choice=choice)[1]["toolConfig"].get("toolChoice") == sent


def test_tools_that_may_not_be_called_are_left_out():
    for endpoint in (MIXTRAL, ABLE):
        wire, body = encode(endpoint, tools=[TOOL], tool_choice="none")
        assert "toolConfig" not in body
        assert [(note.param, note.action) for note in wire.adapted] == [("tools", "dropped")]


def test_old_function_calls_are_tool_calls():
    _, body = encode(
        ABLE,
        [
            said("user", "x"),
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "y"},
        ],
        functions=[{"name": "f"}],
        function_call={"name": "f"},
    )
    assert body["messages"][1]["content"][0]["toolUse"]["toolUseId"] == "function_1"
    assert body["messages"][2]["content"][0]["toolResult"]["toolUseId"] == "function_1"
    assert body["toolConfig"]["toolChoice"] == {"tool": {"name": "f"}}


def test_a_name_that_bedrock_cannot_spell_is_refused():
    with pytest.raises(UnsupportedError, match="tool name"):
        encode(ABLE, tools=[{"type": "function", "function": {"name": "a b"}}])


def test_a_cache_mark_is_a_cache_point_where_there_is_a_cache():
    part = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    (turn,) = turns({"role": "user", "content": [part]}, endpoint=ABLE)
    assert turn["content"] == [{"text": "x"}, {"cachePoint": {"type": "default", "ttl": "1h"}}]
    wire, body = encode(MIXTRAL, [{"role": "user", "content": [part]}])
    assert body["messages"][0]["content"] == [{"text": "x"}]
    assert [note.param for note in wire.adapted] == ["messages[0].content[0].cache_control"]


def test_a_schema_is_sent_as_text():
    asked = {"name": "a", "schema": {"type": "object"}, "strict": True}
    _, body = encode(ABLE, response_format={"type": "json_schema", "json_schema": asked})
    assert body["outputConfig"] == {
        "textFormat": {
            "type": "json_schema",
            "structure": {"jsonSchema": {"schema": '{"type":"object"}', "name": "a"}},
        }
    }


def test_a_stream_of_text_ends_with_its_usage():
    usage = {**tokens(4, 5), "cacheReadInputTokens": 2, "cacheWriteInputTokens": 1}
    events = decode(*text_events("Hel", "", "lo", usage=usage))
    assert events == [
        AnswerStarted("r-1"),
        TextDelta("Hel"),
        TextDelta("lo"),
        ChoiceFinished("stop", 0, "end_turn"),
        UsageReported(Usage(input_tokens=7, output_tokens=5, cached_input_tokens=2, cache_write_tokens=1)),
    ]


@pytest.mark.parametrize("count", [-1, 2**40, "x", None, 1.5, True, [], {}])
def test_an_absurd_count_is_no_count(count):
    usage = {"inputTokens": count, "outputTokens": 5}
    reported = decode(*text_events("x", usage=usage))[-1].usage
    assert (reported.input_tokens, reported.output_tokens) == (None, 5)
    whole = decode(json.dumps(answer({"text": "x"}, usage=usage)).encode(), stream=False)[-1].usage
    assert (whole.input_tokens, whole.output_tokens) == (None, 5)


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("something_new", "stop"),
    ],
)
def test_a_stop_reason_has_a_finish_reason(native, reason):
    for events in (
        decode(*text_events("x", reason=native)),
        decode(json.dumps(answer({"text": "x"}, reason=native)).encode(), stream=False),
    ):
        assert ChoiceFinished(reason, 0, native) in events


@pytest.mark.parametrize("native", ["malformed_model_output", "malformed_tool_use"])
def test_a_malformed_answer_is_a_failure_and_no_finish(native):
    for events in (
        decode(*text_events("x", reason=native)),
        decode(json.dumps(answer({"text": "x"}, reason=native)).encode(), stream=False),
    ):
        assert type(events[-1].error) is ServerError
        assert events[-1].error.upstream_code == native
        assert not any(isinstance(one, ChoiceFinished) for one in events)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("throttlingException", RateLimitedError),
        ("validationException", BadRequestError),
        ("modelStreamErrorException", ServerError),
        ("internalServerException", ServerError),
        ("serviceUnavailableException", OverloadedError),
    ],
)
def test_an_exception_ends_the_answer_with_its_class(name, kind):
    events = decode(*text_events("Hel", "lo")[:2], exception(name, "secret inner words"), *text_events("more"))
    assert events[:2] == [AnswerStarted("r-1"), TextDelta("Hel")]
    assert len(events) == 3
    assert type(events[2].error) is kind
    assert ("secret inner words" in events[2].error.message) == (kind is not ServerError)


def test_an_exception_behind_the_end_takes_nothing_back():
    *whole, _ = text_events("Hi")
    events = decode(*whole, exception("internalServerException", "x"))
    assert events[-1] == ChoiceFinished("stop", 0, "end_turn")


def test_a_stream_without_its_end_is_cut():
    for count in range(4):
        (failure,) = (one for one in decode(*text_events("Hi")[:count]) if isinstance(one, AnswerFailed))
        assert type(failure.error) is TruncatedError


def test_one_unreadable_event_is_passed_over_and_a_second_is_a_failure():
    start, delta, *rest = text_events("Hi")
    bad = event("contentBlockDelta", b"{nonsense")
    decoder = BedrockConverse().decoder(MIXTRAL, stream=True)
    events = decoder.feed(b"".join([start, bad, delta, *rest])) + decoder.finish()
    assert decoder.skipped_chunks == 1
    assert TextDelta("Hi") in events
    assert not isinstance(events[-1], AnswerFailed)
    assert type(decode(start, bad, delta, bad, *rest)[-1].error) is GarbledError


def test_events_that_nobody_knows_are_passed_over():
    start, *rest = text_events("Hi")
    assert decode(start, event("brandNew", {"x": 1}), *rest) == decode(start, *rest)


def block(index, delta):
    return event("contentBlockDelta", {"contentBlockIndex": index, "delta": delta})


def start(index, said):
    return event("contentBlockStart", {"contentBlockIndex": index, "start": said})


END = (event("messageStop", {"stopReason": "tool_use"}), event("metadata", {"usage": tokens(1, 1), "metrics": {}}))


def test_thinking_comes_with_what_the_next_turn_must_hand_back():
    sealed = base64.b64encode(b"sealed").decode()
    events = decode(
        block(0, {"reasoningContent": {"text": "Hm"}}),
        block(0, {"reasoningContent": {"text": "m."}}),
        block(0, {"reasoningContent": {"signature": "S"}}),
        block(1, {"reasoningContent": {"redactedContent": sealed}}),
        block(2, {"text": "Yes."}),
        *END,
    )
    thoughts = [one for one in events if isinstance(one, ReasoningDelta)]
    assert "".join(one.text for one in thoughts) == "Hmm."
    details = [detail for one in thoughts for detail in one.details]
    whole = decode(
        json.dumps(
            answer(
                {"reasoningContent": {"reasoningText": {"text": "Hmm.", "signature": "S"}}},
                {"reasoningContent": {"redactedContent": sealed}},
                {"text": "Yes."},
            )
        ).encode(),
        stream=False,
    )
    kept = [detail for one in whole if isinstance(one, ReasoningDelta) for detail in one.details]
    for each in (details, kept):
        spoken = {"role": "assistant", "content": "Yes.", "reasoning_details": each}
        assert turns(said("user", "x"), spoken, said("user", "y"), endpoint=ABLE)[1]["content"] == [
            {"reasoningContent": {"reasoningText": {"text": "Hmm.", "signature": "S"}}},
            {"reasoningContent": {"redactedContent": sealed}},
            {"text": "Yes."},
        ]


def test_tools_of_bedrocks_own_are_no_calls_for_the_client():
    own = {"toolUseId": "s", "name": "nova_code_interpreter", "type": "server_tool_use"}
    events = decode(
        start(0, {"toolUse": own}),
        block(0, {"toolUse": {"input": "{}"}}),
        start(1, {"toolResult": {"toolUseId": "s", "status": "success"}}),
        block(1, {"toolResult": [{"json": {"x": 1}}]}),
        start(2, {"toolUse": {"toolUseId": "t", "name": "f", "type": "tool_use"}}),
        block(2, {"toolUse": {"input": '{"a": 1}'}}),
        event("contentBlockStop", {"contentBlockIndex": 2}),
        *END,
    )
    assert [one for one in events if isinstance(one, ToolCallDelta)] == [
        ToolCallDelta(0, 0, "t", "f"),
        ToolCallDelta(0, 0, None, None, '{"a": 1}'),
    ]
    assert all("server_tools" in one.members for one in events if isinstance(one, ExtrasDelta))
    assert sum(isinstance(one, ExtrasDelta) for one in events) == 4


def test_citations_of_pages_are_annotations_of_the_text_they_stand_behind():
    page = {"title": "T", "location": {"web": {"url": "https://x.test", "domain": "x.test"}}}
    other = {"title": "D", "location": {"documentPage": {"documentIndex": 0, "start": 1, "end": 2}}}
    streamed = decode(
        block(0, {"text": "ab"}),
        block(1, {"text": "cde"}),
        block(1, {"citation": page}),
        block(1, {"citation": other}),
        *END,
    )
    whole = decode(
        json.dumps(
            answer({"text": "ab"}, {"citationsContent": {"content": [{"text": "cde"}], "citations": [page, other]}})
        ).encode(),
        stream=False,
    )
    noted = {"url": "https://x.test", "title": "T", "start_index": 2, "end_index": 5}
    for events in (streamed, whole):
        extras = {name: value for one in events if isinstance(one, ExtrasDelta) for name, value in one.members.items()}
        assert extras == {"annotations": [{"type": "url_citation", "url_citation": noted}], "citations": [other]}
        assert "".join(one.text for one in events if isinstance(one, TextDelta)) == "abcde"


def test_an_image_is_a_data_url():
    image = {"format": "jpeg", "source": {"bytes": "AAAA"}}
    events = decode(json.dumps(answer({"image": image})).encode(), stream=False)
    assert {"images": [{"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AAAA"}}]} in [
        one.members for one in events if isinstance(one, ExtrasDelta)
    ]


@pytest.mark.parametrize("content", [[], None, [{}], [{"brandNew": 1}], [{"toolUse": 1}], [{"text": None}]])
def test_blocks_of_no_use_make_an_empty_answer_and_no_crash(content):
    body = {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": "end_turn"}
    assert decode(json.dumps(body).encode(), stream=False) == [
        AnswerStarted("r-1"),
        ChoiceFinished("stop", 0, "end_turn"),
    ]

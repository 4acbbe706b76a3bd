"""How the Anthropic dialect reads answers and errors: the corners that no recording shows."""

import json

import pytest

from providers.anthropic import Anthropic
from providers.base import Endpoint
from providers.errors import (
    BadRequestError,
    ContentPolicyError,
    ContextLengthError,
    CredentialsError,
    FirstTokenTimeoutError,
    GarbledError,
    OverloadedError,
    RateLimitedError,
    RegionError,
    ServerError,
    TruncatedError,
    UnknownModelError,
    UnsupportedError,
)
from providers.messages import (
    AnswerFailed,
    ChoiceFinished,
    ExtrasDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)

DIALECT = Anthropic()
ENDPOINT = Endpoint(id="a/up", provider="a", model="m", upstream_model="up", base_url="http://127.0.0.1:1/v1")
START = {"type": "message_start", "message": {"id": "m1", "usage": {"input_tokens": 9, "output_tokens": 1}}}
STOP = {"type": "message_stop"}


def sse(*events):
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def streamed(*events):
    decoder = DIALECT.decoder(ENDPOINT, stream=True)
    return decoder.feed(sse(*events)) + decoder.finish()


def whole(**message):
    decoder = DIALECT.decoder(ENDPOINT, stream=False)
    body = {"type": "message", "id": "m1", "content": [], **message}
    return decoder.feed(json.dumps(body).encode()) + decoder.finish()


def block(start, *deltas, index=0):
    return (
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    )


def stopped(reason, **delta):
    return {"type": "message_delta", "delta": {"stop_reason": reason, **delta}, "usage": {"output_tokens": 3}}


def of_kind(events, kind):
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "length"),
        ("something_new", "stop"),
    ],
)
def test_why_it_stopped_is_said_in_both_words(native, reason):
    expected = ChoiceFinished(reason, 0, native)
    assert of_kind(whole(stop_reason=native), ChoiceFinished) == [expected]
    assert of_kind(streamed(START, stopped(native), STOP), ChoiceFinished) == [expected]


def test_a_reason_to_stop_completes_the_answer_and_message_stop_ends_it():
    decoder = DIALECT.decoder(ENDPOINT, stream=True)
    events = decoder.feed(sse(START, *block({"type": "text", "text": "hi"}), stopped("end_turn")))
    assert not decoder.ended
    assert of_kind(events, ChoiceFinished)
    events = decoder.feed(sse(STOP))
    assert decoder.ended
    assert not of_kind(events, ChoiceFinished)
    assert decoder.feed(b"data: {broken\n\n") == decoder.finish() == []


def test_a_stream_that_ends_behind_its_reason_is_complete_and_before_it_was_cut():
    said = (START, *block({"type": "text", "text": "hi"}))
    assert isinstance(streamed(*said)[-1].error, TruncatedError)
    assert isinstance(streamed(*said, stopped("end_turn"))[-1], ChoiceFinished)


def test_counts_are_cumulative_and_inclusive():
    later = {"output_tokens": 5, "cache_read_input_tokens": 100, "output_tokens_details": {"thinking_tokens": 2}}
    head = {"id": "m1", "usage": {"input_tokens": 9, "cache_creation_input_tokens": 10, "output_tokens": 1}}
    events = streamed({"type": "message_start", "message": head}, {**stopped("end_turn"), "usage": later}, STOP)
    usage = of_kind(events, UsageReported)[-1].usage
    assert (usage.input_tokens, usage.output_tokens) == (119, 5)
    assert (usage.cached_input_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (100, 10, 2)


@pytest.mark.parametrize("count", [-1, 10**12, "many", None, True, [1], 1e300])
def test_counts_that_cannot_be_are_unknown(count):
    events = whole(stop_reason="end_turn", usage={"input_tokens": count, "output_tokens": count})
    usage = of_kind(events, UsageReported)[0].usage
    assert (usage.input_tokens, usage.output_tokens) == (None, None)


def test_thinking_streams_with_what_has_to_go_back():
    events = streamed(
        START,
        *block(
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "Hm"},
            {"type": "signature_delta", "signature": "S"},
        ),
        *block({"type": "redacted_thinking", "data": "D"}, index=1),
        stopped("end_turn"),
        STOP,
    )
    assert [(event.text, event.details) for event in of_kind(events, ReasoningDelta)] == [
        ("Hm", [{"type": "reasoning.text", "text": "Hm", "format": "anthropic-claude-v1", "index": 0}]),
        (
            "",
            [{"type": "reasoning.text", "text": "", "signature": "S", "format": "anthropic-claude-v1", "index": 0}],
        ),
        ("", [{"type": "reasoning.encrypted", "data": "D", "format": "anthropic-claude-v1", "index": 1}]),
    ]


def test_a_call_given_whole_at_its_start_is_whole():
    given = {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}}
    calls = of_kind(streamed(START, *block(given), stopped("tool_use"), STOP), ToolCallDelta)
    assert "".join(call.arguments for call in calls) == '{"x":1}'


def test_a_block_that_never_stops_is_complete_with_the_message():
    start = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    calls = of_kind(streamed(START, block(start)[0], stopped("tool_use"), STOP), ToolCallDelta)
    assert [call.arguments for call in calls] == ["", "{}"]


def test_citations_of_the_web_are_annotations_of_the_text_they_stand_under():
    cited = {"type": "web_search_result_location", "url": "https://e.org", "title": "E", "cited_text": "q"}
    note = {
        "type": "url_citation",
        "url_citation": {"url": "https://e.org", "title": "E", "start_index": 4, "end_index": 9, "content": "q"},
    }
    document = {"type": "char_location", "cited_text": "q", "document_index": 0}
    blocks = [{"type": "text", "text": "And "}, {"type": "text", "text": "there", "citations": [cited, document]}]
    assert of_kind(whole(stop_reason="end_turn", content=blocks), ExtrasDelta) == [ExtrasDelta({"annotations": [note]})]
    events = streamed(
        START,
        *block({"type": "text", "text": ""}, {"type": "text_delta", "text": "And "}),
        *block(
            {"type": "text", "text": "", "citations": []},
            {"type": "citations_delta", "citation": cited},
            {"type": "text_delta", "text": "there"},
            {"type": "citations_delta", "citation": document},
            index=1,
        ),
        stopped("end_turn"),
        STOP,
    )
    assert of_kind(events, ExtrasDelta) == [ExtrasDelta({"annotations": [note]})]


def test_blocks_of_its_own_tools_and_of_tomorrow_are_passed_over():
    own = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result"}]},
        {"type": "hologram", "text": {"depth": 3}, "name": 7},
        {"type": "text", "text": "found"},
    ]
    events = whole(stop_reason="end_turn", content=own)
    assert [type(event) for event in events[1:]] == [TextDelta, ChoiceFinished]
    partial = {"type": "input_json_delta", "partial_json": '{"q'}
    tomorrow = ({"type": "weather", "index": "sunny"}, {"type": "weather"})
    streams = [event for place, start in enumerate(own) for event in block(start, partial, index=place)]
    events = streamed(START, *streams, tomorrow[1], stopped("end_turn"), STOP)
    assert not of_kind(events, ToolCallDelta)
    assert "".join(event.text for event in of_kind(events, TextDelta)) == "found"
    decoder = DIALECT.decoder(ENDPOINT, stream=True)
    decoder.feed(sse(START, tomorrow[0], stopped("end_turn"), STOP))
    assert (decoder.skipped_chunks, decoder.ended) == (1, True)


def test_a_refusal_says_why():
    details = {"type": "refusal", "category": "bio", "explanation": "I will not."}
    expected = [RefusalDelta("I will not."), ChoiceFinished("content_filter", 0, "refusal")]
    assert whole(stop_reason="refusal", stop_details=details)[-2:] == expected
    assert streamed(START, stopped("refusal", stop_details=details), STOP)[-2:] == expected


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, OverloadedError),
        ({"type": "rate_limit_error", "message": "slow"}, RateLimitedError),
        ({"type": "api_error", "message": "boom"}, ServerError),
        ({"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8 maximum"}, ContextLengthError),
        ("what", ServerError),
        (None, ServerError),
    ],
)
def test_an_error_inside_a_stream_ends_it(said, kind):
    error = {"type": "error", "error": said, "request_id": "req_1"}
    events = streamed(START, *block({"type": "text", "text": "hi"}), error, STOP)
    assert type(events[-1].error) is kind
    assert events[-1].error.request_id == "req_1"
    assert len(of_kind(events, AnswerFailed)) == 1
    if said is not None:
        assert type(whole(**error)[-1].error) is kind


def test_one_unreadable_chunk_is_passed_over_two_are_too_many():
    decoder = DIALECT.decoder(ENDPOINT, stream=True)
    assert decoder.feed(b"data: {broken\n\n") == []
    (failed,) = decoder.feed(b"data: {broken\n\n")
    assert isinstance(failed.error, GarbledError)
    assert decoder.feed(sse(START)) == decoder.finish() == []


def test_an_endless_answer_is_bounded():
    decoder = DIALECT.decoder(ENDPOINT, stream=True)
    events = decoder.feed(sse(*(block({"type": "text"}, index=place)[0] for place in range(5000))))
    assert isinstance(events[-1].error, GarbledError)
    assert decoder.feed(sse(STOP)) == []
    decoder = DIALECT.decoder(ENDPOINT, stream=True)
    line = [event for _ in range(40) for event in decoder.feed(b"x" * 65_536)]
    assert isinstance(line[-1].error, GarbledError)
    assert isinstance(whole(content=[{"type": "text"}] * 5000)[-1].error, GarbledError)


def error_of(status, kind="", message="", headers=None, now_unix_s=0.0, **details):
    body = {"type": "error", "error": {"type": kind, "message": message, "details": details}, "request_id": "req_b"}
    return DIALECT.error(status, headers or {}, json.dumps(body).encode(), now_unix_s=now_unix_s)


@pytest.mark.parametrize(
    ("status", "kind", "message", "expected"),
    [
        (400, "invalid_request_error", "max_tokens: field required", BadRequestError),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000",
            ContextLengthError,
        ),
        (400, "invalid_request_error", "temperature: Extra inputs are not permitted", UnsupportedError),
        (400, "invalid_request_error", "`temperature` is deprecated for this model.", UnsupportedError),
        (
            400,
            "invalid_request_error",
            "max_tokens: 9 > 8, which is the maximum allowed number of output tokens for x",
            UnsupportedError,
        ),
        (400, "invalid_request_error", "Output blocked by content filtering policy", ContentPolicyError),
        (
            400,
            "invalid_request_error",
            "You have reached your specified API usage limits. You will regain access on 2026-12-01",
            CredentialsError,
        ),
        (403, "forbidden", "Request not allowed", RegionError),
        (404, "not_found_error", "model: claude-9", UnknownModelError),
        (408, "invalid_request_error", "slow", FirstTokenTimeoutError),
        (409, "conflict_error", "again", OverloadedError),
        (413, "request_too_large", "", ContextLengthError),
        (503, "", "", OverloadedError),
        (301, "", "", GarbledError),
    ],
)
def test_an_error_is_of_the_class_its_status_and_body_call_for(status, kind, message, expected):
    error = error_of(status, kind, message)
    assert type(error) is expected
    assert error.upstream_status == status
    assert error.request_id == "req_b"
    if status == 400 and expected is not CredentialsError:
        assert error.message == message


def test_a_stable_code_outweighs_the_type():
    error = error_of(429, "rate_limit_error", "no", error_code="contract_spend_limit_reached")
    assert type(error) is CredentialsError
    assert error.upstream_code == "contract_spend_limit_reached"


def test_how_long_to_stay_away():
    reset = "2026-11-22T00:00:40Z"
    now = 1795305600.0  # 2026-11-22T00:00:00Z
    empty = {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": reset}
    full = {"anthropic-ratelimit-tokens-remaining": "9", "anthropic-ratelimit-tokens-reset": "2026-11-23T00:00:00Z"}

    def wait(status=429, **headers):
        return error_of(status, "rate_limit_error", headers=headers, now_unix_s=now).retry_after_s

    assert wait(**{"retry-after": "7"}, **empty) == 7
    assert wait(**empty, **full) == 40
    assert wait(**full) is None
    assert wait(**{**empty, "anthropic-ratelimit-requests-reset": "soon"}) is None
    assert wait(**{**empty, "anthropic-ratelimit-requests-reset": "2036-01-01T00:00:00Z"}) == 300


def test_the_header_names_the_exchange():
    assert error_of(500, "api_error", headers={"request-id": "req_h"}).request_id == "req_h"

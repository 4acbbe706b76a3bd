import json

import pytest

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
    UnknownModelError,
    UnsupportedError,
)
from providers.openai_errors import classify, classify_in_band

STATUSES = {
    302: GarbledError,
    400: BadRequestError,
    401: CredentialsError,
    402: CredentialsError,
    403: CredentialsError,
    404: UnknownModelError,
    405: BadRequestError,
    408: FirstTokenTimeoutError,
    409: OverloadedError,
    413: ContextLengthError,
    418: BadRequestError,
    422: BadRequestError,
    425: OverloadedError,
    429: RateLimitedError,
    500: ServerError,
    502: ServerError,
    503: OverloadedError,
    504: ServerError,
    520: ServerError,
    524: FirstTokenTimeoutError,
    529: OverloadedError,
}
REFINED = [
    (400, {"error": {"message": "x", "code": "context_length_exceeded"}}, ContextLengthError),
    (400, {"error": {"message": "This model's maximum context length is 4097 tokens."}}, ContextLengthError),
    (400, {"object": "error", "message": "reduce the length of the messages", "code": 400}, ContextLengthError),
    (500, {"error": {"message": "the context window is full"}}, ContextLengthError),
    (400, {"error": {"message": "x", "type": "exceed_context_size_error", "code": 400}}, ContextLengthError),
    (400, {"error": {"message": "flagged by our content policy"}}, ContentPolicyError),
    (403, {"error": {"message": "x", "code": 403, "metadata": {"error_type": "moderation"}}}, ContentPolicyError),
    (429, {"error": {"message": "x", "code": "insufficient_quota"}}, CredentialsError),
    (400, {"error": {"message": "x", "code": "invalid_api_key"}}, CredentialsError),
    (403, {"error": {"message": "x", "code": "unsupported_country_region_territory"}}, RegionError),
    (400, {"error": {"message": "x", "code": "unsupported_parameter", "param": "top_k"}}, UnsupportedError),
    (501, {"error": {"message": "x", "type": "not_supported_error", "code": 501}}, UnsupportedError),
    (400, {"error": {"message": "x", "code": "model_not_found"}}, UnknownModelError),
    (503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, OverloadedError),
    (400, {"detail": "no field called x"}, BadRequestError),
    (400, [{"error": {"message": "in a list", "code": 400}}], BadRequestError),
]


def read(status, body, headers=None):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(status, headers or {}, raw, 0.0)


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
def test_a_status_alone_says_what_kind_of_failure_it_is(status, kind):
    for body in (b"", b"<html>no</html>", b"{}", b'{"error": null}', b'{"error": {"message": "no"}}'):
        assert type(read(status, body)) is kind


@pytest.mark.parametrize(("status", "body", "kind"), REFINED)
def test_codes_and_wording_say_more_than_the_status(status, body, kind):
    assert type(read(status, body)) is kind


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "said"}}, "said"),
        ({"error": "said"}, "said"),
        ({"message": "said"}, "said"),
        ({"detail": "said"}, "said"),
        ({"detail": [{"loc": ["body"], "msg": "x"}]}, '[{"loc":["body"],"msg":"x"}]'),
        ({"object": "error", "message": "said", "code": 40001}, "said"),
        ([{"error": {"message": "said"}}], "said"),
        (b"<html>no</html>", "the provider answered HTTP 400 with a web page"),
        (b"", "the provider answered HTTP 400"),
    ],
)
def test_every_shape_of_an_error_is_read(body, message):
    assert read(400, body).message == message


def test_an_error_keeps_its_facts():
    body = {"error": {"message": "m", "type": "t", "param": "tools", "code": "c"}}
    error = read(429, body, {"retry-after": "4", "x-request-id": "r1"})
    assert (error.upstream_status, error.upstream_code, error.param) == (429, "c", "tools")
    assert (error.retry_after_s, error.request_id) == (4.0, "r1")


def test_a_very_long_body_is_read_in_part_and_a_very_long_message_cut():
    assert len(read(400, {"error": {"message": "x" * 10_000}}).message) == 2000
    assert read(400, {"error": {"message": "x" * 100_000}}).message == "the provider answered HTTP 400"


@pytest.mark.parametrize("code", [0, -1, 10**30, "9" * 400, True, None, [], {}, 1e300])
def test_a_code_of_any_kind_is_survived(code):
    assert read(400, {"error": {"message": "m", "code": code}}).message == "m"
    assert classify_in_band({"message": "m", "code": code}).message.endswith("m")

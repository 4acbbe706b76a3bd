"""What each of Bedrock's exceptions means, by its name, its status and its words."""

import json

import pytest

from providers.bedrock_errors import classify, classify_frame
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
    StalledError,
    UnknownModelError,
    UnsupportedError,
)

SUFFIX = ":http://internal.amazon.com/coral/com.amazon.bedrock/"
NAMED = [
    ("ValidationException", 400, "1 validation error detected: Value at 'messages'", BadRequestError),
    ("ValidationException", 400, "The provided model identifier is invalid.", UnknownModelError),
    (
        "ValidationException",
        400,
        "Invocation of model ID x with on-demand throughput isn\u2019t supported. Retry with an inference profile.",
        UnknownModelError,
    ),
    ("ValidationException", 400, "Input is too long for requested model.", ContextLengthError),
    (
        "ValidationException",
        400,
        "The model returned the following errors: prompt is too long: 200049 tokens > 200000 maximum",
        ContextLengthError,
    ),
    (
        "ValidationException",
        400,
        "This model's maximum context length is 32768 tokens. Please reduce the length of the prompt",
        ContextLengthError,
    ),
    (
        "ValidationException",
        400,
        "This model doesn't support system messages. Try again without one.",
        UnsupportedError,
    ),
    ("ValidationException", 400, "This model doesn't support tool use.", UnsupportedError),
    ("ValidationException", 400, "This model doesn't support the toolConfig.toolChoice.any field.", UnsupportedError),
    (
        "ValidationException",
        400,
        "Malformed input request: #: extraneous key [top_k] is not permitted, please reformat your input",
        UnsupportedError,
    ),
    (
        "ValidationException",
        400,
        "Malformed input request: #/messages/2: extraneous key [x] is not permitted",
        BadRequestError,
    ),
    ("ValidationException", 400, "The request was blocked by our content filters.", ContentPolicyError),
    (
        "ValidationException",
        400,
        "Access to this model is not allowed from unsupported countries, regions, or territories.",
        RegionError,
    ),
    ("AccessDeniedException", 403, "You don't have access to the model with the specified model ID.", CredentialsError),
    ("UnrecognizedClientException", 403, "The security token included in the request is invalid.", CredentialsError),
    ("InvalidSignatureException", 403, "Signature expired: 20231114T221320Z is now earlier than", CredentialsError),
    ("ExpiredTokenException", 403, "The security token included in the request is expired", CredentialsError),
    ("ResourceNotFoundException", 404, "This model version has reached the end of its life.", UnknownModelError),
    ("ModelTimeoutException", 408, "Model has timed out in processing the request.", FirstTokenTimeoutError),
    ("ThrottlingException", 429, "Too many requests, please wait before trying again.", RateLimitedError),
    ("ThrottlingException", 429, "Too many tokens per day, please wait before trying again.", RateLimitedError),
    ("ModelNotReadyException", 429, "The model is not ready for inference.", OverloadedError),
    (
        "ServiceQuotaExceededException",
        400,
        "Your request exceeds the service quota for your account.",
        RateLimitedError,
    ),
    ("ModelErrorException", 424, "The model broke.", ServerError),
    ("InternalServerException", 500, "An internal error.", ServerError),
    ("ServiceUnavailableException", 503, "Bedrock is unable to process your request.", OverloadedError),
    ("SomethingNewException", 418, "I am new.", BadRequestError),
    ("SomethingNewException", 599, "I am new.", ServerError),
]


@pytest.mark.parametrize(("name", "status", "message", "kind"), NAMED)
def test_a_name_and_its_words_give_the_class(name, status, message, kind):
    body = json.dumps({"message": message}).encode()
    error = classify(status, {"x-amzn-errortype": name + SUFFIX, "x-amzn-requestid": "r-1"}, body, 0)
    assert type(error) is kind
    assert (error.upstream_status, error.upstream_code, error.request_id) == (status, name, "r-1")
    in_body = json.dumps({"__type": f"com.amazon.coral.service#{name}", "Message": message}).encode()
    assert type(classify(status, {}, in_body, 0)) is kind
    shown = not issubclass(kind, CredentialsError | ServerError) and status < 500
    assert (message[:40] in error.message) == shown


@pytest.mark.parametrize(("name", "status", "message", "kind"), [case for case in NAMED if "New" not in case[0]])
def test_an_exception_in_a_stream_has_the_class_of_its_name(name, status, message, kind):
    error = classify_frame(name[0].lower() + name[1:], json.dumps({"message": message}).encode())
    assert type(error) is (StalledError if kind is FirstTokenTimeoutError else kind)
    assert error.upstream_code == name[0].lower() + name[1:]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("throttlingException", RateLimitedError),
        ("validationException", BadRequestError),
        ("modelStreamErrorException", ServerError),
        ("internalServerException", ServerError),
        ("serviceUnavailableException", OverloadedError),
        ("modelTimeoutException", StalledError),
        ("neverHeardOf", ServerError),
        ("", ServerError),
    ],
)
@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b'{"message": 3}', b'{"message": "x", "originalStatusCode": 500}']
)
def test_any_payload_of_an_exception_is_read_without_failing(name, kind, payload):
    assert type(classify_frame(name, payload)) is kind


def test_a_redirect_and_a_web_page_are_no_answers():
    assert type(classify(302, {"location": "http://elsewhere"}, b"", 0)) is GarbledError
    error = classify(403, {}, b"<html>proxy</html>", 0)
    assert type(error) is CredentialsError


def test_throttling_is_retryable_and_says_when_only_if_told():
    error = classify(429, {"x-amzn-errortype": "ThrottlingException"}, b"{}", 0)
    assert error.retryable
    assert error.retry_after_s is None
    assert classify(503, {"retry-after": "7"}, b"{}", 0).retry_after_s == 7

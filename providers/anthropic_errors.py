"""What Anthropic's errors mean: by type, refined by code and wording, last by status.

`{"type": "error", "error": {"type", "message", "details": {"error_code"}}, "request_id"}`, whole, inside a 200, or as
an event of a stream: https://platform.claude.com/docs/en/api/errors.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import Struct

from providers.error_bodies import kind_of_status, read_json, words_for
from providers.errors import (
    BadRequestError,
    ContentPolicyError,
    ContextLengthError,
    CredentialsError,
    OverloadedError,
    ProviderError,
    RateLimitedError,
    RegionError,
    ServerError,
    UnknownModelError,
    UnsupportedError,
)
from providers.json_values import members
from providers.retry_after import RETRY_AFTER_MAX_S, parse_retry_after

RATE_LIMITS = ("requests", "tokens", "input-tokens", "output-tokens")
"""The buckets of `anthropic-ratelimit-<bucket>-{limit,remaining,reset}`."""

_BY_TYPE: Mapping[str, type[ProviderError]] = {
    "invalid_request_error": BadRequestError,
    "authentication_error": CredentialsError,
    "billing_error": CredentialsError,
    "permission_error": CredentialsError,
    "forbidden": RegionError,
    "not_found_error": UnknownModelError,
    "conflict_error": OverloadedError,
    "request_too_large": ContextLengthError,
    "rate_limit_error": RateLimitedError,
    "api_error": ServerError,
    "timeout_error": ServerError,
    "overloaded_error": OverloadedError,
}
_STATUS_OF_TYPE: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "forbidden": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""What each type's HTTP status would have been, for errors that come inside an answer."""
_BY_CODE: Mapping[str, type[ProviderError]] = {
    "contract_spend_limit_reached": CredentialsError,
    "enforced_spend_limit_reached": CredentialsError,
    "linked_organization_spend_limit_reached": CredentialsError,
    "linked_organization_billing_unavailable": CredentialsError,
    "organization_on_hold": CredentialsError,
    "organization_type_not_supported": CredentialsError,
    "ramp_limit_exceeded": RateLimitedError,
    "image_dimensions_too_large": UnsupportedError,
    "request_body_too_large_after_decoding": ContextLengthError,
    "request_body_timeout": OverloadedError,
}
"""`error.details.error_code`, which is stable where the wording is not."""
_CONTEXT_WORDS = re.compile(
    r"prompt is too long|exceeds? (?:the )?(?:maximum )?context (?:limit|window|length)|input is too long"
    r"|exceed context limit|too many total text bytes",
    re.IGNORECASE,
)
_ACCOUNT_WORDS = re.compile(
    r"credit balance is too low|reached your specified (?:api|workspace api)? ?usage limits|spend limit"
    r"|organization has been disabled",
    re.IGNORECASE,
)
_POLICY_WORDS = re.compile(r"content filtering policy|usage policy|safety (?:policy|filter)", re.IGNORECASE)
_UNSUPPORTED_WORDS = re.compile(
    r"(?:does not|doesn't|do not) support|not supported|unsupported|is deprecated for this model"
    r"|extra inputs are not permitted|maximum allowed number of output tokens|image exceeds|not enabled for"
    r"|cannot both be specified",
    re.IGNORECASE,
)
_REGION_WORDS = re.compile(
    r"unsupported (?:countr|region|location)|not available in your (?:country|region)", re.IGNORECASE
)
_BY_WORDS: tuple[tuple[re.Pattern[str], type[ProviderError], tuple[int, ...]], ...] = (
    (_REGION_WORDS, RegionError, (400, 403)),
    (_CONTEXT_WORDS, ContextLengthError, (400, 413, 422)),
    (_ACCOUNT_WORDS, CredentialsError, (400, 403, 429)),
    (_POLICY_WORDS, ContentPolicyError, (400, 403)),
    (_UNSUPPORTED_WORDS, UnsupportedError, (400, 422)),
)
"""Statuses under which Anthropic reports quite different things, told apart only by wording."""


class ErrorFacts(Struct, frozen=True):
    """What an error says."""

    kind: str = ""
    message: str = ""
    code: str = ""
    request_id: str | None = None


def classify(status: int, headers: Mapping[str, str], body: bytes, now_unix_s: float) -> ProviderError:
    """The error that a non-2xx answer stands for."""
    facts = _facts(body)
    kind = _kind(status, facts)
    retry_after_s = parse_retry_after(headers, now_unix_s)
    if retry_after_s is None and issubclass(kind, RateLimitedError):
        retry_after_s = _until_reset(headers, now_unix_s)
    return kind(
        words_for(status, facts.message, body, kind),
        upstream_status=status,
        upstream_code=facts.code or facts.kind or None,
        request_id=headers.get("request-id") or facts.request_id,
        retry_after_s=retry_after_s,
    )


def classify_in_band(error: object, request_id: object = None) -> ProviderError:
    """The error that an `error` inside a 200 or a stream stands for."""
    facts = _read(error, request_id)
    status = _STATUS_OF_TYPE.get(facts.kind, 500)
    kind = _kind(status, facts)
    if status >= 500 or issubclass(kind, CredentialsError) or not facts.message:
        message = "the provider failed inside its answer"  # what it says of itself is not ours to spread
    else:
        message = f"the provider reported an error inside its answer: {facts.message}"
    return kind(
        message,
        upstream_status=status,
        upstream_code=facts.code or facts.kind or None,
        request_id=facts.request_id,
    )


def _kind(status: int, facts: ErrorFacts) -> type[ProviderError]:
    """Code first, then wording where the type leaves it open, then type, then status."""
    if (kind := _BY_CODE.get(facts.code)) is not None:
        return kind
    for words, kind, statuses in _BY_WORDS:
        if status in statuses and words.search(facts.message):
            return kind
    if status < 400:
        return kind_of_status(status)
    of_type = _BY_TYPE.get(facts.kind)
    if of_type is None or (of_type is BadRequestError and status not in (400, 422)):
        return kind_of_status(status)  # invalid_request_error is also the type of 4xx statuses without one of their own
    return of_type


def _facts(body: bytes) -> ErrorFacts:
    whole = members(read_json(body))
    return _read(whole.get("error"), whole.get("request_id"))


def _read(error: object, request_id: object) -> ErrorFacts:
    said = members(error)
    code = members(said.get("details")).get("error_code")
    message = error if isinstance(error, str) else said.get("message")
    kind = said.get("type")
    return ErrorFacts(
        kind=kind if isinstance(kind, str) else "",
        message=message if isinstance(message, str) else "",
        code=code if isinstance(code, str) else "",
        request_id=request_id if isinstance(request_id, str) else None,
    )


def _until_reset(headers: Mapping[str, str], now_unix_s: float) -> float | None:
    """Seconds until the last bucket that is empty is full again; None where none says that it is empty."""
    waits_s: list[float] = []
    for bucket in RATE_LIMITS:
        reset = headers.get(f"anthropic-ratelimit-{bucket}-reset")
        if reset is None or headers.get(f"anthropic-ratelimit-{bucket}-remaining") != "0":
            continue
        try:
            moment = datetime.fromisoformat(reset)
        except ValueError:
            continue
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        waits_s.append(min(max(moment.timestamp() - now_unix_s, 0.0), RETRY_AFTER_MAX_S))
    return max(waits_s, default=None)

"""What the errors of OpenAI-compatible servers mean: a table by status, refined by code and, last, by wording.

Shapes seen: `{"error": {"message", "type", "param", "code"}}`, `{"error": "text"}`, `{"object": "error", ...}` (old
vLLM, Mistral), `{"detail": ...}` (FastAPI), `{"message": ...}`, and pages of HTML from proxies in between.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from providers.error_bodies import kind_of_status, read_json, words_for
from providers.errors import (
    ContentPolicyError,
    ContextLengthError,
    CredentialsError,
    OverloadedError,
    ProviderError,
    RateLimitedError,
    RegionError,
    UnknownModelError,
    UnsupportedError,
)
from providers.json_values import elements, members
from providers.retry_after import parse_retry_after

MESSAGE_READ_MAX_CHARS = 8 * 1024

_BY_CODE: Mapping[str, type[ProviderError]] = {
    "context_length_exceeded": ContextLengthError,
    "exceed_context_size_error": ContextLengthError,
    "token_limit_exceeded": ContextLengthError,
    "string_too_long": ContextLengthError,
    "content_policy_violation": ContentPolicyError,
    "content_filter": ContentPolicyError,
    "moderation": ContentPolicyError,
    "refusal": ContentPolicyError,
    "insufficient_quota": CredentialsError,
    "billing_hard_limit_reached": CredentialsError,
    "payment_required": CredentialsError,
    "invalid_api_key": CredentialsError,
    "authentication": CredentialsError,
    "model_not_found": UnknownModelError,
    "model_deprecated": UnknownModelError,
    "invalid_model": UnknownModelError,
    "no_endpoints": UnknownModelError,
    "region_restricted": RegionError,
    "unsupported_country_region_territory": RegionError,
    "unsupported_parameter": UnsupportedError,
    "unsupported_value": UnsupportedError,
    "not_supported_error": UnsupportedError,
    "rate_limit_exceeded": RateLimitedError,
    "rate_limited": RateLimitedError,
    "provider_overloaded": OverloadedError,
    "overloaded_error": OverloadedError,
    "capacity_exhausted": OverloadedError,
    "temporarily_unavailable": OverloadedError,
}
_CONTEXT_WORDS = re.compile(
    r"maximum context length|context window|context length|context size|too large for model with"
    r"|prompt is too long|too many (?:input )?tokens|exceeds? the (?:model'?s )?(?:maximum|max).{0,40}tokens"
    r"|reduce the length of the (?:messages|prompt)",
    re.IGNORECASE,
)
_POLICY_WORDS = re.compile(r"content policy|content management policy|flagged (?:by|as)|moderation", re.IGNORECASE)
_UNSUPPORTED_WORDS = re.compile(
    r"does(?:n't| not) support|not supported|no endpoints found that support|is not enabled for this model",
    re.IGNORECASE,
)
_BY_WORDS: tuple[tuple[re.Pattern[str], type[ProviderError], tuple[int, ...]], ...] = (
    (_CONTEXT_WORDS, ContextLengthError, (400, 413, 422, 500)),
    (_POLICY_WORDS, ContentPolicyError, (400, 403, 422)),
    (_UNSUPPORTED_WORDS, UnsupportedError, (400, 404, 422)),
)
"""Statuses under which servers report quite different things, told apart only by wording."""


class ErrorFacts(Struct, frozen=True):
    """What an error body says, whichever shape it has."""

    message: str = ""
    codes: tuple[str, ...] = ()
    """Its code, type and error_type, as far as they are words."""
    number: int | None = None
    """Its code where that is a number: servers repeat the HTTP status there."""
    param: str | None = None


def classify(status: int, headers: Mapping[str, str], body: bytes, now_unix_s: float) -> ProviderError:
    """The error that a non-2xx answer stands for."""
    facts = _facts(body)
    kind = _kind(status, facts)
    return kind(
        words_for(status, facts.message, body, kind),
        upstream_status=status,
        upstream_code=facts.codes[0] if facts.codes else None,
        request_id=headers.get("x-request-id") or headers.get("request-id"),
        retry_after_s=parse_retry_after(headers, now_unix_s),
        param=facts.param,
    )


def classify_in_band(error: Any) -> ProviderError:
    """The error that an `error` member inside a 200 or a stream stands for."""
    facts = _read(error)
    stated = facts.number is not None and 400 <= facts.number <= 599
    status = facts.number if stated and facts.number is not None else 500
    kind = _kind(status, facts)
    if issubclass(kind, CredentialsError) or (stated and status >= 500):
        message = f"the provider failed inside its answer with code {status}"  # as for a status: not ours to spread
    else:
        message = f"the provider reported an error inside its answer: {facts.message or 'no message'}"
    return kind(message, upstream_status=status, upstream_code=facts.codes[0] if facts.codes else None)


def _kind(status: int, facts: ErrorFacts) -> type[ProviderError]:
    """Code first, then wording where the status leaves it open, then the status itself."""
    for code in facts.codes:
        if (kind := _BY_CODE.get(code)) is not None:
            return kind
    for words, kind, statuses in _BY_WORDS:
        if status in statuses and words.search(facts.message):
            return kind
    return kind_of_status(status)


def _facts(body: bytes) -> ErrorFacts:
    parsed = read_json(body)
    whole = elements(parsed)[0] if elements(parsed) else parsed
    return _read(members(whole).get("error") or whole)


def _read(error: Any) -> ErrorFacts:
    if isinstance(error, str):
        return ErrorFacts(message=error[:MESSAGE_READ_MAX_CHARS])
    said = members(error)
    message = said.get("message", said.get("detail", said.get("error", "")))
    if not isinstance(message, str):
        message = msgspec.json.encode(message).decode() if message else ""
    codes = (
        said.get("code"),
        members(said.get("metadata")).get("error_type"),
        said.get("type"),
        said.get("error_type"),
    )
    number = said.get("code", said.get("status"))
    if isinstance(number, str) and number.isdecimal():
        number = int(number[:6])
    param = said.get("param")
    return ErrorFacts(
        message=message[:MESSAGE_READ_MAX_CHARS],
        codes=tuple(code for code in codes if isinstance(code, str) and not code.isdecimal()),
        number=number if isinstance(number, int) else None,
        param=param if isinstance(param, str) else None,
    )

"""Errors on the wire: OpenAI's four members, whose fault it was, and what was tried."""

from collections.abc import Awaitable, Sequence
from typing import Any

import msgspec

from gateway.attempts import Attempt
from gateway.errors import NoEndpointError, QuotaError, RateLimitError, UnaffordableError
from gateway.server.answer_head import header_block
from gateway.server.client import Client
from gateway.server.refusals import NAME_MAX_CHARS, error_members
from providers.errors import CredentialsError, MixgateError, ProviderError, UnknownModelError

RETRY_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504})
RETRY_AFTER_DEFAULT_S = 1
OPERATOR_MUST_ACT = (CredentialsError, UnknownModelError, NoEndpointError, QuotaError, UnaffordableError)
"""Errors that no client can retry away, whatever their status."""


def error_answer(
    error: MixgateError,
    attempts: Sequence[Attempt] = (),
    *,
    metadata: dict[str, Any] | None = None,
    availability: dict[str, Any] | None = None,
) -> bytes:
    """The body that a client gets for an error.

    Args:
        error: What went wrong.
        attempts: Who was asked.
        metadata: OpenRouter's account of the routing, where it was asked for.
        availability: Why nobody could be asked, as OpenRouter's clients read it.
    """
    said = error_members(error)
    if isinstance(error, ProviderError) and error.upstream_code is not None:
        said["provider_code"] = error.upstream_code[:NAME_MAX_CHARS]
    if attempts:
        said["attempts"] = [_attempt(attempt) for attempt in attempts]
    if availability is not None:
        said["availability"] = availability
    body: dict[str, Any] = {"error": said}
    if metadata is not None:
        body["openrouter_metadata"] = metadata
    return msgspec.json.encode(body)


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "endpoint": attempt.endpoint.id,
        "outcome": attempt.outcome,
        "code": attempt.code,
        "status": attempt.upstream_status,
        "ms": round(attempt.duration_s * 1000, 1),
    }


def error_headers(error: MixgateError) -> list[tuple[bytes, bytes]]:
    """The headers beside it: when to come back, and whether coming back helps (OpenAI's SDKs read both)."""
    headers = [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff")]
    again = error.status in RETRY_STATUSES and not isinstance(error, OPERATOR_MUST_ACT)
    if isinstance(error, RateLimitError):
        again = error.retry_after_s is not None  # a request larger than a whole minute's worth never fits
        headers += error.headers
    headers.append((b"x-should-retry", b"true" if again else b"false"))
    if error.retry_after_s is not None or (again and error.status in (429, 503)):
        wait_s = RETRY_AFTER_DEFAULT_S if error.retry_after_s is None else max(1, round(error.retry_after_s))
        headers.append((b"retry-after", b"%d" % wait_s))
    return headers


def refusal_headers(error: MixgateError) -> list[tuple[bytes, bytes]]:
    """Those of an error that came before anybody was asked: where there is a record, the id under which it is found."""
    headers = error_headers(error)
    if error.generation_id:
        headers.append((b"x-generation-id", error.generation_id.encode()))
    return headers


def put_error(
    client: Client, error: MixgateError, availability: dict[str, Any] | None = None
) -> Awaitable[None] | None:
    """Answer with an error that came before anybody was asked, as `Client.put`; `availability` as in `error_answer`."""
    body = error_answer(error, availability=availability)
    return client.put(error.status, header_block(refusal_headers(error)), body)

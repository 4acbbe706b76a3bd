"""What Mistral's errors mean: a table by type and number, refined by wording, then by status.

Shapes seen: `{"object": "error", "message", "type", "param", "code", "raw_status_code"}` with a message that is text,
an object or a list; `{"detail": [...]}` of its validation layer, bare or inside the message; `{"message",
"request_id"}` of the proxy in front; and pages of HTML. https://docs.mistral.ai/api, `reference/providers.md` 1.3.
"""

import re
from collections.abc import Mapping
from typing import Any

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
    UnknownModelError,
    UnsupportedError,
)
from providers.json_values import elements, members
from providers.retry_after import RETRY_AFTER_MAX_S, parse_retry_after

COMPLAINTS_MAX = 5
"""As many of a validation error's complaints as are worth repeating."""

_BY_NAME: Mapping[str, type[ProviderError]] = {
    "1300": RateLimitedError,
    "rate_limited": RateLimitedError,
    "1500": UnknownModelError,
    "invalid_model": UnknownModelError,
    "3230": BadRequestError,
    "invalid_request_message_order": BadRequestError,
    "3280": BadRequestError,
    "invalid_function_call": BadRequestError,
}
"""By `code` or `type`. 3051 (invalid_request_invalid_args) is not here: it is many things, told apart by wording."""
_BY_WORDS: tuple[tuple[re.Pattern[str], type[ProviderError], tuple[int, ...]], ...] = (
    (
        re.compile(r"too large for model with|maximum context length|context (?:window|length|size)", re.IGNORECASE),
        ContextLengthError,
        (400, 413, 422),
    ),
    (re.compile(r"capacity exceeded|currently overloaded", re.IGNORECASE), OverloadedError, (400, 429, 500, 503)),
    (re.compile(r"invalid model", re.IGNORECASE), UnknownModelError, (400, 404, 422)),
    (
        re.compile(r"not enabled for this model|not supported|does(?:n't| not) support", re.IGNORECASE),
        UnsupportedError,
        (400, 422),
    ),
    (re.compile(r"moderation|guardrail|content policy", re.IGNORECASE), ContentPolicyError, (400, 403, 422)),
)
_WINDOWS_S: Mapping[str, float] = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "month": 30 * 86400}
_WINDOW = re.compile(r"x-ratelimit-remaining-(?:req|tokens)-(?:(\d+)-)?(second|minute|hour|day|month)")


class _Facts(Struct, frozen=True):
    """What an error body says, whichever shape it has."""

    message: str = ""
    names: tuple[str, ...] = ()
    """Its code and type."""
    param: str | None = None
    status: int | None = None
    request_id: str | None = None


def classify(status: int, headers: Mapping[str, str], body: bytes, now_unix_s: float) -> ProviderError:
    """The error that a non-2xx answer stands for."""
    facts = _facts(body)
    kind = _kind(status, facts)
    wait_s = parse_retry_after(headers, now_unix_s)
    return kind(
        words_for(status, facts.message, body, kind),
        upstream_status=status,
        upstream_code=facts.names[0] if facts.names else None,
        request_id=headers.get("mistral-correlation-id") or headers.get("x-request-id") or facts.request_id,
        retry_after_s=_window_s(headers) if wait_s is None and kind is RateLimitedError else wait_s,
        param=facts.param,
    )


def classify_in_band(error: Any) -> ProviderError:
    """The error that an error object inside a 200 or a stream stands for."""
    facts = _read(error)
    status = facts.status or 500
    kind = _kind(status, facts)
    if issubclass(kind, CredentialsError) or status >= 500:
        message = f"the provider failed inside its answer with code {status}"  # as for a status: not ours to spread
    else:
        message = f"the provider reported an error inside its answer: {facts.message or 'no message'}"
    return kind(message, upstream_status=status, upstream_code=facts.names[0] if facts.names else None)


def _kind(status: int, facts: _Facts) -> type[ProviderError]:
    for name in facts.names:
        if (kind := _BY_NAME.get(name)) is not None:
            return kind
    for words, kind, statuses in _BY_WORDS:
        if status in statuses and words.search(facts.message):
            return kind
    return kind_of_status(status)


def _facts(body: bytes) -> _Facts:
    parsed = read_json(body)
    whole = elements(parsed)[0] if elements(parsed) else parsed
    return _read(members(whole).get("error") or whole)


def _read(error: Any) -> _Facts:
    if isinstance(error, str):
        return _Facts(message=error)
    said = members(error)
    message, param = _words(said.get("message", said.get("detail", said.get("error"))))
    names = (said.get("code"), said.get("type"))
    number = _number(said.get("raw_status_code", said.get("status", said.get("code"))))
    request_id = said.get("request_id")
    return _Facts(
        message=message,
        names=tuple(str(name) for name in names if isinstance(name, str | int) and not isinstance(name, bool)),
        param=said["param"] if isinstance(said.get("param"), str) else param,
        status=number if number is not None and 400 <= number <= 599 else None,
        request_id=request_id if isinstance(request_id, str) else None,
    )


def _number(value: Any) -> int | None:
    if isinstance(value, str) and value[:6].isdecimal():
        return int(value[:6])
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _words(message: Any) -> tuple[str, str | None]:
    """A message of any shape as words, and the request member that its first complaint is about."""
    if isinstance(message, str):
        return message, None
    if (inner := members(message)) and "msg" not in inner:
        return _words(inner.get("detail", inner.get("message")))
    complaints = [members(one) for one in (elements(message) or [message])]
    places = [_place(complaint.get("loc")) for complaint in complaints]
    texts = [
        f"{place}: {complaint['msg']}" if place else complaint["msg"]
        for place, complaint in zip(places, complaints, strict=True)
        if isinstance(complaint.get("msg"), str)
    ]
    return "; ".join(texts[:COMPLAINTS_MAX]), next(filter(None, places), None)


def _place(loc: Any) -> str:
    """`["body", "messages", 0, "user", "name"]` as `messages[0].user.name`."""
    place = ""
    for step in elements(loc):
        if isinstance(step, int):
            place += f"[{step}]"
        elif step != "body":
            place += f".{step}" if place else str(step)
    return place


def _window_s(headers: Mapping[str, str]) -> float | None:
    """At most how long a limit stays used up whose headers say that nothing is left, in seconds.

    Mistral counts requests and tokens per window (`x-ratelimit-remaining-tokens-minute: 0`) and does not always send a
    Retry-After. The length of the longest window with nothing left bounds the wait; parse_retry_after's cap holds.
    """
    waits = [
        int(found[1] or 1) * _WINDOWS_S[found[2]]
        for name, left in headers.items()
        if (found := _WINDOW.fullmatch(name)) is not None and left.strip() == "0"
    ]
    return min(max(waits), RETRY_AFTER_MAX_S) if waits else None

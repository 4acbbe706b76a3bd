"""What Bedrock's errors mean: a table by exception name, refined by wording where one name covers too much.

The name comes in the header `x-amzn-errortype` (`ValidationException:http://...`), in the body's `__type`, or as the
type of an exception message inside a stream (`validationException`). Where it is missing the status decides.
https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html
"""

import re
from collections.abc import Mapping

from providers.error_bodies import kind_of_status, read_json, words_for
from providers.errors import (
    BadRequestError,
    ContentPolicyError,
    ContextLengthError,
    CredentialsError,
    FirstTokenTimeoutError,
    OverloadedError,
    ProviderError,
    RateLimitedError,
    RegionError,
    ServerError,
    StalledError,
    UnknownModelError,
    UnsupportedError,
)
from providers.json_values import members
from providers.retry_after import parse_retry_after

NAME_MAX_CHARS = 64

_BY_NAME: Mapping[str, type[ProviderError]] = {
    "validation": BadRequestError,
    "serialization": BadRequestError,
    "accessdenied": CredentialsError,
    "unrecognizedclient": CredentialsError,
    "invalidsignature": CredentialsError,
    "signaturedoesnotmatch": CredentialsError,
    "incompletesignature": CredentialsError,
    "invalidclienttokenid": CredentialsError,
    "missingauthenticationtoken": CredentialsError,
    "expiredtoken": CredentialsError,
    "requestexpired": CredentialsError,
    "notauthorized": CredentialsError,
    "unauthorized": CredentialsError,
    "forbidden": CredentialsError,
    "optinrequired": CredentialsError,
    "subscriptionrequired": CredentialsError,
    "resourcenotfound": UnknownModelError,
    "unknownoperation": UnknownModelError,
    "modeltimeout": FirstTokenTimeoutError,
    "requesttimeout": FirstTokenTimeoutError,
    "throttling": RateLimitedError,
    "throttled": RateLimitedError,
    "toomanyrequests": RateLimitedError,
    "limitexceeded": RateLimitedError,
    "servicequotaexceeded": RateLimitedError,
    "modelnotready": OverloadedError,
    "serviceunavailable": OverloadedError,
    "modelerror": ServerError,
    "modelstreamerror": ServerError,
    "internalserver": ServerError,
    "internalfailure": ServerError,
    "conflict": OverloadedError,
    "payloadtoolarge": ContextLengthError,
    "requestentitytoolarge": ContextLengthError,
}
"""By exception name in lower case, without `Exception` or `Error` at its end."""
_REGION_WORDS = re.compile(r"(?:not |un)(?:available|allowed|supported)\b.{0,40}\b(?:region|countr)", re.IGNORECASE)
_MODEL_WORDS = re.compile(
    r"model identifier is invalid|on-demand throughput isn.t supported|reached the end of its life"
    r"|could not resolve the foundation model|model (?:id|arn).{0,60}(?:not found|does not exist|is invalid)",
    re.IGNORECASE,
)
_CONTEXT_WORDS = re.compile(
    r"(?:input|prompt) is too long|too many input tokens|maximum context length|context (?:window|limit|length)"
    r"|exceeds? the (?:model'?s )?(?:maximum|max)(?:imum)?.{0,40}tokens|number of (?:input )?tokens.{0,40}exceed"
    r"|expected max ?length|input length.{0,40}exceed",
    re.IGNORECASE,
)
_POLICY_WORDS = re.compile(
    r"content (?:filter|polic)|blocked by (?:our|the) .{0,20}filter|guardrail interven", re.IGNORECASE
)
_UNSUPPORTED_WORDS = re.compile(
    r"does(?:n.t| not) (?:currently )?support|(?:isn.t|is not|not) supported"
    r"|#: extraneous key|extra inputs are not permitted",
    re.IGNORECASE,
)
_WORDS: tuple[tuple[re.Pattern[str], type[ProviderError]], ...] = (
    (_REGION_WORDS, RegionError),
    (_MODEL_WORDS, UnknownModelError),
    (_CONTEXT_WORDS, ContextLengthError),
    (_POLICY_WORDS, ContentPolicyError),
    (_UNSUPPORTED_WORDS, UnsupportedError),
)
"""What ValidationException and AccessDeniedException are told apart by."""


def classify(status: int, headers: Mapping[str, str], body: bytes, now_unix_s: float) -> ProviderError:
    """The error that a non-2xx answer stands for."""
    name, message = _read(body)
    name = _plain(headers.get("x-amzn-errortype", "")) or name
    kind = _kind(name, status, message)
    return kind(
        _message(kind, status, name, message, body),
        upstream_status=status,
        upstream_code=name or None,
        request_id=headers.get("x-amzn-requestid"),
        retry_after_s=parse_retry_after(headers, now_unix_s),
    )


def classify_frame(name: str, payload: bytes) -> ProviderError:
    """The error that an exception inside a stream stands for."""
    said, message = _read(payload)
    code = _plain(name) or said
    kind = _kind(code, 500, message)
    if kind is FirstTokenTimeoutError:
        kind = StalledError  # the stream was under way
    shown = "" if issubclass(kind, ServerError | CredentialsError) else message
    return kind(
        f"the provider broke its stream off with {code or 'an error'}" + (f": {shown}" if shown else ""),
        upstream_code=code or None,
    )


def _kind(name: str, status: int, message: str) -> type[ProviderError]:
    kind = _BY_NAME.get(_stem(name))
    if kind is None:
        kind = kind_of_status(status)
    if kind is BadRequestError:
        return next((refined for words, refined in _WORDS if words.search(message)), kind)
    if kind is CredentialsError and _REGION_WORDS.search(message):
        return RegionError
    return kind


def _message(kind: type[ProviderError], status: int, name: str, message: str, body: bytes) -> str:
    """Words for the client. What the provider says of its own failure, or of our account, is not ours to spread."""
    if issubclass(kind, CredentialsError):
        said = f"{name}, " if name else ""
        return f"the provider did not accept our credentials ({said}HTTP {status}): the operator must act"
    if status >= 400 and (issubclass(kind, ServerError) or status >= 500):
        return f"the provider failed with {name or 'no name for it'} (HTTP {status})"
    return words_for(status, message, body, kind)


def _read(body: bytes) -> tuple[str, str]:
    """The exception's name and the message in a body; empty where they are not there."""
    said = members(read_json(body))
    name = said.get("__type", said.get("code", ""))
    message = said.get("message") or said.get("Message") or said.get("originalMessage") or ""
    return (
        _plain(name) if isinstance(name, str) else "",
        message if isinstance(message, str) else "",
    )


def _plain(name: str) -> str:
    """`com.amazon.coral#ValidationException:http://...` is ValidationException."""
    return name.partition(":")[0].rpartition("#")[2].strip()[:NAME_MAX_CHARS]


def _stem(name: str) -> str:
    stem = name.lower().removesuffix("exception")
    return stem if stem in _BY_NAME else stem.removesuffix("error")

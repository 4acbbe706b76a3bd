"""Requests that are refused before the application sees them, and how such a refusal looks on the wire.

Every one of these ends the connection: once a client and we may disagree on where a request ends, nothing more that
comes on the same connection can be trusted.
"""

from http import HTTPStatus
from typing import Any, ClassVar

import msgspec

from gateway.errors import RefusalError
from providers.errors import MixgateError

NAME_MAX_CHARS = 200
"""How much of a code or a parameter's name is passed on: a provider may put anything there."""


class MalformedRequestError(RefusalError):
    """The bytes are not one unambiguous HTTP/1.1 request."""

    code: ClassVar[str] = "malformed_http"


class TargetTooLongError(RefusalError):
    """The request line is over its bound."""

    code: ClassVar[str] = "uri_too_long"
    status: ClassVar[int] = 414


class HeadTooLargeError(RefusalError):
    """Too many headers, or too long ones."""

    code: ClassVar[str] = "headers_too_large"
    status: ClassVar[int] = 431


class HttpVersionError(RefusalError):
    """Another version of HTTP than 1.1."""

    code: ClassVar[str] = "http_version_not_supported"
    status: ClassVar[int] = 505


class TransferCodingError(RefusalError):
    """A transfer coding other than exactly `chunked`, or a method we do not know."""

    code: ClassVar[str] = "not_implemented"
    status: ClassVar[int] = 501


class ExpectationError(RefusalError):
    """An `Expect` other than `100-continue`."""

    code: ClassVar[str] = "expectation_failed"
    status: ClassVar[int] = 417


class SlowRequestError(RefusalError):
    """The request did not arrive in time."""

    code: ClassVar[str] = "request_timeout"
    status: ClassVar[int] = 408


class InternalError(MixgateError):
    """A fault of the gateway's own; the log has the details, the client gets none."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500


def error_members(error: MixgateError) -> dict[str, Any]:
    """OpenAI's four members of an error, and who is to blame."""
    return {
        "message": error.message,
        "type": error.type,
        "param": error.param and error.param[:NAME_MAX_CHARS],
        "code": error.code,
        "source": error.source,
    }


def error_body(error: MixgateError) -> bytes:
    """The error as OpenAI clients read it."""
    return msgspec.json.encode({"error": error_members(error)})


def refusal_response(error: MixgateError) -> bytes:
    """A whole HTTP/1.1 response that says no and announces the end of the connection."""
    body = error_body(error)
    retry_after = b"" if error.retry_after_s is None else b"retry-after: %d\r\n" % max(1, round(error.retry_after_s))
    return (
        b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b"
        % (
            error.status,
            HTTPStatus(error.status).phrase.encode("ascii"),
            len(body),
            retry_after,
            body,
        )
    )

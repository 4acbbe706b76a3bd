"""The JSON lines of an answer's body, and a refusal in the place of one. Shared by both sides of the socket."""

import msgspec
from msgspec import Struct

from local_backend.errors import LocalError
from local_backend.frames import Refusal


class TextLine(Struct, tag_field="t", tag="text", omit_defaults=True):
    """More text of a choice."""

    text: str
    choice: int
    logprobs: list[object] | None = None


class FinishLine(Struct, tag_field="t", tag="finish"):
    """A choice is complete."""

    choice: int
    reason: str


class UsageLine(Struct, tag_field="t", tag="usage"):
    """The last line of a good answer."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int


class ErrorLine(Struct, tag_field="t", tag="error", omit_defaults=True):
    """The last line of a bad one."""

    status: int
    code: str
    message: str
    retry_after_s: float | None = None


_encoder = msgspec.json.Encoder()


def refusal_of(error: LocalError) -> Refusal:
    """An error as it goes over the socket."""
    return Refusal(
        status=error.status,
        code=error.code,
        message=error.message,
        param=error.param,
        retry_after_s=error.retry_after_s,
    )


def error_line(refusal: Refusal) -> bytes:
    """An error as the last line of a body."""
    line = ErrorLine(refusal.status, refusal.code, refusal.message, refusal.retry_after_s)
    return _encoder.encode(line) + b"\n"

"""What our own llama.cpp worker says, line by line, as decoded."""

from typing import Any

from msgspec import Struct

from providers.messages import FinishReason


class Line(Struct, gc=False):
    """A line of an answer: `t` says what of it counts."""

    t: str
    choice: int = 0
    text: str = ""
    logprobs: list[Any] | None = None
    reason: FinishReason = "stop"
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    status: int = 500
    code: str = "local_worker_crashed"
    message: str = ""
    retry_after_s: float | None = None


class ErrorBody(Struct, gc=False):
    """Why there is none."""

    message: str = ""
    code: str = ""
    param: str | None = None


class ErrorAnswer(Struct, gc=False):
    """What is said in place of one."""

    error: ErrorBody

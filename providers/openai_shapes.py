"""What OpenAI-compatible servers answer, as far as we read it: shapes for decoding, and nothing that does anything."""

from typing import Any, TypeAlias

from msgspec import Struct

Json: TypeAlias = Any


class UsageFigures(Struct, gc=False):
    """The `usage` member, as it came."""

    prompt_tokens: Json = None
    completion_tokens: Json = None
    prompt_tokens_details: Json = None
    completion_tokens_details: Json = None
    prompt_token_details: Json = None
    num_cached_tokens: Json = None
    cost: Json = None
    """An amount in USD. Some servers write it as text, or take it apart instead."""


class Function(Struct, gc=False):
    """A call by its name, and arguments that should be JSON in a string."""

    name: str | None = None
    arguments: str | dict[str, Json] | None = None


class ToolCall(Struct, gc=False):
    """One call of a tool, or a piece of one."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Message(Struct, gc=False):
    """A message or a delta: the two differ only in how much of it comes at once."""

    content: str | list[Json] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: list[Json] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None
    annotations: list[Json] | None = None
    images: list[Json] | None = None
    audio: dict[str, Json] | None = None


class Logprobs(Struct, gc=False):
    """How likely the tokens were."""

    content: list[Json] | None = None


class Choice(Struct, gc=False):
    """One of `n` answers, or a piece of it."""

    index: int | None = None
    message: Message | None = None
    delta: Message | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    logprobs: Logprobs | None = None
    error: Json = None


class Completion(Struct, gc=False):
    """A whole answer, or one chunk of a streamed one."""

    id: str | None = None
    model: str | None = None
    provider: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    choices: list[Choice] | None = None
    usage: UsageFigures | None = None
    error: Json = None

"""The parts of an OpenAI chat completion, as they are encoded."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType, field


class Function(Struct):
    """What a tool call calls."""

    name: str = ""
    arguments: str = ""


class Call(Struct):
    """A tool call."""

    id: str = ""
    type: str = "function"
    function: Function = field(default_factory=Function)


class Message(Struct):
    """A message as OpenAI's schema has it: `content` and `refusal` are required and may be null."""

    role: str = "assistant"
    content: str | None = None
    refusal: str | None = None
    reasoning: str | UnsetType = UNSET
    reasoning_details: list[Any] | UnsetType = UNSET
    tool_calls: list[Call] | UnsetType = UNSET


class Logprobs(Struct):
    """How likely each token was."""

    content: list[Any] | None = None
    refusal: list[Any] | None = None


class Choice(Struct):
    """One of the answers."""

    index: int
    message: Message | dict[str, Any]
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None

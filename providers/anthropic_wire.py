"""Anthropic's JSON as it stands on the wire, and its token counts as ours.

Typed for speed, yet loose where a type of block that nobody here knows may use a name otherwise.
"""

from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from providers.messages import Usage

TOKENS_MAX = 1_000_000_000
"""A usage figure above this is a provider's mistake, not a count."""

Json: TypeAlias = Any


class Block(Struct, gc=False):
    """One content block. Which members are meant depends on `type`; unknown types may use the names otherwise."""

    type: str = ""
    text: Json = None
    citations: Json = None
    thinking: Json = None
    signature: Json = None
    data: Json = None
    id: Json = None
    name: Json = None
    input: Json = None


class StopDetails(Struct, gc=False):
    """Why it stopped; told of refusals."""

    explanation: Json = None


class Delta(Struct, gc=False):
    """Of a block or of the message."""

    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: Json = None
    stop_reason: str | None = None
    stop_details: StopDetails | None = None


class OutputDetails(Struct, gc=False):
    """What the output tokens were spent on."""

    thinking_tokens: Json = None


class WireUsage(Struct, gc=False):
    """Token counts. The three of the input exclude one another; in a stream they are cumulative."""

    input_tokens: Json = None
    output_tokens: Json = None
    cache_creation_input_tokens: Json = None
    cache_read_input_tokens: Json = None
    output_tokens_details: OutputDetails | None = None
    service_tier: Json = None


class WireMessage(Struct, gc=False):
    """A whole answer, the head of a streamed one, or an error in its place."""

    type: str = ""
    id: str | None = None
    model: str | None = None
    content: list[Block] | None = None
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: WireUsage | None = None
    error: Json = None
    request_id: Json = None


class WireEvent(Struct, gc=False):
    """One event of a stream, of any type."""

    type: str = ""
    index: int = 0
    delta: Delta | None = None
    content_block: Block | None = None
    message: WireMessage | None = None
    usage: WireUsage | None = None
    error: Json = None
    request_id: Json = None


message_decoder = msgspec.json.Decoder(WireMessage, strict=False)
event_decoder = msgspec.json.Decoder(WireEvent, strict=False)


def _count(value: object) -> int | None:
    """A token count, or None where it cannot be one (absent, negative, absurd)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= TOKENS_MAX:
        return None
    return int(value)


def merge(known: Usage, said: WireUsage) -> Usage:
    """The counts in Anthropic's own sense (input without cached and cache-write tokens), newer ones first."""
    details = said.output_tokens_details

    def newer(value: object, before: int | None) -> int | None:
        counted = _count(value)
        return before if counted is None else counted

    return Usage(
        input_tokens=newer(said.input_tokens, known.input_tokens),
        output_tokens=newer(said.output_tokens, known.output_tokens),
        cached_input_tokens=newer(said.cache_read_input_tokens, known.cached_input_tokens),
        cache_write_tokens=newer(said.cache_creation_input_tokens, known.cache_write_tokens),
        reasoning_tokens=newer(details.thinking_tokens if details is not None else None, known.reasoning_tokens),
    )


def inclusive(counted: Usage) -> Usage:
    """The same with cached and cache-write tokens inside the input."""
    if counted.input_tokens is None:
        return counted
    cached = (counted.cached_input_tokens or 0) + (counted.cache_write_tokens or 0)
    return msgspec.structs.replace(counted, input_tokens=counted.input_tokens + cached)

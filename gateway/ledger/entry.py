"""What is noted of an Attempt before it is sent, and once it is over. Integers only: nano-USD, tokens, microseconds."""

from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import astuple

from gateway.ledger.intent import Intent
from gateway.state.entries import Entry, PriceSnapshot

__all__ = ["NO_PRICE", "TEXT_MAX", "CostSource", "Entry", "Intent", "Outcome", "PriceSnapshot", "Settlement"]

Outcome: TypeAlias = Literal["ok", "failed", "cancelled"]
UsageSource: TypeAlias = Literal["provider", "estimate", "recovered", "none"]
"""Who counted the tokens. `recovered`: the gateway was killed in the middle of it, and estimated when it was back."""
CostSource: TypeAlias = Literal["provider", "price", "estimate", "recovered", "unknown", "none"]
"""provider: what it says that it charged. price: its tokens times our price. estimate: our tokens times our price.
none: it was refused or never reached anybody, and costs nothing. unknown: there is no price."""

TEXT_MAX: Final = 256
"""Characters that are kept of whatever a client calls itself."""
TAGS_MAX: Final = 16
"""Tags of one request that are kept."""
NO_PRICE: Final = ""
"""The price id of Endpoints whose price nobody knows."""

Head: TypeAlias = tuple[Any, ...]
"""What of a row is known when its Attempt is sent: the values of an Intent, but for its tags."""
Tail: TypeAlias = tuple[Any, ...]
"""What is known once it is over: the values of a Settlement."""
_NO_TAGS: Final = ("",)

_INTEGER_MAX: Final = 2**63 - 1
_encode_json: Final = msgspec.json.Encoder().encode


class Settlement(Struct, gc=False):
    """What became of it."""

    ended_unix_us: int
    outcome: Outcome
    code: str | None
    """Why it is not ok."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_source: UsageSource = "none"
    cost_in_nusd: int | None = None
    cost_source: CostSource = "unknown"
    ttft_ms: int | None = None
    duration_ms: int = 0
    upstream_id: str | None = None


def row_of(intent: Intent, settlement: Settlement) -> tuple[Any, ...]:
    """Both together, in the order of ENTRY_COLUMNS."""
    return completed(head_of(intent), intent.tags, tail_of(settlement))


def head_of(intent: Intent) -> Head:
    """All of it but the tags."""
    values: tuple[Any, ...] = astuple(intent)
    return values[:-1]


def completed(head: Head, tags: tuple[str, ...], tail: Tail) -> tuple[Any, ...]:
    """A row, from what was known when its Attempt was sent and what became of it."""
    between: tuple[Any, ...] = (_encode_json(tags).decode(),) if tags else _NO_TAGS
    return head + between + tail


def tail_of(settlement: Settlement) -> Tail:
    """Its values."""
    return (
        settlement.ended_unix_us,
        settlement.outcome,
        settlement.code,
        settlement.input_tokens,
        settlement.output_tokens,
        settlement.cached_tokens,
        settlement.cache_write_tokens,
        settlement.reasoning_tokens,
        settlement.usage_source,
        settlement.cost_in_nusd,
        settlement.cost_source,
        settlement.ttft_ms,
        settlement.duration_ms,
        settlement.upstream_id,
    )


def mended(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same, as far as it can be stored: whole numbers of 64 bits, and text that is text."""
    return tuple([_mended(value) for value in values])


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-_INTEGER_MAX, min(value, _INTEGER_MAX))
    return value


def clipped(text: str | None) -> str:
    """What is kept of a text of a client's."""
    return "" if text is None else text[:TEXT_MAX]


def kept_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """What is kept of a client's tags: each once, so that nothing counts twice under one of them."""
    return tuple(dict.fromkeys([clipped(tag) for tag in tags if tag]))[:TAGS_MAX]

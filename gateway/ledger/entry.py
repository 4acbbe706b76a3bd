"""What is noted of an Attempt before it is sent, and once it is over. Integers only: nano-USD, tokens, microseconds."""

from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import astuple, replace

from gateway.state.entries import Entry, PriceSnapshot
from providers.base import Price, PriceOverride

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

_INTEGER_MAX: Final = 2**63 - 1
_AnyStruct = TypeVar("_AnyStruct", bound=Struct)
_encode_json: Final = msgspec.json.Encoder().encode


class Priced(Struct, frozen=True):
    """What a price snapshot holds."""

    price: Price | None
    overrides: tuple[PriceOverride, ...]


class Intent(Struct, frozen=True, gc=False, array_like=True):
    """An Attempt that is about to be sent."""

    attempt_id: str
    """`<generation id>/<n>`, from 1."""
    unix_us: int
    key_id: str
    """The public id of the client key; empty where callers need none."""
    route: str
    model: str
    endpoint: str
    provider: str
    surface: str
    stream: bool
    price_id: str
    """Of the PriceSnapshot by which it is billed."""
    prompt_tokens: int
    """Our estimate, or exact count."""
    output_limit: int | None = None
    reserved_in_nusd: int = 0
    app: str = ""
    """The title that the application gives itself; as all texts of clients, cut to TEXT_MAX by whoever takes it."""
    referer: str = ""
    user: str = ""
    session: str = ""
    tags: tuple[str, ...] = ()


class Settlement(Struct, frozen=True, gc=False, array_like=True):
    """What became of it."""

    attempt_id: str
    ended_unix_us: int
    outcome: Outcome
    code: str | None
    """Why it is not ok."""
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    usage_source: UsageSource
    cost_in_nusd: int | None
    cost_source: CostSource
    ttft_ms: int | None = None
    duration_ms: int = 0
    upstream_id: str | None = None


def row_of(intent: Intent, settlement: Settlement) -> tuple[Any, ...]:
    """Both together, in the order of ENTRY_COLUMNS."""
    values = astuple(intent)
    tags = _encode_json(intent.tags).decode() if intent.tags else ""
    return (*values[:-1], tags, *astuple(settlement)[1:])


def entry_of(intent: Intent, settlement: Settlement) -> Entry:
    """Both together."""
    return Entry(*row_of(intent, settlement))


def mended(struct: _AnyStruct) -> _AnyStruct:
    """The same, as far as it can be stored: whole numbers of 64 bits, and text that is text."""
    changes: dict[str, Any] = {}
    for name in struct.__struct_fields__:
        value: Any = getattr(struct, name)
        if isinstance(value, str):
            changes[name] = value.encode(errors="replace").decode()
        elif name == "tags":
            changes[name] = tuple(str(tag).encode(errors="replace").decode() for tag in value)
        elif isinstance(value, int) and not isinstance(value, bool):
            changes[name] = max(-_INTEGER_MAX, min(value, _INTEGER_MAX))
    return replace(struct, **changes)


def clipped(text: str | None) -> str:
    """What is kept of a text of a client's."""
    return "" if text is None else text[:TEXT_MAX]


def kept_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """What is kept of a client's tags: each once, so that nothing counts twice under one of them."""
    return tuple(dict.fromkeys(clipped(tag) for tag in tags if tag))[:TAGS_MAX]

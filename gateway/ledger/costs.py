"""What an Attempt cost: from what the provider counted and charged, or from our own estimate, to a Settlement. Pure.

The provider's own figure counts more than its tokens times our price, and those more than our estimate. Every row says
which of them it is. All is integers, rounded once per row, half to even.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct

from gateway.ledger.entry import NO_PRICE, CostSource, Outcome, Settlement, UsageSource
from gateway.ledger.intent import Intent, Priced
from gateway.state.entries import PriceSnapshot
from providers.base import Price, PriceOverride
from providers.messages import Usage
from providers.pricing import BILLED_TOKENS_MAX, cost_in_nusd

COST_MAX_IN_NUSD: Final = 10**15
"""A million dollars: a provider that says that one answer cost more is mistaken."""
MICROSECONDS: Final = 1_000_000
RECOVERED_CODE: Final = "gateway_killed"
"""What is said of an Attempt in the middle of which the gateway died."""
_NOBODY_COUNTED: Final = Usage()
_ANY_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""For prices that do not depend on the time."""


class Tariff(Struct, frozen=True):
    """The prices of an Endpoint, and their snapshot."""

    snapshot: PriceSnapshot
    price: Price | None
    overrides: tuple[PriceOverride, ...]

    @property
    def price_id(self) -> str:
        """Of its snapshot; NO_PRICE where nobody knows the price."""
        return self.snapshot.price_id


class Ending(Struct, frozen=True, kw_only=True):
    """What is known of an Attempt when it is over."""

    unix_us: int
    outcome: Outcome
    code: str | None = None
    usage: Usage | None = None
    """As the provider counted; None or parts of None where it did not say."""
    prompt_tokens: int | None = None
    """By our own count, for where the provider did not say."""
    output_tokens: int | None = None
    """Of the answer so far, by our own count."""
    refused: bool = False
    """It never reached anybody, or was answered with an error status before any content: nobody charges for that."""
    images: int = 0
    """In the prompt."""
    ttft_ms: int | None = None
    duration_ms: int = 0
    upstream_id: str | None = None


def tariff_of(endpoint: str, price: Price | None, overrides: Sequence[PriceOverride]) -> Tariff:
    """The Tariff of a row of the configuration: to be made once, not per request."""
    if price is None:
        return Tariff(PriceSnapshot(NO_PRICE, endpoint, ""), None, ())
    data = msgspec.json.encode(Priced(price, tuple(overrides)))
    price_id = hashlib.sha256(endpoint.encode() + b"\0" + data).hexdigest()[:16]
    return Tariff(PriceSnapshot(price_id, endpoint, data.decode()), price, tuple(overrides))


def read_tariff(snapshot: PriceSnapshot) -> Tariff:
    """The Tariff of a snapshot.

    Raises:
        msgspec.DecodeError: Another version has made it.
    """
    if not snapshot.data:
        return Tariff(snapshot, None, ())
    priced = msgspec.json.decode(snapshot.data, type=Priced)
    return Tariff(snapshot, priced.price, priced.overrides)


def settlement_of(sent_us: int, ending: Ending, tariff: Tariff) -> Settlement:
    """What an Attempt cost that was sent then, who says so, and who counted."""
    usage, usage_source = _counted(ending)
    cost, cost_source = _cost(sent_us, ending, tariff, usage, usage_source)
    return _settlement(ending, usage, usage_source, cost, cost_source)


def recovered(intent: Intent, output_tokens: int, tariff: Tariff | None, *, unix_us: int) -> Settlement:
    """An estimate for an Attempt in the middle of which the gateway was killed.

    Args:
        intent: What is known of it.
        output_tokens: How far it was when that was last noted.
        tariff: What it was to be billed by; None: that is not known any more.
        unix_us: Now.
    """
    usage = Usage(input_tokens=intent.prompt_tokens, output_tokens=output_tokens)
    cost = None if tariff is None else _by_tariff(tariff, usage, intent.unix_us)
    ending = Ending(unix_us=unix_us, outcome="failed", code=RECOVERED_CODE)
    return _settlement(ending, usage, "recovered", cost, "unknown" if cost is None else "recovered")


def _counted(ending: Ending) -> tuple[Usage, UsageSource]:
    """The tokens, and by whom. What the provider left out is filled in from our estimate."""
    usage = ending.usage or _NOBODY_COUNTED
    counted_in, counted_out = sane(usage.input_tokens), sane(usage.output_tokens)
    if counted_in is not None and counted_out is not None:
        return usage, "provider"
    said = counted_in is not None or counted_out is not None
    if ending.refused and not said:
        return _NOBODY_COUNTED, "none"
    mixed = Usage(
        input_tokens=sane(ending.prompt_tokens) if counted_in is None else counted_in,
        output_tokens=sane(ending.output_tokens) if counted_out is None else counted_out,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )
    nothing = mixed.input_tokens is None and mixed.output_tokens is None
    return mixed, "none" if nothing else "estimate"


def _cost(
    sent_us: int, ending: Ending, tariff: Tariff, usage: Usage, usage_source: UsageSource
) -> tuple[int | None, CostSource]:
    charged = None if ending.usage is None else ending.usage.cost_in_nusd
    if charged is not None and 0 <= charged <= COST_MAX_IN_NUSD:
        return charged, "provider"
    if ending.refused and usage_source == "none":
        return 0, "none"
    cost = _by_tariff(tariff, usage, sent_us, ending.images)
    if cost is None or cost > COST_MAX_IN_NUSD:
        return None, "unknown"
    return cost, "price" if usage_source == "provider" else "estimate"


def _by_tariff(tariff: Tariff, usage: Usage, sent_us: int, images: int = 0) -> int | None:
    now_utc = datetime.fromtimestamp(sent_us / MICROSECONDS, UTC) if tariff.overrides else _ANY_TIME
    return cost_in_nusd(tariff.price, tariff.overrides, usage, now_utc, images=images)


def _settlement(
    ending: Ending, usage: Usage, usage_source: UsageSource, cost: int | None, cost_source: CostSource
) -> Settlement:
    return Settlement(
        ending.unix_us,
        ending.outcome,
        ending.code,
        sane(usage.input_tokens),
        sane(usage.output_tokens),
        sane(usage.cached_input_tokens),
        sane(usage.cache_write_tokens),
        sane(usage.reasoning_tokens),
        usage_source,
        cost,
        cost_source,
        ending.ttft_ms,
        ending.duration_ms,
        ending.upstream_id,
    )


def sane(tokens: int | None) -> int | None:
    """A count of tokens; None where it is negative or more than any answer can hold."""
    return tokens if tokens is not None and 0 <= tokens <= BILLED_TOKENS_MAX else None

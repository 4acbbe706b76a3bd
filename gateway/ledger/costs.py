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

from gateway.ledger.entry import NO_PRICE, Outcome, Settlement
from gateway.ledger.intent import Intent, Priced
from gateway.state.entries import PriceSnapshot
from providers.base import Price, PriceOverride
from providers.messages import Usage
from providers.pricing import BILLED_TOKENS_MAX, Rates, counted, price_in_force

COST_MAX_IN_NUSD: Final = 10**15
"""A million dollars: a provider that says that one answer cost more is mistaken."""
MICROSECONDS: Final = 1_000_000
RECOVERED_CODE: Final = "gateway_killed"
"""What is said of an Attempt in the middle of which the gateway died."""


class Tariff(Struct, frozen=True):
    """The prices of an Endpoint, and their snapshot."""

    snapshot: PriceSnapshot
    price: Price | None
    overrides: tuple[PriceOverride, ...]
    price_id: str
    """Of the snapshot."""
    rates: Rates | None
    """The price as numbers."""

    def cost_in_nusd(self, settled: Settlement, sent_us: int, images: int) -> int | None:
        """What these tokens cost that were asked for then; None: nobody knows."""
        rates, price = self.rates, self.price
        if rates is None or price is None:
            return None
        if self.overrides:
            now_utc = datetime.fromtimestamp(sent_us / MICROSECONDS, UTC)
            rates = Rates(price_in_force(price, self.overrides, prompt_tokens=settled.input_tokens, now_utc=now_utc))
        return rates.cost_in_nusd(
            counted(settled.input_tokens),
            counted(settled.output_tokens),
            counted(settled.cached_tokens),
            counted(settled.cache_write_tokens),
            images,
        )


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
        return _tariff(PriceSnapshot(NO_PRICE, endpoint, ""), None, ())
    data = msgspec.json.encode(Priced(price, tuple(overrides)))
    price_id = hashlib.sha256(endpoint.encode() + b"\0" + data).hexdigest()[:16]
    return _tariff(PriceSnapshot(price_id, endpoint, data.decode()), price, tuple(overrides))


def read_tariff(snapshot: PriceSnapshot) -> Tariff:
    """The Tariff of a snapshot.

    Raises:
        msgspec.DecodeError: Another version has made it.
    """
    if not snapshot.data:
        return _tariff(snapshot, None, ())
    priced = msgspec.json.decode(snapshot.data, type=Priced)
    return _tariff(snapshot, priced.price, priced.overrides)


def _tariff(snapshot: PriceSnapshot, price: Price | None, overrides: tuple[PriceOverride, ...]) -> Tariff:
    return Tariff(snapshot, price, overrides, snapshot.price_id, None if price is None else Rates(price))


def settlement_of(sent_us: int, ending: Ending, tariff: Tariff) -> Settlement:
    """What an Attempt cost that was sent then, who says so, and who counted."""
    settled = _counted(ending)
    charged = None if ending.usage is None else ending.usage.cost_in_nusd
    if charged is not None and 0 <= charged <= COST_MAX_IN_NUSD:
        settled.cost_in_nusd, settled.cost_source = charged, "provider"
    elif ending.refused and settled.usage_source == "none":
        settled.cost_in_nusd, settled.cost_source = 0, "none"
    else:
        cost = tariff.cost_in_nusd(settled, sent_us, ending.images)
        if cost is not None and cost <= COST_MAX_IN_NUSD:
            settled.cost_in_nusd = cost
            settled.cost_source = "price" if settled.usage_source == "provider" else "estimate"
    return settled


def recovered(intent: Intent, output_tokens: int, tariff: Tariff | None, *, unix_us: int) -> Settlement:
    """An estimate for an Attempt in the middle of which the gateway was killed.

    Args:
        intent: What is known of it.
        output_tokens: How far it was when that was last noted.
        tariff: What it was to be billed by; None: that is not known any more.
        unix_us: Now.
    """
    settled = Settlement(unix_us, "failed", RECOVERED_CODE, sane(intent.prompt_tokens), sane(output_tokens))
    settled.usage_source = "recovered"
    cost = None if tariff is None else tariff.cost_in_nusd(settled, intent.unix_us, 0)
    if cost is not None:
        settled.cost_in_nusd, settled.cost_source = cost, "recovered"
    return settled


def _counted(ending: Ending) -> Settlement:
    """All but the cost: the tokens, and by whom. What the provider left out is filled in from our estimate."""
    settled, usage = Settlement(ending.unix_us, ending.outcome, ending.code), ending.usage
    settled.ttft_ms, settled.duration_ms = ending.ttft_ms, ending.duration_ms
    settled.upstream_id = ending.upstream_id
    said = False
    if usage is not None:
        counted_in, counted_out = sane(usage.input_tokens), sane(usage.output_tokens)
        said = counted_in is not None or counted_out is not None
        if said or not ending.refused:
            settled.input_tokens, settled.output_tokens = counted_in, counted_out
            settled.cached_tokens = sane(usage.cached_input_tokens)
            settled.cache_write_tokens = sane(usage.cache_write_tokens)
            settled.reasoning_tokens = sane(usage.reasoning_tokens)
        if counted_in is not None and counted_out is not None:
            settled.usage_source = "provider"
            return settled
    if said or not ending.refused:
        _estimate(settled, ending)
    return settled


def _estimate(settled: Settlement, ending: Ending) -> None:
    """Our own count of what the provider left out."""
    if settled.input_tokens is None:
        settled.input_tokens = sane(ending.prompt_tokens)
    if settled.output_tokens is None:
        settled.output_tokens = sane(ending.output_tokens)
    if settled.input_tokens is not None or settled.output_tokens is not None:
        settled.usage_source = "estimate"


def sane(tokens: int | None) -> int | None:
    """A count of tokens; None where it is negative or more than any answer can hold."""
    return tokens if tokens is not None and 0 <= tokens <= BILLED_TOKENS_MAX else None

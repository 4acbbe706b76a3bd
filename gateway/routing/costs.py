"""What a request will cost at an Endpoint, before anybody was asked: integers, in pico-USD."""

from datetime import UTC, datetime
from typing import Final

from gateway.routing.tariff import Tariff
from providers.base import Price
from providers.pricing import price_in_force

_ANY_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""For overrides that do not look at the time."""


def price_now(tariff: Tariff, prompt_tokens: int, now_utc: datetime | None) -> Price | None:
    """The prices that hold for a prompt of this length. Without a time, those that depend on one do not hold."""
    if tariff.price is None or not tariff.overrides:
        return tariff.price
    overrides = tariff.timeless if now_utc is None else tariff.overrides
    return price_in_force(tariff.price, overrides, prompt_tokens=prompt_tokens, now_utc=now_utc or _ANY_TIME)


def cost_at(
    price: Price | None, *, prompt_tokens: int, output_tokens: int, images: int = 0, warm_tokens: int = 0
) -> int | None:
    """The sum, in pico-USD. None where a figure that it takes is unknown.

    Args:
        price: What holds.
        prompt_tokens: Of the whole prompt.
        output_tokens: Of the answer, as expected or at most.
        images: In the prompt.
        warm_tokens: So much of the prompt is in the Endpoint's cache.
    """
    if price is None or price.input_in_pusd is None or price.output_in_pusd is None:
        return None
    warm = min(warm_tokens, prompt_tokens)
    warm_price = price.input_in_pusd if price.cache_read_in_pusd is None else price.cache_read_in_pusd
    return (
        (prompt_tokens - warm) * price.input_in_pusd
        + warm * warm_price
        + output_tokens * price.output_in_pusd
        + (price.request_in_pusd or 0)
        + images * (price.image_in_pusd or 0)
    )

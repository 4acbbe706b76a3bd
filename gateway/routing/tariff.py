"""An Endpoint's prices as a decision multiplies them: part of the static side that decision records refer to."""

from collections.abc import Sequence

from msgspec import Struct

from providers.base import Price, PriceOverride


class Tariff(Struct, frozen=True, gc=False):
    """An Endpoint's prices, ready to be multiplied."""

    price: Price | None
    overrides: tuple[PriceOverride, ...]
    timeless: tuple[PriceOverride, ...]
    """Overrides without a time of day and without days."""
    plain: bool
    """Both figures per token are known, and nothing overrides them: the four below are all there is to it."""
    input_in_pusd: int = 0
    output_in_pusd: int = 0
    request_in_pusd: int = 0
    image_in_pusd: int = 0


def tariff_of(price: Price | None, overrides: Sequence[PriceOverride]) -> Tariff:
    """The Tariff of a row of the configuration."""
    timeless = tuple(one for one in overrides if (one.utc_start, one.from_day, one.until_day) == (None, None, None))
    if price is None or price.input_in_pusd is None or price.output_in_pusd is None or overrides:
        return Tariff(price, tuple(overrides), timeless, plain=False)
    return Tariff(
        price,
        (),
        (),
        plain=True,
        input_in_pusd=price.input_in_pusd,
        output_in_pusd=price.output_in_pusd,
        request_in_pusd=price.request_in_pusd or 0,
        image_in_pusd=price.image_in_pusd or 0,
    )

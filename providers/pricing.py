"""What an answer costs: exact arithmetic over the tokens that a provider counted and the prices of its Endpoint.

Everything is integers, pico-USD per token and nano-USD per answer, with one rounding at the end, so that sums do not
depend on the order in which they are made. What nobody knows makes the cost unknown, which is not zero.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from providers.base import Price, PriceOverride
from providers.messages import Usage

PICO_PER_NANO: Final = 1000
BILLED_TOKENS_MAX: Final = 1_000_000_000
"""More than any answer can hold: such a count is a provider's mistake, and no bill follows from it."""


def price_in_force(
    price: Price, overrides: Sequence[PriceOverride], *, prompt_tokens: int | None, now_utc: datetime
) -> Price:
    """The prices of one answer. Of several overrides that hold, the last that names a figure decides it.

    Args:
        price: The Endpoint's own.
        overrides: In the order of the file.
        prompt_tokens: Of the whole prompt, cached ones too. None: unknown, so no override for long prompts holds.
        now_utc: When the answer was asked for, in UTC.
    """
    figures = [price, *[override.price for override in overrides if _holds(override, prompt_tokens, now_utc)]]
    if len(figures) == 1:
        return price
    return Price(*[_last(*each) for each in zip(*map(_figures, figures), strict=True)])


def cost_in_nusd(
    price: Price | None,
    overrides: Sequence[PriceOverride],
    usage: Usage,
    now_utc: datetime,
    *,
    images: int = 0,
) -> int | None:
    """What an answer costs, in nano-USD, rounded once, half to even. None where a figure that it takes is unknown.

    Cached and cache-write tokens are part of the input, reasoning is part of the output. Where no price of its own is
    known for a cached or a cache-write token, it costs what any other token of the prompt does.

    Args:
        price: The Endpoint's own. None: nobody knows what it charges.
        overrides: In the order of the file.
        usage: What the provider counted; a count that is negative or absurd is none.
        now_utc: When the answer was asked for, in UTC.
        images: How many images the prompt has, for Endpoints that charge for each.
    """
    if price is None:
        return None
    whole_input, output = _count(usage.input_tokens), _count(usage.output_tokens)
    if overrides:
        price = price_in_force(price, overrides, prompt_tokens=whole_input, now_utc=now_utc)
    most = whole_input or 0
    # A provider that counts more cached tokens than the prompt has is not billed for less than nothing.
    read = min(_count(usage.cached_input_tokens) or 0, most)
    written = min(_count(usage.cache_write_tokens) or 0, most - read)
    input_in_pusd = price.input_in_pusd
    plain = _times(None if whole_input is None else whole_input - read - written, input_in_pusd)
    answer = _times(output, price.output_in_pusd)
    cached = _times(read, _or(price.cache_read_in_pusd, input_in_pusd)) if read else 0
    kept = _times(written, _or(price.cache_write_in_pusd, input_in_pusd)) if written else 0
    if plain is None or answer is None or cached is None or kept is None:
        return None
    # Most charge nothing for the request itself or for an image, and say so by saying nothing.
    beside = (price.request_in_pusd or 0) + (images * (price.image_in_pusd or 0) if images else 0)
    return _round_half_even(plain + answer + cached + kept + beside, PICO_PER_NANO)


def _holds(override: PriceOverride, prompt_tokens: int | None, now_utc: datetime) -> bool:
    day = now_utc.date()
    return (
        (override.min_prompt_tokens is None or (prompt_tokens or 0) >= override.min_prompt_tokens)
        and (override.from_day is None or day >= override.from_day)
        and (override.until_day is None or day <= override.until_day)
        and _is_between(override.utc_start, override.utc_end, f"{now_utc:%H:%M}")
    )


def _is_between(start: str | None, end: str | None, clock: str) -> bool:
    """Whether a time of day is in the span. Times of one width compare as text."""
    if start is None or end is None:
        return True
    return start <= clock < end if start < end else clock >= start or clock < end


def _figures(price: Price) -> tuple[int | None, ...]:
    return (
        price.input_in_pusd,
        price.output_in_pusd,
        price.cache_read_in_pusd,
        price.cache_write_in_pusd,
        price.request_in_pusd,
        price.image_in_pusd,
    )


def _or(figure: int | None, other: int | None) -> int | None:
    return other if figure is None else figure


def _last(*figures: int | None) -> int | None:
    return next((figure for figure in reversed(figures) if figure is not None), None)


def _count(tokens: int | None) -> int | None:
    return tokens if tokens is not None and 0 <= tokens <= BILLED_TOKENS_MAX else None


def _times(count: int | None, price_in_pusd: int | None) -> int | None:
    """The product, where it is known: nothing of anything, and anything for nothing, cost nothing."""
    if count == 0 or price_in_pusd == 0:
        return 0
    return None if count is None or price_in_pusd is None else count * price_in_pusd


def _round_half_even(amount: int, unit: int) -> int:
    whole = amount // unit
    twice = 2 * (amount - whole * unit)
    return whole + 1 if twice > unit or (twice == unit and whole % 2 == 1) else whole

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
UNKNOWN: Final = -1
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
    input_tokens = counted(usage.input_tokens)
    if overrides:
        prompt_tokens = None if input_tokens == UNKNOWN else input_tokens
        price = price_in_force(price, overrides, prompt_tokens=prompt_tokens, now_utc=now_utc)
    return Rates(price).cost_in_nusd(
        input_tokens,
        counted(usage.output_tokens),
        counted(usage.cached_input_tokens),
        counted(usage.cache_write_tokens),
        images,
    )


class Rates:
    """A Price as plain numbers, UNKNOWN where nobody knows one: what every answer is billed by."""

    __slots__ = ("_cached", "_image", "_input", "_output", "_request", "_written")

    def __init__(self, price: Price) -> None:
        self._input = _rate(price.input_in_pusd, UNKNOWN)
        self._output = _rate(price.output_in_pusd, UNKNOWN)
        self._cached = _rate(price.cache_read_in_pusd, self._input)
        self._written = _rate(price.cache_write_in_pusd, self._input)
        # Most charge nothing for the request itself or for an image, and say so by saying nothing.
        self._request = _rate(price.request_in_pusd, 0)
        self._image = _rate(price.image_in_pusd, 0)

    def cost_in_nusd(self, input_tokens: int, output_tokens: int, cached: int, written: int, images: int) -> int | None:
        """As the function of that name. Counts are 0 or more, or UNKNOWN."""
        most = max(input_tokens, 0)
        # A provider that counts more cached tokens than the prompt has is not billed for less than nothing.
        cached = min(max(cached, 0), most)
        written = min(max(written, 0), most - cached)
        plain = input_tokens - cached - written
        if (
            _is_open(plain, self._input)
            or _is_open(output_tokens, self._output)
            or _is_open(cached, self._cached)
            or _is_open(written, self._written)
        ):
            return None
        tokens = plain * self._input + cached * self._cached + written * self._written + output_tokens * self._output
        return _round_half_even(tokens + self._request + images * self._image, PICO_PER_NANO)


def counted(tokens: int | None) -> int:
    """A count as it is billed: UNKNOWN where there is none, or none that can be."""
    return UNKNOWN if tokens is None or not 0 <= tokens <= BILLED_TOKENS_MAX else tokens


def _rate(price_in_pusd: int | None, other: int) -> int:
    return other if price_in_pusd is None else price_in_pusd


def _is_open(count: int, rate: int) -> bool:
    """Whether nobody knows the product: nothing of anything, and anything for nothing, cost nothing."""
    return (count < 0 and rate != 0) or (rate < 0 and count != 0)


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


def _last(*figures: int | None) -> int | None:
    return next((figure for figure in reversed(figures) if figure is not None), None)


def _round_half_even(amount: int, unit: int) -> int:
    whole = amount // unit
    twice = 2 * (amount - whole * unit)
    return whole + 1 if twice > unit or (twice == unit and whole % 2 == 1) else whole

"""Usage as OpenAI-compatible servers report it, with every figure that cannot be one left out.

Nothing a server puts here may raise or make the books wrong: negative, huge, fractional, NaN, text.
"""

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Final

from providers.json_values import members
from providers.messages import Usage
from providers.openai_shapes import UsageFigures

TOKENS_MAX: Final = 1_000_000_000
"""A usage figure above this is a provider's mistake, not a count."""
COST_MAX_USD: Final = Decimal(1_000_000)
"""Nor is an answer that cost more."""
COST_MAX_CHARS: Final = 64
NANO_USD_PER_USD: Final = Decimal(1_000_000_000)


def read_usage(usage: UsageFigures) -> Usage:
    """The figures that are worth believing."""
    prompt = members(usage.prompt_tokens_details) or members(usage.prompt_token_details)
    details = usage.completion_tokens_details
    return Usage(
        input_tokens=count(usage.prompt_tokens),
        output_tokens=count(usage.completion_tokens),
        cached_input_tokens=count(prompt.get("cached_tokens", usage.num_cached_tokens)),
        cache_write_tokens=count(prompt.get("cache_write_tokens")) if prompt else None,
        reasoning_tokens=None if details is None else count(members(details).get("reasoning_tokens")),
        cost_in_nusd=None if usage.cost is None else _nano_usd(usage.cost),
    )


def count(value: object) -> int | None:
    """A token count as a provider wrote it, or None where it cannot be one (absent, negative, absurd)."""
    if type(value) is int:  # not bool, which is an int to isinstance
        return value if 0 <= value <= TOKENS_MAX else None
    if type(value) is float and 0 <= value <= TOKENS_MAX:
        return int(value)
    return None


def _nano_usd(cost: object) -> int | None:
    if isinstance(cost, bool) or not isinstance(cost, int | float | str):
        return None
    try:
        # The shortest text that stands for a float is what was sent; a longer one is no amount.
        usd = Decimal(cost) if isinstance(cost, int) else Decimal(str(cost)[:COST_MAX_CHARS])
    except InvalidOperation:
        return None
    # Compared before it is multiplied: arithmetic with NaN or a gigantic exponent raises.
    if not usd.is_finite() or not 0 <= usd <= COST_MAX_USD:
        return None
    return int((usd * NANO_USD_PER_USD).to_integral_value(ROUND_HALF_EVEN))

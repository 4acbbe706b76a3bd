"""Compares what a provider says that an answer cost with what its price in the catalogue says, and tells the operator.

Once for each Endpoint and price: a price that is wrong is wrong for every answer.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from providers.base import Endpoint, Price, PriceOverride
from providers.messages import Usage
from providers.pricing import cost_in_nusd

TOLERANCE_PERCENT: Final = 1
ROUNDING_IN_NUSD: Final = 1
"""A nano-USD more or less is rounding, whatever share of a tiny cost it is."""
NANO_PER_USD: Final = 10**9

_log = logging.getLogger("mixgate.cost")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class CostCheck:
    """Remembers of which Endpoints it has spoken.

    Args:
        utc_now: The time, by which prices may differ; for tests.
    """

    def __init__(self, utc_now: Callable[[], datetime] = _utc_now) -> None:
        self._utc_now = utc_now
        self._told: dict[str, Price] = {}

    def compare(self, endpoint: Endpoint, overrides: Sequence[PriceOverride], usage: Usage) -> None:
        """Log both figures where they are over 1 % apart. Silent where either is unknown."""
        stated, price = usage.cost_in_nusd, endpoint.price
        if stated is None or price is None or self._told.get(endpoint.id) == price:
            return
        ours = cost_in_nusd(price, overrides, usage, self._utc_now())
        if ours is None or not differs(stated, ours):
            return
        self._told[endpoint.id] = price
        _log.warning(
            "%s: the provider says %s USD for %s prompt and %s completion tokens, its price here says %s USD; "
            "run `mixgate refresh` where the provider publishes its prices, or correct `price` in providers.yaml",
            endpoint.id,
            usd_text(stated),
            usage.input_tokens,
            usage.output_tokens,
            usd_text(ours),
        )


def differs(stated_in_nusd: int, ours_in_nusd: int) -> bool:
    """Whether two costs are further apart than rounding and 1 % of what the provider states."""
    apart = abs(stated_in_nusd - ours_in_nusd)
    return apart > ROUNDING_IN_NUSD and apart * 100 > stated_in_nusd * TOLERANCE_PERCENT


def usd_text(cost_in_nusd: int) -> str:
    """Nano-USD as decimal USD, all nine digits."""
    whole, fraction = divmod(cost_in_nusd, NANO_PER_USD)
    return f"{whole}.{fraction:09}"

"""Prices as they are shown."""

from typing import Final

from gateway.dashboard.money import usd_of_pico, usd_per_mtok
from providers.base import Price, PriceOverride

PER_TOKEN: Final = ("input", "output", "cache_read", "cache_write")
PER_UNIT: Final = ("request", "image")


def price_members(price: Price | None) -> dict[str, str | None]:
    """Prices as text; None: nobody knows."""
    known = price or Price()
    per_token = {f"{name}_usd_per_mtok": usd_per_mtok(getattr(known, f"{name}_in_pusd")) for name in PER_TOKEN}
    return per_token | {f"{name}_usd": usd_of_pico(getattr(known, f"{name}_in_pusd")) for name in PER_UNIT}


def condition(override: PriceOverride) -> str:
    """When other prices hold, in words."""
    parts: list[str] = []
    if override.min_prompt_tokens is not None:
        parts.append(f"prompts of {override.min_prompt_tokens:,} tokens and more")
    if override.utc_start is not None and override.utc_end is not None:
        parts.append(f"from {override.utc_start} to {override.utc_end} UTC")
    if override.from_day is not None:
        parts.append(f"from {override.from_day} on")
    if override.until_day is not None:
        parts.append(f"until {override.until_day}")
    return ", ".join(parts) or "always"

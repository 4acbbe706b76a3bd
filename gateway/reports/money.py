"""Money for people and for JSON: decimal dollars, exactly, never a float."""

from typing import Final

NANO_PER_USD: Final = 10**9
CENTS_DIGITS: Final = 2
"""Decimals that a sum has at least."""


def usd(amount_in_nusd: int) -> str:
    """Dollars, exactly: nothing is rounded, and decimals beyond the cents are there where they are needed."""
    sign, amount = "-" if amount_in_nusd < 0 else "", abs(amount_in_nusd)
    whole, nano = divmod(amount, NANO_PER_USD)
    decimals = f"{nano:09d}".rstrip("0").ljust(CENTS_DIGITS, "0")
    return f"{sign}{whole}.{decimals}"


def usd_or_none(amount_in_nusd: int | None) -> str | None:
    """The same where there is an amount: what nobody knows is not zero."""
    return None if amount_in_nusd is None else usd(amount_in_nusd)

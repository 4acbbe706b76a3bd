"""Amounts as decimal text in dollars, exactly: no float ever comes in between."""

from typing import Final

NANO_PER_USD: Final = 10**9
PICO_PER_USD: Final = 10**12
_NANO_DIGITS: Final = 9
_PICO_DIGITS: Final = 12
_MTOK_DIGITS: Final = 6
CENTS_DIGITS: Final = 2
"""Decimals that a sum has at least."""


def usd(amount_in_nusd: int) -> str:
    """Nano-USD as dollars, with decimals beyond the cents where they are needed."""
    return _decimal(amount_in_nusd, _NANO_DIGITS)


def usd_or_none(amount_in_nusd: int | None) -> str | None:
    """The same; None: nobody knows."""
    return None if amount_in_nusd is None else usd(amount_in_nusd)


def usd_of_pico(amount_in_pusd: int | None) -> str | None:
    """Pico-USD as dollars."""
    return None if amount_in_pusd is None else _decimal(amount_in_pusd, _PICO_DIGITS)


def usd_per_mtok(price_in_pusd: int | None) -> str | None:
    """Pico-USD per token as dollars per million tokens."""
    return None if price_in_pusd is None else _decimal(price_in_pusd, _MTOK_DIGITS)


def _decimal(amount: int, digits: int) -> str:
    sign, amount = "-" if amount < 0 else "", abs(amount)
    whole, rest = divmod(amount, 10**digits)
    return f"{sign}{whole}.{f'{rest:0{digits}d}'.rstrip('0').ljust(CENTS_DIGITS, '0')}"

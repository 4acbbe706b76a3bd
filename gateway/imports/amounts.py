"""Prices and counts out of other people's JSON: decimal text all the way, rounded in the open where it must be."""

import json
import re
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Any, Final, NoReturn

from gateway.config.fields import (
    CONTEXT_TOKENS_MAX,
    MONEY_DIGITS,
    PRICE_MAX_IN_USD,
    TIMEOUT_MAX_S,
    TIMEOUT_MIN_S,
    TOKENS_PER_MTOK,
    WEIGHT_MAX,
)
from gateway.imports.draft import ImportSourceError

SOURCE_MAX_BYTES: Final = 32 * 1024 * 1024
"""A file to import; a whole price list has 3 MB."""
TOKEN_DECIMALS: Final = 6
"""Decimals of a price in USD per million tokens: a pico-USD per token."""
UNIT_DECIMALS: Final = 12
PLAIN_DECIMALS: Final = 6
"""Decimals of a weight and of a number of seconds."""
NUMBER_MAX_CHARS: Final = 64

_EXACT = Context(prec=4 * MONEY_DIGITS)
_NUMBER = re.compile(r"[0-9]{1,30}(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,3})?")


class Amount:
    """A price as providers.yaml writes it, and whether it had to be rounded for that."""

    __slots__ = ("rounded", "usd")

    def __init__(self, usd: Decimal, *, rounded: bool) -> None:
        self.usd = usd
        self.rounded = rounded


def read_json(text: bytes) -> Any:
    """Decode JSON, with numbers as int or Decimal of their own text.

    Raises:
        ImportSourceError: It is no JSON, or over a bound.
    """
    if len(text) > SOURCE_MAX_BYTES:
        raise ImportSourceError(f"it has over {SOURCE_MAX_BYTES} bytes", "name a smaller file")
    try:
        return json.loads(text, parse_float=_decimal, parse_int=_whole, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        message = str(error)[:120] if isinstance(error, json.JSONDecodeError) else "it cannot be decoded"
        raise ImportSourceError(f"it is not JSON: {message}", "name a file that holds JSON") from error


def per_mtok(value: object) -> Amount | None:
    """A price per token (number, or decimal text) as USD per million tokens; None where it is no price."""
    return _amount(value, TOKENS_PER_MTOK, TOKEN_DECIMALS)


def per_unit(value: object) -> Amount | None:
    """A price per request or image as USD each; None where it is no price."""
    return _amount(value, 1, UNIT_DECIMALS)


def token_count(value: object) -> int | None:
    """A bound on tokens; None where it is none that can be meant."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= len(str(CONTEXT_TOKENS_MAX)):
        value = int(value)
    if isinstance(value, Decimal) and value.is_finite() and 0 < value <= CONTEXT_TOKENS_MAX and value == int(value):
        value = int(value)
    good = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= CONTEXT_TOKENS_MAX
    return int(value) if good and isinstance(value, int) else None


def weight(value: object) -> Decimal | None:
    """A share of the requests; None where it is none. What is finer than PLAIN_DECIMALS is rounded."""
    return _plain(value, WEIGHT_MAX)


def seconds(value: object) -> Decimal | None:
    """A limit in seconds that the loader takes; None where it is none."""
    amount = _plain(value, TIMEOUT_MAX_S)
    return None if amount is None or amount < Decimal(str(TIMEOUT_MIN_S)) else amount


def day(value: object) -> str | None:
    """A date as YYYY-MM-DD; None where it is none."""
    text = value[:10] if isinstance(value, str) else ""
    try:
        return date.fromisoformat(text).isoformat() if len(text) == len("YYYY-MM-DD") else None
    except ValueError:
        return None


def _amount(value: object, times: int, decimals: int) -> Amount | None:
    number = _number(value)
    if number is None or number < 0 or (number and not -MONEY_DIGITS <= number.adjusted() <= 6):
        return None
    usd = _EXACT.multiply(number, Decimal(times))
    kept = usd.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_EVEN, context=_EXACT)
    return Amount(kept, rounded=kept != usd) if kept <= PRICE_MAX_IN_USD else None


def _plain(value: object, most: int) -> Decimal | None:
    number = None if isinstance(value, str) else _number(value)
    if number is None or number < 0 or (number and not -MONEY_DIGITS <= number.adjusted() <= len(str(most))):
        return None
    kept = number.quantize(Decimal(1).scaleb(-PLAIN_DECIMALS), rounding=ROUND_HALF_EVEN, context=_EXACT)
    return kept if kept <= most else None


def _number(value: object) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | Decimal) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        number = Decimal(value)
        return number if number.is_finite() else None
    return None


def _decimal(text: str) -> Decimal:
    if len(text) > NUMBER_MAX_CHARS:
        raise ValueError("a number is too long")
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise ValueError("a number is out of range") from error


def _whole(text: str) -> int:
    if len(text) > NUMBER_MAX_CHARS:
        raise ValueError("a number is too long")
    return int(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")

"""Bounds of an integer as a grammar expression: which digits may follow which. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from local_backend.errors import InvalidRequestError

DIGITS_MAX: Final = 15
_LARGEST: Final = 10**DIGITS_MAX - 1


def integer_expression(schema: Mapping[str, Any]) -> str | None:
    """The expression for the integers between a schema's bounds, or None when it has no bounds.

    Raises:
        InvalidRequestError: Bounds that are no numbers, or that nothing satisfies.
    """
    low, high = _bound(schema, "minimum", 0), _bound(schema, "maximum", 0)
    low_open, high_open = _bound(schema, "exclusiveMinimum", 1), _bound(schema, "exclusiveMaximum", -1)
    lows = [each for each in (low, low_open) if each is not None]
    highs = [each for each in (high, high_open) if each is not None]
    if not lows and not highs:
        return None
    least, most = max(lows, default=-_LARGEST), min(highs, default=_LARGEST)
    if least > most or most < -_LARGEST or least > _LARGEST:
        raise InvalidRequestError("the JSON schema has integer bounds that nothing satisfies", param="response_format")
    return " | ".join(_between(max(least, -_LARGEST), min(most, _LARGEST)))


def _bound(schema: Mapping[str, Any], keyword: str, step: int) -> int | None:
    """The nearest integer that a bound allows."""
    value = schema.get(keyword)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e18:
        raise InvalidRequestError(f"the JSON schema has a {keyword} that is not a number", param="response_format")
    whole = int(value // 1)
    if "inimum" in keyword:
        whole = whole if whole == value else whole + 1
        return whole + (step if whole == value else 0)
    return whole + (step if whole == value else 0)


def _between(low: int, high: int) -> list[str]:
    choices: list[str] = []
    if low < 0:
        top = min(high, -1)
        choices += [f'"-" {each}' for each in _natural(-top, -low)]
    if high >= 0:
        choices += _natural(max(low, 0), high)
    return choices


def _natural(low: int, high: int) -> list[str]:
    """Expressions for low..high, both >= 0, one per run of equal length and shape."""
    choices: list[str] = []
    start = low
    while start <= high:
        end = min(high, 10 ** len(str(start)) - 1)
        choices += _same_length(str(start), str(end))
        start = end + 1
    return choices


def _same_length(low: str, high: str) -> list[str]:
    """Expressions for the numbers between two of the same number of digits."""
    if not low:
        return [""]
    rest = len(low) - 1
    if low[1:] == "0" * rest and high[1:] == "9" * rest:
        return [(_digit(low[0], high[0]) + (f" [0-9]{{{rest}}}" if rest else "")).strip()]
    if low[0] == high[0]:
        return [f'"{low[0]}" {tail}'.strip() for tail in _same_length(low[1:], high[1:])]
    choices = [f'"{low[0]}" {tail}'.strip() for tail in _same_length(low[1:], "9" * rest)]
    if int(high[0]) - int(low[0]) > 1:
        choices.append(f"{_digit(str(int(low[0]) + 1), str(int(high[0]) - 1))} [0-9]{{{rest}}}")
    return choices + [f'"{high[0]}" {tail}'.strip() for tail in _same_length("0" * rest, high[1:])]


def _digit(low: str, high: str) -> str:
    return f'"{low}"' if low == high else f"[{low}-{high}]"

"""How long a provider asks us to stay away, in all the spellings that providers use. Pure."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

RETRY_AFTER_MAX_S = 300.0
"""A provider that says more is not believed for longer than this."""

DURATION_MAX_CHARS = 64


def parse_retry_after(headers: Mapping[str, str], now_unix_s: float) -> float | None:
    """Seconds from now until the provider wants to hear from us again; None where it did not say, or not readably.

    Reads `retry-after-ms`, `retry-after` as seconds or as an HTTP date, and `x-ratelimit-reset*` as seconds, Unix time
    (seconds or milliseconds) or a duration like `1m30.5s`. A moment in the past is 0; the answer is capped at
    RETRY_AFTER_MAX_S.

    Args:
        headers: Names in lower case.
        now_unix_s: The wall clock, in Unix seconds.
    """
    if (text := headers.get("retry-after-ms")) is not None and (value := _number(text)) is not None:
        return _clamp(value / 1000)
    if (text := headers.get("retry-after")) is not None:
        if (value := _number(text)) is not None:
            return _clamp(value)
        if (moment := _http_date(text)) is not None:
            return _clamp(moment - now_unix_s)
    for name in ("x-ratelimit-reset", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"):
        if (text := headers.get(name)) is not None and (value := reset_in_s(text, now_unix_s)) is not None:
            return _clamp(value)
    return None


def _clamp(seconds: float) -> float:
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_S)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value == value and abs(value) != float("inf") else None  # noqa: PLR0124 (NaN is not itself)


def _http_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def reset_in_s(text: str, now_unix_s: float) -> float | None:
    """Seconds until a reset given as seconds, Unix time (seconds or milliseconds) or a duration; None if unreadable."""
    value = _number(text)
    if value is None:
        return _duration(text)
    if value > 1e12:  # Unix milliseconds
        return value / 1000 - now_unix_s
    if value > 1e9:  # Unix seconds
        return value - now_unix_s
    return value


def _duration(text: str) -> float | None:
    """`1h2m3.5s` and `250ms` in seconds."""
    if not text.strip() or len(text) > DURATION_MAX_CHARS:
        return None
    total, digits, rest = 0.0, "", text.strip()
    units = (("ms", 0.001), ("h", 3600.0), ("m", 60.0), ("s", 1.0))
    while rest:
        if rest[0].isdigit() or rest[0] == ".":
            digits, rest = digits + rest[0], rest[1:]
            continue
        unit = next(((name, factor) for name, factor in units if rest.startswith(name)), None)
        value = _number(digits)
        if unit is None or value is None:
            return None
        total, digits, rest = total + value * unit[1], "", rest[len(unit[0]) :]
    return None if digits else total

"""What a look-up is asked for: the query string, judged. Unknown members are refused, so that none is overlooked."""

import math
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Final
from urllib.parse import parse_qsl

from gateway.dashboard.money import NANO_PER_USD
from gateway.errors import InvalidRequestError

US_PER_S: Final = 1_000_000
FIELDS_MAX: Final = 32
"""Members of one query."""
TEXT_MAX_CHARS: Final = 300
"""One of them."""
_SPAN: Final = re.compile(r"(\d{1,6})([mhdw])", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,12}", re.ASCII)
_SECONDS: Final[Mapping[str, int]] = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_USD_MAX: Final = 10**9
_YEARS: Final = range(1970, 10_000)


class Query:
    """The members of a query, each read once.

    Args:
        text: As it was sent.
        unix_s: The wall clock, from which times before now are counted.

    Raises:
        InvalidRequestError: It is none, or too large.
    """

    def __init__(self, text: bytes, unix_s: float) -> None:
        try:
            pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
        except ValueError as error:
            raise InvalidRequestError(f"the query cannot be read: {error}") from error
        self._members = dict(pairs)
        if len(self._members) < len(pairs):
            raise InvalidRequestError("a member of the query is there twice")
        if any(len(value) > TEXT_MAX_CHARS for value in self._members.values()):
            raise InvalidRequestError(f"a member of the query has more than {TEXT_MAX_CHARS} characters")
        self._unix_s = unix_s

    def expect(self, known: Collection[str]) -> None:
        """Refuse all others.

        Raises:
            InvalidRequestError: There is another one.
        """
        for name in self._members:
            if name not in known:
                raise InvalidRequestError(
                    f"there is no {name[:100]!r} here, only {', '.join(sorted(known))}", param=name
                )

    def text(self, name: str) -> str | None:
        """A text; None where it is not there. An empty one is a text."""
        return self._members.get(name)

    def word(self, name: str, among: Collection[str], default: str | None = None) -> str:
        """One of several words.

        Raises:
            InvalidRequestError: It is another one.
        """
        value = self._members.get(name, default)
        if value is None or value not in among:
            raise InvalidRequestError(f"{name} is one of {', '.join(among)}", param=name)
        return value

    def number(self, name: str, least: int, most: int, default: int) -> int:
        """A whole number.

        Raises:
            InvalidRequestError: It is none, or out of bounds.
        """
        value = self._members.get(name)
        if value is None:
            return default
        if not _NUMBER.fullmatch(value) or not least <= int(value) <= most:
            raise InvalidRequestError(f"{name} is a number from {least} to {most}", param=name)
        return int(value)

    def number_or_none(self, name: str) -> int | None:
        """A whole number; None where it is not there.

        Raises:
            InvalidRequestError: It is none.
        """
        return None if name not in self._members else self.number(name, 0, 10**12, 0)

    def usd(self, name: str) -> int | None:
        """An amount in dollars, as nano-USD, rounded up; None where it is not there.

        Raises:
            InvalidRequestError: It is none.
        """
        value = self._members.get(name)
        if value is None:
            return None
        try:
            amount = Decimal(value)
        except InvalidOperation:
            amount = Decimal(-1)
        if not amount.is_finite() or not 0 <= amount < _USD_MAX:
            raise InvalidRequestError(f"{name} is an amount in dollars, as 0.01", param=name)
        return math.ceil(amount * NANO_PER_USD)

    def flag(self, name: str, word: str) -> bool:
        """Whether a member has that word.

        Raises:
            InvalidRequestError: It has another one.
        """
        value = self._members.get(name)
        if value not in (None, "json", word):
            raise InvalidRequestError(f"{name} is json or {word}", param=name)
        return value == word

    def span(self, default: str) -> tuple[int, int]:
        """From when until when, in microseconds: `since` and `until`.

        Raises:
            InvalidRequestError: They are no times, or in the wrong order.
        """
        since = self.time_us("since", default)
        until = self.time_us("until", None)
        if since is None:
            raise InvalidRequestError("since is a time", param="since")
        # To the next microsecond, so that what happens now is in it.
        until = int(self._unix_s * US_PER_S) + 1 if until is None else until
        if since >= until:
            raise InvalidRequestError("since must lie before until", param="since")
        return since, until

    def time_us(self, name: str, default: str | None) -> int | None:
        """A time, in microseconds of Unix time: so long ago, a day, a moment, or Unix seconds.

        Raises:
            InvalidRequestError: It is none.
        """
        value = self._members.get(name, default)
        if value is None:
            return None
        if found := _SPAN.fullmatch(value):
            return max(0, int(self._unix_s) - int(found[1]) * _SECONDS[found[2]]) * US_PER_S
        if _NUMBER.fullmatch(value) and len(value) > len("20260131"):
            return int(value) * US_PER_S
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise InvalidRequestError(
                f"{name} is a time: 90m, 24h, 7d, 4w ago, a day as 2026-01-31, or Unix seconds", param=name
            ) from error
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0, (int(moment.timestamp()) if moment.year in _YEARS else 0) * US_PER_S + moment.microsecond)


def iso(unix_us: int) -> str:
    """A moment, to the millisecond where it has any."""
    seconds, rest_us = divmod(unix_us, US_PER_S)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest_us // 1000:03d}Z" if rest_us else f"{text}Z"


def iso_or_none(unix_us: int | None) -> str | None:
    """The same; None: there is none."""
    return None if unix_us is None else iso(unix_us)


Clock = Callable[[], float]

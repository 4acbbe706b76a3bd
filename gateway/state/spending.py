"""What rows of the ledger come to by the hour and the day, added up before a sum is touched: each is changed once.

Rows of one hour with the same names are of one Kind. There are few, so what goes into the file is little more than what
differs from row to row, and the sums are made of Kinds.
"""

from collections.abc import Iterable
from typing import Any, Final, final

import msgspec

from gateway.state.entries import Row
from gateway.state.way import ROWS_IN_A_ROW, give_way

HOUR_US: Final = 3_600_000_000
HOURS_PER_DAY: Final = 24
NOTHING: Final = -(2**63)
"""Stands for None where values are bound, which takes a tenth of the time. No row has it."""
KIND_COLUMNS: Final = (
    *("key_id", "route", "model", "endpoint", "provider", "surface", "stream", "price_id", "app", "referer", "tags"),
    *("outcome", "code", "usage_source", "cost_source"),
)
"""What a Kind has, behind its number and its hour."""
OWN_COLUMNS: Final = (
    *("attempt_id", "unix_us", "prompt_tokens", "output_limit", "reserved_in_nusd", "user", "session"),
    *("ended_unix_us", "input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"),
    *("cost_in_nusd", "ttft_ms", "duration_ms", "upstream_id"),
)
"""What each row has of its own, in front of the number of its Kind."""

_decode_tags: Final = msgspec.json.Decoder(tuple[str, ...]).decode


@final
class Kind:
    """Rows of one hour with the same names, and their sums."""

    def __init__(self, number: int, names: tuple[Any, ...]) -> None:
        self.number = number
        self.names: tuple[Any, ...] = names[:-1]
        """As KIND_COLUMNS says."""
        self.hour: int = names[-1]
        self.first = 0
        """Of each request the first Attempt stands for it."""
        self.attempts = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.cached_tokens = 0
        self.cache_write_tokens = 0
        self.reasoning_tokens = 0
        self.cost_in_nusd = 0
        self.unknown_cost = 0

    def sums(self) -> tuple[int, ...]:
        """In the order of SPENT_COLUMNS."""
        outcome, usage_source = self.names[11], self.names[13]
        return (
            self.first,
            self.attempts,
            0 if outcome == "ok" else self.attempts,
            self.attempts if usage_source in {"estimate", "recovered"} else 0,
            *(self.input_tokens, self.output_tokens, self.cached_tokens, self.cache_write_tokens),
            *(self.reasoning_tokens, self.cost_in_nusd, self.unknown_cost),
        )

    def lines(self) -> list[tuple[str, str]]:
        """By what they are added up, and under which name. A row with several tags counts under each of them."""
        key_id, route, model, endpoint, provider, _, _, _, app, _, tags = self.names[:11]
        found = [
            *(("all", ""), ("model", model), ("provider", provider), ("endpoint", endpoint)),
            *(("key", key_id), ("app", app), ("route", route)),
        ]
        return found + [("tag", tag) for tag in (_decode_tags(tags) if tags else ("",))]


def sort_out(rows: Iterable[Row]) -> tuple[list[Kind], list[Any]]:
    """Their Kinds, and of one row after the other the values of OWN_COLUMNS and the number of its Kind.

    Raises:
        TypeError: A row has text where a number belongs.
        ValueError: It has too few values, or too many.
    """
    kinds: dict[tuple[Any, ...], Kind] = {}
    values: list[Any] = []
    for number, row in enumerate(rows, 1):
        if number % ROWS_IN_A_ROW == 0:
            give_way()
        whole: tuple[Any, ...] = tuple(row)
        # fmt: off
        (
            attempt_id, unix_us, key_id, route, model, endpoint, provider, surface, stream, price_id, prompt_tokens,
            output_limit, reserved_in_nusd, app, referer, user, session, tags, ended_unix_us, outcome, code,
            input_tokens, output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, usage_source,
            cost_in_nusd, cost_source, ttft_ms, duration_ms, upstream_id,
        ) = whole
        began_us: int = unix_us
        names: tuple[Any, ...] = (
            key_id, route, model, endpoint, provider, surface, stream, price_id, app, referer, tags, outcome, code,
            usage_source, cost_source, began_us // HOUR_US,
        )
        kind = kinds.get(names)
        if kind is None:
            kind = kinds[names] = Kind(len(kinds), names)
        values += (
            attempt_id, unix_us, prompt_tokens, NOTHING if output_limit is None else output_limit, reserved_in_nusd,
            user, session, ended_unix_us, NOTHING if input_tokens is None else input_tokens,
            NOTHING if output_tokens is None else output_tokens, NOTHING if cached_tokens is None else cached_tokens,
            NOTHING if cache_write_tokens is None else cache_write_tokens,
            NOTHING if reasoning_tokens is None else reasoning_tokens,
            NOTHING if cost_in_nusd is None else cost_in_nusd, NOTHING if ttft_ms is None else ttft_ms, duration_ms,
            NOTHING if upstream_id is None else upstream_id, kind.number,
        )
        # fmt: on
        kind.attempts += 1
        if attempt_id.endswith("/1"):
            kind.first += 1
        kind.input_tokens += input_tokens or 0
        kind.output_tokens += output_tokens or 0
        kind.cached_tokens += cached_tokens or 0
        kind.cache_write_tokens += cache_write_tokens or 0
        kind.reasoning_tokens += reasoning_tokens or 0
        if cost_in_nusd is None:
            kind.unknown_cost += 1
        else:
            kind.cost_in_nusd += cost_in_nusd
    return [*kinds.values()], values


def add_up(kinds: Iterable[Kind]) -> dict[str, list[tuple[Any, ...]]]:
    """By span, the lines by which its sums grow: by what, when, which name, and SPENT_COLUMNS."""
    hours: dict[tuple[str, int, str], list[int]] = {}
    days: dict[tuple[str, int, str], list[int]] = {}
    for kind in kinds:
        sums = kind.sums()
        for by, name in kind.lines():
            _grow(hours, (by, kind.hour, name), sums)
            _grow(days, (by, kind.hour // HOURS_PER_DAY, name), sums)
    return {
        "hour": [(*key, *sums) for key, sums in hours.items()],
        "day": [(*key, *sums) for key, sums in days.items()],
    }


def _grow(lines: dict[tuple[str, int, str], list[int]], key: tuple[str, int, str], by: tuple[int, ...]) -> None:
    before = lines.get(key)
    lines[key] = list(by) if before is None else [one + more for one, more in zip(before, by, strict=True)]

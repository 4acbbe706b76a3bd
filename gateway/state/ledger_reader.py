"""Reads the ledger: single rows by filters, and what was spent by model, provider, key and so on from the roll-ups."""

import sqlite3
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final, Literal, TypeAlias, get_args

from msgspec import Struct

from gateway.state.entries import ENTRY_COLUMNS, Entry, PriceSnapshot
from gateway.state.errors import translate
from gateway.state.ledger_rows import HOUR_US, HOURS_PER_DAY, PRESUMED
from gateway.state.reader import Reader
from gateway.state.schema import SPENT_COLUMNS
from gateway.state.stretches import COLUMNS, STRETCH_ROWS, find_stretches

By: TypeAlias = Literal["model", "provider", "endpoint", "key", "app", "tag", "route", "day", "all"]
BYS: Final[tuple[By, ...]] = get_args(By)
PAGE_MAX: Final = 1000
"""Rows of one page."""
SCANNED_ROWS_MAX: Final = 512 * STRETCH_ROWS
"""Rows that one page is looked for in: the page ends there, and the next one goes on."""
NAMES_MAX: Final = 10_000
"""Lines of one report, those of most cost."""


class Filter(Struct, frozen=True, gc=False):
    """Which rows are wanted. None: all."""

    since_unix_us: int | None = None
    until_unix_us: int | None = None
    """The first microsecond that is not."""
    key_id: str | None = None
    model: str | None = None
    provider: str | None = None
    endpoint: str | None = None
    route: str | None = None
    app: str | None = None
    user: str | None = None
    session: str | None = None
    outcome: str | None = None
    tag: str | None = None
    """Among the row's tags."""
    cost_least_in_nusd: int | None = None
    """Rows of this cost and more; of those whose cost nobody knows none."""


class Page(Struct, frozen=True, gc=False):
    """Some rows, newest first. They may be fewer than were asked for although there are more."""

    entries: tuple[Entry, ...]
    before: int | None
    """What the next page is asked for with; None: there are no more."""


class Spent(Struct, frozen=True, gc=False):
    """What was spent on one thing. Tokens and nano-USD."""

    name: str
    requests: int
    """Those that began with an Attempt on it."""
    attempts: int
    failed: int
    estimated: int
    """Attempts whose tokens no provider counted."""
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost_in_nusd: int
    """Of all Attempts whose cost is known."""
    unknown_cost: int
    """Attempts whose cost nobody knows."""


class LedgerReader(Reader):
    """Look-ups in the ledger, besides those of every Reader. One thread at a time."""

    def entries(self, wanted: Filter, *, before: int | None = None, count: int = 100) -> Page:
        """Rows, in the order in which they were settled, newest first.

        Args:
            wanted: Which.
            before: Of the page before this one; None: the first.
            count: Rows at most, up to PAGE_MAX.

        Raises:
            StoreError: The store cannot be read.
        """
        count = max(1, min(count, PAGE_MAX))
        end = _LAST if before is None else before
        conditions, values = _conditions(wanted)
        if not conditions:
            return _page(self._some_entries("true", (), (0, end - 1), count + 1), count)
        rows: list[Any] = []
        scanned = 0
        for first, last in self._stretches(wanted, before):
            if scanned >= SCANNED_ROWS_MAX:
                return Page(tuple(_entry(row[1:]) for row in rows), last + 1)
            span = (first, min(last, end - 1))
            rows += self._some_entries(" AND ".join(conditions), values, span, count + 1 - len(rows))
            scanned += STRETCH_ROWS
            if len(rows) > count:
                break
        return _page(rows, count)

    def _stretches(self, wanted: Filter, before: int | None) -> list[tuple[int, int]]:
        """Where rows can be, newest first; one more than is looked into."""
        names = {by: value for by, field in _INDEXED if (value := getattr(wanted, field)) is not None}
        since, until = wanted.since_unix_us, wanted.until_unix_us
        found = find_stretches(self._connection, names, since_us=since, until_us=until, before=before)
        try:
            return [*islice(found, SCANNED_ROWS_MAX // STRETCH_ROWS + 1)]
        except sqlite3.Error as error:
            raise translate(error) from error

    def _some_entries(self, where: str, values: Sequence[Any], span: tuple[int, int], count: int) -> list[Any]:
        return self._rows(
            f"SELECT entry, {', '.join(ENTRY_COLUMNS)} FROM entry WHERE entry BETWEEN ? AND ? AND {where} "  # noqa: S608
            "ORDER BY entry DESC LIMIT ?",
            (*span, *values, count),
        )

    def find_entries(self, generation_id: str) -> tuple[Entry, ...]:
        """The rows of one request, in the order of its Attempts.

        Raises:
            StoreError: The store cannot be read.
        """
        # From `<id>/` to before `<id>0`, the character that comes next.
        rows = self._rows(
            f"SELECT {', '.join(ENTRY_COLUMNS)} FROM entry WHERE attempt_id > ? AND attempt_id < ? "  # noqa: S608
            "ORDER BY length(attempt_id), attempt_id LIMIT ?",
            (f"{generation_id}/", f"{generation_id}0", PAGE_MAX),
        )
        return tuple(map(_entry, rows))

    def price(self, price_id: str) -> PriceSnapshot | None:
        """The prices by which something was billed.

        Raises:
            StoreError: The store cannot be read.
        """
        rows = self._rows("SELECT price_id, endpoint, data FROM price_snapshot WHERE price_id = ?", (price_id,))
        return PriceSnapshot(*rows[0]) if rows else None

    def spend(self, by: By, since_unix_us: int, until_unix_us: int, *, name: str | None = None) -> tuple[Spent, ...]:
        """What was spent from one hour to before another, by name, those of most cost first; days in their order.

        Args:
            by: What the names are of. A row with several tags counts under each.
            since_unix_us: The hour in which it lies is the first.
            until_unix_us: The hour in which it lies is the first that is not counted, unless it lies behind its start.
            name: This one alone.

        Raises:
            StoreError: The store cannot be read.
        """
        first, end = since_unix_us // HOUR_US, -(-until_unix_us // HOUR_US)
        if by == "day":
            # Hours, so that the first and the last day need not be whole.
            return self._spent("name", _parts(first, end, "all", f"strftime('%Y-%m-%d', {_DAY_OF_HOUR}, 'unixepoch')"))
        order = "cost_in_nusd DESC, attempts DESC, name"
        return self._spent(order, _parts(first, end, by, "name"), name)

    def presumed(self, since_unix_us: int) -> dict[str, int]:
        """By key: what Attempts that were cut by a kill may cost beyond the estimates that the ledger has of them.

        A provider may bill all of such an answer, which is never more than was reserved for it. In nano-USD.

        Args:
            since_unix_us: Attempts count that were sent then or later.

        Raises:
            StoreError: The store cannot be read.
        """
        return dict(self._rows(PRESUMED.format(since="?"), (since_unix_us,)))

    def _spent(self, order: str, parts: "_Parts", name: str | None = None) -> tuple[Spent, ...]:
        sums = ", ".join(f"sum({column}) AS {column}" for column in SPENT_COLUMNS)
        where = "" if name is None else "WHERE name = ? "
        rows = self._rows(
            f"SELECT name, {sums} FROM ({parts.select}) {where}GROUP BY name ORDER BY {order} LIMIT {NAMES_MAX}",  # noqa: S608
            (*parts.values, *(() if name is None else (name,))),
        )
        return tuple(Spent(*row) for row in rows)


class _Parts(Struct, frozen=True):
    select: str
    values: tuple[Any, ...]


_DAY_OF_HOUR: Final = "hour * 3600"


def _parts(first: int, end: int, by: str, name: str) -> _Parts:
    """Whole days from the days, and what is before and behind them from the hours."""
    first_day, end_day = -(-first // HOURS_PER_DAY), end // HOURS_PER_DAY
    columns = ", ".join(SPENT_COLUMNS)
    hours = f"SELECT {name} AS name, {columns} FROM spend_hour WHERE by = ? AND hour >= ? AND hour < ?"  # noqa: S608
    if first_day >= end_day or name != "name":
        return _Parts(hours, (by, first, end))
    days = f"SELECT name, {columns} FROM spend_day WHERE by = ? AND day >= ? AND day < ?"  # noqa: S608
    return _Parts(
        f"{hours} UNION ALL {days} UNION ALL {hours}",
        (by, first, first_day * HOURS_PER_DAY, by, first_day, end_day, by, end_day * HOURS_PER_DAY, end),
    )


def _conditions(wanted: Filter) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []
    for name in Filter.__struct_fields__:
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(_BOUNDS.get(name, f"{name} = ?"))
            values.append(value)
    return conditions, values


_BOUNDS: Final = {
    "since_unix_us": "unix_us >= ?",
    "until_unix_us": "unix_us < ?",
    "cost_least_in_nusd": "cost_in_nusd >= ?",
    "tag": "EXISTS (SELECT 1 FROM json_each(CASE tags WHEN '' THEN '[]' ELSE tags END) AS one WHERE one.value = ?)",
}
_INDEXED: Final = tuple((by, "key_id" if by == "key" else by) for by in COLUMNS)
"""By what a stretch is found, and the filter for it."""
_LAST: Final = 1 << 62


def _page(rows: Sequence[Any], count: int) -> Page:
    """Rows, of which there is one more than the page has where there is another page."""
    before = rows[count - 1][0] if len(rows) > count else None
    return Page(tuple(_entry(row[1:]) for row in rows[:count]), before)


def _entry(row: tuple[Any, ...]) -> Entry:
    values = list(row)
    values[_STREAM] = bool(values[_STREAM])
    return Entry(*values)


_STREAM: Final = ENTRY_COLUMNS.index("stream")

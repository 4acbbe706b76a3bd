"""The ledger's SQL: rows that are added once, and what they come to by the hour and the day.

The sums grow in the transaction that adds the rows, by just those rows that were not there before. So however often
a row is handed over, and whatever breaks off in between, the sums are what adding all rows up would give.
"""

import sqlite3
from typing import Any, Final

from msgspec.structs import astuple

from gateway.state.entries import ENTRY_COLUMNS, Batch, Entry
from gateway.state.request_rows import Requests
from gateway.state.schema import SPENT_COLUMNS
from gateway.state.spending import HOUR_US, HOURS_PER_DAY, KIND_COLUMNS, NOTHING, OWN_COLUMNS, Kind, add_up, sort_out

__all__ = ["COLUMNS_BY", "HOURS_PER_DAY", "HOUR_US", "PRESUMED", "write_entries"]

COLUMNS_BY: Final = {
    "all": "''",
    "model": "model",
    "provider": "provider",
    "endpoint": "endpoint",
    "key": "key_id",
    "app": "app",
    "route": "route",
    "tag": "json_each.value",
}
"""By what is added up, and what says it. A row with several tags counts under each of them."""

PRESUMED: Final = (
    "SELECT key_id, sum(reserved_in_nusd - coalesce(cost_in_nusd, 0)) FROM entry WHERE usage_source = 'recovered' "
    "AND reserved_in_nusd > coalesce(cost_in_nusd, 0) AND unix_us >= {since} GROUP BY key_id"
)
"""By key: what Attempts in the middle of which a gateway was killed may cost beyond their estimates."""

ROWS_AT_ONCE: Final = (100, 10, 1)
"""Rows of one statement. Between two of them the loop's thread may run, and must be waited for."""

# Every value in these statements is bound; what is put together are names of our own.
_COLUMNS: Final = ", ".join(ENTRY_COLUMNS)
_NULLABLE: Final = frozenset(name for name, kind in Entry.__annotations__.items() if kind in {int | None, str | None})
_MAKE_KINDS: Final = f"CREATE TEMP TABLE IF NOT EXISTS kind (kind INTEGER PRIMARY KEY, {', '.join(KIND_COLUMNS)})"
_ADD_KIND: Final = f"INSERT INTO temp.kind VALUES ({', '.join('?' * (1 + len(KIND_COLUMNS)))})"  # noqa: S608
_NEW: Final = f"SELECT {_COLUMNS} FROM entry WHERE entry > ? ORDER BY entry"  # noqa: S608
_SPENT: Final = ", ".join(SPENT_COLUMNS)
_ADDED: Final = ", ".join(f"{name} = {name} + excluded.{name}" for name in SPENT_COLUMNS)
_KEEP: Final = {
    span: f"INSERT INTO spend_{span} (by, {span}, name, {_SPENT}) "  # noqa: S608
    f"VALUES ({', '.join('?' * (3 + len(SPENT_COLUMNS)))}) "
    f"ON CONFLICT (by, {span}, name) DO UPDATE SET {_ADDED}"
    for span in ("hour", "day")
}


def _column(name: str) -> str:
    """Where the value of a column comes from."""
    if name in KIND_COLUMNS:
        return f"kind.{name}"
    own = f"fresh.column{OWN_COLUMNS.index(name) + 1}"
    return f"CASE WHEN {own} > {NOTHING} THEN {own} END" if name in _NULLABLE else own


def _insert(count: int) -> str:
    """Adds so many rows, in the order in which they come."""
    values = f"({', '.join('?' * _WIDTH)})"
    return (
        f"INSERT INTO entry ({_COLUMNS}) SELECT {', '.join(map(_column, ENTRY_COLUMNS))} "  # noqa: S608
        f"FROM (VALUES {', '.join([values] * count)}) AS fresh "
        f"CROSS JOIN temp.kind AS kind ON kind.kind = fresh.column{_WIDTH} WHERE true "
        "ON CONFLICT (attempt_id) DO NOTHING"
    )


_WIDTH: Final = len(OWN_COLUMNS) + 1
_INSERTS: Final = {count: _insert(count) for count in ROWS_AT_ONCE}


def write_entries(connection: sqlite3.Connection, batch: Batch, requests: Requests) -> None:
    """Add rows, and what they come to, inside a transaction of the caller's.

    Raises:
        sqlite3.Error: Nothing of it is there then, once the transaction is rolled back.
        TypeError: A row is none, and the same holds; so it does with a ValueError.
    """
    connection.executemany(
        "INSERT INTO price_snapshot (price_id, endpoint, data) VALUES (?, ?, ?) ON CONFLICT (price_id) DO NOTHING",
        [astuple(one) for one in batch.prices],
    )
    if not batch.rows:
        return
    # Rows are never removed, so that what is new is what comes behind the last.
    last: int = connection.execute("SELECT coalesce(max(entry), 0) FROM entry").fetchone()[0]
    rows = batch.rows
    kinds, values = sort_out(rows)
    added = _add(connection, kinds, values)
    if added < len(rows):
        rows = connection.execute(_NEW, (last,)).fetchall()
        kinds, _ = sort_out(rows)
    for span, lines in add_up(kinds).items():
        connection.executemany(_KEEP[span], lines)
    requests.count(connection, rows, last)


def _add(connection: sqlite3.Connection, kinds: list[Kind], values: list[Any]) -> int:
    """How many of the rows were not there."""
    connection.execute(_MAKE_KINDS)
    connection.execute("DELETE FROM temp.kind")
    connection.executemany(_ADD_KIND, [(one.number, *one.names) for one in kinds])
    added = at = 0
    for count, statement in _INSERTS.items():
        width = count * _WIDTH
        while len(values) - at >= width:
            added += connection.execute(statement, values[at : at + width]).rowcount
            at += width
    return added

"""The ledger's SQL: rows that are added once, and what they come to by the hour and the day.

The sums are made in the transaction that adds the rows, of just those rows that were not there before. So however often
a row is handed over, and whatever breaks off in between, the sums are what adding all rows up would give.
"""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Final

from msgspec.structs import astuple

from gateway.state.entries import ENTRY_COLUMNS, Batch, Row
from gateway.state.schema import SPENT_COLUMNS

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
HOUR_US: Final = 3_600_000_000
HOURS_PER_DAY: Final = 24

PRESUMED: Final = (
    "SELECT key_id, sum(reserved_in_nusd - coalesce(cost_in_nusd, 0)) FROM entry WHERE usage_source = 'recovered' "
    "AND reserved_in_nusd > coalesce(cost_in_nusd, 0) AND unix_us >= {since} GROUP BY key_id"
)
"""By key: what Attempts in the middle of which a gateway was killed may cost beyond their estimates."""

ROWS_AT_ONCE: Final = (100, 10, 1)
"""Rows of one statement. Between two of them the loop's thread may run, and must be waited for."""

# Every value in these statements is bound; what is put together are names of our own.
_VALUES: Final = f"({', '.join('?' * len(ENTRY_COLUMNS))})"
_SUMS: Final = (
    # Of each request the first Attempt stands for it.
    "sum(substr(attempt_id, -2) = '/1'), count(*), sum(outcome <> 'ok'), "
    "sum(usage_source IN ('estimate', 'recovered')), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), "
    "coalesce(sum(cached_tokens), 0), coalesce(sum(cache_write_tokens), 0), coalesce(sum(reasoning_tokens), 0), "
    "coalesce(sum(cost_in_nusd), 0), sum(cost_in_nusd IS NULL)"
)
_SPENT: Final = ", ".join(SPENT_COLUMNS)
_ADDED: Final = ", ".join(f"{name} = {name} + excluded.{name}" for name in SPENT_COLUMNS)
_MAKE_FRESH: Final = f"CREATE TEMP TABLE IF NOT EXISTS fresh (by, hour, name, {_SPENT})"


def _select(by: str, column: str) -> str:
    each = "json_each(CASE tags WHEN '' THEN '[\"\"]' ELSE tags END)"
    source = f"entry, {each}" if by == "tag" else "entry"
    return f"SELECT '{by}', unix_us / {HOUR_US}, {column}, {_SUMS} FROM {source} WHERE entry > ?1 GROUP BY 2, 3"  # noqa: S608


_ADD_UP: Final = "INSERT INTO temp.fresh " + " UNION ALL ".join(
    _select(by, column) for by, column in COLUMNS_BY.items()
)
_KEEP: Final = tuple(
    f"INSERT INTO spend_{span} (by, {span}, name, {_SPENT}) SELECT by, hour / {hours}, name, {_SPENT} "  # noqa: S608
    f"FROM temp.fresh WHERE true ON CONFLICT (by, {span}, name) DO UPDATE SET {_ADDED}"
    for span, hours in (("hour", 1), ("day", HOURS_PER_DAY))
)


def write_entries(connection: sqlite3.Connection, batch: Batch) -> None:
    """Add rows, and what they come to, inside a transaction of the caller's.

    Raises:
        sqlite3.Error: Nothing of it is there then, once the transaction is rolled back.
    """
    connection.executemany(
        "INSERT INTO price_snapshot (price_id, endpoint, data) VALUES (?, ?, ?) ON CONFLICT (price_id) DO NOTHING",
        [astuple(one) for one in batch.prices],
    )
    # Rows are never removed, so that what is new is what comes behind the last.
    last: int = connection.execute("SELECT coalesce(max(entry), 0) FROM entry").fetchone()[0]
    if _insert(connection, batch.rows) > 0:
        add_up(connection, last)


def add_up(connection: sqlite3.Connection, last: int) -> None:
    """Add what the rows behind one come to, inside a transaction of the caller's.

    Raises:
        sqlite3.Error: Nothing of it is there then, once the transaction is rolled back.
    """
    connection.execute(_MAKE_FRESH)
    connection.execute(_ADD_UP, (last,))
    for statement in _KEEP:
        connection.execute(statement)
    connection.execute("DELETE FROM temp.fresh")


def _insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> int:
    """How many of them were not there."""
    added = at = 0
    for count in ROWS_AT_ONCE:
        statement = (
            f"INSERT INTO entry ({', '.join(ENTRY_COLUMNS)}) VALUES {', '.join([_VALUES] * count)} "  # noqa: S608
            "ON CONFLICT (attempt_id) DO NOTHING"
        )
        while len(rows) - at >= count:
            added += connection.execute(statement, [*chain.from_iterable(rows[at : at + count])]).rowcount
            at += count
    return added

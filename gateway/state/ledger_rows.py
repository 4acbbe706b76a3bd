"""The ledger's SQL: rows that are added once, and what they come to by the hour and the day.

The sums are made in the transaction that adds the rows, of just those rows that were not there before. So however often
a row is handed over, and whatever breaks off in between, the sums are what adding all rows up would give.
"""

import sqlite3
from typing import Final

from msgspec.structs import astuple

from gateway.state.entries import ENTRY_COLUMNS, Batch
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
DAY_US: Final = 24 * HOUR_US

# Every value in these statements is bound; what is put together are names of our own.
_INSERT: Final = (
    f"INSERT INTO entry ({', '.join(ENTRY_COLUMNS)}) VALUES ({', '.join('?' * len(ENTRY_COLUMNS))}) "  # noqa: S608
    "ON CONFLICT (attempt_id) DO NOTHING"
)
_SUMS: Final = (
    # Of each request the first Attempt stands for it.
    "sum(substr(attempt_id, -2) = '/1'), count(*), sum(outcome <> 'ok'), "
    "sum(usage_source IN ('estimate', 'recovered')), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), "
    "coalesce(sum(cached_tokens), 0), coalesce(sum(cache_write_tokens), 0), coalesce(sum(reasoning_tokens), 0), "
    "coalesce(sum(cost_in_nusd), 0), sum(cost_in_nusd IS NULL)"
)
_ADDED: Final = ", ".join(f"{name} = {name} + excluded.{name}" for name in SPENT_COLUMNS)


def _roll_up(span: str, width_us: int) -> str:
    def select(by: str, column: str) -> str:
        each = "json_each(CASE tags WHEN '' THEN '[\"\"]' ELSE tags END)"
        source = f"entry, {each}" if by == "tag" else "entry"
        return (
            f"SELECT '{by}', unix_us / {width_us}, {column}, {_SUMS} FROM {source} "  # noqa: S608
            "WHERE entry > ?1 GROUP BY 2, 3"
        )

    selects = " UNION ALL ".join(select(by, column) for by, column in COLUMNS_BY.items())
    return (
        f"INSERT INTO spend_{span} (by, {span}, name, {', '.join(SPENT_COLUMNS)}) {selects} "
        f"ON CONFLICT (by, {span}, name) DO UPDATE SET {_ADDED}"
    )


_ROLL_UPS: Final = (_roll_up("hour", HOUR_US), _roll_up("day", DAY_US))


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
    if connection.executemany(_INSERT, batch.rows).rowcount > 0:
        for statement in _ROLL_UPS:
            connection.execute(statement, (last,))

"""What giving answers again has saved, by the hour, in mixgate.db."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import astuple

_HOURS: Final = (
    "CREATE TABLE IF NOT EXISTS cache_hour (hour INTEGER NOT NULL, key_id TEXT NOT NULL, route TEXT NOT NULL, "
    "model TEXT NOT NULL, hits INTEGER NOT NULL, saved_in_nusd INTEGER NOT NULL, "
    "PRIMARY KEY (hour, key_id, route, model)) STRICT, WITHOUT ROWID"
)
CACHE_TABLES: Final = (_HOURS,)
"""Statements that make the table."""
CACHE_TABLES_GONE: Final = ()
"""Going back to the version before leaves the table: what it counts cannot be made again."""


class CacheRow(Struct, frozen=True, gc=False):
    """One hour of one key, Route and Model."""

    hour: int
    """Of Unix time."""
    key_id: str
    route: str
    model: str
    hits: int
    """Answers that were given again, or to several at once."""
    saved_in_nusd: int
    """What they would have cost, where that is known."""


_COLUMNS: Final = CacheRow.__struct_fields__


def write_cache_rows(connection: sqlite3.Connection, rows: Sequence[CacheRow]) -> None:
    """Add to what is there, inside a transaction of the caller's. Raises sqlite3.Error."""
    connection.executemany(
        f"INSERT INTO cache_hour ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608
        "ON CONFLICT (hour, key_id, route, model) DO UPDATE SET hits = hits + excluded.hits, "
        "saved_in_nusd = saved_in_nusd + excluded.saved_in_nusd",
        [astuple(row) for row in rows],
    )


def read_cache_rows(connection: sqlite3.Connection, from_hour: int, to_hour: int) -> list[CacheRow]:
    """Every row of these hours, `to_hour` not among them, oldest first; none from a file of a version before.

    Raises sqlite3.Error.
    """
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'cache_hour'").fetchone():
        return []
    rows = connection.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM cache_hour WHERE hour >= ? AND hour < ? "  # noqa: S608 # our names
        "ORDER BY hour, key_id, route, model",
        (from_hour, to_hour),
    )
    return [CacheRow(*row) for row in rows]

"""Facts about the file in mixgate.db: how far its rows were sent, its name in a fleet, what it was salvaged from."""

import sqlite3
from typing import Final

OUTBOX_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS outbox (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    # A name for this store among all of a fleet, which a file that begins anew must not share with the one before.
    "INSERT OR IGNORE INTO outbox (name, value) VALUES ('replica', lower(hex(randomblob(8))))",
)
"""Statements that make the table."""
OUTBOX_TABLES_GONE: Final = ()
"""Going back to the version before leaves it: what was sent is sent."""
_KEEP: Final = "INSERT INTO outbox (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"


def keep_position(connection: sqlite3.Connection, position: int) -> None:
    """Say that rows up to there were sent, inside a transaction of the caller's. Raises sqlite3.Error."""
    connection.execute(_KEEP, ("entry", str(position)))


def was_salvaged(connection: sqlite3.Connection, name: str) -> bool:
    """Whether what could be read of a damaged file is in this one. Raises sqlite3.Error."""
    return connection.execute("SELECT 1 FROM outbox WHERE name = ?", (f"salvaged {name}",)).fetchone() is not None


def note_salvaged(connection: sqlite3.Connection, name: str) -> None:
    """Say that it is, inside a transaction of the caller's. Raises sqlite3.Error."""
    connection.execute(_KEEP, (f"salvaged {name}", "1"))

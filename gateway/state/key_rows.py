"""Issued client keys in mixgate.db: rows in, rows out. They hold digests, never a key."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import astuple

_KEYS: Final = (
    "CREATE TABLE client_key (id TEXT PRIMARY KEY, name TEXT NOT NULL, digest BLOB NOT NULL, "
    "previous_digest BLOB NOT NULL, previous_until_us INTEGER NOT NULL, created_us INTEGER NOT NULL, "
    "updated_us INTEGER NOT NULL, expires_us INTEGER, disabled INTEGER NOT NULL, deleted_us INTEGER, "
    # Limits are JSON: nothing ever looks for a key by one of them.
    "parent TEXT REFERENCES client_key (id), limits TEXT NOT NULL) STRICT"
)
KEY_TABLES: Final = (_KEYS,)
"""Statements that make the table."""


class KeyRow(Struct, frozen=True):
    """One row, its members in the order of the columns."""

    id: str
    name: str
    digest: bytes
    previous_digest: bytes
    previous_until_us: int
    created_us: int
    updated_us: int
    expires_us: int | None
    disabled: int
    deleted_us: int | None
    parent: str | None
    limits: str

    def __repr__(self) -> str:
        """Without digests."""
        return f"KeyRow({self.id!r}, {self.name!r})"


_COLUMNS: Final = KeyRow.__struct_fields__
_VALUES: Final = ", ".join("?" * len(_COLUMNS))
_CHANGES: Final = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])


def write_key(connection: sqlite3.Connection, row: KeyRow) -> None:
    """Add a key, or replace its row. Raises sqlite3.Error."""
    connection.execute(
        f"INSERT INTO client_key ({', '.join(_COLUMNS)}) VALUES ({_VALUES}) "  # noqa: S608 # our names
        f"ON CONFLICT (id) DO UPDATE SET {_CHANGES}",
        astuple(row),
    )


def add_missing_keys(connection: sqlite3.Connection, rows: Sequence[KeyRow]) -> int:
    """Add those keys that are not there; how many they were. Raises sqlite3.Error."""
    # Teams come before their members.
    return sum(
        connection.execute(
            f"INSERT INTO client_key ({', '.join(_COLUMNS)}) VALUES ({_VALUES}) ON CONFLICT (id) DO NOTHING",  # noqa: S608
            astuple(row),
        ).rowcount
        for row in sorted(rows, key=lambda one: (one.created_us, one.id))
    )


def read_keys(connection: sqlite3.Connection) -> list[KeyRow]:
    """Every key, oldest first; none from a file of a version before keys. Raises sqlite3.Error."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'client_key'").fetchone():
        return []
    rows = connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM client_key ORDER BY created_us, id")  # noqa: S608
    return [KeyRow(*row) for row in rows]

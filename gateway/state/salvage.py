"""What can still be read of a damaged mixgate.db that was moved aside is taken into the new one: its keys, its rows.

Issued keys must not vanish with the file that they were in: a gateway whose keys are gone would open its doors.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from gateway.state.connection import open_reader
from gateway.state.entries import ENTRY_COLUMNS, Batch, PriceSnapshot, Row
from gateway.state.errors import StoreError, translate
from gateway.state.key_rows import KeyRow, add_missing_keys, read_keys
from gateway.state.outbox_rows import note_salvaged, was_salvaged
from gateway.state.transaction import Transaction

ROWS_AT_ONCE: Final = 500
"""Rows that are read together; where that fails, each of them is tried by itself."""
_TAILS: Final = ("-wal", "-shm", "-journal", ".sha256")
_ROWS: Final = f"SELECT entry, {', '.join(ENTRY_COLUMNS)} FROM entry WHERE entry BETWEEN ? AND ? ORDER BY entry"  # noqa: S608 # our names
_log = logging.getLogger("mixgate.state")


def damaged_files(path: Path) -> list[Path]:
    """Files that were moved aside from there, oldest first."""
    return sorted(one for one in path.parent.glob(f"{path.name}.damaged-*") if not one.name.endswith(_TAILS))


def salvaged_keys(path: Path) -> list[KeyRow]:
    """The keys of every damaged file that was moved aside from there. Blocks.

    Raises:
        StoreError: One of them cannot be read: nobody knows what keys there were.
    """
    found: dict[str, KeyRow] = {}
    for one in damaged_files(path):
        try:
            connection = open_reader(one)
            try:
                found.update({row.id: row for row in read_keys(connection)})
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise _lost(one, translate(error)) from error
        except StoreError as error:
            raise _lost(one, error) from error
    return list(found.values())


def _lost(path: Path, error: StoreError) -> StoreError:
    return StoreError(
        f"the client keys that were in {path.name} cannot be read ({error}): put a backup of mixgate.db in its place, "
        f"or issue new keys, or move {path.name} to another folder if there were none"
    )


def restore_keys(connection: sqlite3.Connection, path: Path) -> None:
    """Take keys that only a damaged file has into the new one. Idempotent.

    Raises:
        sqlite3.Error: The new file cannot be written.
    """
    try:
        rows = salvaged_keys(path)
    except StoreError as error:
        _log.error("%s", error)
        return
    if rows:
        with Transaction(connection):
            added = add_missing_keys(connection, rows)
        if added:
            _log.error("%d client keys were taken over from the damaged file", added)


def restore_rows(connection: sqlite3.Connection, write: Callable[[Batch], None], path: Path) -> None:
    """Take the rows of damaged files that were not taken yet into the new one. Until then nobody knows what was spent.

    Args:
        connection: Of the new file.
        write: Adds rows that are not there.
        path: Of the new file.

    Raises:
        sqlite3.Error: The new file cannot be written; what is missing is taken the next time.
    """
    for one in damaged_files(path):
        if not was_salvaged(connection, one.name):
            added = lost = 0
            try:
                for rows, prices, unreadable in salvaged_rows(one):
                    write(Batch(rows, prices))
                    added, lost = added + len(rows), lost + unreadable
            except StoreError as error:
                _log.error("the ledger in %s cannot be read: %s. What keys had spent is not counted", one.name, error)
            else:
                _log.error("%d rows were taken over from %s; %d cannot be read any more", added, one.name, lost)
            with Transaction(connection):
                note_salvaged(connection, one.name)


def salvaged_rows(path: Path) -> Iterator[tuple[list[Row], list[PriceSnapshot], int]]:
    """Rows of a damaged file's ledger, as far as they can be read; prices; and how many rows could not. Blocks.

    Raises:
        StoreError: Nothing of it can be read.
    """
    connection = open_reader(path)
    try:
        last: int = connection.execute("SELECT coalesce(max(entry), 0) FROM entry").fetchone()[0]
        prices = _some(connection, "SELECT price_id, endpoint, data FROM price_snapshot", ()) or []
        yield [], [PriceSnapshot(*row) for row in prices], 0
        for first in range(1, last + 1, ROWS_AT_ONCE):
            end = min(last, first + ROWS_AT_ONCE - 1)
            found = _some(connection, _ROWS, (first, end))
            if found is None:
                each = (_some(connection, _ROWS, (entry, entry)) for entry in range(first, end + 1))
                found = [row for rows in each for row in rows or ()]
            yield [row[1:] for row in found], [], end + 1 - first - len(found)
    except sqlite3.Error as error:
        raise translate(error) from error
    finally:
        connection.close()


def _some(connection: sqlite3.Connection, statement: str, values: tuple[int, ...]) -> list[Any] | None:
    """None: they cannot be read."""
    try:
        return connection.execute(statement, values).fetchall()
    except sqlite3.DatabaseError:
        return None

"""Brings mixgate.db to another version, or takes rows of another file into it, while no gateway has it."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from gateway.state.connection import StoreLock, connect_writer
from gateway.state.entries import Batch
from gateway.state.errors import StoreError, translate
from gateway.state.salvage import salvaged_rows
from gateway.state.schema import MIGRATIONS, migrate, version_of
from gateway.state.writer import Writer


def lead_back(path: Path, to: int) -> int:
    """Bring the file to a version, forward or back; the version that it has then. Blocks.

    Raises:
        StoreInUseError: A gateway has it.
        StoreError: There is no way to that version, or the file cannot be written.
    """
    if not 0 <= to <= len(MIGRATIONS):
        raise StoreError(f"this Mixgate knows versions 0 to {len(MIGRATIONS)}")
    with _alone(path) as connection:
        migrate(connection, to)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return version_of(connection)


def take_rows(path: Path, source: Path) -> tuple[int, int]:
    """Take the ledger's rows of another file into this one; how many were new, and how many cannot be read. Blocks.

    Raises:
        StoreInUseError: A gateway has the file.
        StoreError: The other file cannot be read at all, or this one not be written.
    """
    lost = 0
    with _alone(path) as connection:
        migrate(connection)
        before = _last(connection)
        writer = Writer(connection)
        for rows, prices, unreadable in salvaged_rows(source):
            lost += unreadable
            writer.write_ledger(Batch(rows, prices))
        return _last(connection) - before, lost + writer.refused


def _last(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("SELECT coalesce(max(entry), 0) FROM entry").fetchone()[0]
    return found


@contextmanager
def _alone(path: Path) -> Generator[sqlite3.Connection]:
    """The writing connection, of a file that no gateway has."""
    lock = StoreLock(path)
    try:
        lock.take()
        connection = connect_writer(path)
        try:
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise translate(error) from error
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        lock.release()

"""Brings mixgate.db to another version of its schema while no gateway has it."""

import sqlite3
from pathlib import Path

from gateway.state.connection import StoreLock, connect_writer
from gateway.state.errors import StoreError, translate
from gateway.state.schema import MIGRATIONS, migrate, version_of


def lead_back(path: Path, to: int) -> int:
    """Bring the file to a version, forward or back; the version that it has then. Blocks.

    Raises:
        StoreInUseError: A gateway has it.
        StoreError: There is no way to that version, or the file cannot be written.
    """
    if not 0 <= to <= len(MIGRATIONS):
        raise StoreError(f"this Mixgate knows versions 0 to {len(MIGRATIONS)}")
    lock = StoreLock(path)
    try:
        lock.take()
        connection = connect_writer(path)
        try:
            migrate(connection, to)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return version_of(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise translate(error) from error
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        lock.release()

"""Keys between memory and mixgate.db."""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final, Protocol

import msgspec

from gateway.keys.changes import US_PER_S
from gateway.keys.key import KeyLimits, KeyRecord, Window
from gateway.keys.ring import KeyRing
from gateway.state.connection import StoreLock, open_reader, open_writer
from gateway.state.errors import DamagedStoreError, StoreError, translate
from gateway.state.key_rows import KeyRow, read_keys, write_key
from gateway.state.ledger_reader import NAMES_MAX, By, Spent
from gateway.state.salvage import salvaged_keys

_log = logging.getLogger("mixgate.keys")
END_US: Final = 1 << 52
"""Behind everything that was ever spent: the year 2112."""
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(KeyLimits).decode


class Submits(Protocol):
    """The store, as far as keys need it."""

    def submit(self, work: Callable[[sqlite3.Connection], None]) -> "Future[None]":
        """Have the writer do something, in a transaction of its own that is on the disk when it is done."""
        ...


def row_of(record: KeyRecord) -> KeyRow:
    """A record as it is stored."""
    return KeyRow(
        record.id,
        record.name,
        record.digest,
        record.previous_digest,
        record.previous_until_us,
        record.created_us,
        record.updated_us,
        record.expires_us,
        int(record.disabled),
        record.deleted_us,
        record.parent,
        _encode(record.limits).decode(),
    )


def record_of(row: KeyRow) -> KeyRecord:
    """A record as it was stored.

    Raises:
        DamagedStoreError: Its limits cannot be read, and a key without its limits is none.
    """
    try:
        limits = _decode(row.limits)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedStoreError(f"the limits of the client key {row.id} cannot be read") from error
    return KeyRecord(
        id=row.id,
        name=row.name,
        digest=row.digest,
        previous_digest=row.previous_digest,
        previous_until_us=row.previous_until_us,
        created_us=row.created_us,
        updated_us=row.updated_us,
        expires_us=row.expires_us,
        disabled=bool(row.disabled),
        deleted_us=row.deleted_us,
        parent=row.parent,
        limits=limits,
    )


def read_records(path: Path) -> list[KeyRecord]:
    """Every key in a file, and in those that were moved aside from there; none where there is no file. Blocks.

    Raises:
        StoreError: It cannot be read, or it has no keys, and nobody can say whether one that was moved aside had.
    """
    found = _read(path) if path.exists() else {}
    try:
        missing = {row.id: record_of(row) for row in salvaged_keys(path)}
    except StoreError:
        if not found:
            raise
        missing = {}
    return sorted((missing | found).values(), key=lambda one: (one.created_us, one.id))


def _read(path: Path) -> dict[str, KeyRecord]:
    connection = open_reader(path)
    try:
        return {row.id: record_of(row) for row in read_keys(connection)}
    except sqlite3.Error as error:
        raise translate(error) from error
    finally:
        connection.close()


def load_ring(path: Path, pepper: bytes) -> KeyRing:
    """The ring at start. Blocks. Where the file cannot be read no issued key works, and the doors stay closed."""
    try:
        return KeyRing(pepper, read_records(path))
    except StoreError as error:
        _log.error("issued client keys cannot be read, so none of them works: %s", error)
        ring = KeyRing(pepper)
        ring.has_keys = True
        return ring


def has_issued_keys(path: Path) -> bool:
    """Whether there is any issued key that is not deleted, or nobody can say. Blocks."""
    try:
        return any(record.deleted_us is None for record in read_records(path))
    except StoreError:
        return True


class Spends(Protocol):
    """A ledger, as far as it is needed here: a gateway's own, or a fleet's."""

    def spend(self, by: By, since_unix_us: int, until_unix_us: int, *, name: str | None = None) -> tuple[Spent, ...]:
        """What was spent, as LedgerReader says it."""
        ...

    def presumed(self, since_unix_us: int) -> Mapping[str, int]:
        """What may have been spent beyond that, as LedgerReader says it."""
        ...


def spending(reader: Spends, key_ids: Sequence[str]) -> Callable[[Window, int], dict[str, int]]:
    """What each key spent since a time, by the ledger. For `read_past`; blocks and raises StoreError.

    Attempts in the middle of which a gateway was killed count at their worst, as they do where it is another process
    that lives on: the ledger has estimates of them, and their provider may bill more.
    """

    def spent(_window: Window, start_unix_s: int) -> dict[str, int]:
        start_us = start_unix_s * US_PER_S
        lines = reader.spend("key", start_us, END_US)
        if len(lines) >= NAMES_MAX:  # a report has no more lines, and every key counts
            lines = tuple(one for key in key_ids for one in reader.spend("key", start_us, END_US, name=key))
        found = {one.name: one.cost_in_nusd for one in lines}
        for key_id, amount in reader.presumed(start_us).items():
            found[key_id] = found.get(key_id, 0) + amount
        return found

    return spent


def saver(store: Submits) -> Callable[[KeyRecord], Awaitable[None]]:
    """Writes records through the store of a running gateway. For `KeyOffice`."""

    async def save(record: KeyRecord) -> None:
        row = row_of(record)
        await asyncio.wrap_future(store.submit(lambda connection: write_key(connection, row)))

    return save


class OwnStore:
    """The file as the command line changes it: only while no gateway has it."""

    def __init__(self, path: Path) -> None:
        """Be the file's one writer.

        Raises:
            StoreInUseError: A gateway is.
            StoreError: The file cannot be opened.
        """
        self._lock = StoreLock(path)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.take()
            self._connection = open_writer(path)
        except sqlite3.Error as error:
            self._lock.release()
            raise translate(error) from error
        except OSError as error:
            self._lock.release()
            raise StoreError(f"{path} cannot be opened: {error.strerror or error}") from error
        except BaseException:
            self._lock.release()
            raise

    async def save(self, record: KeyRecord) -> None:
        """Write a record."""
        try:
            self._connection.execute("PRAGMA synchronous = FULL")
            with self._connection:
                write_key(self._connection, row_of(record))
        except sqlite3.Error as error:
            raise translate(error) from error

    def close(self) -> None:
        """Let a gateway have it."""
        self._connection.close()
        self._lock.release()

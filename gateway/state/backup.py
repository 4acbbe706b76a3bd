"""Copies mixgate.db while a gateway writes it: the copy is of one moment, sound, and has a checksum beside it."""

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct

from gateway.state.connection import open_reader
from gateway.state.errors import DamagedStoreError, StoreError, translate

PAGES_AT_ONCE: Final = 2048
"""Pages that are copied between two words about how far it is."""
CHECKSUM_SUFFIX: Final = ".sha256"
_PART: Final = ".part"
_READ_BYTES: Final = 1024 * 1024


class Backup(Struct, frozen=True):
    """A copy that was made."""

    path: Path
    size_bytes: int
    sha256: str
    rows: int
    """Of the ledger."""
    version: int


def back_up(source: Path, target: Path, on_progress: Callable[[int, int], None] | None = None) -> Backup:
    """Copy a file that may be written meanwhile. Blocks.

    Args:
        source: mixgate.db.
        target: It must not be there. It appears when it is whole, checked and on the disk.
        on_progress: Told of pages copied, and of all.

    Raises:
        StoreError: It cannot be read or written, or the target is there already.
    """
    if target.exists():
        raise StoreError(f"{target} is there already, and no backup is overwritten")
    part: Path | None = None
    try:
        part = _new_file(target)
        rows, version = _copy(source, part, on_progress)
        digest = _settle(part)
        _write_checksum(target, digest)
        part.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return Backup(target, target.stat().st_size, digest, rows, version)


def _new_file(beside: Path) -> Path:
    """A file of this user alone, of a name that nobody can have taken before: the folder may be everybody's."""
    descriptor, name = tempfile.mkstemp(prefix=f"{beside.name}.", suffix=_PART, dir=beside.parent)  # mode 0600
    os.close(descriptor)
    return Path(name)


def _write_checksum(target: Path, digest: str) -> None:
    part = _new_file(target)
    try:
        part.write_text(f"{digest}  {target.name}\n")
        part.rename(target.with_name(target.name + CHECKSUM_SUFFIX))
    finally:
        part.unlink(missing_ok=True)


def _copy(source: Path, part: Path, on_progress: Callable[[int, int], None] | None) -> tuple[int, int]:
    reader = open_reader(source)
    try:
        copy = sqlite3.connect(part, isolation_level=None)
        try:
            # One moment of the file: else every change by the gateway would make the copy begin anew.
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()

            def tell(_status: int, remaining: int, total: int) -> None:
                if on_progress is not None:
                    on_progress(total - remaining, total)

            reader.backup(copy, pages=PAGES_AT_ONCE, progress=tell)
            reader.execute("COMMIT")
            copy.execute("PRAGMA journal_mode = DELETE")
            said: str = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
            if said != "ok":
                raise DamagedStoreError(f"the copy is not sound, and neither is the file: {said}")
            version: int = copy.execute("PRAGMA user_version").fetchone()[0]
            ledger = copy.execute("SELECT 1 FROM sqlite_schema WHERE name = 'entry'").fetchone()
            rows: int = copy.execute("SELECT coalesce(max(entry), 0) FROM entry").fetchone()[0] if ledger else 0
            return rows, version
        finally:
            copy.close()
    except sqlite3.Error as error:
        raise translate(error) from error
    finally:
        reader.close()


def _settle(path: Path) -> str:
    """Hand a file to the disk; its checksum."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            digest.update(data)
        os.fsync(file.fileno())
    return digest.hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

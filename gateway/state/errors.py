"""Why the store cannot be used at the moment. None of this ever reaches a client: requests go on without a store."""

import sqlite3
from typing import ClassVar, Final

from providers.errors import MixgateError


class StoreError(MixgateError):
    """The store cannot be read or written now; the message says why and what to do."""

    code: ClassVar[str] = "store_unavailable"


class DamagedStoreError(StoreError):
    """What is in the file is no sound database."""

    code: ClassVar[str] = "store_damaged"


class NewerStoreError(StoreError):
    """A later version of Mixgate has written the file."""

    code: ClassVar[str] = "store_newer"


class StoreInUseError(StoreError):
    """Another process writes the file."""

    code: ClassVar[str] = "store_in_use"


class ScribeError(StoreError):
    """The process that writes for the store did not, or nobody knows: its work may be done once more."""

    code: ClassVar[str] = "scribe_unavailable"


_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_WORDS: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_BUSY: "another program holds the file locked; end it",
    sqlite3.SQLITE_LOCKED: "another program holds the file locked; end it",
    sqlite3.SQLITE_IOERR: "the disk did not take or give the bytes; is it full or broken?",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; check the folder's owner and permissions",
    sqlite3.SQLITE_READONLY: "the file cannot be written; check its owner and permissions",
    sqlite3.SQLITE_PERM: "the file cannot be opened; check its owner and permissions",
}
_PRIMARY: Final = 0xFF
"""The part of SQLite's result codes that says what kind of failure it was."""


def translate(error: sqlite3.Error) -> StoreError:
    """SQLite's complaint as ours."""
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
    if code in _DAMAGED:
        return DamagedStoreError(str(error))
    words = _WORDS.get(code)
    return StoreError(f"{words} ({error})" if words else str(error))

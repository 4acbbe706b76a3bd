"""Opens mixgate.db: for the one writer, with its lock and its check after a crash; and for readers."""

import contextlib
import fcntl
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway.state.errors import DamagedStoreError, StoreInUseError, translate
from gateway.state.histogram import add_histograms, install
from gateway.state.schema import migrate

FILE_NAME: Final = "mixgate.db"
BUSY_TIMEOUT_S: Final = 5.0
"""How long the writer waits for a lock that another program holds."""
READER_TIMEOUT_S: Final = 2.0
"""How long a reader waits for one."""
WAL_PAGES_MAX: Final = 1000
"""Pages in the write-ahead log after which the writer moves them into the file."""
WAL_KEPT_BYTES: Final = 64 * 1024 * 1024
"""The write-ahead log is cut back to this once all of it has been moved."""
FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
_TAILS: Final = ("-wal", "-shm", "")
"""The file itself comes last: a new one must never find the write-ahead log of an old one beside it."""


class StoreLock:
    """Held by the process that writes the file: SQLite up to 3.51.2 can damage it where two do."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int | None:
        """What holds it; whoever inherits this holds it too."""
        return self._descriptor

    def take(self) -> None:
        """Be the writer. Taking it twice is taking it once.

        Raises:
            StoreInUseError: Another process is.
            OSError: The folder cannot be written.
        """
        if self._descriptor is not None:
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StoreInUseError(
                "another gateway writes the same file; stop it, or give this one a MIXGATE_HOME of its own"
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Let another process be the writer. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def open_writer(path: Path, *, check: bool = True) -> sqlite3.Connection:
    """The writing connection, of this version's schema, for the thread that calls.

    Args and exceptions are those of `connect_writer`, and:

    Raises:
        NewerStoreError: A later version of Mixgate has written it.
    """
    connection = connect_writer(path, check=check)
    try:
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_writer(path: Path, *, check: bool = True) -> sqlite3.Connection:
    """The writing connection, whatever the file's version, for the thread that calls.

    Args:
        path: The file; it is made where it is missing.
        check: Whether to judge a file that nobody closed, which takes time where it is large.

    Raises:
        DamagedStoreError: The file is no sound database.
        sqlite3.Error: Anything else that SQLite complains of.
        OSError: The file cannot be made.
    """
    make_private(path)
    was_left_open = check and _size_bytes(path.with_name(path.name + "-wal")) > 0
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA cell_size_check = ON")
        if was_left_open:
            _check(connection)  # before anything is written
        # It must come before anything else is in a new file, and says nothing about an old one.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_MAX}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        install(connection)
        connection.create_function("add_histograms", 2, add_histograms, deterministic=True)
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that can change nothing, usable from any one thread at a time.

    Raises:
        StoreError: The file is not there or cannot be read.
    """
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=READER_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
    except sqlite3.Error as error:
        raise translate(error) from error
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
    except sqlite3.Error as error:
        connection.close()
        raise translate(error) from error
    return connection


def make_private(path: Path) -> None:
    """Make the file, and where it is missing its folder, so that only this user can read them.

    A folder that exists is left as it is: it may be one that others have reason to see.
    """
    path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE))
    if path.stat().st_mode & 0o077:
        path.chmod(FILE_MODE)


def move_aside(path: Path, now_unix_s: float) -> Path:
    """Give a damaged file, and what belongs to it, another name beside the old one. Nothing is deleted."""
    stamp = datetime.fromtimestamp(now_unix_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    count = 1
    while aside.exists():
        count += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{count}")
    for tail in _TAILS:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + tail).rename(aside.with_name(aside.name + tail))
    return aside


def _check(connection: sqlite3.Connection) -> None:
    """Judge a file that nobody closed."""
    said: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if said != "ok":
        raise DamagedStoreError(" ".join(said.split()))


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

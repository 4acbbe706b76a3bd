"""One file of the journal: space that is reserved on the disk and mapped into memory, so that a record is a memcpy.

What was copied is in the page cache: it outlives the process, however that ends. Only a power cut can take it, and only
until the next `sync`.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from struct import Struct as Layout
from typing import Final
from zlib import adler32, crc32

HEAD: Final = Layout("<III")
"""Of each record: the length of its payload, the checksum of kind and payload, its kind. All zero: nothing follows."""
HEAD_BYTES: Final = 12
_pack_head: Final = HEAD.pack
_checksum: Final = adler32
"""It needs no tables, which are not in the processor's cache when the next request ends. What a power cut leaves of a
record is zeros from somewhere on, which changes the sum of its bytes for certain."""
MAGIC: Final = b"mixgate journal 2\n".ljust(64, b"\0")
MAGIC_OF_OLD: Final = b"mixgate journal 1\n".ljust(64, b"\0")
"""Of files of the version before, whose checksum is a CRC."""
RECORD_MAX_BYTES: Final = 64 * 1024
"""A payload: much more than an Attempt with the longest texts takes."""
FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
SUFFIX: Final = ".journal"


def path_of(folder: Path, number: int) -> Path:
    """Where the file with a number lies."""
    return folder / f"{number:012d}{SUFFIX}"


def size_of(payload: bytes) -> int:
    """What a record with this payload takes."""
    return HEAD_BYTES + len(payload)


class Files:
    """What is asked of the file system. Tests make it fail."""

    def create(self, path: Path, size_bytes: int) -> int:
        """A new file with that much space of its own; gives its descriptor.

        Raises:
            OSError: There is no room, or it cannot be made.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
        except BaseException:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        return descriptor

    def sync(self, descriptor: int) -> None:
        """Wait until the disk has all of it.

        Raises:
            OSError: It does not take it.
        """
        os.fdatasync(descriptor)

    def sync_folder(self, folder: Path) -> None:
        """Wait until the disk has the names in it.

        Raises:
            OSError: It does not take them.
        """
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, path: Path) -> bytes:
        """All of a file.

        Raises:
            OSError: It cannot be read.
        """
        return path.read_bytes()

    def remove(self, path: Path) -> None:
        """Delete a file.

        Raises:
            OSError: It cannot be.
        """
        path.unlink(missing_ok=True)


class Segment:
    """A file that is written to, by one thread; others may sync and read it."""

    def __init__(self, path: Path, number: int, size_bytes: int, files: Files) -> None:
        """Make the file.

        Raises:
            OSError: There is no room, or it cannot be made.
        """
        self.path = path
        self.number = number
        self.size_bytes = size_bytes
        self.end = len(MAGIC)
        """Where the next record goes."""
        self.synced = 0
        """Up to here the disk has it."""
        self.failed = False
        """Whether the disk did not take it."""
        self.held = 0
        """Attempts whose last word was written here, less those that went on elsewhere. The writing thread counts."""
        self.stored = 0
        """How many of them are in the store. Its thread counts."""
        self.prices: set[str] = set()
        """Price ids whose snapshots are in here."""
        self._files = files
        self._descriptor = files.create(path, size_bytes)
        try:
            files.sync_folder(path.parent)
            self._map = mmap.mmap(self._descriptor, size_bytes)
        except BaseException:
            os.close(self._descriptor)
            path.unlink(missing_ok=True)
            raise
        self._map[: len(MAGIC)] = MAGIC

    @property
    def live(self) -> int:
        """Attempts whose last word is in here and nowhere else."""
        return self.held - self.stored

    def append(self, kind: int, payload: bytes) -> bool:
        """Add a record; False where it does not fit."""
        start = self.end
        end = start + size_of(payload)
        if end > self.size_bytes:
            return False
        # A copy that breaks off in the middle is not what its checksum says, so there is no record then.
        checksum: object = _checksum(payload, kind)
        self._map[start:end] = _pack_head(len(payload), checksum, kind) + payload
        self.end = end
        return True

    def sync(self) -> None:
        """Wait until the disk has all of it.

        Raises:
            OSError: It does not take it; then nobody knows what it has.
        """
        end = self.end
        if end > self.synced:
            self._files.sync(self._descriptor)
            self.synced = end

    def records(self, start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
        """Records between two positions, each with its kind and the position behind it."""
        return records(self._map, start, end)

    def close(self) -> None:
        """Give the memory back. The file stays."""
        self._map.close()
        os.close(self._descriptor)


def records(data: "bytes | mmap.mmap", start: int, end: int, *, old: bool = False) -> Iterator[tuple[int, int, bytes]]:
    """The kind, the end and the payload of each record, up to the first that is torn or missing."""
    at = start
    while at + HEAD_BYTES <= end:
        length, checksum, kind = HEAD.unpack_from(data, at)
        body = at + HEAD_BYTES
        at = body + length
        if kind == 0 or length > RECORD_MAX_BYTES or at > end:
            return
        payload = bytes(data[body:at])
        if (crc32 if old else _checksum)(payload, kind) != checksum:
            return
        yield kind, at, payload

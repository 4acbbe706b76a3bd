"""The journal: what was begun and what it came to, in files mapped into memory, until the store has it for good.

`append` is a memcpy and never waits for the disk. A thread makes room ahead of it, hands what was written to the disk
every SYNC_EVERY_S, which is what a power cut can take, and removes files whose every Attempt is in the store.
"""

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from gateway.ledger.segment import (
    FOLDER_MODE,
    HEAD_BYTES,
    MAGIC,
    MAGIC_OF_OLD,
    RECORD_MAX_BYTES,
    SUFFIX,
    Files,
    Segment,
    path_of,
    records,
)
from gateway.state.connection import StoreLock
from gateway.state.errors import StoreInUseError

INTENT: Final = 1
ENTRY: Final = 2
PRICE: Final = 3
CHECKPOINT: Final = 4
SETTLED: Final = 5
"""What became of an Attempt whose INTENT is in the same file; an ENTRY says both."""
SEGMENT_BYTES: Final = 4 * 1024 * 1024
"""Room for some 10,000 Attempts."""
SEGMENTS_MAX: Final = 128
"""Files at most, 512 MiB: what is kept for the store while that cannot be written."""
SPARES: Final = 3
"""Files that are made ahead, so that the loop never waits for a slow disk: some seconds of the highest speed."""
SYNC_EVERY_S: Final = 0.1
"""What a power cut can take: Attempts of so long, and of as long as the disk takes."""
RETRY_EVERY_S: Final = 1.0
"""How often it is tried anew to make room where there is none."""
CLOSE_TIMEOUT_S: Final = 5.0
"""How long the end waits for the disk."""

_log = logging.getLogger("mixgate.ledger")


class Journal:
    """Written by one thread, the loop's. What is not marked otherwise is for that thread."""

    def __init__(
        self,
        folder: Path,
        files: Files | None = None,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        segments_max: int = SEGMENTS_MAX,
        spares: int = SPARES,
    ) -> None:
        self.folder = folder
        self.old: list[Path] = []
        """Files of processes that are gone, oldest first."""
        self.found = False
        """Whether it was looked what there is."""
        self.on_found: Callable[[], None] | None = None
        """Called, in any thread, once that is so: what was left waits to be taken."""
        self.failed = False
        """Whether the disk did not take a file: what is open must be written down once more."""
        self.failure: OSError | StoreInUseError | None = None
        """Why there is no room ahead."""
        self._files = files or Files()
        self._segment_bytes = segment_bytes
        self._segments_max = segments_max
        self._spares_max = spares
        self._current: Segment | None = None
        self._spares: deque[Segment] = deque()
        self._full: list[Segment] = []
        self._next = 1
        self._lock = StoreLock(folder / "journal")
        self._full_lock = threading.Lock()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._awake = False
        self._stopping = False
        self._keeper = threading.Thread(target=self._run, name="mixgate-journal", daemon=True)

    def open(self) -> None:
        """Find what was left, make room, and start the thread. What fails is in `failure`, and tried again. Blocks."""
        self._make_room()
        if self._spares:
            self._current = self._spares.popleft()
        self._wake.set()
        self._hurry.set()
        self._keeper.start()

    @property
    def usable(self) -> bool:
        """Whether it can take more."""
        current = self._current
        if self._spares:
            return True
        return current is not None and not current.failed and current.end + 2 * RECORD_MAX_BYTES < current.size_bytes

    @property
    def position(self) -> tuple[int, int]:
        """Where the next record goes: number of the file, and where in it."""
        return (0, 0) if self._current is None else (self._current.number, self._current.end)

    def append(self, kind: int, payload: bytes) -> Segment | None:
        """Write a record; gives where it is, None where there is no room for it."""
        segment = self._current
        if len(payload) > RECORD_MAX_BYTES:
            return None
        if segment is None or segment.failed or not segment.append(kind, payload):
            segment = self._next_segment()
            if segment is None or not segment.append(kind, payload):
                return None
        if not self._awake:
            self._awake = True
            self._wake.set()
        return segment

    def append_to(self, segment: Segment, kind: int, payload: bytes) -> bool:
        """Write a record into this file and no other. False where it is not written to any more, or has no room."""
        if segment is not self._current or segment.failed or len(payload) > RECORD_MAX_BYTES:
            return False
        if not segment.append(kind, payload):
            return False
        if not self._awake:
            self._awake = True
            self._wake.set()
        return True

    def count_stored(self, number: int, count: int) -> None:
        """So many Attempts whose last word is in a file are in the store now. For its thread."""
        with self._full_lock:
            for segment in (*self._full, self._current):
                if segment is not None and segment.number == number:
                    segment.stored += count

    def read_old(self, path: Path) -> Iterator[tuple[int, bytes]]:
        """Records of a file that was left.

        Raises:
            OSError: It cannot be read.
        """
        data = self._files.read(path)
        old = data.startswith(MAGIC_OF_OLD)
        if not old and not data.startswith(MAGIC):
            # It was being made when its process ended.
            return
        at = len(MAGIC)
        for kind, end, payload in records(data, at, len(data), old=old):
            at = end
            yield kind, payload
        if any(data[at : at + HEAD_BYTES]):
            _log.warning("%s breaks off in the middle of a record, as a crash leaves it", path)

    def remove_old(self, path: Path) -> None:
        """Delete a file that was left, now that the store has all that it said. Any thread."""
        try:
            self._files.remove(path)
        except OSError as error:
            # It is read again at the next start, which adds nothing.
            _log.warning("%s cannot be removed: %s", path, error)
        with contextlib.suppress(ValueError):
            self.old.remove(path)

    def close(self) -> None:
        """Hand everything to the disk, and remove what is in the store. Blocks."""
        self._stopping = True
        self._wake.set()
        self._hurry.set()
        self._keeper.join(CLOSE_TIMEOUT_S)
        with self._full_lock:
            left = [one for one in (*self._full, self._current, *self._spares) if one is not None]
            self._full, self._current = [], None
            self._spares.clear()
        for segment in left:
            segment.close()
            if segment.live <= 0:
                self._remove(segment)
        self._lock.release()

    def _next_segment(self) -> Segment | None:
        """Go on in the next file, if there is one."""
        self._hurry.set()
        self._wake.set()
        if not self._spares:
            return None
        with self._full_lock:
            if self._current is not None:
                self._full.append(self._current)
            self._current = self._spares.popleft()
        return self._current

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(RETRY_EVERY_S if self._full or len(self._spares) < self._spares_max else None)
            self._wake.clear()
            self._hurry.wait(SYNC_EVERY_S)
            self._hurry.clear()
            # Whoever appends from here on wakes the thread anew.
            self._awake = False
            try:
                self._make_room()
                self._sync()
            except Exception:  # noqa: BLE001 - a fault of ours must not end the thread; logged
                _log.exception("the journal's thread failed")
        self._sync()

    def _make_room(self) -> None:
        """Make the files that come next, where they are not too many."""
        try:
            if not self.found:
                self._find()
            while len(self._spares) < self._spares_max and not self._stopping:
                self._add_spare()
        except (OSError, StoreInUseError) as error:
            if self.failure is None:
                _log.warning("the journal in %s has no room ahead: %s", self.folder, error)
            self.failure = error
        else:
            if self.failure is not None:
                _log.warning("the journal has room again")
            self.failure = None

    def _add_spare(self) -> None:
        if len(self._full) + len(self.old) + len(self._spares) + 1 >= self._segments_max:
            raise OSError(f"{self._segments_max} files wait for the store")
        number, self._next = self._next, self._next + 1
        self._spares.append(Segment(path_of(self.folder, number), number, self._segment_bytes, self._files))

    def _find(self) -> None:
        """Be the only one here, and see what is left of those before.

        Raises:
            StoreInUseError: Another process is here.
            OSError: The folder cannot be read or written.
        """
        self.folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        self._lock.take()
        self.old = sorted(self.folder.glob(f"*{SUFFIX}"))
        self._next = 1 + max((_number(path) for path in self.old), default=0)
        self.found = True
        if self.on_found is not None:
            self.on_found()

    def _sync(self) -> None:
        """Hand all to the disk, then remove what is done with: the last word of its Attempts lies in later files."""
        with self._full_lock:
            segments = [*self._full, *([] if self._current is None else [self._current])]
            done = [one for one in self._full if one.live <= 0]
        synced = True
        for segment in segments:
            if segment.failed or segment in done:
                continue
            try:
                segment.sync()
            except OSError as error:
                # What the disk has of it now, nobody knows; asking again would only hide that.
                synced = False
                segment.failed = self.failed = True
                _log.error("the disk did not take %s: %s", segment.path, error.strerror or error)
        if not synced or any(one.failed and one.live > 0 for one in segments):
            return
        with self._full_lock:
            self._full = [one for one in self._full if one not in done]
        for segment in done:
            segment.close()
            self._remove(segment)

    def _remove(self, segment: Segment) -> None:
        try:
            self._files.remove(segment.path)
        except OSError as error:
            _log.warning("%s cannot be removed: %s", segment.path, error)


def _number(path: Path) -> int:
    return int(path.stem) if path.stem.isdecimal() else 0

"""A Writer that has a process beside the gateway write what comes fast, so that nobody shares Python's lock with it.

The two never write at the same time: this one waits for the other, and writes whatever that did not. SQLite up to
3.51.2 can damage a file that two write or move the write-ahead log of at once.
"""

import contextlib
import sqlite3
from collections.abc import Sequence
from typing import Final, Protocol

from gateway.state.blocks import RECORDS_MAX, Packed, in_blocks
from gateway.state.entries import Batch, Place, PriceSnapshot
from gateway.state.errors import ScribeError
from gateway.state.writer import Writer

PLACE_ROWS_MAX: Final = 4096
"""Rows that the process writes before it says how far it is."""
SENT_RECORDS_MAX: Final = 2048
"""Records that it is sent at once."""
BLOCKS_BACK: Final = 2 * SENT_RECORDS_MAX // RECORDS_MAX
"""As many of the last blocks are looked at for one that is there already."""


class Scribe(Protocol):
    """The process, as whoever has work for it sees it. For one thread. Once it has failed it is not ready."""

    @property
    def ready(self) -> bool:
        """Whether it writes what it is given now. Waits for nothing."""
        ...

    def want(self, count: int, lock: int | None) -> None:
        """So many rows or records are written at once: where that is much, start it.

        Args:
            count: How many there are.
            lock: What is to stay open as long as it lives: whoever holds it may write the file.
        """
        ...

    def write_ledger(self, place: Place, prices: Sequence[PriceSnapshot]) -> None:
        """Write what a journal has there, or the first part of it; then its start is behind that, and it is counted.

        Raises:
            ScribeError: Some or all of them may not be there.
        """
        ...

    def write_records(self, records: Sequence[Packed], now_unix_s: float) -> int:
        """Write blocks of records; gives their size in bytes.

        Raises:
            ScribeError: They may not be there.
        """
        ...

    def tidy(self, now_unix_s: float) -> bool:
        """Do a little of all tidying but that of records. Whether there may be more of it.

        Raises:
            ScribeError: Nobody knows whether it was done.
        """
        ...

    def rest(self) -> None:
        """End it, where it had little to do for a while."""
        ...

    def end(self) -> None:
        """End it; it writes nothing any more when this returns."""
        ...


class HelpedWriter(Writer):
    """Writes, or has written.

    Args:
        connection: As for `Writer`.
        scribe: Who helps.
        lock: As for `Scribe.want`.
    """

    def __init__(self, connection: sqlite3.Connection, scribe: Scribe, lock: int | None) -> None:
        super().__init__(connection)
        self._scribe = scribe
        self._lock = lock

    @property
    def reads_journal(self) -> bool:
        """Whether it takes a place instead of rows."""
        return self._scribe.ready

    def write_ledger(self, batch: Batch) -> None:
        """Add rows to the ledger; when this returns the disk has them.

        Raises:
            ScribeError: Those of its place may not be there, and it takes no places any more.
        """
        if batch.place is not None:
            self._scribe.write_ledger(batch.place, batch.prices)
            self._scribe.want(sum(batch.place.counts.values()), self._lock)
        else:
            self._scribe.want(len(batch.rows), self._lock)
            super().write_ledger(batch)

    def write_records(self, records: Sequence[Packed], now_unix_s: float) -> None:
        """Add blocks."""
        self._scribe.want(len(records), self._lock)
        if self._scribe.ready:
            with contextlib.suppress(ScribeError):  # said already, and it is asked no more
                self._size_bytes += self._scribe.write_records(records, now_unix_s)
                return
        for block in in_blocks(records):
            if not self._find_block(block):
                super().write_records(block, now_unix_s)

    def _find_block(self, records: Sequence[Packed]) -> bool:
        """Whether a block of these is in the file already, written by whoever did not say so. Then its size counts."""
        found = self._connection.execute(
            "SELECT size_bytes FROM decision_block WHERE block > (SELECT max(block) FROM decision_block) - ? "
            "AND first_id = ? AND last_id = ? AND count = ?",
            (BLOCKS_BACK, records[0].id, records[-1].id, len(records)),
        ).fetchone()
        self._size_bytes += 0 if found is None else found[0]
        return found is not None

    def prune_rest(self, now_unix_s: float) -> bool:
        """Do a little of all other tidying. Whether there may be more of it."""
        if self._scribe.ready:
            with contextlib.suppress(ScribeError):
                return self._scribe.tidy(now_unix_s)
        return super().prune_rest(now_unix_s)

    def give_back(self) -> None:
        """Give back what is not used: pages of the file, and the process."""
        super().give_back()
        self._scribe.rest()

    def close(self) -> None:
        """Move everything into the file itself, and close it."""
        self._scribe.end()
        super().close()

    def abandon(self) -> None:
        """Close what has failed, as far as it can be."""
        self._scribe.end()
        super().abandon()

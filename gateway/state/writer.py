"""All SQL that changes mixgate.db. Used by one thread, which opened the connection."""

import logging
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import astuple

from gateway.observation import MinuteRow
from gateway.state.blocks import LEVEL, Packed, pack
from gateway.state.entries import Batch
from gateway.state.errands import Errands
from gateway.state.ledger_rows import write_entries
from gateway.state.request_rows import Requests, count_requests
from gateway.state.schema import COUNT_COLUMNS, HISTOGRAM_COLUMN, SPANS
from gateway.state.stretches import note_stretches
from gateway.state.transaction import Transaction

RECORDS_FOR_S: Final = 7 * 86_400
"""How long records are kept."""
RECORDS_MAX_BYTES: Final = 2 * 1024**3
"""All records together, compressed; the oldest go first."""
MINUTES_FOR_S: Final = 7 * 86_400
"""How long minutes are kept as minutes; then they are added up to hours."""
HOURS_FOR_S: Final = 90 * 86_400
"""How long hours are kept as hours; then they are added up to days."""
EVENTS_FOR_S: Final = 90 * 86_400
"""How long changes of an Endpoint's standing are kept."""
EVENTS_MAX: Final = 1_000_000
"""Changes of standing that are kept; the oldest go first."""
PRUNED_BLOCKS_MAX: Final = 64
"""Blocks that one step removes, so that a step never takes long."""
PRUNED_ROWS_MAX: Final = 2000
"""Rows that one step removes or adds up."""
FREED_PAGES_MAX: Final = 1024
"""Unused pages that one step gives back to the disk."""
STATIC_TOUCH_S: Final = 3600
"""How exactly it is kept when a static part was last used."""
STATIC_KNOWN_MAX: Final = 4096

UNSTORABLE: Final = (
    *(sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError),
    *(OverflowError, UnicodeEncodeError, AttributeError, TypeError, ValueError),  # texts for numbers, and the like
)
"""What a row raises that the table does not take."""
_log = logging.getLogger("mixgate.state")
_SPAN_MINUTES: Final = (1, 60, 1440)
_ADDED: Final = ", ".join(f"{name} = {name} + excluded.{name}" for name in COUNT_COLUMNS)
_COLUMNS: Final = ", ".join(("endpoint_id", "minute", *COUNT_COLUMNS, HISTOGRAM_COLUMN))
_ROW: Final = tuple(name.strip() for name in _COLUMNS.split(","))


class EndpointEvent(Struct, frozen=True, gc=False):
    """An Endpoint's standing changed."""

    unix_s: float
    endpoint_id: str
    standing: str
    """What it is from then on."""
    cause: str
    """Why, for people."""


class Writer:
    """The statements that change the store. Every method is one transaction and raises sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.refused = 0
        """Rows of the ledger that the table does not take, which is a fault of ours."""
        self._connection = connection
        self._requests = Requests(connection)
        self._static_used: dict[str, int] = {}
        self._size_bytes: int = self._one("SELECT coalesce(sum(size_bytes), 0) FROM decision_block")

    @property
    def reads_journal(self) -> bool:
        """Whether it takes a place instead of rows."""
        return False

    @property
    def records_bytes(self) -> int:
        """What all records take, compressed."""
        return self._size_bytes

    def write_records(self, records: Sequence[Packed], now_unix_s: float) -> None:
        """Add one block, and what its records refer to where that is new."""
        block = pack(records)
        now = int(now_unix_s)
        stale = {
            one.static.digest: one.static.data
            for one in records
            if one.static is not None
            and self._static_used.get(one.static.digest, -STATIC_TOUCH_S) + STATIC_TOUCH_S <= now
        }
        with Transaction(self._connection):
            for digest, data in stale.items():
                self._write_static(digest, data, now)
            self._connection.execute(
                "INSERT INTO decision_block (first_id, last_id, min_id, max_id, made_unix_s, count, size_bytes, data) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(block.first_id, block.last_id, block.min_id, block.max_id),
                    *(now, block.count, len(block.data), block.data),
                ),
            )
        if len(self._static_used) > STATIC_KNOWN_MAX:
            self._static_used.clear()
        self._static_used.update(dict.fromkeys(stale, now))
        self._size_bytes += len(block.data)

    def write_minutes(self, rows: Iterable[MinuteRow]) -> None:
        """Add to the minutes of Endpoints."""
        values = ", ".join("?" * len(_ROW))
        with Transaction(self._connection):
            self._connection.executemany(
                f"INSERT INTO endpoint_minute ({_COLUMNS}) VALUES ({values}) {_ON_CONFLICT}",  # noqa: S608 # our names
                [[getattr(row, name) for name in _ROW] for row in rows],
            )

    def write_events(self, events: Iterable[EndpointEvent]) -> None:
        """Keep changes of standing."""
        with Transaction(self._connection):
            self._connection.executemany(
                "INSERT INTO endpoint_event (unix_s, endpoint_id, standing, cause) VALUES (?, ?, ?, ?)",
                [astuple(event) for event in events],
            )

    def write_ledger(self, batch: Batch) -> None:
        """Add rows to the ledger, and what they come to; whoever hands them over may forget them then.

        The disk has them when this returns: it is the one thing here that nobody could make again.
        """
        try:
            self.write_rows(batch)
        except UNSTORABLE:
            # One row that the table does not take must not hold up the others.
            for row in batch.rows:
                try:
                    self.write_rows(Batch([row], batch.prices))
                except UNSTORABLE:
                    self.refused += 1
                    _log.exception("a row of the ledger cannot be stored; it is only here: %s", row)

    def write_rows(self, batch: Batch) -> None:
        """The same, all or nothing.

        Raises:
            Exception: One of UNSTORABLE, where the table does not take a row.
        """
        self._connection.execute("PRAGMA synchronous = FULL")
        try:
            with Transaction(self._connection):
                write_entries(self._connection, batch, self._requests)
        finally:
            self._connection.execute("PRAGMA synchronous = NORMAL")

    def run(self, errands: Errands) -> None:
        """Do what somebody waits for."""
        errands.run(self._connection)

    def is_full(self, max_bytes: int) -> bool:
        """Whether the oldest records have to go before their time."""
        return self._size_bytes > max_bytes

    def prune_records(self, now_unix_s: float, *, max_bytes: int = RECORDS_MAX_BYTES) -> bool:
        """Remove a few of the records that are too old, or too many. Whether there may be more of them."""
        oldest = self._connection.execute(
            "SELECT block, made_unix_s, size_bytes FROM decision_block ORDER BY block LIMIT ?", (PRUNED_BLOCKS_MAX,)
        ).fetchall()
        too_many_bytes = self._size_bytes - max_bytes
        gone: list[int] = []
        gone_bytes = 0
        for block, made_unix_s, size_bytes in oldest:
            if gone_bytes >= too_many_bytes and made_unix_s >= now_unix_s - RECORDS_FOR_S:
                break
            gone.append(block)
            gone_bytes += size_bytes
        if not gone:
            return False
        with Transaction(self._connection):
            self._connection.execute("DELETE FROM decision_block WHERE block <= ?", (gone[-1],))
        self._size_bytes -= gone_bytes
        return len(gone) == PRUNED_BLOCKS_MAX

    def prune_rest(self, now_unix_s: float) -> bool:
        """Do a little of all other tidying. Whether there may be more of it."""
        with Transaction(self._connection):
            more = self._roll(0, now_unix_s - MINUTES_FOR_S)
            more = self._roll(1, now_unix_s - HOURS_FOR_S) or more
            self._connection.execute(
                "DELETE FROM decision_table WHERE used_unix_s < ?", (now_unix_s - RECORDS_FOR_S - 2 * STATIC_TOUCH_S,)
            )
            more = self._prune_events(now_unix_s) or more
            more = count_requests(self._connection) or more
            return note_stretches(self._connection) or more

    def give_back(self) -> None:
        """Give some unused pages back to the disk, where there are many."""
        if self._one("PRAGMA freelist_count") > FREED_PAGES_MAX:
            self._connection.execute(f"PRAGMA incremental_vacuum({FREED_PAGES_MAX})").fetchall()

    def close(self) -> None:
        """Move everything into the file itself, and close it."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self._connection.close()

    def abandon(self) -> None:
        """Close what has failed, as far as it can be."""
        self._connection.close()

    def _write_static(self, digest: str, data: bytes, now: int) -> None:
        changed = self._connection.execute(
            "UPDATE decision_table SET used_unix_s = max(used_unix_s, ?) WHERE digest = ?", (now, digest)
        ).rowcount
        if not changed:
            self._connection.execute(
                "INSERT INTO decision_table (digest, used_unix_s, data) VALUES (?, ?, ?)",
                (digest, now, zlib.compress(data, LEVEL)),
            )

    def _prune_events(self, now_unix_s: float) -> bool:
        """Remove the oldest changes of standing that are too old or too many."""
        too_many = self._one("SELECT coalesce(max(event), 0) FROM endpoint_event") - EVENTS_MAX
        oldest = self._connection.execute(
            "SELECT event, unix_s FROM endpoint_event ORDER BY event LIMIT ?", (PRUNED_ROWS_MAX,)
        ).fetchall()
        gone = 0
        for event, unix_s in oldest:
            if event > too_many and unix_s >= now_unix_s - EVENTS_FOR_S:
                break
            gone = event
        self._connection.execute("DELETE FROM endpoint_event WHERE event <= ?", (gone,))
        return len(oldest) == PRUNED_ROWS_MAX and gone == oldest[-1][0]

    def _roll(self, span: int, before_unix_s: float) -> bool:
        """Add the oldest rows of one table up into the next one's; whole spans only."""
        source, target, width = SPANS[span], SPANS[span + 1], _SPAN_MINUTES[span + 1]
        end = int(before_unix_s // 60) // width * width
        rows = self._connection.execute(
            f"SELECT minute FROM {source} WHERE minute < ? ORDER BY minute LIMIT ?",  # noqa: S608 # our names
            (end, PRUNED_ROWS_MAX),
        ).fetchall()
        if not rows:
            return False
        # Up to the end of the span in which the last of them lies: a span is never added up in halves.
        end = min(end, (rows[-1][0] // width + 1) * width)
        sums = ", ".join(f"sum({name})" for name in COUNT_COLUMNS)
        self._connection.execute(
            f"INSERT INTO {target} ({_COLUMNS}) SELECT endpoint_id, minute / {width} * {width}, {sums}, "  # noqa: S608
            f"sum_histograms({HISTOGRAM_COLUMN}) FROM {source} INDEXED BY {source}_time WHERE minute < ? "
            f"GROUP BY 1, 2 {_ON_CONFLICT}",
            (end,),
        )
        self._connection.execute(f"DELETE FROM {source} WHERE minute < ?", (end,))  # noqa: S608 # our names
        return len(rows) == PRUNED_ROWS_MAX

    def _one(self, statement: str) -> int:
        found: int = self._connection.execute(statement).fetchone()[0]
        return found


_ON_CONFLICT: Final = (
    f"ON CONFLICT (endpoint_id, minute) DO UPDATE SET {_ADDED}, "
    f"{HISTOGRAM_COLUMN} = add_histograms({HISTOGRAM_COLUMN}, excluded.{HISTOGRAM_COLUMN})"
)

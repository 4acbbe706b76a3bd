"""The store as the rest of the gateway has it: what is handed over is written by a thread, some time soon.

Nothing here makes a caller wait, fails a request, or grows without bound: while the file cannot be written the thread
tries again, less and less often, and what does not fit into its queue is dropped and counted.
"""

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Protocol

from gateway.observation import MinuteRow
from gateway.state.blocks import BLOCK_FULL_BYTES, RECORD_MAX_BYTES, RECORDS_MAX, Packed
from gateway.state.connection import StoreLock, make_private, move_aside, open_writer
from gateway.state.entries import Outbox
from gateway.state.errands import Errands, Work
from gateway.state.errors import DamagedStoreError, ScribeError, StoreError, StoreInUseError, translate
from gateway.state.helped_writer import PLACE_ROWS_MAX, SENT_RECORDS_MAX, HelpedWriter, Scribe
from gateway.state.pending import Pending
from gateway.state.salvage import restore_keys, restore_rows
from gateway.state.way import ROWS_IN_A_ROW, give_way
from gateway.state.writer import RECORDS_MAX_BYTES, EndpointEvent, Writer
from gateway.state.writing import Writing

GROUP_WAIT_S: Final = 0.25
"""How long records wait for others to be compressed with."""
QUEUE_MAX: Final = 8192
"""Records that wait to be written; more are dropped and counted."""
RETRY_WAIT_S: Final = 0.5
"""First pause after the file could not be written; it doubles."""
RETRY_WAIT_MAX_S: Final = 30.0
LEDGER_ROWS_MAX: Final = 256
"""Rows of the ledger in one transaction: few enough to stay in a cache, and not to keep the event loop waiting."""
TIDY_EVERY_S: Final = 60.0
"""How often old records and minutes are looked for."""
CLOSE_TIMEOUT_S: Final = 6.0
"""How long the end waits for the last records: a little more than the writer waits for a lock."""
SMALL_MAX_BYTES: Final = 8 * 1024
"""A record that is packed at once; a larger one is packed by the thread."""
SMALL_WAITING_MAX: Final = 4096
"""So many that are packed wait for others no longer."""

_log = logging.getLogger("mixgate.state")


class AtOnce(Protocol):
    """Packs most records in no time."""

    def at_once(self, record: Any, /) -> Packed | None:
        """The stored form, without what it refers to; None where the thread has to make it, or to keep that anew."""
        ...

    def forget(self) -> None:
        """What records refer to may not be in the file any more."""
        ...


class Store:
    """Writes records, minutes, events and the ledger. Any thread may call its methods; only two of them ever block."""

    def __init__(
        self,
        path: Path,
        pack: Callable[[Any], Packed],
        *,
        at_once: AtOnce | None = None,
        scribe: Scribe | None = None,
        unix_time_s: Callable[[], float] = time.time,
        records_max_bytes: int = RECORDS_MAX_BYTES,
    ) -> None:
        self.path = path
        self.dropped = 0
        """Records that were not kept."""
        self.failure: StoreError | None = None
        """Why nothing can be written at the moment."""
        self._pack = pack
        self._at_once = at_once
        self._scribe = scribe
        self._unix_time_s = unix_time_s
        self._records_max_bytes = records_max_bytes
        self._records: deque[Any] = deque()
        self._small: deque[Packed] = deque()
        """Records that are packed."""
        self._pending = Pending()
        self._outbox: Outbox | None = None
        self._errands = Errands()
        self._marks: deque[threading.Event] = deque()
        self._packed: list[Packed] = []
        self._retry_wait_s = 0.0
        self._lost_before = 0
        self._tidy_at_s = 0.0
        self._lock = StoreLock(path)
        self._writer: Writing | None = None
        self._checked = False
        self._awake = False
        self._pressed = False
        """Whether somebody waits."""
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._stopping = False
        self._runner = threading.Thread(target=self._run, name="mixgate-store", daemon=True)

    @classmethod
    def open(cls, path: Path, pack: Callable[[Any], Packed], **settings: Any) -> "Store":
        """Start the thread, which opens the file: a store always opens, and says later what is wrong with it.

        Args:
            path: mixgate.db. Its folder is made where it is missing.
            pack: Makes the stored form of what `put` is given. Called by the thread.
            settings: As the class takes them: `at_once` does so in `put`, where it can, so that the thread has less to
                do and the event loop is not kept waiting; `scribe` writes what comes fast.
        """
        store = cls(path, pack, **settings)
        store._runner.start()
        return store

    def put(self, record: Any) -> bool:
        """Keep a record. False where there is no room, or it is closed, and it is dropped."""
        if len(self._records) + len(self._small) >= QUEUE_MAX or self._stopping:
            self.dropped += 1
            return False
        packed = None if self._at_once is None else self._at_once.at_once(record)
        if packed is None or len(packed.data) > SMALL_MAX_BYTES:
            self._records.append(record)
        else:
            self._small.append(packed)
        if not self._awake:
            self.wake()
        elif len(self._small) == SMALL_WAITING_MAX or len(self._records) == RECORDS_MAX:
            self._hurry.set()
        return True

    def attach(self, outbox: Outbox) -> None:
        """Fetch rows of the ledger from there, whenever it is woken."""
        self._outbox = outbox
        self.wake()

    def wake(self) -> None:
        """There is something to be written, some time soon."""
        if not self._awake:
            self._awake = True
            self._wake.set()

    def write_minutes(self, rows: Iterable[MinuteRow]) -> None:
        """Add to what is known of Endpoints in a minute."""
        self._pending.add_minutes(rows)
        self._wake.set()

    def write_event(self, event: EndpointEvent) -> None:
        """Keep that an Endpoint's standing changed."""
        self._pending.add_event(event)
        self._wake.set()

    def submit(self, work: Work) -> "Future[None]":
        """Have the writer change something now, in a transaction of its own that is on the disk when it is done.

        The Future fails with a StoreError where the file cannot be written.
        """
        done = self._errands.add(work)
        self._press()
        if self._stopping:
            self._errands.fail(StoreError("the store is closed"))
        return done

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything handed over so far is in the file. False if that took too long. Blocks."""
        mark = threading.Event()
        self._marks.append(mark)
        self._press()
        return mark.wait(timeout_s)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Write what is left and close the file. False if that took too long and something is lost. Blocks."""
        self._stopping = True
        self._press()
        self._runner.join(timeout_s)
        return not self._runner.is_alive() and self.failure is None

    def _press(self) -> None:
        """Have all of it written now."""
        self._pressed = True
        self._wake.set()
        self._hurry.set()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._wait_s())
            self._wake.clear()
            self._gather()
            # Whoever puts a record from here on wakes the thread anew.
            self._awake = self._pressed = False
            self._step()
        self._step()
        self._end()

    def _gather(self) -> None:
        """Let more come, to be written together. Records, which take the most room, go as soon as they make a block."""
        end_s = time.monotonic() + (self._retry_wait_s or GROUP_WAIT_S)
        while (left_s := end_s - time.monotonic()) > 0.0 and self._hurry.wait(left_s):
            self._hurry.clear()
            if self._pressed or self.failure is not None:
                break
            self._step(records_only=True)

    def _wait_s(self) -> float:
        return 0.0 if self.failure is not None else max(0.0, self._tidy_at_s - time.monotonic())

    def _step(self, *, records_only: bool = False) -> None:
        """Write everything that is there, and tidy when it is time to; or no more than records."""
        marks = [] if records_only else list(self._marks)
        try:
            writer = self._opened()
            if records_only:
                self._write_records(writer)
            else:
                self._write_all(writer)
                self._tidy(writer)
        except sqlite3.Error as error:
            self._fail(translate(error))
        except StoreError as error:
            self._fail(error)
        except OSError as error:
            self._fail(StoreError(f"{error.strerror or error}; check the folder's owner and permissions"))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the thread; logged
            _log.exception("the store failed")
            self._fail(StoreError(str(error)))
        else:
            self._recover()
            for mark in marks:
                self._marks.remove(mark)
                mark.set()

    def _opened(self) -> Writing:
        if self._writer is None:
            make_private(self.path)
            self._lock.take()
            # What this process itself could not close for want of room is sound.
            connection = open_writer(self.path, check=not self._checked)
            restore_keys(connection, self.path)
            scribe = self._scribe
            writer = Writer(connection) if scribe is None else HelpedWriter(connection, scribe, self._lock.descriptor)
            self._writer = writer
            restore_rows(connection, writer.write_ledger, self.path)
            self._checked = True
        return self._writer

    def _write_ledger(self, writer: Writing) -> None:
        """Write what the outbox has. What fails stays there."""
        more = self._outbox is not None
        while more and self._outbox is not None:
            try:
                with self._outbox.batch(LEDGER_ROWS_MAX, by_place=writer.reads_journal) as batch:
                    if batch.rows or batch.prices or batch.place is not None:
                        writer.write_ledger(batch)
            except ScribeError:
                continue  # said already; it is asked no more
            if batch.place is not None:
                more = sum(batch.place.counts.values()) >= PLACE_ROWS_MAX
            else:
                # What failed before comes first and by itself, and this may be the last step of all.
                more = bool(batch.rows) and (len(batch.rows) == LEDGER_ROWS_MAX or self.failure is not None)
            more = more or (writer.reads_journal and bool(batch.rows))

    def _write_all(self, writer: Writing) -> None:
        writer.run(self._errands)
        self._write_ledger(writer)
        self._write_records(writer)
        with self._pending.minutes() as rows:
            if rows:
                writer.write_minutes(rows)
        with self._pending.events() as events:
            if events:
                writer.write_events(events)

    def _write_records(self, writer: Writing) -> None:
        """Write all that are there. What comes meanwhile waits for the next time, to be compressed with others."""
        more = True
        while more:
            self._pack_some(SENT_RECORDS_MAX if writer.reads_journal else RECORDS_MAX)
            more = bool(self._records or self._small)
            if self._packed:
                writer.write_records(self._packed, self._unix_time_s())
                self._packed = []

    def _pack_some(self, count_max: int) -> None:
        """Fill up what is written next: a block, or so many that are packed already."""
        if not (self._packed or self._records):
            small = self._small
            self._packed = [small.popleft() for _ in range(min(len(small), count_max))]
            return
        size_bytes = sum(len(packed.data) for packed in self._packed)
        while self._records and len(self._packed) < RECORDS_MAX and size_bytes < BLOCK_FULL_BYTES:
            record = self._records.popleft()
            if len(self._packed) % ROWS_IN_A_ROW == ROWS_IN_A_ROW - 1:
                give_way()
            try:
                packed = self._pack(record)
            except Exception:  # noqa: BLE001 - one record that cannot be written must not cost the others; counted
                self.dropped += 1
                _log.exception("a record could not be packed and is dropped")
                continue
            if len(packed.data) > RECORD_MAX_BYTES:
                self.dropped += 1
            else:
                self._packed.append(packed)
                size_bytes += len(packed.data)

    def _tidy(self, writer: Writing) -> None:
        """Remove a few things that are too old or too many. The rest waits for the next step."""
        now_s = time.monotonic()
        if not isinstance(writer, Writer):
            self._tidy_at_s = now_s + TIDY_EVERY_S  # whoever has the file does it
            return
        is_due = now_s >= self._tidy_at_s
        if not is_due and not writer.is_full(self._records_max_bytes):
            return
        now_unix_s = self._unix_time_s()
        more = writer.prune_records(now_unix_s, max_bytes=self._records_max_bytes)
        if is_due:
            more = writer.prune_rest(now_unix_s) or more
            writer.give_back()
        self._tidy_at_s = now_s + (GROUP_WAIT_S if more else TIDY_EVERY_S)

    def _fail(self, error: StoreError) -> None:
        """Give the file up for now, and say so once."""
        if self._at_once is not None:
            self._at_once.forget()
        self._errands.fail(error)
        if self._writer is not None:
            try:
                self._writer.abandon()
            except sqlite3.Error:
                _log.debug("the failed store did not close either", exc_info=True)
            self._writer = None
        if isinstance(error, DamagedStoreError):
            self._checked = False
            self._replace_damaged(error)
        elif isinstance(error, StoreInUseError):
            if not isinstance(self.failure, StoreInUseError):
                _log.error(
                    "%s: %s. This gateway keeps no ledger, knows nothing of what keys spend, and refuses what may cost "
                    "something",
                    *(self.path.parent, error),
                )
        elif self.failure is None or type(self.failure) is not type(error):
            _log.warning(
                "%s cannot be written: %s. Requests are answered all the same; the ledger is kept in the journal, and "
                "records are dropped once %d wait",
                *(self.path, error, QUEUE_MAX),
            )
        if self.failure is None:
            self._lost_before = self.dropped
        self.failure = error
        self._retry_wait_s = min(RETRY_WAIT_MAX_S, self._retry_wait_s * 2 or RETRY_WAIT_S)

    def _replace_damaged(self, error: StoreError) -> None:
        try:
            aside = move_aside(self.path, self._unix_time_s())
        except OSError as why:
            _log.error("%s is damaged (%s) and cannot be moved away: %s", self.path, error, why)
            return
        _log.error(
            "%s is damaged (%s): it was moved to %s, and a new file is begun with what can be read of it",
            *(self.path, error, aside.name),
        )

    def _recover(self) -> None:
        if self.failure is not None:
            lost = self.dropped - self._lost_before
            _log.warning("%s can be written again; %d records were dropped in the meantime", self.path, lost)
            # What failed was written first; what has come since may be more.
            self._wake.set()
        self.failure = None
        self._retry_wait_s = 0.0

    def _end(self) -> None:
        self._errands.fail(StoreError("the store is closed"))
        lost = len(self._records) + len(self._small) + len(self._packed)
        if lost:
            self.dropped += lost
            _log.warning("%d records were not written", lost)
        if self._writer is not None:
            try:
                self._writer.close()
            except sqlite3.Error as error:
                self.failure = translate(error)
        self._lock.release()

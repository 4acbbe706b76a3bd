"""What the store has not written yet: rows in memory, those that only the journal has, and what was left by a crash."""

import logging
import threading
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final

from msgspec import Struct

from gateway.ledger.journal import Journal
from gateway.ledger.journal_tail import JournalTail, TailError
from gateway.ledger.recovery import Recovery
from gateway.ledger.segment import Segment
from gateway.state.entries import Batch, Place, Position, PriceSnapshot, Row

QUEUE_MAX: Final = 16_384
"""Rows that wait in memory; more wait in the journal alone."""
NEAR_BYTES: Final = 256 * 1024
"""So little behind the journal's end, rows go through memory again."""

_log = logging.getLogger("mixgate.ledger")


class _Span(Struct):
    """A part of the journal whose rows are nowhere else."""

    start: Position
    """Up to here the store has it."""
    end: Position
    """The loop's thread moves it behind each row, which is then the store's."""
    closed: bool = False
    """Whether it grows no more."""


class _Taken(Struct, frozen=True):
    row: Row
    segment: Segment | None
    """What the journal has of it, if anything."""


class Backlog:
    """Filled by the loop's thread, emptied by the store's."""

    def __init__(self, journal: Journal, recovery: Recovery) -> None:
        self.recovered = threading.Event()
        """Set once everything that a crash left is in the store."""
        self._journal = journal
        self._recovery = recovery
        self._left: Iterator[Row] | None = recovery.rows()
        self._queue: deque[_Taken] = deque()
        self._append: Final = self._queue.append
        self._spans: deque[_Span] = deque()
        self._prices: deque[PriceSnapshot] = deque()
        self._left_there = False
        """Whether rows are left in the journal, for somebody else to read."""
        self._tail = JournalTail(journal.folder)
        self._taken: list[_Taken] = []
        self._place: Place | None = None
        """What was taken of the first span; its start is where that ends."""

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether no more may wait in memory."""
        return len(self._queue) >= QUEUE_MAX

    @property
    def empty(self) -> bool:
        """Whether the store has everything."""
        return not (self._queue or self._taken or self._left or any(one.start < one.end for one in self._spans))

    def add_price(self, snapshot: PriceSnapshot) -> None:
        """Let the store keep a snapshot."""
        self._prices.append(snapshot)

    def add(self, row: Row, segment: Segment | None) -> None:
        """Let the store write a row, which waits in memory.

        Args:
            row: In the order of ENTRY_COLUMNS.
            segment: What the journal has of it; None: nothing.
        """
        self._append(_Taken(row, segment))

    def leave(self, segment: Segment, size_bytes: int) -> bool:
        """Whether a row waits in the journal alone, where its last word was just written.

        Args:
            segment: Where it was.
            size_bytes: What that takes there.
        """
        spans, end = self._spans, (segment.number, segment.end)
        start = (segment.number, segment.end - size_bytes)
        if not spans or spans[-1].closed:
            if not (self._left_there or self.full):
                return False
            spans.append(_Span(start, end))
            return True
        span = spans[-1]
        if not self._left_there and self._is_near(span.start, start):
            span.closed = True
            return False
        span.end = end
        return True

    def _is_near(self, start: Position, end: Position) -> bool:
        return start[0] == end[0] and end[1] - start[1] < NEAR_BYTES and len(self._queue) < QUEUE_MAX // 2

    @contextmanager
    def batch(self, count_max: int, *, by_place: bool = False) -> Generator[Batch]:
        """What the store writes next; it is there again where that fails."""
        self._left_there = by_place
        if not self._taken:
            self._take(count_max, by_place=by_place)
        taken = self._taken
        elsewhere = self._first_place() if by_place and not taken else None
        prices = [*self._prices]  # looked at last: a row's price is there before the row
        yield Batch([one.row for one in taken], [*prices, *self._recovery.prices.values()], elsewhere)
        for _ in prices:
            self._prices.popleft()
        for one in taken:
            if one.segment is not None:
                one.segment.stored += 1
        self._taken = []
        self._advance(elsewhere or self._place)

    def _take(self, count_max: int, *, by_place: bool) -> None:
        taken: list[_Taken] = []
        self._place = None
        while self._queue and len(taken) < count_max:
            taken.append(self._queue.popleft())
        self._taken = taken
        if not by_place and len(taken) < count_max and (place := self._first_place()) is not None:
            taken += [_Taken(row, None) for row in self._read(place, count_max - len(taken))]
            self._place = place
        while self._left is not None and self._journal.found and len(taken) < count_max:
            row = next(self._left, None)
            if row is None:
                self._left = None
            else:
                taken.append(_Taken(row, None))

    def _first_place(self) -> Place | None:
        """What only the journal has, or the first part of it."""
        spans = self._spans
        while spans:
            span = spans[0]
            closed = span.closed  # looked at first: once it is, the end moves no more
            if span.start < span.end:
                return Place(span.start, span.end, {})
            if not closed:
                break
            spans.popleft()
        return None

    def _read(self, place: Place, count_max: int) -> list[Row]:
        try:
            return self._tail.rows(place, count_max)
        except (TailError, OSError) as error:
            # Its files stay, for as long as they say that something of theirs is not in the store.
            _log.error("rows in the journal cannot be read, and are tried again at the next start: %s", error)
            place.start = place.end
            return []

    def _advance(self, place: Place | None) -> None:
        """What was taken is safe, and so is what was read from a place."""
        if place is not None:
            self._spans[0].start = place.start
            for number, count in place.counts.items():
                self._journal.count_stored(number, count)
            self._place = None
        if self._left is None and not self.recovered.is_set():
            for path in self._recovery.read:
                self._journal.remove_old(path)
            self._recovery.prices.clear()
            self.recovered.set()

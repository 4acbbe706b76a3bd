"""What the store has not written yet: rows in memory, those that only the journal has, and what was left by a crash."""

import threading
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final

from msgspec import Struct

from gateway.ledger.journal import ENTRY, Journal
from gateway.ledger.recovery import Recovery, decode_row
from gateway.ledger.segment import Segment
from gateway.state.entries import Batch, PriceSnapshot, Row

QUEUE_MAX: Final = 16_384
"""Rows that wait in memory; more wait in the journal alone."""
NEAR_BYTES: Final = 256 * 1024
"""So little behind the journal's end, rows go through memory again."""


class _Span(Struct):
    """A part of the journal whose entries are nowhere else."""

    start: tuple[int, int]
    """Up to here the store has it."""
    end: tuple[int, int]
    """The loop's thread moves it behind each entry, which is then the store's."""
    closed: bool = False
    """Whether it grows no more."""


class _Taken(Struct, frozen=True):
    row: Row
    segment: Segment | None
    """Where in the journal it is, if there."""


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
        self._taken: list[_Taken] = []
        self._reached: tuple[int, int] | None = None
        """How far the store comes in the first span with what it has taken."""

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether no more may wait in memory."""
        return len(self._queue) >= QUEUE_MAX

    @property
    def direct(self) -> bool:
        """Whether the next row goes through memory, whatever the journal has of it."""
        return not self._spans and not self.full

    @property
    def empty(self) -> bool:
        """Whether the store has everything."""
        return not (self._queue or self._taken or self._left or any(one.start < one.end for one in self._spans))

    def add_price(self, snapshot: PriceSnapshot) -> None:
        """Let the store keep a snapshot."""
        self._prices.append(snapshot)

    def add(self, row: Row, segment: Segment | None, start: int | None) -> None:
        """Let the store write a row. Where the journal has it, it need not wait in memory too.

        Args:
            row: In the order of ENTRY_COLUMNS.
            segment: What the journal has of it; None: nothing.
            start: Where in there the row begins, as the last that was written; None: it is not there.
        """
        if start is not None and segment is not None and self._spools(segment.number, start):
            self._spans[-1].end = (segment.number, segment.end)
        else:
            self._append(_Taken(row, segment))

    def _spools(self, number: int, start: int) -> bool:
        """Whether the next entry, which begins there, waits in the journal alone."""
        spans = self._spans
        if not spans or spans[-1].closed:
            if not self.full:
                return False
            spans.append(_Span((number, start), (number, start)))
        elif self._is_near(spans[-1].start, (number, start)):
            spans[-1].closed = True
            return False
        return True

    def _is_near(self, start: tuple[int, int], end: tuple[int, int]) -> bool:
        return start[0] == end[0] and end[1] - start[1] < NEAR_BYTES and len(self._queue) < QUEUE_MAX // 2

    @contextmanager
    def batch(self, count_max: int) -> Generator[Batch]:
        """What the store writes next; it is there again where that fails."""
        if not self._taken:
            self._take(count_max)
        taken, prices = self._taken, [*self._prices]
        yield Batch([one.row for one in taken], [*prices, *self._recovery.prices.values()])
        for _ in prices:
            self._prices.popleft()
        for one in taken:
            if one.segment is not None:
                one.segment.stored += 1
        self._taken = []
        self._advance()

    def _take(self, count_max: int) -> None:
        taken: list[_Taken] = []
        while self._queue and len(taken) < count_max:
            taken.append(self._queue.popleft())
        self._taken = taken
        if self._spans and len(taken) < count_max:
            span = self._spans[0]
            reached = span.end
            for segment, kind, at, payload in self._journal.since(span.start, reached):
                if kind == ENTRY:
                    taken.append(_Taken(decode_row(payload), segment))
                    if len(taken) >= count_max:
                        reached = (segment.number, at)
                        break
            self._reached = reached
        while self._left is not None and self._journal.found and len(taken) < count_max:
            row = next(self._left, None)
            if row is None:
                self._left = None
            else:
                taken.append(_Taken(row, None))

    def _advance(self) -> None:
        """What was taken is safe."""
        if self._reached is not None:
            span = self._spans[0]
            closed = span.closed  # looked at first: once it is, the end moves no more
            span.start, self._reached = self._reached, None
            if closed and span.start >= span.end:
                self._spans.popleft()
        if self._left is None and not self.recovered.is_set():
            for path in self._recovery.read:
                self._journal.remove_old(path)
            self._recovery.prices.clear()
            self.recovered.set()

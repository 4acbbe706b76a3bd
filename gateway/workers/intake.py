"""What the owner's store writes next: rows that workers hand over, and the journals of processes that are gone."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from gateway.ledger.books import Books
from gateway.state.entries import Batch, Outbox, PriceSnapshot, Row
from gateway.state.errors import StoreError
from gateway.state.store import Store
from gateway.workers.left import LeftJournal, left_folders

WRITE_WAIT_S: Final = 5.0
"""How long a worker's rows may wait to be written; then it keeps them and tries again."""

_log = logging.getLogger("mixgate.workers")


class _Parcel:
    __slots__ = ("batch", "done")

    def __init__(self, batch: Batch, done: "asyncio.Future[None]") -> None:
        self.batch = batch
        self.done = done


class Intake:
    """An Outbox of several sources. The loop's thread fills it, the store's empties it.

    Args:
        own: What this process itself writes, where it does.
    """

    def __init__(self, own: Outbox | None = None) -> None:
        self._own = own
        self._parcels: deque[_Parcel] = deque()
        self._taken: list[_Parcel] = []
        self._left: deque[LeftJournal] = deque()

    @property
    def clear(self) -> bool:
        """Whether nothing is left of processes that are gone."""
        return not self._left

    def add_left(self, left: LeftJournal) -> None:
        """Have a journal's rows written. It is open."""
        self._left.append(left)

    async def write(self, batch: Batch, store: Store) -> None:
        """Have rows written; returns once the disk has them.

        Raises:
            StoreError: It does not take them now, so that they must be kept.
        """
        loop = asyncio.get_running_loop()
        parcel = _Parcel(batch, loop.create_future())
        self._parcels.append(parcel)
        store.wake()
        try:
            await asyncio.wait_for(parcel.done, WRITE_WAIT_S)
        except TimeoutError:
            with contextlib.suppress(ValueError):
                self._parcels.remove(parcel)
            raise store.failure or StoreError("the store is behind") from None

    @contextmanager
    def batch(self, count_max: int, *, by_place: bool = False) -> Generator[Batch]:
        """What the store writes next; it is there again where that fails."""
        if self._left:
            with self._batch_of(self._left[0], count_max) as batch:
                yield batch
            return
        if not self._taken and not self._parcels and self._own is not None:
            with self._own.batch(count_max, by_place=by_place) as batch:
                yield batch
            return
        count = sum(len(one.batch.rows) for one in self._taken)
        while self._parcels and count < count_max:
            self._taken.append(self._parcels.popleft())
            count += len(self._taken[-1].batch.rows)
        rows: list[Row] = [row for one in self._taken for row in one.batch.rows]
        prices: list[PriceSnapshot] = [price for one in self._taken for price in one.batch.prices]
        yield Batch(rows, prices)
        taken, self._taken = self._taken, []
        for one in taken:
            one.done.get_loop().call_soon_threadsafe(_set, one.done)

    @contextmanager
    def _batch_of(self, left: LeftJournal, count_max: int) -> Generator[Batch]:
        with left.backlog.batch(count_max) as batch:
            yield batch
        if left.on_rows is not None and batch.rows:
            left.on_rows(batch.rows)
        if left.backlog.recovered.is_set():
            self._left.popleft()
            left.close()
            if left.on_done is not None:
                left.on_done()


def _set(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)


class BooksAfterWorkers(Books):
    """Books of a gateway that is alone, where workers may have been before: what they left is written first."""

    def start(self) -> None:
        """Open the journal and give the store what was left. Blocks for a moment."""
        super().start()
        intake = Intake(self._backlog)
        for folder in left_folders(self._journal.folder.parent):
            left = LeftJournal(folder, on_done=self._store.wake)
            if left.open():
                intake.add_left(left)
        if not intake.clear:
            _log.info("journals of workers are looked through that did not end in peace, or with their owner")
            self._store.attach(intake)

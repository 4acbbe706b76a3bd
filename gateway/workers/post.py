"""A worker's place in the gateway: what it has from the owner where a gateway that is alone has its own."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import msgspec

from gateway.access import Access
from gateway.cache.savings import Savings
from gateway.cache.storage import STORE_EVERY_S
from gateway.errors import KeysUnavailableError
from gateway.explain.trace import Packer
from gateway.keys.key import KeyRecord
from gateway.keys.ring import KeyRing
from gateway.ledger.books import FOLDER_NAME, Books
from gateway.ledger.entry import Intent
from gateway.ledger.journal import Journal
from gateway.state.store import Store
from gateway.workers.line import OwnerLine
from gateway.workers.link import AwayError, DeclinedError
from gateway.workers.local_models import SharedModels
from gateway.workers.messages import (
    LIVE_MAX,
    CacheSaved,
    Figures,
    FiguresAsked,
    Hello,
    KeyChanged,
    Live,
    LiveAsked,
    encode,
)
from gateway.workers.remote_store import RemoteStore
from gateway.workers.seen_purse import SeenPurse
from gateway.workers.shared import OwnerState

OWNER_WAIT_S: Final = 10.0
"""How long the start waits for the owner."""
KEY_WAIT_S: Final = 10.0
"""How long a change of a key may take."""
SAVINGS_WAIT_S: Final = 2.0
FIGURES_WAIT_S: Final = 2.0
LOOK_EVERY_S: Final = 5.0
"""How old what metrics say of budgets may be."""

Status = TypeVar("Status")
_log = logging.getLogger("mixgate.workers")


class Post(Generic[Status]):
    """One for the life of a worker process.

    Args:
        home: MIXGATE_HOME.
        name: Of this process and no other.
        status_of: A local model's state from its members.
    """

    def __init__(self, home: Path, name: str, status_of: Callable[[Mapping[str, Any]], Status]) -> None:
        self._home = home
        self._name = name
        self._store: RemoteStore | None = None
        self._running: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._fetch: Callable[[], Awaitable[None]] | None = None
        self.line = OwnerLine(home, name, self._flush)
        self.models = SharedModels(self.line, status_of)

    def open_store(self, path: Path, packer: Packer) -> Store:
        """The store, whose file the owner has."""
        self._store = RemoteStore(path, packer, home=self._home, name=self._name, at_once=packer)
        self._store.begin()
        return self._store

    def open_books(self) -> Books:
        """Books with a journal of this process's own. Blocks for a moment."""
        if self._store is None:
            raise RuntimeError("the store comes first")
        books = Books(Journal(self._home / FOLDER_NAME / self._name), self._store)
        books.start()
        return books

    def join(self, access: Access) -> OwnerState:
        """Budgets and rates that are shared, and keys that are changed by the owner."""
        state = OwnerState(self.line, access.ring.chain, access.limiter, time.monotonic)
        self.line.hello = lambda: Hello(self._name, state.budgets.open_leases(), state.rates.running())
        self.line.on_key = lambda record: _learn(access.ring, record)
        self.line.on_hint = lambda told: state.hints.hear(told.hint)

        async def keep(record: KeyRecord) -> None:
            await self._change(access.ring, record)

        access.keep = keep
        purse, ring = access.purse, access.ring
        if isinstance(purse, SeenPurse):

            async def fetch() -> None:
                purse.see(await state.budgets.usage([record.id for record in ring.records()], time.time()))

            access.desk.fetch = self._fetch = fetch
        return state

    async def connect(self) -> None:
        """Begin to talk to the owner; goes on without it where it is away."""
        self._running = asyncio.create_task(self.line.run())
        self._looking = asyncio.create_task(self._look())
        if not await self.line.wait_up(OWNER_WAIT_S):
            _log.error("the owner of the store does not answer; keys with a budget have to wait for it")

    def disconnect(self) -> None:
        """Hang up."""
        for task in (self._running, self._looking):
            if task is not None:
                task.cancel()

    async def store_on(self, savings: Savings) -> None:
        """Have the owner keep what giving answers again has saved, again and again, until cancelled."""
        while True:
            await asyncio.sleep(STORE_EVERY_S)
            await self.store(savings)

    async def store(self, savings: Savings) -> None:
        """Once; where that cannot be, it waits for the next time."""
        rows = savings.take()
        if not rows:
            return
        try:
            async with asyncio.timeout(SAVINGS_WAIT_S):
                await self.line.ask(CacheSaved(tuple(rows)), None)
        except (TimeoutError, AwayError, DeclinedError):
            savings.put_back(rows)
        except asyncio.CancelledError:
            savings.put_back(rows)
            raise

    def show(self, read: Callable[[], Any]) -> None:
        """Tell figures to whoever asks the owner for those of all workers."""
        self.line.on_figures = lambda: Figures(self._name, os.getpid(), msgspec.Raw(encode(read())))

    async def figures(self) -> list[Figures]:
        """Of all workers that tell them in time; none where the owner is away."""
        try:
            async with asyncio.timeout(FIGURES_WAIT_S):
                found: list[Figures] = await self.line.ask(FiguresAsked(), list[Figures])
        except (TimeoutError, AwayError, DeclinedError):
            return []
        return found

    async def live(self) -> Live:
        """What all workers are at that say so in time; where the owner is away, this one."""
        try:
            async with asyncio.timeout(FIGURES_WAIT_S):
                found: list[Live] = await self.line.ask(LiveAsked(), list[Live])
        except (TimeoutError, AwayError, DeclinedError):
            found = [self.line.on_live()]
        return sum([count for count, _ in found]), [one for _, going in found for one in going]

    def show_live(self, in_flight: Callable[[], int], on_their_way: Callable[[], Sequence[tuple[Intent, int]]]) -> None:
        """Tell what this worker is at to whoever asks the owner for that of all."""

        def live() -> Live:
            oldest = sorted(on_their_way(), key=lambda pair: pair[0].unix_us)
            return in_flight(), oldest[:LIVE_MAX]

        self.line.on_live = live

    async def _look(self) -> None:
        """Have what keys spent at hand for whoever cannot wait for it, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._fetch is not None:
                with contextlib.suppress(KeysUnavailableError):
                    await self._fetch()

    async def _change(self, ring: KeyRing, record: KeyRecord) -> None:
        """Have the owner keep a key, and tell it to all.

        Raises:
            KeysUnavailableError: Nothing has changed, or nobody knows.
        """
        before = ring.get(record.id)
        try:
            async with asyncio.timeout(KEY_WAIT_S):
                await self.line.ask(KeyChanged(record, None if before is None else before.updated_us), None)
        except DeclinedError as error:
            raise KeysUnavailableError(str(error), retry_after_s=error.retry_after_s or 1.0) from None
        except (TimeoutError, AwayError):
            words = "the process that keeps the keys is away; look whether the change was made, and ask again"
            raise KeysUnavailableError(words, retry_after_s=1.0) from None

    def _flush(self, timeout_s: float) -> bool:
        return self._store is None or self._store.flush(timeout_s)


def _learn(ring: KeyRing, record: KeyRecord) -> None:
    if ring.get(record.id) != record:
        ring.put(record)

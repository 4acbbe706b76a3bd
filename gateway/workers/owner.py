"""The owner: the one process that has mixgate.db open, and what workers share of keys, budgets, rates and models."""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.access import Access
from gateway.config.catalogue import GatewaySettings
from gateway.errors import KeysUnavailableError
from gateway.keys.purse import Purse
from gateway.keys.storage import saver
from gateway.ledger.books import FOLDER_NAME
from gateway.sharing.base import Hint, StateStore
from gateway.sharing.memory import MemoryStore
from gateway.sharing.opening import open_redis
from gateway.sharing.shared_purse import SharedPurse
from gateway.state.blocks import Packed
from gateway.state.cache_rows import write_cache_rows
from gateway.state.connection import FILE_NAME, StoreLock
from gateway.state.entries import Batch, Row
from gateway.state.shipping import Shipper
from gateway.state.store import Store
from gateway.workers.counter import Counter
from gateway.workers.intake import Intake
from gateway.workers.left import LeftJournal, left_folders
from gateway.workers.link import DeclinedError, Link, is_ours, open_listener, socket_path
from gateway.workers.local_models import Backend, LocalWindow, statuses_of, tell_statuses
from gateway.workers.messages import (
    AllowancesAsked,
    AnswerAsked,
    AnswerTold,
    CacheSaved,
    Enter,
    Events,
    Figures,
    FiguresAsked,
    Hello,
    HintTold,
    KeyChanged,
    Leave,
    Live,
    LiveAsked,
    LocalAsked,
    LocalDropped,
    Minutes,
    Records,
    Rows,
    SessionAsked,
    SessionTold,
    StoreHello,
    TryAsked,
    Welcome,
    Written,
)
from gateway.workers.money import MONEY, Money
from gateway.workers.past import last_entry

KEY_WAIT_S: Final = 1.0
"""How long a change of a key waits until every worker has it."""
FIGURES_WAIT_S: Final = 1.0
"""How long metrics, and the dashboard, wait for a worker's figures."""
ALONE: Final = GatewaySettings()
"""Nothing is shared with other machines."""
HINTS_EVERY_S: Final = 0.5
"""How often it is looked what other machines say of Endpoints."""
ALONE_LOOK_S: Final = 0.1
FLUSH_WAIT_S: Final = 10.0

_log = logging.getLogger("mixgate.workers")


def _as_it_is(record: Packed) -> Packed:
    """Workers have packed their records."""
    return record


class Owner:
    """All of it.

    Args:
        home: MIXGATE_HOME.
        backend: The local models.
        living: Workers that are there already.
        settings: Of them, what is shared with other machines.
    """

    def __init__(self, home: Path, backend: Backend, living: Sequence[str], settings: GatewaySettings = ALONE) -> None:
        self.name = secrets.token_hex(8)
        self.home = home
        self.path = home / FILE_NAME
        self.backend = backend
        self.access = Access(home, Purse if settings.redis is None else SharedPurse)
        purse, ring, limiter = self.access.purse, self.access.ring, self.access.limiter
        purse.knows_past = False
        self.shared: StateStore
        if settings.redis is not None and isinstance(purse, SharedPurse):
            self.shared = open_redis(settings.redis, home, ring, purse, limiter)
        else:
            self.shared = MemoryStore(ring.chain, purse, limiter)
        self.counter = Counter(self.shared, purse, time.monotonic)
        self.money = Money(self.counter, living)
        self.ends: dict[str, OwnerEnd] = {}
        """Workers' lines."""
        self.connections: set[OwnerEnd] = set()
        """Those, and their stores'."""
        self._living = set(living)
        self._intake = Intake()
        self._lock = StoreLock(home / "run" / "owner")
        self._first_entry = 0
        self._changing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._store: Store | None = None
        self._server: asyncio.Server | None = None
        self._fleet = settings.postgres
        self._shipper: Shipper | None = None
        self._burying: set[asyncio.Task[None]] = set()

    @property
    def store(self) -> Store:
        """The real one. There is none before `start`."""
        if self._store is None:
            raise KeysUnavailableError("the gateway is only starting", retry_after_s=1.0)
        return self._store

    async def start(self) -> None:
        """Open the store, take up what was left, and listen.

        Raises:
            StoreInUseError: Another owner is there.
            OSError: MIXGATE_HOME cannot be used.
        """
        listener = await asyncio.to_thread(self._take_place)
        self._first_entry = await asyncio.to_thread(last_entry, self.path)
        self._store = Store.open(self.path, _as_it_is)
        for folder in (self.home / FOLDER_NAME, *await asyncio.to_thread(left_folders, self.home, [*self._living])):
            await self._take_left(folder)
        self._store.attach(self._intake)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: OwnerEnd(self), sock=listener)
        await self.shared.start()
        self._tasks = [
            asyncio.create_task(self._become_whole()),
            asyncio.create_task(tell_statuses(self.backend, self.tell_all)),
            asyncio.create_task(self._pass_on_hints()),
        ]
        if self._fleet is not None:
            self.access.on_taken = lambda record: self.tell_all(KeyChanged(record))
            self._shipper = self.access.join(self._fleet, self._store)
        await self.backend.start()

    async def aclose(self) -> None:
        """Write down what came, and end."""
        for task in self._tasks:
            task.cancel()
        if self._server is not None:
            self._server.close()
        for end in [*self.connections]:
            end.link.close()
        await self.shared.aclose()
        await self.backend.aclose()
        await asyncio.gather(*self._burying, return_exceptions=True)
        if self._shipper is not None:
            await asyncio.to_thread(self._shipper.close)
        if self._store is not None:
            await asyncio.to_thread(self._store.flush, FLUSH_WAIT_S)
            await asyncio.to_thread(self._store.close)
        self._lock.release()

    def begin(self, name: str) -> None:
        """A worker is about to be started."""
        self._living.add(name)

    def bury(self, name: str) -> None:
        """A worker is gone: what it has left in its journal counts, then nothing stays reserved for it."""
        self._living.discard(name)
        burying = asyncio.ensure_future(self._bury(name))
        self._burying.add(burying)
        burying.add_done_callback(self._burying.discard)

    def pass_on(self, told: HintTold, name: str) -> None:
        """What a worker says of an Endpoint is for the others, and for other machines."""
        self.tell_all(told, but=name)
        self.shared.hints.tell(told.hint)

    async def _pass_on_hints(self) -> None:
        """What other machines say of Endpoints is for the workers here, until cancelled."""
        said: Sequence[Hint] = ()
        while True:
            await asyncio.sleep(HINTS_EVERY_S)
            heard = self.shared.hints.heard(time.time())
            for hint in heard:
                if hint not in said:
                    self.tell_all(HintTold(hint))
            said = heard

    async def wait_alone(self) -> None:
        """Wait until no worker is left, whoever would have said so."""
        while self.ends:  # noqa: ASYNC110 (nobody else waits for this, and it is the end)
            await asyncio.sleep(ALONE_LOOK_S)
        for name in list(self._living):
            self.bury(name)

    def tell_all(self, message: Any, but: str = "") -> None:
        """Tell every worker, but one."""
        for name, end in self.ends.items():
            if name != but:
                end.link.tell(message)

    def _take_place(self) -> socket.socket:
        """Blocks."""
        path = socket_path(self.home)
        for folder in (self.home, path.parent, self.home / FOLDER_NAME):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.take()
        return open_listener(path)

    async def _take_left(self, folder: Path, worker: str = "") -> "asyncio.Event":
        """Have the rows of a journal written whose process is gone."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_rows(rows: Sequence[Row]) -> None:
            if worker:
                loop.call_soon_threadsafe(self.money.count_left, worker, rows)

        def on_done() -> None:
            self.store.wake()
            loop.call_soon_threadsafe(done.set)

        left = LeftJournal(folder, on_rows, on_done)
        if not await asyncio.to_thread(left.open):
            done.set()
            return done
        self._intake.add_left(left)
        self.store.wake()
        return done

    async def _bury(self, name: str) -> None:
        done = await self._take_left(self.home / FOLDER_NAME / name, name)
        await done.wait()
        await asyncio.sleep(0)  # behind the rows, which the store's thread told of before
        end = self.ends.pop(name, None)
        if end is not None:
            end.link.abort()
        self.money.bury(name)

    async def _become_whole(self) -> None:
        await self.money.become_whole(
            self.store,
            lambda: self._intake.clear,
            lambda: [record.id for record in self.access.ring.records()],
            self._first_entry,
        )

    def greet(self, end: "OwnerEnd", hello: Hello) -> Welcome:
        """A worker is there."""
        self.ends[hello.name] = end
        self.money.greet(hello)
        end.link.tell(statuses_of(self.backend))
        for record in self.access.ring.records():
            # As changes, which are heard in the order in which they are told.
            end.link.tell(KeyChanged(record))
        return Welcome(self.name)

    async def write(self, message: Rows) -> None:
        """Rows of the ledger."""
        await self._intake.write(Batch(message.rows, message.prices), self.store)

    async def keep_savings(self, told: CacheSaved) -> None:
        """What giving answers again has saved."""
        await asyncio.wrap_future(self.store.submit(lambda connection: write_cache_rows(connection, told.rows)))

    async def ask_all(self, message: Any, kind: Any) -> list[Any]:
        """What every worker says that answers in time."""
        asked = [asyncio.ensure_future(end.link.ask(message, kind)) for end in self.ends.values()]
        if asked:
            _, late = await asyncio.wait(asked, timeout=FIGURES_WAIT_S)
            for one in late:
                one.cancel()
        return [one.result() for one in asked if one.done() and not one.cancelled() and one.exception() is None]

    async def change_key(self, name: str, told: KeyChanged) -> None:
        """One change at a time: first the disk, then every process, then whoever asked.

        Raises:
            DeclinedError: Somebody else changed it in between.
            StoreError: It cannot be written; nothing has changed.
        """
        async with self._changing:
            ring = self.access.ring
            before = ring.get(told.record.id)
            if (None if before is None else before.updated_us) != told.before_us:
                raise DeclinedError("conflict", "somebody else changed this key at the same moment; ask again", 0.0)
            await saver(self.store)(told.record)
            ring.put(told.record)
            others = [end for other, end in self.ends.items() if other != name]
            heard = [asyncio.ensure_future(end.link.ask(told, None)) for end in others]
            if heard:
                _, deaf = await asyncio.wait(heard, timeout=KEY_WAIT_S)
                for one in deaf:
                    one.cancel()
                    _log.warning("a worker did not say in time that it knows of a changed key; it will a little later")


class OwnerEnd(asyncio.Protocol):
    """The owner's end of one connection, a worker's line or its store's."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self.name = ""
        self.link = Link(self._answer, self._lost)
        self._window = LocalWindow(owner.backend, self.link.tell)
        self._answers: Mapping[type[Any], Callable[[Any], Any]] = {
            Written: lambda _: owner.money.confirm(self.name),
            Enter: lambda asked: owner.counter.enter(self.name, asked),
            Leave: lambda told: owner.counter.leave(self.name, told),
            AllowancesAsked: owner.counter.allowances,
            HintTold: lambda told: owner.pass_on(told, self.name),
            SessionAsked: lambda asked: owner.shared.sessions.find(asked.session, asked.unix_s),
            SessionTold: lambda told: owner.shared.sessions.remember(told.session, told.endpoint_id, told.unix_s),
            AnswerAsked: lambda asked: owner.shared.answers.get(asked.tenant, asked.digest, asked.unix_s),
            AnswerTold: self._keep_answer,
            TryAsked: lambda asked: owner.shared.tries.count(asked.name, asked.now_s),
            KeyChanged: lambda told: owner.change_key(self.name, told),
            LocalAsked: self._window.ask,
            LocalDropped: lambda told: self._window.drop(told.exchange),
            CacheSaved: owner.keep_savings,
            FiguresAsked: lambda asked: owner.ask_all(asked, Figures),
            LiveAsked: lambda asked: owner.ask_all(asked, Live),
            Rows: owner.write,
            Records: self._keep_records,
            Minutes: lambda told: owner.store.write_minutes(told.rows),
            Events: self._keep_events,
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is there: of this user, or cut off."""
        self._owner.connections.add(self)
        self.link.connection_made(transport)
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as peer:
            if not is_ours(peer):
                _log.warning("another user's process tried to speak for a worker, and was cut off")
                self.link.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self.link.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Frames, or pieces of them."""
        self.link.data_received(data)

    def _answer(self, message: Any) -> Any:
        if isinstance(message, Hello):
            self.name = message.name
            return self._owner.greet(self, message)
        if isinstance(message, StoreHello):
            self.name = message.name
            return None
        if not self.name:
            raise DeclinedError("stranger", "say hello first", None)
        if isinstance(message, MONEY):
            return self._owner.money.take(self.name, message)
        return self._answers[type(message)](message)

    def _lost(self) -> None:
        """What is reserved stays so until its process is gone, and its journal counted."""
        self._window.close()
        self._owner.connections.discard(self)
        if self._owner.ends.get(self.name) is self:
            del self._owner.ends[self.name]

    def _keep_answer(self, told: AnswerTold) -> None:
        if told.data is None:
            self._owner.shared.answers.drop(told.tenant, told.digest)
        else:
            self._owner.shared.answers.put(told.tenant, told.digest, told.data, told.ttl_s, told.unix_s)

    def _keep_records(self, told: Records) -> None:
        for record in told.records:
            self._owner.store.put(record)

    def _keep_events(self, told: Events) -> None:
        for event in told.events:
            self._owner.store.write_event(event)

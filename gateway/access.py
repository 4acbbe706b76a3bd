"""Client keys in a running gateway, put together: read at start, changed through its store, spending by its ledger."""

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from gateway.config.catalogue import GatewaySettings
from gateway.config.stores import PostgresSettings
from gateway.errors import KeysUnavailableError
from gateway.keys.changes import US_PER_S
from gateway.keys.home_secret import open_home_secrets
from gateway.keys.key import KeyRecord
from gateway.keys.limits import Limiter
from gateway.keys.office import KeyOffice
from gateway.keys.purse import Past, Purse, read_past
from gateway.keys.storage import load_ring, record_of, saver, spending
from gateway.server.admin import KeyDesk
from gateway.server.auth import Authenticator
from gateway.server.key_routes import KeyRoutes
from gateway.state.connection import FILE_NAME
from gateway.state.errors import StoreError
from gateway.state.key_rows import KeyRow
from gateway.state.key_use import read_last_used
from gateway.state.ledger_reader import LedgerReader
from gateway.state.shipping import Shipper
from gateway.state.store import Store

LEDGER_WAIT_S: Final = 10.0
"""How long the start waits for the ledger to be whole, where there are issued keys."""
RECALL_EVERY_S: Final = 5.0
"""How often it is tried again to learn what was spent: later and later."""
RECALL_WAIT_MAX_S: Final = 30.0

_log = logging.getLogger("mixgate.keys")


class Access:
    """Who may call, and what each may spend. Built before the server; `open` comes before the first request.

    Args:
        home: MIXGATE_HOME.
        purse_kind: What their money is in, where others spend it too.

    Raises:
        ConfigError: Its secret cannot be used.
    """

    def __init__(self, home: Path, purse_kind: type[Purse] = Purse) -> None:
        self._path = home / FILE_NAME
        self._secrets = open_home_secrets(home)
        self._store: Store | None = None
        self.keep: Callable[[KeyRecord], Awaitable[None]] | None = None
        """How a changed key is kept, where that is not this process's store."""
        self.on_taken: Callable[[KeyRecord], None] | None = None
        """Told of keys that another gateway of the fleet has changed."""
        self.ring = load_ring(self._path, self._secrets.pepper)
        self.purse = purse_kind(self.ring.chain)
        self.purse.knows_past = not self.ring.records()
        self.limiter = Limiter(self.ring.chain)
        self.office = KeyOffice(self.ring, self._secrets.pepper, self._save, _unix_us)
        self.desk = KeyDesk(self.office, self.purse, time.time, lambda: read_last_used(self._path, time.time()))
        self.routes = KeyRoutes(self.desk)

    def secret_for(self, purpose: str) -> bytes:
        """A secret of its own for something, the same in all processes that share this one's."""
        return hmac.digest(self._secrets.pepper, purpose.encode(), "sha256")

    def authenticator(self, settings: GatewaySettings) -> Authenticator:
        """Who is let in under these settings.

        Raises:
            ConfigError: Others could reach the gateway, and nobody has a key.
        """
        if settings.postgres is not None:
            self.ring.has_keys = True  # the fleet's are on their way
        authenticator = Authenticator(
            (key.reveal() for key in settings.client_keys),
            hosts=settings.hosts,
            bind_host=settings.host,
            ring=self.ring,
            admin_token=None if settings.admin_token is None else settings.admin_token.reveal(),
            local_admin_token=self._secrets.admin_token.reveal(),
            metrics_token=None if settings.metrics_token is None else settings.metrics_token.reveal(),
        )
        if settings.viewer_token is not None:
            authenticator.let_view(settings.viewer_token.reveal())
        return authenticator

    def join(self, fleet: PostgresSettings, store: Store) -> Shipper:
        """Be one of a fleet: send it the ledger, and share keys. To be called on the loop's thread, after `open`.

        Whoever calls closes the Shipper, before the store.
        """
        loop = asyncio.get_running_loop()

        def take_over(rows: Sequence[KeyRow]) -> None:
            for row in rows:
                self.take_over(record_of(row))

        def tell(rows: Sequence[KeyRow]) -> None:
            loop.call_soon_threadsafe(take_over, rows)

        return Shipper.open(
            self._path,
            store,
            fleet.url.reveal(),
            key_mark=self._secrets.key_mark,
            on_keys=tell,
        )

    def take_over(self, record: KeyRecord) -> None:
        """Go by what another gateway of the fleet made of a key. The store has it."""
        known = self.ring.get(record.id)
        if known is None or known.deleted_us is None:
            self.ring.put(record)
            _log.info("the client key %s was changed by another gateway", record.id)
            if self.on_taken is not None:
                self.on_taken(record)

    async def open(self, store: Store) -> "asyncio.Task[None] | None":
        """Learn what was spent, once the ledger has handed the store what a crash left. To be called after that.

        Gives the task that goes on trying where the ledger cannot be read yet; the caller cancels it at the end. Keys
        with a budget are refused until then.
        """
        self._store = store
        if self.purse.knows_past or await self._recall(store):
            return None
        return asyncio.create_task(self._keep_recalling(store))

    async def _keep_recalling(self, store: Store) -> None:
        wait_s = 0.0
        while not await self._recall(store):
            wait_s = min(wait_s + RECALL_EVERY_S, RECALL_WAIT_MAX_S)
            await asyncio.sleep(wait_s)

    async def _recall(self, store: Store) -> bool:
        """Whether what was spent is known now."""
        try:
            past = await asyncio.to_thread(self._read_past, store)
        except StoreError as error:
            _log.warning("client keys with a budget have to wait, as what they spent is not known: %s", error)
            return False
        self.purse.load(past)
        return True

    def _read_past(self, store: Store) -> Past:
        """Blocks."""
        if not store.flush(LEDGER_WAIT_S):
            raise store.failure or StoreError("the ledger is not written yet")
        with LedgerReader(self._path) as reader:
            return read_past(spending(reader, [record.id for record in self.ring.records()]), time.time())

    async def _save(self, record: KeyRecord) -> None:
        if self.keep is not None:
            await self.keep(record)
            return
        if self._store is None:
            raise KeysUnavailableError("the gateway is only starting; ask again in a moment", retry_after_s=1)
        await saver(self._store)(record)


def _unix_us() -> int:
    return int(time.time() * US_PER_S)

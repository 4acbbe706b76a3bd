"""The composition root: builds every object once, joins the local backend to the rest, and owns start and stop."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from gateway.access import Access
from gateway.admission import LAG_EVERY_S, Admission
from gateway.alerts.starting import tell_on
from gateway.attempts import Limits
from gateway.cache.savings import Savings
from gateway.cache.storage import store_on, store_savings
from gateway.cache.store import OwnFirst
from gateway.config.catalogue import Catalogue, ProviderEntry
from gateway.dashboard.sources import Entrance
from gateway.dashboard.sources import Sources as Shown
from gateway.engine import Engine
from gateway.explain.trace import Packer
from gateway.fleet import Fleet
from gateway.health import Health
from gateway.health_history import Announcer, keep, keep_on, recall
from gateway.keys.purse import Purse
from gateway.ledger.books import Books
from gateway.ledger.entry import Intent
from gateway.ledger.scribe import ScribeProcess
from gateway.logs import adopt
from gateway.metrics.gauges import Sources
from gateway.payment import Till
from gateway.probes import Prober
from gateway.reuse import Reuse
from gateway.server.asgi import Application
from gateway.server.forwarded import TrustedProxies
from gateway.server.idempotency import Idempotency
from gateway.server.lifecycle import Lifecycle
from gateway.server.live import Live
from gateway.server.metrics_route import MetricsRoute
from gateway.server.places import AllPlaces
from gateway.sharing.base import StateStore
from gateway.sharing.gossip import Gossip
from gateway.sharing.memory import MemoryAnswers, MemoryStore
from gateway.sharing.opening import open_redis
from gateway.sharing.shared_purse import SharedPurse
from gateway.state.connection import FILE_NAME
from gateway.state.shipping import Shipper
from gateway.state.store import Store
from gateway.upstream import Upstream
from gateway.watching import Watching
from gateway.workers.intake import BooksAfterWorkers
from gateway.workers.post import Post
from gateway.workers.seen_purse import SeenPurse
from local_backend.backend import LocalBackend, LocalModelSpec, LocalModelStatus
from providers import DIALECTS
from providers.aiohttp_transport import AiohttpTransport
from providers.aws_signer import AwsSigner
from providers.base import Transport
from providers.http_transport import HttpTransport
from providers.litellm_transport import LitellmTransport

LOCAL_WAIT_S: Final = 30.0
"""How long a request may wait for the local worker to start or to load its model."""
LOCAL_STATUS_AGE_S: Final = 0.25
"""How old the local models' state may be when a request is routed."""

Announce = Callable[[Catalogue, str, int], None]
_log = logging.getLogger("mixgate")


class Gateway:
    """A running gateway's parts."""

    def __init__(
        self,
        catalogue: Catalogue,
        home: Path,
        limits: Limits | None = None,
        *,
        post: Post[LocalModelStatus] | None = None,
    ) -> None:
        self._http = HttpTransport()
        self._litellm = LitellmTransport()  # starts nothing until it is used
        self._proxied: dict[str, AiohttpTransport] = {}
        self._home = home
        self._store: Store | None = None
        self._shipper: Shipper | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._signers: dict[tuple[str, str | None, str | None], AwsSigner] = {}
        self._post = post
        self._local = LocalBackend(local_models(catalogue), home=home) if post is None else post.models
        self._fleet = Fleet(catalogue, self._upstreams(catalogue), {})
        self.lifecycle = Lifecycle()
        self._announcer = Announcer(time.time)
        self.health = Health(random.random, self._announcer)
        self._watch_over(catalogue)
        self.engine = Engine(self.health, unix_time_s=time.time, draw=random.random, limits=limits)
        redis = catalogue.gateway.redis if post is None else None
        self.access = Access(home, SeenPurse if post is not None else Purse if redis is None else SharedPurse)
        authenticator = self.access.authenticator(catalogue.gateway)
        self.live = Live(authenticator, self._look_at_fleet, LOCAL_STATUS_AGE_S, self._local_status)
        self.live.proxies = _proxies(catalogue)
        self.admission = Admission(catalogue.gateway.in_flight_max, catalogue.gateway.in_flight_per_key_max)
        self.store: StateStore
        if post is not None:
            self.store = post.join(self.access)
        elif redis is not None and isinstance(self.access.purse, SharedPurse):
            self.store = open_redis(redis, home, self.access.ring, self.access.purse, self.access.limiter)
        else:
            self.store = MemoryStore(self.access.ring.chain, self.access.purse, self.access.limiter)
        self.engine.till = Till(self.access.ring, self.store.budgets)
        self.places = AllPlaces(self.access.routes)
        self.savings = Savings()
        self.application = Application(
            self.live,
            self.lifecycle,
            self.engine,
            self.admission,
            self.places,
            self.store.rates,
            Reuse(self.engine, self.store.answers, self.savings),
            # On a shelf of their own: what many keep must not push out what one has to find again.
            Idempotency(
                OwnFirst(MemoryAnswers(), None if self.store.status().kind == "memory" else self.store.answers)
            ),
        )
        self.watching = Watching(self._sources())
        if post is not None:
            self.watching.share(post)
            post.show_live(lambda: self.admission.in_flight, self._on_their_way)
        self.places.add(MetricsRoute(self.watching.read))
        self.dashboard = self.application.dashboard = Entrance(self._shown())

    async def start(self) -> None:
        """Start what must run before the first request. Loading a model goes on behind it."""
        path = self._home / FILE_NAME
        recall(self.health, path, unix_s=time.time(), now_s=asyncio.get_running_loop().time())
        store, books = await asyncio.to_thread(self._open, path)
        self._store = self._announcer.store = self.engine.sink = store
        self.engine.books = books
        await self.watching.begin(self.engine, store, books, self._fleet.catalogue.gateway)
        self._tasks = [
            asyncio.create_task(keep_on(self.health, store, time.time)),
            asyncio.create_task(_watch_lag(self.admission)),
            asyncio.create_task(self._store_savings_on(store)),
            asyncio.create_task(Prober(self.health, self._fleet_now, self._local.models, random.random).run()),
        ]
        if self.store.status().kind != "memory":
            self.engine.learned.sessions = self.store.sessions
            gossip = Gossip(self.health, self.store.hints, self._shared_endpoints, time.time)
            self._tasks.append(asyncio.create_task(gossip.run()))
        if self._post is not None:
            await self._post.connect()
            return
        recalling = await self.access.open(store)
        self._tasks += [] if recalling is None else [recalling]
        await self.store.start()
        if (fleet := self._fleet.catalogue.gateway.postgres) is not None:
            self._shipper = self.access.join(fleet, store)
        self._tasks.append(asyncio.create_task(tell_on(self._home, lambda: self._fleet.catalogue, self._http)))
        await self._local.start()

    def _open(self, path: Path) -> tuple[Store, Books]:
        """Store and books. Blocks for a moment."""
        packer = Packer()
        if self._post is not None:
            return self._post.open_store(path, packer), self._post.open_books()
        store = Store.open(path, packer, at_once=packer, scribe=ScribeProcess(self._home))
        return store, BooksAfterWorkers.open(self._home, store)

    async def aclose(self) -> None:
        """Stop the worker and drop every connection."""
        for task in self._tasks:
            task.cancel()
        await self._local.aclose()
        if self._post is None:
            await self.store.aclose()
        await self.dashboard.aclose()
        transports: list[Transport] = [self._http, self._litellm, *self._proxied.values()]
        for transport in transports:
            await transport.aclose()
        await self.watching.end()
        if self._shipper is not None:
            await asyncio.to_thread(self._shipper.close)
        if self._store is not None:
            await (store_savings(self.savings, self._store) if self._post is None else self._post.store(self.savings))
            keep(self.health, self._store, time.time())
            await asyncio.to_thread(self._store.close)
        if self.engine.books is not None:
            await asyncio.to_thread(self.engine.books.close)
        if self._post is not None:
            self._post.disconnect()

    async def _store_savings_on(self, store: Store) -> None:
        await (store_on(self.savings, store) if self._post is None else self._post.store_on(self.savings))

    def _shared_endpoints(self) -> list[str]:
        """Those that are not on this machine alone."""
        return [one.id for one in self._fleet.catalogue.endpoints.values() if not one.local]

    def replace(self, catalogue: Catalogue) -> None:
        """Swap a new configuration in. Requests on their way finish on the old one."""
        old = self._fleet.catalogue
        self.live.authenticator = self.access.authenticator(catalogue.gateway)
        self.live.proxies = _proxies(catalogue)
        adopt(catalogue.gateway.log)
        self._fleet = Fleet(catalogue, self._upstreams(catalogue), self._fleet.off)
        self._watch_over(catalogue)
        self.admission.in_flight_max = catalogue.gateway.in_flight_max
        self.admission.in_flight_per_key_max = catalogue.gateway.in_flight_per_key_max
        self.live.look_again()
        if catalogue.local_models != old.local_models:
            _log.warning("the local models changed: that takes effect with the next start")
        for setting in ("host", "port", "tls", "telemetry", "redis", "workers"):
            if getattr(catalogue.gateway, setting) != getattr(old.gateway, setting):
                _log.warning("gateway.%s changed: that takes effect with the next start", setting)
        _log.info("%s was read anew", catalogue.path)

    def _sources(self) -> Sources:
        return Sources(
            health=self.health,
            fleet=self._fleet_now,
            admission=self.admission,
            refusals=self.application.refusals,
            local_models=self._local.models,
            issued=self.access.ring.records,
            purse=self.access.purse,
            store=lambda: self._store,
            books=lambda: self.engine.books,
            shipping=lambda: None if self._shipper is None else self._shipper.shipping,
            telemetry_dropped=lambda: self.watching.telemetry_dropped,
            now_s=time.monotonic,
            unix_s=time.time,
        )

    def _shown(self) -> Shown:
        return Shown(
            path=self._home / FILE_NAME,
            door=lambda: self.live.authenticator,
            fleet=self._fleet_now,
            health=self.health,
            live=self._live,
            key_records=self.access.ring.records,
            spending=self.store.budgets,
            unix_s=time.time,
            monotonic_s=time.monotonic,
            shelf=None if self.store.status().kind == "memory" else self.store.answers,
            seal=self.access.secret_for("mixgate: sessions of the dashboard, 1"),
            tries=self.store.tries,
        )

    def _on_their_way(self) -> list[tuple[Intent, int]]:
        return [] if self.engine.books is None else self.engine.books.on_their_way()

    async def _live(self) -> tuple[int, Sequence[tuple[Intent, int]]]:
        if self._post is not None:
            return await self._post.live()
        return self.admission.in_flight, self._on_their_way()

    def _upstreams(self, catalogue: Catalogue) -> dict[str, Upstream]:
        return {
            endpoint.id: self._upstream(catalogue.providers[endpoint.provider])
            for endpoint in catalogue.endpoints.values()
        }

    def _watch_over(self, catalogue: Catalogue) -> None:
        """Tell health which Endpoints there are, and which stand in for one another."""
        self.health.keep(catalogue.endpoints)
        self.health.set_routes({name: route.endpoints for name, route in catalogue.routes.items()})

    def _upstream(self, provider: ProviderEntry) -> Upstream:
        dialect = DIALECTS[provider.dialect]
        if provider.aws:
            return Upstream(dialect, self._transport(provider), {}, signer=self._signer(provider))
        headers: Mapping[str, str] = {} if provider.api_key is None else dialect.authorize(provider.api_key.reveal())
        if provider.local:
            return Upstream(dialect, self._local, headers, connect_timeout_s=LOCAL_WAIT_S)
        return Upstream(dialect, self._transport(provider), headers)

    def _signer(self, provider: ProviderEntry) -> AwsSigner:
        """One for each account, over reloads too: it holds credentials that took a while to find."""
        bearer_key = None if provider.api_key is None else provider.api_key.reveal()
        account = (provider.region or "", provider.profile, bearer_key)
        if account not in self._signers:
            self._signers[account] = AwsSigner(account[0], profile=account[1], bearer_key=account[2])
        return self._signers[account]

    def _transport(self, provider: ProviderEntry) -> Transport:
        if provider.transport == "http":
            return self._http
        if provider.transport == "litellm":
            return self._litellm
        proxy = "" if provider.proxy is None else provider.proxy.reveal()
        if proxy not in self._proxied:
            self._proxied[proxy] = AiohttpTransport(proxy or None)
        return self._proxied[proxy]

    def _fleet_now(self) -> Fleet:
        return self.live.fleet()

    def _look_at_fleet(self) -> Fleet:
        fleet = self._fleet
        statuses = {status.name: status for status in self._local.models()}
        off = off_endpoints(
            fleet.catalogue, {name: status.reason for name, status in statuses.items() if not status.can_serve}
        )
        note_load(self.health, fleet.catalogue, statuses)
        catalogue = fit_slots(fleet.catalogue, statuses)
        # The same object means the same facts, to whoever keeps what follows from them.
        if off != fleet.off or catalogue is not fleet.catalogue:
            self._fleet = Fleet(catalogue, fleet.upstreams, off)
        return self._fleet

    def _local_status(self) -> dict[str, str]:
        """For anyone to read, so without the reasons that name files."""
        return {
            status.name: f"crashed: {status.reason}" if status.state == "crashed" else status.state
            for status in self._local.models()
        }


def _proxies(catalogue: Catalogue) -> TrustedProxies | None:
    networks = catalogue.gateway.trusted_proxies
    return TrustedProxies(networks) if networks else None


async def _watch_lag(admission: Admission) -> None:
    """Measure how late the event loop comes to its timers, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + LAG_EVERY_S
        await asyncio.sleep(LAG_EVERY_S)
        admission.note_lag(loop.time() - due_s)


def off_endpoints(catalogue: Catalogue, local_off: Mapping[str, str]) -> dict[str, str]:
    """Endpoints that cannot answer now, by id, and why: their provider is off, or their local model is."""
    off: dict[str, str] = {}
    for endpoint in catalogue.endpoints.values():
        provider = catalogue.providers[endpoint.provider]
        if not provider.on:
            fix = f"; {provider.fix}" if provider.fix else ""
            off[endpoint.id] = f"{provider.off_reason}{fix}"
        elif endpoint.local and endpoint.upstream_model in local_off:
            off[endpoint.id] = local_off[endpoint.upstream_model]
    return off


def fit_slots(catalogue: Catalogue, statuses: Mapping[str, LocalModelStatus]) -> Catalogue:
    """The catalogue with the context that each local model's slots really have: a file may bear less than configured.

    The same object where nothing is to be changed.
    """
    smaller = {
        endpoint.id: replace(endpoint, context_tokens=status.context_tokens)
        for endpoint in catalogue.endpoints.values()
        if endpoint.local
        and (status := statuses.get(endpoint.upstream_model)) is not None
        and endpoint.context_tokens is not None
        and status.context_tokens < endpoint.context_tokens
    }
    return replace(catalogue, endpoints={**catalogue.endpoints, **smaller}) if smaller else catalogue


def note_load(health: Health, catalogue: Catalogue, statuses: Mapping[str, LocalModelStatus]) -> None:
    """Tell health how full each local model is, how much fits, and how long it takes to load where it is not loaded."""
    for endpoint in catalogue.endpoints.values():
        status = statuses.get(endpoint.upstream_model) if endpoint.local else None
        if status is not None:
            known = health.of(endpoint.id)
            # What was sent by way of this Endpoint is counted there already.
            unknown = max(0, status.running + status.waiting - known.in_flight)
            known.note_capacity(unknown, status.slots + status.queue, status.start_s)


def local_models(catalogue: Catalogue) -> tuple[LocalModelSpec, ...]:
    """What the local backend is to run."""
    return tuple(
        LocalModelSpec(
            name=model.name,
            file=model.file,
            slots=model.slots,
            context_tokens=model.context_tokens,
            threads=model.threads,
            load=model.load,
        )
        for model in catalogue.local_models
    )

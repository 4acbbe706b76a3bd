"""What others count anyway, read when somebody asks: nothing here costs a request anything."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Protocol, get_args

from msgspec import Struct

from gateway.admission import Admission
from gateway.fleet import Fleet
from gateway.health import Health
from gateway.keys.key import WINDOWS, KeyRecord
from gateway.keys.purse import Purse
from gateway.ledger.books import Books
from gateway.metrics.families import (
    BUILD,
    ENDPOINT_IN_FLIGHT,
    ENDPOINT_STANDING,
    ENDPOINT_UPTIME,
    FLEET_REACHABLE,
    FLEET_REFUSED,
    FLEET_SENT,
    FLEET_WAITING,
    KEY_BUDGET,
    KEY_BUDGET_LEFT,
    LEASES_EXPIRED,
    LEDGER_AVAILABLE,
    LEDGER_BEHIND,
    LEDGER_IN_FLIGHT,
    LEDGER_REPEATED,
    LEDGER_UNJOURNALED,
    LOCAL_RUNNING,
    LOCAL_SLOTS,
    LOCAL_WAITING,
    NANO_PER_USD,
    OTHER,
    OVERDRAWN,
    RECORDS_DROPPED,
    REFUSALS,
    REQUESTS_IN_FLIGHT,
    REQUESTS_IN_FLIGHT_MAX,
    REQUESTS_SHED,
    STORE_WRITABLE,
    TELEMETRY_DROPPED,
    Family,
    Sample,
)
from gateway.observation import Standing
from gateway.state.shipping import Shipping
from gateway.state.store import Store

BUDGETS_MAX: Final = 500
"""Client keys whose budgets are shown; those with the least left come first."""
REFUSAL_CODES_MAX: Final = 64
ENDPOINTS_MAX: Final = 2048
"""Configured Endpoints that are shown."""
OFF: Final = "off"
STANDINGS: Final = (*get_args(Standing), OFF)


class LocalModel(Protocol):
    """A local model's state."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def slots(self) -> int:
        """How many it answers at the same time."""
        ...

    @property
    def running(self) -> int:
        """Requests that have a slot."""
        ...

    @property
    def waiting(self) -> int:
        """Requests that wait for one."""
        ...


class Sources(Struct, frozen=True, kw_only=True):
    """Whom to ask."""

    health: Health
    fleet: Callable[[], Fleet]
    admission: Admission
    refusals: Mapping[str, int]
    """Answers with an error before anybody was asked, by code."""
    local_models: Callable[[], Iterable[LocalModel]]
    issued: Callable[[], Iterable[KeyRecord]]
    """All client keys that were issued here."""
    purse: Purse
    store: Callable[[], Store | None]
    books: Callable[[], Books | None]
    shipping: Callable[[], Shipping | None]
    """How far the fleet's Postgres has the ledger."""
    telemetry_dropped: Callable[[], int]
    now_s: Callable[[], float]
    """The monotonic clock."""
    unix_s: Callable[[], float]


def read_gauges(sources: Sources) -> Iterator[tuple[Family, Sample]]:
    """All of it now."""
    yield BUILD, ((_version(), platform.python_version()), 1)
    yield REQUESTS_IN_FLIGHT, ((), sources.admission.in_flight)
    yield REQUESTS_IN_FLIGHT_MAX, ((), sources.admission.in_flight_max)
    yield REQUESTS_SHED, ((), sources.admission.refused)
    for code, count in _first(sources.refusals, REFUSAL_CODES_MAX).items():
        yield REFUSALS, ((code,), count)
    yield from _endpoints(sources)
    for model in sources.local_models():
        yield LOCAL_RUNNING, ((model.name,), model.running)
        yield LOCAL_WAITING, ((model.name,), model.waiting)
        yield LOCAL_SLOTS, ((model.name,), model.slots)
    yield from _money(sources)
    yield from _written(sources)


def _endpoints(sources: Sources) -> Iterator[tuple[Family, Sample]]:
    fleet, now_s = sources.fleet(), sources.now_s()
    for name in (*fleet.catalogue.endpoints,)[:ENDPOINTS_MAX]:
        seen = sources.health.observe(name, now_s)
        standing = OFF if name in fleet.off else seen.standing
        for one in STANDINGS:
            yield ENDPOINT_STANDING, ((name, one), int(one == standing))
        yield ENDPOINT_IN_FLIGHT, ((name,), seen.in_flight)
        if seen.uptime is not None:
            yield ENDPOINT_UPTIME, ((name,), seen.uptime)


def _money(sources: Sources) -> Iterator[tuple[Family, Sample]]:
    purse, unix_s = sources.purse, sources.unix_s()
    yield LEASES_EXPIRED, ((), purse.expired)
    yield OVERDRAWN, ((), purse.overdrawn_in_nusd / NANO_PER_USD)
    if not purse.knows_past:
        return
    found: list[tuple[int, int, str, str]] = []
    for record in sources.issued():
        budgets = [(window, record.limits.budget(window)) for window in WINDOWS]
        if record.deleted_us is not None or all(budget is None for _, budget in budgets):
            continue
        spent = purse.usage(record.id, unix_s)
        by_window = (spent.day_in_nusd, spent.week_in_nusd, spent.month_in_nusd, spent.ever_in_nusd)
        for (span, budget), amount in zip(budgets, by_window, strict=True):
            if budget is not None:
                found.append((max(0, budget - amount - spent.reserved_in_nusd), budget, record.id, span))
    for left, budget, key_id, window in sorted(found)[:BUDGETS_MAX]:
        yield KEY_BUDGET, ((key_id, window), budget / NANO_PER_USD)
        yield KEY_BUDGET_LEFT, ((key_id, window), left / NANO_PER_USD)


def _written(sources: Sources) -> Iterator[tuple[Family, Sample]]:
    books, store, shipping = sources.books(), sources.store(), sources.shipping()
    yield TELEMETRY_DROPPED, ((), sources.telemetry_dropped())
    if store is not None:
        yield STORE_WRITABLE, ((), int(store.failure is None))
        yield RECORDS_DROPPED, ((), store.dropped)
    if shipping is not None:
        yield FLEET_SENT, ((), shipping.sent)
        yield FLEET_REFUSED, ((), shipping.refused)
        yield FLEET_REACHABLE, ((), int(shipping.failure is None))
        if shipping.waiting is not None:
            yield FLEET_WAITING, ((), shipping.waiting)
    if books is not None:
        yield LEDGER_IN_FLIGHT, ((), books.in_flight)
        yield LEDGER_BEHIND, ((), int(books.behind))
        yield LEDGER_AVAILABLE, ((), int(books.available))
        yield LEDGER_UNJOURNALED, ((), books.unjournaled)
        yield LEDGER_REPEATED, ((), books.repeated)


def _first(counts: Mapping[str, int], count_max: int) -> dict[str, int]:
    """At most so many, and the rest together."""
    kept = dict([*counts.items()][:count_max])
    rest = sum(counts.values()) - sum(kept.values())
    return kept | {OTHER: rest} if rest else kept


@cache
def _version() -> str:
    try:
        return version("mixgate")
    except PackageNotFoundError:
        return "unknown"

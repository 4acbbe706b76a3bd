"""What only the gateway itself knows: what is on its way, how Endpoints stand, what they charge, what is left."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.dashboard.answers import Table
from gateway.dashboard.endpoints import OFF, PACE_MINUTES, standing_of
from gateway.dashboard.jobs import Seen
from gateway.dashboard.money import usd
from gateway.dashboard.prices import PER_TOKEN, PER_UNIT, condition, price_members
from gateway.dashboard.query import US_PER_S, iso
from gateway.dashboard.sources import Spending, Used
from gateway.fleet import Fleet
from gateway.health import Health
from gateway.keys.budget import span_end
from gateway.keys.key import WINDOWS, KeyRecord, Window
from gateway.ledger.entry import Intent

LIVE_MAX: Final = 500
"""Attempts on their way that are listed, the oldest."""
BUDGETS_MAX: Final = 1000
"""Budgets that are listed, those with least left."""
STANDINGS: Final = ("healthy", "degraded", "probing", "parked", "open", "disabled", OFF)
LIVE_COLUMNS: Final = (
    *("id", "attempt", "since", "key", "label", "route", "model", "endpoint", "provider", "app", "stream"),
    *("prompt_tokens", "output_tokens"),
)
BUDGET_COLUMNS: Final = ("key", "label", "window", "budget_usd", "spent_usd", "reserved_usd", "left_usd", "resets_at")
PRICE_COLUMNS: Final = (
    *("endpoint", "model", "provider", "state"),
    *(f"{name}_usd_per_mtok" for name in PER_TOKEN),
    *(f"{name}_usd" for name in PER_UNIT),
    *("context_tokens", "condition"),
)


def look(fleet: Fleet, health: Health, now_s: float) -> tuple[Seen, ...]:
    """How all Endpoints are doing. On the event loop, which health belongs to."""
    return tuple(
        Seen(
            endpoint.id,
            endpoint.model,
            endpoint.provider,
            endpoint.context_tokens,
            endpoint.state,
            "retired" if endpoint.state == "retired" else fleet.off.get(endpoint.id),
            health.observe(endpoint.id, now_s),
            health.of(endpoint.id).pace.throughput(now_s, PACE_MINUTES),
        )
        for endpoint in fleet.catalogue.endpoints.values()
    )


def standings(seen: Iterable[Seen]) -> dict[str, int]:
    """How many Endpoints stand how."""
    counts: dict[str, int] = dict.fromkeys(STANDINGS, 0)
    for one in seen:
        counts[standing_of(one)] += 1
    return counts


def live_table(on_their_way: Iterable[tuple[Intent, int]], labels: Mapping[str, str], in_flight: int) -> Table:
    """`GET live`: Attempts that are begun and not settled, oldest first."""
    oldest = sorted(on_their_way, key=lambda pair: pair[0].unix_us)[:LIVE_MAX]
    rows: list[dict[str, Any]] = []
    for intent, output_tokens in oldest:
        name, _, number = intent.attempt_id.rpartition("/")
        rows.append(
            {
                "id": name,
                "attempt": int(number) if number.isdigit() else None,
                "since": iso(intent.unix_us),
                "key": intent.key_id,
                "label": labels.get(intent.key_id),
                "route": intent.route,
                "model": intent.model,
                "endpoint": intent.endpoint,
                "provider": intent.provider,
                "app": intent.app,
                "stream": intent.stream,
                "prompt_tokens": intent.prompt_tokens,
                "output_tokens": output_tokens,
            }
        )
    return Table(LIVE_COLUMNS, rows, {"in_flight": in_flight})


async def budgets_table(records: Iterable[KeyRecord], spending: Spending, unix_s: float) -> Table:
    """`GET budgets`: every budget of every key that is in use, the one with least left first."""
    bounded = {
        record.id: record
        for record in records
        if record.deleted_us is None
        and not record.disabled
        and any(record.limits.budget(window) is not None for window in WINDOWS)
    }
    used: Mapping[str, Used] = await spending.usage([*bounded], unix_s) if bounded else {}
    found: list[tuple[int, dict[str, Any]]] = []
    for name in used.keys() & bounded.keys():
        record, spent = bounded[name], used[name]
        for window in WINDOWS:
            budget = record.limits.budget(window)
            if budget is not None:
                left = budget - _spent(spent, window)
                found.append((left, _budget(record, window, budget, spent, unix_s)))
    found.sort(key=lambda one: (one[0], one[1]["key"], one[1]["window"]))
    return Table(BUDGET_COLUMNS, [row for _, row in found[:BUDGETS_MAX]])


def prices_table(fleet: Fleet) -> Table:
    """`GET prices`: what each Endpoint charges, and under which conditions something else."""
    rows: list[dict[str, Any]] = []
    for endpoint in fleet.catalogue.endpoints.values():
        facts = {
            "endpoint": endpoint.id,
            "model": endpoint.model,
            "provider": endpoint.provider,
            "state": endpoint.state,
            "context_tokens": endpoint.context_tokens,
        }
        rows.append({**facts, **price_members(endpoint.price), "condition": None})
        rows += [
            {**facts, **price_members(one.price), "condition": condition(one)}
            for one in fleet.catalogue.price_overrides.get(endpoint.id, ())
        ]
    return Table(PRICE_COLUMNS, rows)


def _budget(record: KeyRecord, window: Window, budget: int, used: Used, unix_s: float) -> dict[str, Any]:
    spent, ends_unix_s = _spent(used, window), span_end(window, unix_s)
    return {
        "key": record.id,
        "label": record.name,
        "window": window,
        "budget_usd": usd(budget),
        "spent_usd": usd(spent),
        "reserved_usd": usd(used.reserved_in_nusd),
        "left_usd": usd(max(0, budget - spent)),
        "resets_at": None if ends_unix_s is None else iso(int(ends_unix_s) * US_PER_S),
    }


def _spent(used: Used, window: Window) -> int:
    spent: int = getattr(used, f"{window}_in_nusd")
    return spent

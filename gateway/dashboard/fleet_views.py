"""What is on its way now, how the Endpoints are doing, what they charge, and what keys may still spend."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from gateway.dashboard.answers import Table
from gateway.dashboard.money import usd, usd_of_pico, usd_per_mtok
from gateway.dashboard.query import US_PER_S, Query, iso
from gateway.dashboard.sources import Spending, Used
from gateway.errors import InvalidRequestError
from gateway.fleet import Fleet
from gateway.health import Health
from gateway.health.histogram import TTFT_FLOOR_S, quantiles
from gateway.keys.budget import span_end
from gateway.keys.key import WINDOWS, KeyRecord, Window
from gateway.ledger.entry import Intent
from gateway.observation import Observation, Quantiles, Standing
from gateway.state.figures_reader import MINUTES_PER_DAY, EndpointSpan, FiguresReader
from gateway.state.writer import EndpointEvent
from providers.base import Endpoint, Price
from providers.pricing import PriceOverride

LIVE_MAX: Final = 500
"""Attempts on their way that are listed, the oldest."""
BUDGETS_MAX: Final = 1000
"""Budgets that are listed, those with least left."""
EVENTS_MAX: Final = 1000
DAYS_MAX: Final = 366
MINUTES_MAX: Final = 31 * MINUTES_PER_DAY
"""How far back minutes are asked for."""
PACE_MINUTES: Final = 30
"""Over how long speeds are measured."""
PERCENT: Final = 100
SHARES: Final = (0.5, 0.75, 0.9, 0.99)
UPTIME_WINDOWS: Final = {
    "uptime_5m": 5,
    "uptime_30m": 30,
    "uptime_1d": MINUTES_PER_DAY,
    "uptime_30d": 30 * MINUTES_PER_DAY,
}
"""In minutes."""
STANDINGS: Final = ("healthy", "degraded", "probing", "parked", "open", "disabled", "off")
_RESTING: Final[frozenset[Standing]] = frozenset({"parked", "open", "disabled"})
_TTFT: Final = ("ttft_p50_s", "ttft_p75_s", "ttft_p90_s", "ttft_p99_s")
_PACE: Final = ("tokens_per_s_p50", "tokens_per_s_p75", "tokens_per_s_p90", "tokens_per_s_p99")
ENDPOINT_COLUMNS: Final = (
    *("endpoint", "model", "provider", "standing", "why", "since", "back_in_s", "in_flight"),
    *UPTIME_WINDOWS,
    *_TTFT,
    *_PACE,
    *("attempts_1d", "failed_1d", "rate_limited_1d", "context_tokens", "state"),
)
LIVE_COLUMNS: Final = (
    *("id", "attempt", "since", "key", "label", "route", "model", "endpoint", "provider", "app", "stream"),
    *("prompt_tokens", "output_tokens"),
)
BUDGET_COLUMNS: Final = ("key", "label", "window", "budget_usd", "spent_usd", "reserved_usd", "left_usd", "resets_at")
_PER_TOKEN: Final = ("input", "output", "cache_read", "cache_write")
_PER_UNIT: Final = ("request", "image")
PRICE_COLUMNS: Final = (
    *("endpoint", "model", "provider", "state"),
    *(f"{name}_usd_per_mtok" for name in _PER_TOKEN),
    *(f"{name}_usd" for name in _PER_UNIT),
    *("context_tokens", "condition"),
)


class Seen(Struct, frozen=True):
    """One Endpoint, as the event loop knows it."""

    endpoint: Endpoint
    off: str | None
    observation: Observation
    pace: Quantiles | None


def look(fleet: Fleet, health: Health, now_s: float) -> tuple[Seen, ...]:
    """How all Endpoints are doing. On the event loop, which health belongs to."""
    return tuple(
        Seen(
            endpoint,
            "retired" if endpoint.state == "retired" else fleet.off.get(endpoint.id),
            health.observe(endpoint.id, now_s),
            health.of(endpoint.id).pace.throughput(now_s, PACE_MINUTES),
        )
        for endpoint in fleet.catalogue.endpoints.values()
    )


def standings(seen: Iterable[Seen]) -> dict[str, int]:
    """How many Endpoints stand how."""
    counts = dict.fromkeys(STANDINGS, 0)
    for one in seen:
        counts[_standing(one)] += 1
    return counts


def endpoints_table(reader: FiguresReader, query: Query, seen: Sequence[Seen], now_s: float, unix_s: float) -> Table:
    """`GET endpoints`."""
    query.expect(("format",))
    end = int(unix_s // 60) + 1
    windows = {
        name: _by_endpoint(reader.endpoint_spans(end - minutes, end, 0)) for name, minutes in UPTIME_WINDOWS.items()
    }
    histograms = reader.histograms(end - MINUTES_PER_DAY, end, 0)
    events = reader.last_events()
    rows: list[dict[str, Any]] = []
    for one in seen:
        name = one.endpoint.id
        shares = {window: _percent(spans.get(name)) for window, spans in windows.items()}
        day = windows["uptime_1d"].get(name) or EndpointSpan(name, 0, 0, 0, 0)
        rows.append(
            {
                **_standing_members(one, events.get(name), now_s),
                **shares,
                **_quantiles(_TTFT, quantiles(histograms.get((name, 0), ()), SHARES, TTFT_FLOOR_S)),
                **_quantiles(_PACE, _figures(one.pace)),
                "attempts_1d": day.ok + day.failed + day.rate_limited,
                "failed_1d": day.failed,
                "rate_limited_1d": day.rate_limited,
                "context_tokens": one.endpoint.context_tokens,
                "state": one.endpoint.state,
            }
        )
    return Table(ENDPOINT_COLUMNS, rows, {"now": iso(int(unix_s) * US_PER_S), "pace_minutes": PACE_MINUTES})


def days_table(reader: FiguresReader, query: Query, unix_s: float) -> Table:
    """`GET endpoints/days`: the bars."""
    query.expect(("endpoint", "days", "format"))
    days = query.number("days", 1, DAYS_MAX, 30)
    end = int(unix_s // 60) // MINUTES_PER_DAY + 1
    found = reader.endpoint_spans(
        (end - days) * MINUTES_PER_DAY, end * MINUTES_PER_DAY, MINUTES_PER_DAY, endpoint=query.text("endpoint")
    )
    rows = [
        {
            "endpoint": one.endpoint,
            "day": iso(one.span * MINUTES_PER_DAY * 60 * US_PER_S)[:10],
            "ok": one.ok,
            "failed": one.failed,
            "rate_limited": one.rate_limited,
            "uptime": _percent(one),
        }
        for one in found
    ]
    return Table(("endpoint", "day", "ok", "failed", "rate_limited", "uptime"), rows, {"days": days})


def minutes_table(reader: FiguresReader, query: Query) -> Table:
    """`GET endpoints/minutes`: one Endpoint, minute by minute; by the hour where that would be too many."""
    query.expect(("endpoint", "since", "until", "format"))
    endpoint = query.text("endpoint")
    if endpoint is None:
        raise InvalidRequestError("say which endpoint", param="endpoint")
    since, until = query.span("1h")
    first, end = since // (60 * US_PER_S), -(-until // (60 * US_PER_S))
    if end - first > MINUTES_MAX:
        raise InvalidRequestError("that is more than 31 days", param="since")
    width = 1 if end - first <= MINUTES_PER_DAY else 60
    histograms = reader.histograms(first, end, width, endpoint=endpoint)
    columns = ("time", "ok", "failed", "rate_limited", "ttft_p50_s", "ttft_p90_s")
    rows: list[dict[str, Any]] = []
    for one in reader.endpoint_spans(first, end, width, endpoint=endpoint):
        found = quantiles(histograms.get((endpoint, one.span), ()), (0.5, 0.9), TTFT_FLOOR_S)
        counts = {"ok": one.ok, "failed": one.failed, "rate_limited": one.rate_limited}
        rows.append({"time": iso(one.span * width * 60 * US_PER_S), **counts, **_quantiles(columns[-2:], found)})
    return Table(columns, rows, {"step_minutes": width})


def events_table(reader: FiguresReader, query: Query) -> Table:
    """`GET events`: changes of standing, newest first."""
    query.expect(("endpoint", "since", "count", "format"))
    since_us, count = query.time_us("since", "7d") or 0, query.number("count", 1, EVENTS_MAX, 200)
    found = reader.newest_events(query.text("endpoint"), since_us / US_PER_S, count)
    rows = [
        {
            "time": iso(round(one.unix_s * 1000) * 1000),
            "endpoint": one.endpoint_id,
            "standing": one.standing,
            "cause": one.cause,
        }
        for one in found
    ]
    return Table(("time", "endpoint", "standing", "cause"), rows)


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


def budgets_table(records: Iterable[KeyRecord], spending: Spending, unix_s: float) -> Table:
    """`GET budgets`: every budget of every key that is in use, the one with least left first."""
    found: list[tuple[int, dict[str, Any]]] = []
    for record in records:
        if record.deleted_us is not None or record.disabled:
            continue
        windows = [(window, budget) for window in WINDOWS if (budget := record.limits.budget(window)) is not None]
        used = spending.usage(record.id, unix_s) if windows else None
        for window, budget in windows:
            if used is not None:
                left = budget - _spent(used, window)
                found.append((left, _budget(record, window, budget, used, unix_s)))
    found.sort(key=lambda one: one[0])
    return Table(BUDGET_COLUMNS, [row for _, row in found[:BUDGETS_MAX]])


def prices_table(fleet: Fleet, query: Query) -> Table:
    """`GET prices`: what each Endpoint charges, and under which conditions something else."""
    query.expect(("format",))
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


def price_members(price: Price | None) -> dict[str, str | None]:
    """Prices as text; None: nobody knows."""
    known = price or Price()
    per_token = {f"{name}_usd_per_mtok": usd_per_mtok(getattr(known, f"{name}_in_pusd")) for name in _PER_TOKEN}
    return per_token | {f"{name}_usd": usd_of_pico(getattr(known, f"{name}_in_pusd")) for name in _PER_UNIT}


def condition(override: PriceOverride) -> str:
    """When other prices hold, in words."""
    parts: list[str] = []
    if override.min_prompt_tokens is not None:
        parts.append(f"prompts of {override.min_prompt_tokens:,} tokens and more")
    if override.utc_start is not None and override.utc_end is not None:
        parts.append(f"from {override.utc_start} to {override.utc_end} UTC")
    if override.from_day is not None:
        parts.append(f"from {override.from_day} on")
    if override.until_day is not None:
        parts.append(f"until {override.until_day}")
    return ", ".join(parts) or "always"


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


def _standing(one: Seen) -> str:
    return one.observation.standing if one.off is None else "off"


def _standing_members(one: Seen, event: EndpointEvent | None, now_s: float) -> dict[str, Any]:
    seen, standing = one.observation, _standing(one)
    known = event if event is not None and event.standing == standing else None
    why = one.off if one.off is not None else (known.cause if known is not None and standing != "healthy" else None)
    rests = one.off is None and seen.standing in _RESTING and seen.until_s > now_s
    return {
        "endpoint": one.endpoint.id,
        "model": one.endpoint.model,
        "provider": one.endpoint.provider,
        "standing": standing,
        "why": why,
        "since": None if known is None else iso(round(known.unix_s * 1000) * 1000),
        "back_in_s": round(seen.until_s - now_s, 1) if rests else None,
        "in_flight": seen.in_flight,
    }


def _by_endpoint(spans: Iterable[EndpointSpan]) -> dict[str, EndpointSpan]:
    return {one.endpoint: one for one in spans}


def _percent(span: EndpointSpan | None) -> float | None:
    share = None if span is None else span.uptime
    return None if share is None else round(share * PERCENT, 3)


def _quantiles(names: Sequence[str], found: Sequence[float] | None) -> dict[str, float | None]:
    if found is None:
        return dict.fromkeys(names)
    return {name: round(figure, 3) for name, figure in zip(names, found, strict=True)}


def _figures(pace: Quantiles | None) -> tuple[float, ...] | None:
    return None if pace is None else (pace.p50, pace.p75, pace.p90, pace.p99)

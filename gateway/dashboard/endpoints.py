"""How Endpoints are doing and did: standing, uptime, times to the first token, bars by day, and what changed when."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from gateway.dashboard.answers import Table
from gateway.dashboard.jobs import Job, Seen
from gateway.dashboard.query import US_PER_S, Query, iso
from gateway.errors import InvalidRequestError
from gateway.health.histogram import TTFT_FLOOR_S, quantiles
from gateway.observation import Quantiles, Standing
from gateway.state.figures_reader import MINUTES_PER_DAY, FiguresReader
from gateway.state.span_reader import EndpointSpan
from gateway.state.writer import EndpointEvent

PACE_MINUTES: Final = 30
"""Over how long speeds are measured."""
OFF: Final = "off"
"""Cannot be asked, whatever its standing."""
EVENTS_MAX: Final = 1000
"""Changes of standing in one answer."""
DAYS_MAX: Final = 366
"""Bars of one Endpoint."""
MINUTES_MAX: Final = 31 * MINUTES_PER_DAY
"""How far back minutes are asked for."""
PERCENT: Final = 100
SHARES: Final = (0.5, 0.75, 0.9, 0.99)
UPTIME_WINDOWS: Final = {
    "uptime_5m": 5,
    "uptime_30m": 30,
    "uptime_1d": MINUTES_PER_DAY,
    "uptime_30d": 30 * MINUTES_PER_DAY,
}
"""In minutes."""
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


def endpoints_table(reader: FiguresReader, query: Query, job: Job) -> Table:
    """`GET endpoints`."""
    query.expect(("format",))
    end = int(job.unix_s // 60) + 1
    windows = {
        name: _by_endpoint(reader.endpoint_spans(end - minutes, end, 0)) for name, minutes in UPTIME_WINDOWS.items()
    }
    histograms = reader.histograms(end - MINUTES_PER_DAY, end, 0)
    events = reader.last_events()
    rows: list[dict[str, Any]] = []
    for one in job.seen:
        name = one.id
        shares = {window: _percent(spans.get(name)) for window, spans in windows.items()}
        day = windows["uptime_1d"].get(name) or EndpointSpan(name, 0, 0, 0, 0)
        rows.append(
            {
                **_standing_members(one, events.get(name), job.now_s),
                **shares,
                **_quantiles(_TTFT, quantiles(histograms.get((name, 0), ()), SHARES, TTFT_FLOOR_S)),
                **_quantiles(_PACE, _figures(one.pace)),
                "attempts_1d": day.ok + day.failed + day.rate_limited,
                "failed_1d": day.failed,
                "rate_limited_1d": day.rate_limited,
                "context_tokens": one.context_tokens,
                "state": one.state,
            }
        )
    return Table(ENDPOINT_COLUMNS, rows, {"now": iso(int(job.unix_s) * US_PER_S), "pace_minutes": PACE_MINUTES})


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


def standing_of(one: Seen) -> str:
    """How an Endpoint stands, in a word."""
    return one.observation.standing if one.off is None else OFF


def _standing_members(one: Seen, event: EndpointEvent | None, now_s: float) -> dict[str, Any]:
    seen, standing = one.observation, standing_of(one)
    known = event if event is not None and event.standing == standing else None
    why = one.off if one.off is not None else (known.cause if known is not None and standing != "healthy" else None)
    rests = one.off is None and seen.standing in _RESTING and seen.until_s > now_s
    return {
        "endpoint": one.id,
        "model": one.model,
        "provider": one.provider,
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

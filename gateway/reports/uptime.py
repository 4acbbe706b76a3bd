"""How well each Endpoint did: uptime over several times, day by day, how fast it was, how it stands and why."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from gateway.health.histogram import PACE_FLOOR, TTFT_FLOOR_S, bucket_of, merge, quantiles
from gateway.observation import TTFT_BUCKETS, MinuteRow
from gateway.reports.reader import ReportReader
from gateway.state.entries import Entry
from gateway.state.histogram import read_histogram
from gateway.state.ledger_reader import PAGE_MAX, Filter
from gateway.state.writer import EndpointEvent

WINDOWS_MINUTES: Final = {"5m": 5, "30m": 30, "1d": 1440, "30d": 43_200}
"""Over which uptime is given, by name."""
DAYS: Final = 30
"""Of the curve."""
MINUTES_PER_DAY: Final = 1440
PACED_ROWS_MAX: Final = 50_000
"""Rows of the ledger, the newest ones, that throughput is measured by."""
PACED_TOKENS_MIN: Final = 2
"""Shorter answers say nothing of how fast somebody writes."""
SHARES: Final = (0.5, 0.75, 0.9, 0.99)
US_PER_S: Final = 1_000_000


class Percentiles(Struct, frozen=True, gc=False):
    """Of one figure. For throughput the slow tail is p99 too, so the smallest of the four."""

    p50: float
    p75: float
    p90: float
    p99: float
    count: int
    """By how many answers."""


class EndpointUptime(Struct, frozen=True, gc=False, kw_only=True):
    """One Endpoint."""

    endpoint: str
    standing: str
    """As it was last noted; healthy where nothing ever was."""
    cause: str
    since_unix_s: float | None
    """When that was."""
    uptime: dict[str, float | None]
    """By name of the window, 0 to 1; None: nothing to judge by."""
    days: tuple[float | None, ...]
    """The last 30 days of UTC, oldest first, today last."""
    ok: int
    """Good answers, and of the following ones, in the window that was asked for."""
    failed: int
    rate_limited: int
    ttft_s: Percentiles | None
    tokens_per_s: Percentiles | None


def read_uptime(reader: ReportReader, now_unix_s: float, window_s: float) -> tuple[EndpointUptime, ...]:
    """Every Endpoint that was asked anything, or changed its standing, in the last 30 days, by name.

    Args:
        reader: Of the store.
        now_unix_s: The wall clock.
        window_s: Over which speed and answers are counted, up to 30 days.

    Raises:
        StoreError: The store cannot be read.
    """
    minute = int(now_unix_s // 60)
    first_day = minute // MINUTES_PER_DAY - DAYS + 1
    since = min(first_day * MINUTES_PER_DAY, minute - WINDOWS_MINUTES["30d"] + 1)
    rows: dict[str, list[MinuteRow]] = {}
    for row in reader.read_minutes(None, since, minute + 1):
        rows.setdefault(row.endpoint_id, []).append(row)
    last: dict[str, EndpointEvent] = {one.endpoint_id: one for one in reader.events(None, 0.0)}
    since_us = int((now_unix_s - window_s) * US_PER_S)
    paces = _paces(_good_entries(reader, since_us))
    names = sorted(rows.keys() | {name for name, one in last.items() if one.unix_s >= since * 60})
    return tuple(_of(name, rows.get(name, ()), last.get(name), minute, window_s, paces) for name in names)


def _of(
    name: str,
    rows: Sequence[MinuteRow],
    event: EndpointEvent | None,
    minute: int,
    window_s: float,
    paces: Mapping[str, list[int]],
) -> EndpointUptime:
    today = minute // MINUTES_PER_DAY
    days: dict[int, list[MinuteRow]] = {}
    for row in rows:
        days.setdefault(row.minute // MINUTES_PER_DAY, []).append(row)
    counted = [row for row in rows if row.minute > minute - max(1, round(window_s / 60))]
    return EndpointUptime(
        endpoint=name,
        standing="healthy" if event is None else event.standing,
        cause="" if event is None else event.cause,
        since_unix_s=None if event is None else event.unix_s,
        uptime={
            window: _ratio(row for row in rows if row.minute > minute - minutes)
            for window, minutes in WINDOWS_MINUTES.items()
        },
        days=tuple(_ratio(days.get(day, ())) for day in range(today - DAYS + 1, today + 1)),
        ok=sum(row.ok for row in counted),
        failed=sum(row.failed for row in counted),
        rate_limited=sum(row.rate_limited for row in counted),
        ttft_s=_percentiles(merge(read_histogram(row.ttft_hist) for row in counted), SHARES, TTFT_FLOOR_S),
        tokens_per_s=_slow_last(paces.get(name)),
    )


def _ratio(rows: Iterable[MinuteRow]) -> float | None:
    ok = failed = 0
    for row in rows:
        ok += row.ok
        failed += row.failed
    return ok / (ok + failed) if ok + failed else None


def _percentiles(counts: Sequence[int], shares: Sequence[float], floor: float) -> Percentiles | None:
    found = quantiles(counts, shares, floor)
    if found is None:
        return None
    p50, p75, p90, p99 = found
    return Percentiles(p50, p75, p90, p99, sum(counts))


def _slow_last(counts: Sequence[int] | None) -> Percentiles | None:
    """Of throughput the slow tail is at the lower end."""
    if counts is None:
        return None
    found = quantiles(counts, [1.0 - share for share in reversed(SHARES)], PACE_FLOOR)
    if found is None:
        return None
    p99, p90, p75, p50 = found
    return Percentiles(p50, p75, p90, p99, sum(counts))


def _good_entries(reader: ReportReader, since_us: int) -> Iterable[Entry]:
    before: int | None = None
    for _ in range(PACED_ROWS_MAX // PAGE_MAX):
        page = reader.entries(Filter(since_unix_us=since_us, outcome="ok"), before=before, count=PAGE_MAX)
        yield from page.entries
        if page.before is None:
            return
        before = page.before


def _paces(entries: Iterable[Entry]) -> dict[str, list[int]]:
    """Histograms of tokens per second, by Endpoint."""
    found: dict[str, list[int]] = {}
    for entry in entries:
        pace = pace_of(entry)
        if pace is not None:
            found.setdefault(entry.endpoint, [0] * TTFT_BUCKETS)[bucket_of(pace, PACE_FLOOR)] += 1
    return found


def pace_of(entry: Entry) -> float | None:
    """Tokens per second of one answer, once it began; None where nothing can be said."""
    writing_ms = entry.duration_ms - (entry.ttft_ms or 0)
    tokens = entry.output_tokens or 0
    if tokens < PACED_TOKENS_MIN or writing_ms <= 0 or entry.outcome != "ok":
        return None
    return tokens * 1000 / writing_ms

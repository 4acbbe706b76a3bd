"""What requests come to: how many cost how much, and what asking others saved."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.dashboard.answers import Table
from gateway.dashboard.money import usd
from gateway.dashboard.query import Query, iso
from gateway.dashboard.spending import HOUR_US, month_start_us
from gateway.state.figures_reader import FiguresReader, Outcome
from gateway.state.request_rows import COST_BOUNDS_IN_NUSD, UNKNOWN

COLUMNS: Final = ("from_usd", "to_usd", "requests", "cost_usd")
_DISTRIBUTION: Final = (
    "All Attempts of a request together, in the hour in which it began, from sums that are kept as rows are written. "
    "A row of the table counts costs from from_usd on and below to_usd; the first one what costs nothing."
)
_METHOD: Final[Mapping[str, str]] = {
    "failovers": "Requests that were answered by another endpoint after one had failed: without it, each would have "
    "failed. wasted_usd is what the failed attempts cost.",
    "rescues": "Streams that broke off and went on: without it, each would have ended in the middle. kept_usd is what "
    "the cut attempts cost, which asking anew from the beginning would have paid once more.",
    "retries": "Requests that were answered by the same endpoint after it had failed. wasted_usd is what the failed "
    "attempts cost.",
    "cache": "Answers that were given again. saved_usd is what they would have cost, where that is known.",
}


def distribution_table(reader: FiguresReader, query: Query) -> Table:
    """`GET cost-distribution`."""
    query.expect(("since", "until", "format"))
    since, until = query.span("7d")
    first, end = since // HOUR_US, -(-until // HOUR_US)
    by_bucket = {one.bucket: one for one in reader.outcomes(first, end) if one.what == "cost"}
    unknown = by_bucket.pop(UNKNOWN, None)
    rows = [_bucket_row(bucket, by_bucket[bucket]) for bucket in sorted(by_bucket) if by_bucket[bucket].requests]
    more = {
        "since": iso(first * HOUR_US),
        "until": iso(until),
        "requests": sum(one.requests for one in by_bucket.values()),
        "unknown": 0 if unknown is None else unknown.requests,
        "method": _DISTRIBUTION,
    }
    return Table(COLUMNS, rows, more)


def savings_since(reader: FiguresReader, query: Query, now_us: int) -> dict[str, Any]:
    """`GET savings`, and a part of the overview."""
    query.expect(("since", "until"))
    since, until = query.span(iso(month_start_us(now_us)))
    first, end = since // HOUR_US, -(-until // HOUR_US)
    found = {one.what: one for one in reader.outcomes(first, end) if one.what != "cost"}
    hits, saved = reader.answers_again(first, end)
    return {
        "since": iso(first * HOUR_US),
        "until": iso(until),
        "method": _METHOD,
        "failovers": _saved(found.get("failover"), "wasted_usd"),
        "rescues": _saved(found.get("rescue"), "kept_usd"),
        "retries": _saved(found.get("retry"), "wasted_usd"),
        "cache": {"requests": hits, "saved_usd": usd(saved)},
    }


def _bucket_row(bucket: int, one: Outcome) -> dict[str, Any]:
    # Bucket 1 lies below the first bound, the last one behind the last.
    begin = COST_BOUNDS_IN_NUSD[bucket - 2] if bucket > 1 else 0
    end = (0, *COST_BOUNDS_IN_NUSD, None)[bucket]
    return {
        "from_usd": usd(begin),
        "to_usd": None if end is None else usd(end),
        "requests": one.requests,
        "cost_usd": usd(one.cost_in_nusd),
    }


def _saved(one: Outcome | None, name: str) -> dict[str, Any]:
    return {"requests": 0 if one is None else one.requests, name: usd(0 if one is None else one.cost_in_nusd)}

"""The explorer of requests: one line for each, with all its Attempts together, newest first, page by page."""

import json
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from gateway.explain.record import Record
from gateway.reports.reader import ReportReader, Row, is_wanted, split_id
from gateway.state.entries import Entry
from gateway.state.ledger_reader import PAGE_MAX, Filter

SCANNED_ROWS_MAX: Final = 50_000
"""Rows that one page is looked for in; the next one goes on there."""


class Wanted(Struct, frozen=True, gc=False, kw_only=True):
    """Which requests are wanted: those of which an Attempt passes `rows`, and of these, those that fit the rest."""

    rows: Filter = Filter()
    failed: bool = False
    """Without an answer, cancelled ones apart."""
    rescued: bool = False
    """Cut, and gone on with elsewhere. Known as long as the decision record is kept."""
    failed_over: bool = False
    """Answered, though an Attempt before failed."""
    min_cost_in_nusd: int | None = None
    """All Attempts together cost at least this."""


class RequestLine(Struct, frozen=True, gc=False):
    """One request. Money in nano-USD, times in microseconds of Unix time and milliseconds."""

    place: int
    """A row of the ledger: what comes before it is asked for with this number."""
    id: str
    unix_us: int
    """When its first Attempt was sent."""
    route: str
    model: str
    """Of the Attempt that ended it, as the following ones are."""
    endpoint: str
    key_id: str
    app: str
    user: str
    tags: tuple[str, ...]
    attempts: int
    outcome: str
    code: str | None
    rescued: bool
    over: bool
    """It was answered, or its decision record is there: no further Attempt follows."""
    input_tokens: int | None
    output_tokens: int | None
    cost_in_nusd: int
    """Of all Attempts together, as far as that is known."""
    unknown_cost: int
    """Attempts whose cost nobody knows."""
    ttft_ms: int | None
    duration_ms: int
    """From the first one's start to the last one's end."""


class RequestPage(Struct, frozen=True, gc=False):
    """Some requests, newest first."""

    requests: tuple[RequestLine, ...]
    before: int | None
    """What the next page is asked for with; None: there are no more. There may be more though this one has few."""


def read_requests(reader: ReportReader, wanted: Wanted, *, before: int | None = None, count: int = 50) -> RequestPage:
    """Requests by filters.

    Args:
        reader: Of the ledger.
        wanted: Which.
        before: Of the page before this one; None: the newest.
        count: At most.

    Raises:
        StoreError: The store cannot be read.
    """
    lines: list[RequestLine] = []
    scanned = 0
    while scanned < SCANNED_ROWS_MAX:
        page = reader.entries(wanted.rows, before=before, count=PAGE_MAX)
        requests = reader.requests_of(page.entries)
        for entry in page.entries:
            scanned += 1
            line = _line(reader, wanted, entry, requests[split_id(entry.attempt_id)[0]])
            if line is not None:
                lines.append(line)
                if len(lines) >= count:
                    return RequestPage(tuple(lines), line.place)
        if page.before is None:
            return RequestPage(tuple(lines), None)
        before = page.before
    return RequestPage(tuple(lines), before)


def _line(reader: ReportReader, wanted: Wanted, entry: Entry, rows: Sequence[Row]) -> RequestLine | None:
    """The line that stands at this row; None where the request is not wanted, or stands at another of its rows."""
    name, number = split_id(entry.attempt_id)
    if any(one.number > number for one in rows if is_wanted(one.entry, wanted.rows)):
        return None
    place = next(one.place for one in rows if one.number == number)
    attempts = [one.entry for one in rows]
    last = final_of(attempts)
    cost = sum(one.cost_in_nusd or 0 for one in attempts)
    failed_over = last.outcome == "ok" and any(one.outcome == "failed" for one in attempts)
    if (
        (wanted.failed and last.outcome != "failed")
        or (wanted.min_cost_in_nusd is not None and cost < wanted.min_cost_in_nusd)
        or (wanted.failed_over and not failed_over)
        or (wanted.rescued and len(attempts) == 1)
    ):
        return None
    # Only what was tried more than once can have been rescued: good answers at the first try need no look-up.
    record = reader.record(name) if len(attempts) > 1 or last.outcome != "ok" else None
    rescued = record is not None and was_rescued(record)
    if wanted.rescued and not rescued:
        return None
    return RequestLine(
        place=place,
        id=name,
        unix_us=attempts[0].unix_us,
        route=last.route,
        model=last.model,
        endpoint=last.endpoint,
        key_id=last.key_id,
        app=last.app,
        user=last.user,
        tags=tuple(json.loads(last.tags)) if last.tags else (),
        attempts=len(attempts),
        outcome=last.outcome,
        code=last.code,
        rescued=rescued,
        over=last.outcome == "ok" or record is not None,
        input_tokens=last.input_tokens,
        output_tokens=last.output_tokens,
        cost_in_nusd=cost,
        unknown_cost=sum(one.cost_in_nusd is None for one in attempts),
        ttft_ms=last.ttft_ms,
        duration_ms=max(0, (max(one.ended_unix_us for one in attempts) - attempts[0].unix_us) // 1000),
    )


def final_of(attempts: Sequence[Entry]) -> Entry:
    """The Attempt that decided what became of the request: the last good one, or else the last."""
    return next((one for one in reversed(attempts) if one.outcome == "ok"), attempts[-1])


def was_rescued(record: Record) -> bool:
    """Whether the answer was cut, and went on elsewhere to its end."""
    return record.rescued is not None and record.outcome == "ok"

"""Rows of the ledger by filters, page by page."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from gateway.dashboard.answers import Table
from gateway.dashboard.money import usd_or_none
from gateway.dashboard.query import Query, iso
from gateway.dashboard.roles import Role
from gateway.errors import ForbiddenError, InvalidRequestError
from gateway.state.entries import Entry
from gateway.state.figures_reader import FiguresReader
from gateway.state.ledger_reader import PAGE_MAX, Filter

PAGE_USUAL: Final = 50
COLUMNS: Final = (
    *("id", "attempt", "time", "key", "label", "route", "model", "endpoint", "provider", "surface", "stream"),
    *("outcome", "code", "input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"),
    *("usage_source", "cost_usd", "cost_source", "ttft_ms", "duration_ms"),
    *("app", "referer", "user", "session", "tags"),
)
_FILTERS: Final[Mapping[str, str]] = {
    "key": "key_id",
    "tag": "tag",
    **{name: name for name in ("model", "provider", "endpoint", "route", "app", "user", "session", "outcome")},
}
PERSONAL: Final = ("user", "session", "referer")
"""What a viewer is not shown: it may say who asked."""

Labels = Callable[[str], str | None]


def requests_table(reader: FiguresReader, query: Query, role: Role, label: Labels) -> Table:
    """`GET requests`: a page of rows, newest first.

    Raises:
        ForbiddenError: A viewer asks for somebody's requests.
    """
    query.expect((*_FILTERS, "since", "until", "min_cost", "before", "count", "format"))
    wanted: dict[str, Any] = {field: query.text(name) for name, field in _FILTERS.items()}
    if role != "admin" and any(wanted[name] is not None for name in ("user", "session")):
        raise ForbiddenError("A viewer does not see who asked; that takes the admin token.")
    outcome = wanted["outcome"]
    if outcome is not None and outcome not in ("ok", "failed", "cancelled"):
        raise InvalidRequestError("outcome is ok, failed or cancelled", param="outcome")
    times: dict[str, Any] = {
        "since_unix_us": query.time_us("since", None),
        "until_unix_us": query.time_us("until", None),
    }
    count = query.number("count", 1, PAGE_MAX, PAGE_USUAL)
    filters = Filter(**wanted, **times, cost_least_in_nusd=query.usd("min_cost"))
    page = reader.entries(filters, before=query.number_or_none("before"), count=count)
    rows = [_row(entry, role, label) for entry in page.entries]
    return Table(COLUMNS, rows, {"next": None if page.before is None else str(page.before)})


def _row(entry: Entry, role: Role, label: Labels) -> dict[str, Any]:
    tags: list[str] = msgspec.json.decode(entry.tags) if entry.tags else []
    row = {
        "id": entry.attempt_id.rpartition("/")[0],
        "attempt": number_of(entry),
        "time": iso(entry.unix_us),
        "key": entry.key_id,
        "label": label(entry.key_id),
        "cost_usd": usd_or_none(entry.cost_in_nusd),
        "tags": tags,
    }
    row |= {name: getattr(entry, name) for name in COLUMNS if name not in row}
    return row if role == "admin" else row | dict.fromkeys(PERSONAL)


def number_of(entry: Entry) -> int | None:
    """Which of its request's Attempts a row is, from 1."""
    number = entry.attempt_id.rpartition("/")[2]
    return int(number) if number.isascii() and number.isdigit() else None

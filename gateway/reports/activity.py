"""What happens at the moment, as far as it is in the ledger: who spends, and which Endpoints answer."""

from collections.abc import Callable, Iterable
from statistics import median
from typing import Final, Literal, TypeAlias, get_args

from msgspec import Struct

from gateway.reports.reader import ReportReader, split_id
from gateway.state.entries import Entry
from gateway.state.ledger_reader import PAGE_MAX, Filter

Who: TypeAlias = Literal["key", "app", "model", "route", "provider", "user"]
WHO: Final[tuple[Who, ...]] = get_args(Who)
ROWS_MAX: Final = 100_000
"""Rows of one look, the newest ones."""
CELLS: Final = 20
"""Of a curve."""
US_PER_S: Final = 1_000_000


class Line(Struct, frozen=True, gc=False):
    """One name, or one Endpoint, over the time that was looked at."""

    name: str
    requests: int
    """Those that began with an Attempt of it."""
    attempts: int
    failed: int
    cost_in_nusd: int
    unknown_cost: int
    input_tokens: int
    output_tokens: int
    ttft_ms: float | None
    """The median."""
    curve: tuple[int, ...]
    """Attempts in each of CELLS equal parts of the time."""


class Activity(Struct, frozen=True, gc=False):
    """What was over in some time."""

    since_unix_us: int
    until_unix_us: int
    names: tuple[Line, ...]
    """Those of most cost first."""
    endpoints: tuple[Line, ...]
    """Those of most Attempts first."""
    complete: bool
    """False: there was more than ROWS_MAX."""


def read_activity(reader: ReportReader, who: Who, now_us: int, window_s: float) -> Activity:
    """What began in the last `window_s` seconds and is over.

    Raises:
        StoreError: The store cannot be read.
    """
    since_us = now_us - int(window_s * US_PER_S)
    entries, complete = _newest(reader, since_us)
    field = "key_id" if who == "key" else who

    def name_of(entry: Entry) -> str:
        return str(getattr(entry, field))

    def endpoint_of(entry: Entry) -> str:
        return entry.endpoint

    names = _lines(entries, name_of, since_us, now_us)
    endpoints = _lines(entries, endpoint_of, since_us, now_us)
    return Activity(
        since_us,
        now_us,
        tuple(sorted(names, key=lambda line: (-line.cost_in_nusd, -line.attempts, line.name))),
        tuple(sorted(endpoints, key=lambda line: (-line.attempts, line.name))),
        complete,
    )


def _newest(reader: ReportReader, since_us: int) -> tuple[list[Entry], bool]:
    entries: list[Entry] = []
    before: int | None = None
    while len(entries) < ROWS_MAX:
        page = reader.entries(Filter(since_unix_us=since_us), before=before, count=PAGE_MAX)
        entries += page.entries
        if page.before is None:
            return entries, True
        before = page.before
    return entries, False


def _lines(entries: Iterable[Entry], name_of: Callable[[Entry], str], since_us: int, until_us: int) -> Iterable[Line]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(name_of(entry), []).append(entry)
    return [_line(name, group, since_us, until_us) for name, group in groups.items()]


def _line(name: str, group: list[Entry], since_us: int, until_us: int) -> Line:
    curve = [0] * CELLS
    for entry in group:
        place = (entry.unix_us - since_us) * CELLS // max(1, until_us - since_us)
        curve[min(CELLS - 1, max(0, place))] += 1
    times = [entry.ttft_ms for entry in group if entry.ttft_ms is not None]
    return Line(
        name=name,
        requests=len({split_id(entry.attempt_id)[0] for entry in group if split_id(entry.attempt_id)[1] == 1}),
        attempts=len(group),
        failed=sum(entry.outcome != "ok" for entry in group),
        cost_in_nusd=sum(entry.cost_in_nusd or 0 for entry in group),
        unknown_cost=sum(entry.cost_in_nusd is None for entry in group),
        input_tokens=sum(entry.input_tokens or 0 for entry in group),
        output_tokens=sum(entry.output_tokens or 0 for entry in group),
        ttft_ms=median(times) if times else None,
        curve=tuple(curve),
    )

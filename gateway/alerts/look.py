"""Looks through the store for what may be worth an alert: budgets, outages, dear fallbacks, spending. Blocks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from gateway.alerts.notice import DAY_S, HOUR_S, USUAL_DAYS, BudgetUse, DearAnswer, Facts, HourSpend, Outage
from gateway.config.catalogue import Catalogue
from gateway.keys.budget import span_start
from gateway.keys.key import WINDOWS, KeyRecord
from gateway.keys.storage import read_records, spending
from gateway.reports.reader import ReportReader
from gateway.reports.spending import read_points
from gateway.state.ledger_reader import Filter
from gateway.whatif.case import Case
from gateway.whatif.scenarios import World, when_all_is_well

DOWN_FOR_S: Final = 30.0
"""How long an Endpoint must be open to count as down: most breakers close sooner. One that is disabled counts at once.
"""
EVENTS_AGAIN_S: Final = 120.0
"""Changes of standing are read again for so long, as they need not come in order."""
ROWS_MAX: Final = 300
"""Rows of the ledger that one look goes through for dear fallbacks, the newest ones."""
JUDGED_MAX: Final = 4 * ROWS_MAX
"""Requests that are remembered not to be judged again."""
REQUEST_MAX_S: Final = 660.0
"""How long ago a request may have begun that is judged: they end after ten minutes."""
US_PER_S: Final = 1_000_000
DOWN: Final = frozenset({"open", "disabled"})
UP: Final = frozenset({"healthy", "degraded"})


class _Down(Struct):
    """An Endpoint that is down."""

    since_unix_s: float
    standing: str
    cause: str
    told: bool = False


class Lookout:
    """Finds facts. One thread at a time.

    Args:
        path: mixgate.db.
        started_unix_s: Nothing from before is looked at: a gateway starts with nobody down.
    """

    def __init__(self, path: Path, started_unix_s: float) -> None:
        self._path = path
        self._started_s = self._since_s = started_unix_s
        self._down: dict[str, _Down] = {}
        self._judged: dict[str, None] = {}
        self._seen: dict[tuple[str, float, str], None] = {}

    def look(self, catalogue: Catalogue, now_s: float) -> Facts:
        """What there is now.

        Args:
            catalogue: Today's configuration.
            now_s: The wall clock.

        Raises:
            StoreError: The store cannot be read.
        """
        with ReportReader(self._path) as reader:
            facts = Facts(
                budgets=self._budgets(reader, now_s),
                outages=[*self._outages(reader, now_s)],
                dear=[*self._dear(reader, catalogue, now_s)],
                hour=_hour(reader, now_s),
            )
        self._since_s = now_s
        return facts

    def _budgets(self, reader: ReportReader, now_s: float) -> list[BudgetUse]:
        records = [record for record in read_records(self._path) if record.deleted_us is None]
        limited = [record for record in records if any(record.limits.budget(window) for window in WINDOWS)]
        if not limited:
            return []
        spent_since = spending(reader, [record.id for record in records])
        found: list[BudgetUse] = []
        for window in WINDOWS:
            start = span_start(window, now_s)
            own = spent_since(window, start) if any(record.limits.budget(window) for record in limited) else {}
            for record in limited:
                budget = record.limits.budget(window)
                if budget:
                    spent = sum(own.get(name, 0) for name in family(record, records))
                    found.append(BudgetUse(record.id, record.name, window, start, spent, budget))
        return found

    def _outages(self, reader: ReportReader, now_s: float) -> Iterator[Outage]:
        down = self._down
        for event in reader.events(None, self._since_s - EVENTS_AGAIN_S):
            key = (event.endpoint_id, event.unix_s, event.standing)
            if key in self._seen or event.unix_s < self._started_s:
                continue
            self._seen[key] = None
            known = down.get(event.endpoint_id)
            if event.standing in DOWN and (known is None or known.standing != event.standing):
                since = event.unix_s if known is None else known.since_unix_s
                told = known is not None and known.told
                down[event.endpoint_id] = _Down(since, event.standing, event.cause, told)
            elif event.standing in UP and known is not None and event.unix_s >= known.since_unix_s:
                del down[event.endpoint_id]
                if known.told:
                    yield Outage(event.endpoint_id, known.since_unix_s, known.standing, known.cause, event.unix_s)
        self._forget(now_s)
        for name, one in down.items():
            if not one.told and (one.standing == "disabled" or now_s - one.since_unix_s >= DOWN_FOR_S):
                one.told = True
                yield Outage(name, one.since_unix_s, one.standing, one.cause)

    def _forget(self, now_s: float) -> None:
        old = [key for key in self._seen if key[1] < now_s - 3 * EVENTS_AGAIN_S]
        for key in old:
            del self._seen[key]

    def _dear(self, reader: ReportReader, catalogue: Catalogue, now_s: float) -> Iterator[DearAnswer]:
        world = World(catalogue)
        # By when they began, and they may have gone on for long.
        rows = Filter(since_unix_us=int(max(self._started_s, now_s - REQUEST_MAX_S) * US_PER_S))
        for request in reader.walk(rows, rows_max=ROWS_MAX):
            if request.id in self._judged:
                continue
            record = reader.record(request.id)
            case = Case(request.entries, record, None if record is None else reader.table(record.table))
            final = case.final
            if final.outcome != "ok" or not final.cost_in_nusd:
                continue
            self._judged[request.id] = None
            if len(self._judged) > JUDGED_MAX:
                del self._judged[next(iter(self._judged))]
            first = when_all_is_well(case, world)
            if first is None or first.endpoint == final.endpoint:
                continue
            yield DearAnswer(
                request.id,
                final.route,
                final.endpoint,
                first.endpoint,
                final.unix_us / US_PER_S,
                final.cost_in_nusd,
                first.cost_in_nusd,
            )


def family(record: KeyRecord, records: Sequence[KeyRecord]) -> set[str]:
    """A key and all that are below it."""
    found = {record.id}
    while True:
        more = {one.id for one in records if one.parent in found} - found
        if not more:
            return found
        found |= more


def _hour(reader: ReportReader, now_s: float) -> HourSpend | None:
    start = int(now_s) // HOUR_S * HOUR_S
    points = read_points(reader, "all", (start - USUAL_DAYS * DAY_S) * US_PER_S, (start + HOUR_S) * US_PER_S, "hour")
    if not points:
        return None
    spent = {point.start_unix_s: point.cost_in_nusd for point in points}
    first = min(spent)
    days = [start - number * DAY_S for number in range(1, USUAL_DAYS + 1)]
    return HourSpend(start, spent.get(start, 0), tuple(spent.get(day, 0) for day in days if day >= first))

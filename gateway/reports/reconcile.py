"""Compares the ledger with what a provider says that it charged, answer by answer, or else by day and model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from gateway.reports.claims import Claim
from gateway.reports.money import usd, usd_or_none
from gateway.reports.reader import ReportReader
from gateway.state.entries import Entry
from gateway.state.ledger_reader import PAGE_MAX, Filter

ROWS_MAX: Final = 2_000_000
"""Rows of the ledger that are compared; more are refused, for half of them would look missing."""
US_PER_S: Final = 1_000_000
DAY_US: Final = 86_400 * US_PER_S
Kind: TypeAlias = Literal["missing_here", "missing_there", "amount"]


class TooManyRowsError(ValueError):
    """There is more than can be compared at once."""


class Difference(Struct, frozen=True, gc=False):
    """One thing that is not the same here and there."""

    kind: Kind
    """missing_here: the ledger does not have it. missing_there: the provider does not. amount: both do, and differ."""
    day: str
    model: str
    id: str | None
    """The provider's name for the answer; None: the sums of that day and model."""
    attempt_id: str | None
    ours_usd: str | None
    """None: it is not there, or nobody knows what it cost."""
    theirs_usd: str | None
    difference_usd: str
    """Theirs less ours, what is not there being nothing."""
    ours_requests: int | None = None
    theirs_requests: int | None = None


class Reconciliation(Struct, frozen=True, gc=False, kw_only=True):
    """What came of it."""

    since: str
    """The first day."""
    until: str
    """The last one."""
    rows: int
    """Of the ledger."""
    claims: int
    matched: int
    """Answers, and sums of a day and model, that are the same to the nano-dollar."""
    ours_usd: str
    theirs_usd: str
    difference_usd: str
    differences: tuple[Difference, ...]


def read_rows(reader: ReportReader, wanted: Filter) -> list[Entry]:
    """The rows of a filter, oldest first.

    Raises:
        StoreError: The store cannot be read.
        TooManyRowsError: There are more than ROWS_MAX.
    """
    found: list[Entry] = []
    before: int | None = None
    while True:
        page = reader.entries(wanted, before=before, count=PAGE_MAX)
        found += page.entries
        if len(found) > ROWS_MAX:
            raise TooManyRowsError(f"the ledger has more than {ROWS_MAX} rows in that time")
        if page.before is None:
            return found[::-1]
        before = page.before


def reconcile(
    entries: Sequence[Entry],
    claims: Sequence[Claim],
    *,
    since: str,
    until: str,
    names: Mapping[str, str],
    tolerance_in_nusd: int = 0,
) -> Reconciliation:
    """Compare.

    Answers with an id of the provider's are compared one by one, whatever day either side puts them on; all others by
    the sums of their day and model.

    Args:
        entries: Rows of the ledger of that provider, a day more at each end than is compared.
        claims: What the provider says.
        since: The first day that is compared, as 2026-01-31, of UTC.
        until: The last one.
        names: Of the provider's models, what the ledger calls them where that is not the same.
        tolerance_in_nusd: Amounts that differ by no more count as the same.
    """
    inside = [one for one in claims if since <= one.day <= until]
    comparison = _Comparison(names, tolerance_in_nusd)
    by_id = comparison.by_id(entries, inside, lambda entry: since <= day_of(entry) <= until)
    comparison.by_sums(
        [one for one in entries if one.attempt_id not in by_id and since <= day_of(one) <= until and _is_charge(one)],
        [one for one in inside if one.id is None],
    )
    return Reconciliation(
        since=since,
        until=until,
        rows=comparison.rows,
        claims=len(inside),
        matched=comparison.matched,
        ours_usd=usd(comparison.ours),
        theirs_usd=usd(comparison.theirs),
        difference_usd=usd(comparison.theirs - comparison.ours),
        differences=tuple(sorted(comparison.found, key=lambda one: (one.day, one.model, one.id or "", one.kind))),
    )


def day_of(entry: Entry) -> str:
    """The day of UTC on which an Attempt was sent."""
    return datetime.fromtimestamp(entry.unix_us / US_PER_S, UTC).strftime("%Y-%m-%d")


def model_of(entry: Entry) -> str:
    """What its provider calls the model."""
    return entry.endpoint.removeprefix(f"{entry.provider}/")


class _Sums:
    def __init__(self) -> None:
        self.cost = 0
        self.unknown = 0
        self.requests = 0
        self.counted = True

    def add(self, cost: int | None, requests: int | None) -> None:
        self.cost += cost or 0
        self.unknown += cost is None
        self.requests += requests or 0
        self.counted = self.counted and requests is not None


class _Comparison:
    def __init__(self, names: Mapping[str, str], tolerance_in_nusd: int) -> None:
        self._names = names
        self._tolerance = tolerance_in_nusd
        self.found: list[Difference] = []
        self.matched = self.rows = self.ours = self.theirs = 0

    def by_id(self, entries: Sequence[Entry], claims: Iterable[Claim], is_inside: Callable[[Entry], bool]) -> set[str]:
        """Compare answers; gives the Attempts that need not be looked at again."""
        known: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.upstream_id:
                known.setdefault(entry.upstream_id, []).append(entry)
        charged: dict[str, list[Claim]] = {}
        for claim in claims:
            if claim.id is not None:
                charged.setdefault(claim.id, []).append(claim)
        done: set[str] = set()
        for name, theirs in charged.items():
            ours = known.pop(name, [])
            done.update(entry.attempt_id for entry in ours)
            self._compare_answer(name, ours, theirs)
        if charged:
            # Where the provider names answers, one that it does not name is missing there.
            for name, ours in known.items():
                for entry in ours:
                    done.add(entry.attempt_id)
                    if is_inside(entry) and _is_charge(entry):
                        self._compare_answer(name, [entry], [])
        return done

    def by_sums(self, entries: Iterable[Entry], claims: Iterable[Claim]) -> None:
        """Compare the sums of each day and model."""
        ours: dict[tuple[str, str], _Sums] = {}
        for entry in entries:
            ours.setdefault((day_of(entry), model_of(entry)), _Sums()).add(entry.cost_in_nusd, 1)
            self.rows += 1
        theirs: dict[tuple[str, str], _Sums] = {}
        for claim in claims:
            key = (claim.day, self._names.get(claim.model, claim.model))
            theirs.setdefault(key, _Sums()).add(claim.cost_in_nusd, claim.requests)
        for day, model in sorted(ours.keys() | theirs.keys()):
            self._compare_sums(day, model, ours.get((day, model)), theirs.get((day, model)))

    def _compare_sums(self, day: str, model: str, ours: _Sums | None, theirs: _Sums | None) -> None:
        mine, their = 0 if ours is None else ours.cost, 0 if theirs is None else theirs.cost
        self.ours += mine
        self.theirs += their
        unknown = ours is not None and ours.unknown > 0
        if ours is not None and theirs is not None and not unknown and abs(mine - their) <= self._tolerance:
            self.matched += 1
            return
        kind: Kind = "missing_here" if ours is None else "missing_there" if theirs is None else "amount"
        self.found.append(
            Difference(
                kind,
                day,
                model,
                None,
                None,
                None if ours is None or unknown else usd(mine),
                None if theirs is None else usd(their),
                usd(their - mine),
                None if ours is None else ours.requests,
                None if theirs is None or not theirs.counted else theirs.requests,
            )
        )

    def _compare_answer(self, name: str, ours: Sequence[Entry], theirs: Sequence[Claim]) -> None:
        costs = [entry.cost_in_nusd for entry in ours]
        mine, their = sum(cost or 0 for cost in costs), sum(claim.cost_in_nusd for claim in theirs)
        self.rows += len(ours)
        self.ours += mine
        self.theirs += their
        if ours and theirs and None not in costs and abs(mine - their) <= self._tolerance:
            self.matched += 1
            return
        model = model_of(ours[0]) if ours else self._names.get(theirs[0].model, theirs[0].model)
        self.found.append(
            Difference(
                "missing_here" if not ours else "missing_there" if not theirs else "amount",
                day_of(ours[0]) if ours else theirs[0].day,
                model,
                name,
                ours[0].attempt_id if ours else None,
                usd_or_none(None if not ours or None in costs else mine),
                usd_or_none(their if theirs else None),
                usd(their - mine),
            )
        )


def _is_charge(entry: Entry) -> bool:
    """Whether a provider is to have charged for it. What was refused before any content costs nothing anywhere."""
    return entry.cost_in_nusd != 0

"""Puts questions to a window of the ledger: one pass over its requests, bounded, in steps that can be broken off."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.config.catalogue import Catalogue
from gateway.reports.money import usd
from gateway.reports.reader import ReportReader, Request
from gateway.state.ledger_reader import Filter
from gateway.whatif.answer import CAVEATS, GivenAgain, Tally, WhatIf
from gateway.whatif.case import US_PER_S, Case
from gateway.whatif.savings import Savings, SavingsTally
from gateway.whatif.scenarios import Kind, Scenario, World, scenario_of
from gateway.whatif.uncached import without_cache

ROWS_MAX: Final = 1_000_000
"""Rows of the ledger that one question is put to, the newest ones."""
STEP_REQUESTS: Final = 200
"""Requests between two chances to break off."""
_CAVEATS: Final[dict[Kind, tuple[str, ...]]] = {
    "on": ("tokens", "length", "prompt_cache", "rates", "prices"),
    "policy": ("tokens", "length", "prompt_cache", "rates"),
    "no_cache": ("no_cache",),
    "priciest": ("tokens", "length", "prompt_cache"),
    "cheapest": ("tokens", "length", "prompt_cache", "rates"),
    "first_choice": ("tokens", "length", "prompt_cache", "rates"),
}


class Question(Struct, frozen=True, gc=False):
    """What is asked."""

    kind: Kind
    name: str = ""
    """The model or Endpoint, or the policy."""


class Inquiry:
    """Questions to a window.

    Args:
        reader: Of the ledger.
        questions: Each gives one line.
        catalogue: Today's configuration; None: there is none, and what needs it is left out.
        wanted: Whose requests, and over what time; both times are to be there.
        rows_max: Rows that are read at most, the newest ones.
        save: Whether `savings` will be asked for.

    Raises:
        ValueError: A question names what is not there.
    """

    def __init__(
        self,
        reader: ReportReader,
        questions: Sequence[Question],
        catalogue: Catalogue | None,
        wanted: Filter,
        *,
        rows_max: int = ROWS_MAX,
        save: bool = False,
    ) -> None:
        self._reader = reader
        self._wanted = wanted
        self._rows_max = rows_max
        self._world = World(catalogue)
        self._questions = tuple(questions)
        self._scenarios = [(self._scenario(one), Tally(one.kind, one.name)) for one in questions]
        self._save = save
        self._savings = SavingsTally(self._world, self._scenario(Question("no_cache")))
        self._requests = self._attempts = self._as_was = self._unknown = self._unrecorded = 0
        self._complete = False

    def steps(self) -> Iterator[int]:
        """Do all of it; gives how many rows were read so far, now and then. May be left at any of these.

        Raises:
            StoreError: The store cannot be read.
        """
        for request in self._reader.walk(self._wanted, rows_max=self._rows_max):
            self._add(request)
            if self._requests % STEP_REQUESTS == 0:
                yield request.place
        self._complete = self._attempts < self._rows_max
        yield self._attempts

    def result(self) -> WhatIf:
        """The answers, of all that was read so far.

        Raises:
            StoreError: The store cannot be read.
        """
        wanted = self._wanted
        since, until = wanted.since_unix_us or 0, wanted.until_unix_us or 0
        answers, saved = self._reader.given_again(since, until, key_id=wanted.key_id, route=wanted.route)
        kinds: list[Kind] = [question.kind for question in self._questions]
        names: dict[str, None] = dict.fromkeys(name for kind in kinds for name in _CAVEATS[kind])
        if self._unrecorded:
            names["today"] = None
        return WhatIf(
            since=_iso(self._wanted.since_unix_us),
            until=_iso(self._wanted.until_unix_us),
            requests=self._requests,
            attempts=self._attempts,
            as_was_usd=usd(self._as_was),
            unknown_cost=self._unknown,
            without_record=self._unrecorded,
            given_again=GivenAgain(answers, usd(saved)),
            complete=self._complete,
            lines=tuple(tally.line() for _, tally in self._scenarios),
            caveats=tuple(CAVEATS[name] for name in names),
        )

    def savings(self) -> Savings:
        """What was saved, of all that was read so far; with the answers given again in the hours of the window.

        Raises:
            StoreError: The store cannot be read.
        """
        return self._savings.result(self.result())

    def _scenario(self, question: Question) -> Scenario:
        return scenario_of(question.kind, question.name, self._world, without_cache(self._reader.tariff))

    def _add(self, request: Request) -> None:
        record = self._reader.record(request.id)
        case = Case(request.entries, record, None if record is None else self._reader.table(record.table))
        self._requests += 1
        self._attempts += len(case.entries)
        self._as_was += case.as_was_in_nusd
        self._unknown += case.unknown
        self._unrecorded += case.record is None
        for scenario, tally in self._scenarios:
            tally.add(case, scenario(case))
        if self._save:
            self._savings.add(case)


def answer(
    reader: ReportReader,
    questions: Sequence[Question],
    catalogue: Catalogue | None,
    *,
    since_us: int,
    until_us: int,
    rows_max: int = ROWS_MAX,
    wanted: Filter | None = None,
) -> WhatIf:
    """What a window would have cost.

    Args:
        reader: Of the ledger.
        questions: Each gives one line.
        catalogue: Today's configuration.
        since_us: When it begins, in microseconds of Unix time.
        until_us: The first microsecond that is not in it.
        rows_max: Rows that are read at most, the newest ones; `complete` says whether that was all.
        wanted: Whose requests; None: everybody's.

    Raises:
        ValueError: A question names what is not there.
        StoreError: The store cannot be read.
    """
    rows = replace(wanted or Filter(), since_unix_us=since_us, until_unix_us=until_us)
    inquiry = Inquiry(reader, questions, catalogue, rows, rows_max=rows_max)
    for _ in inquiry.steps():
        pass
    return inquiry.result()


def savings(
    reader: ReportReader, catalogue: Catalogue | None, *, since_us: int, until_us: int, rows_max: int = ROWS_MAX
) -> Savings:
    """What failovers, rescues, caches and cheap routing saved in a window; as for `answer`.

    Raises:
        StoreError: The store cannot be read.
    """
    rows = Filter(since_unix_us=since_us, until_unix_us=until_us)
    inquiry = Inquiry(reader, (), catalogue, rows, rows_max=rows_max, save=True)
    for _ in inquiry.steps():
        pass
    return inquiry.savings()


def _iso(unix_us: int | None) -> str:
    return datetime.fromtimestamp((unix_us or 0) / US_PER_S, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

"""The answer to "what would it have cost": values that are JSON as they are, money as decimal strings in dollars."""

from typing import Final

from msgspec import Struct

from gateway.reports.money import usd
from gateway.whatif.case import Case
from gateway.whatif.scenarios import Verdict


class LeftOut(Struct, frozen=True, gc=False):
    """Requests of which nobody can say what they would have cost."""

    reason: str
    requests: int
    as_was_usd: str
    """What they cost in truth: it is in neither sum of the line."""


class Line(Struct, frozen=True, gc=False, kw_only=True):
    """One question, answered."""

    kind: str
    name: str
    """The model, Endpoint or policy; empty where the question has none."""
    requests: int
    """Those that both sums are of."""
    would_have_usd: str
    as_was_usd: str
    """What the same requests cost in truth."""
    difference_usd: str
    """The first less the second: below zero, it would have been cheaper."""
    from_ledger: int
    """Requests whose figure is what was billed."""
    priced: int
    """Requests whose figure is counted tokens times a price."""
    estimated: int
    """Requests whose tokens nobody counted."""
    by_today: int
    """Of all these, requests without a record, decided by today's configuration as if all were well."""
    left_out: tuple[LeftOut, ...]


class GivenAgain(Struct, frozen=True, gc=False):
    """Answers that were given again, or to several at once. By whole hours."""

    answers: int
    saved_usd: str


class WhatIf(Struct, frozen=True, gc=False, kw_only=True):
    """All the answers about one window."""

    since: str
    until: str
    """Times of UTC; the second is the first moment that is not in it."""
    requests: int
    attempts: int
    as_was_usd: str
    """The ledger's sum, to the nano-dollar."""
    unknown_cost: int
    """Attempts whose cost nobody knows: in no sum."""
    without_record: int
    """Requests whose decision record is not kept."""
    given_again: GivenAgain
    """What would have been asked and billed without this gateway's own cache: in no line, as it has no row."""
    complete: bool
    """False: it ended early, and all figures are of the newest requests alone."""
    lines: tuple[Line, ...]
    caveats: tuple[str, ...]
    """What none of these figures can know."""


class Tally:
    """Adds the verdicts of one question up."""

    def __init__(self, kind: str, name: str) -> None:
        self._kind = kind
        self._name = name
        self._would_have = 0
        self._as_was = 0
        self._counts = {"ledger": 0, "priced": 0, "estimated": 0}
        self._by_today = 0
        self._left_out: dict[str, list[int]] = {}

    def add(self, case: Case, verdict: Verdict) -> None:
        """Count one request in."""
        if verdict.cost_in_nusd is None or case.unknown:
            reason = verdict.reason or UNKNOWN
            left = self._left_out.setdefault(reason, [0, 0])
            left[0] += 1
            left[1] += case.as_was_in_nusd
            return
        self._would_have += verdict.cost_in_nusd
        self._as_was += case.as_was_in_nusd
        self._counts[verdict.basis] += 1
        self._by_today += verdict.by_today

    @property
    def difference_in_nusd(self) -> int:
        """What it would have cost more, of the requests that are comparable."""
        return self._would_have - self._as_was

    def line(self) -> Line:
        """The answer."""
        counts = self._counts
        left = sorted(self._left_out.items(), key=lambda one: -one[1][0])
        return Line(
            kind=self._kind,
            name=self._name,
            requests=sum(counts.values()),
            would_have_usd=usd(self._would_have),
            as_was_usd=usd(self._as_was),
            difference_usd=usd(self.difference_in_nusd),
            from_ledger=counts["ledger"],
            priced=counts["priced"],
            estimated=counts["estimated"],
            by_today=self._by_today,
            left_out=tuple(LeftOut(reason, count, usd(cost)) for reason, (count, cost) in left),
        )


UNKNOWN: Final = "nobody knows what all of it cost in truth"

CAVEATS: Final = {
    "tokens": "Another model may count the same text as more or fewer tokens: prices are times the tokens that were "
    "counted where it was answered.",
    "length": "Another model may answer at another length, or need another try: its answer is taken to be as long as "
    "the one there was, and good at once.",
    "prompt_cache": "What another provider's prompt cache would have saved is not known: its prompts are priced whole.",
    "rates": "Whether an endpoint would have borne all these requests, and at what speed, is not known: see `mixgate "
    "simulate --from-ledger`.",
    "today": "Requests without a record are decided by today's configuration, as if every endpoint had been well.",
    "prices": "A model or endpoint by name is priced as the configuration has it today, not as it was then.",
    "no_cache": "Answers that this gateway gave again have no row in the ledger, and are in no line: they are counted "
    "apart, by whole hours.",
}
"""What is to be said of the figures, by what they depend on."""

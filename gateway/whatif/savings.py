"""What failovers, rescues, caches and cheap routing saved: requests, and dollars where there are any."""

from msgspec import Struct

from gateway.reports.money import usd
from gateway.reports.requests import was_rescued
from gateway.whatif.answer import GivenAgain, Line, Tally, WhatIf
from gateway.whatif.case import Case
from gateway.whatif.scenarios import Scenario, World, extreme, first_choice


class Failovers(Struct, frozen=True, gc=False):
    """Requests that were answered by another Endpoint than the one that was asked first."""

    requests: int
    wasted_usd: str
    """What their failed Attempts were billed."""
    dearer_usd: str
    """What their answers cost more than at the first choice; below zero, less."""


class Rescues(Struct, frozen=True, gc=False):
    """Answers that were cut, and went on elsewhere."""

    requests: int
    kept_usd: str
    """What the parts before the cuts were billed: without a rescue they would have been thrown away."""


class Savings(Struct, frozen=True, gc=False, kw_only=True):
    """What was saved in a window."""

    since: str
    until: str
    requests: int
    as_was_usd: str
    complete: bool
    versus_priciest: Line
    """Had everything gone to the dearest Endpoint that could have answered."""
    versus_first_choice: Line
    """Had whoever came first always answered."""
    routing_usd: str
    """The first of these: what choosing cheaply saved."""
    without_prompt_cache: Line
    prompt_cache_usd: str
    """What the caches of providers saved."""
    given_again: GivenAgain
    failovers: Failovers
    rescues: Rescues


class SavingsTally:
    """Adds up what was saved, request by request.

    Args:
        world: For decisions.
        no_cache: What a request would have cost without its provider's cache.
    """

    def __init__(self, world: World, no_cache: Scenario) -> None:
        self._world = world
        self._no_cache = no_cache
        self._priciest = Tally("priciest", "")
        self._first = Tally("first_choice", "")
        self._uncached = Tally("no_cache", "")
        self._failovers = self._wasted = self._dearer = self._rescues = self._kept = 0

    def add(self, case: Case) -> None:
        """Count one request in."""
        first = first_choice(case, self._world)
        self._priciest.add(case, extreme(case, self._world, dearest=True))
        self._first.add(case, first)
        self._uncached.add(case, self._no_cache(case))
        failed = [one for one in case.entries if one.outcome == "failed"]
        if case.final.outcome != "ok" or not failed:
            return
        wasted = sum(one.cost_in_nusd or 0 for one in failed)
        if case.record is not None and was_rescued(case.record):
            self._rescues += 1
            self._kept += wasted
        elif failed[0].endpoint != case.final.endpoint:
            self._failovers += 1
            self._wasted += wasted
            if first.cost_in_nusd is not None and case.final.cost_in_nusd is not None:
                self._dearer += case.final.cost_in_nusd - first.cost_in_nusd

    def result(self, whole: WhatIf) -> Savings:
        """What came of it, in the window of an answer."""
        return Savings(
            since=whole.since,
            until=whole.until,
            requests=whole.requests,
            as_was_usd=whole.as_was_usd,
            complete=whole.complete,
            versus_priciest=self._priciest.line(),
            versus_first_choice=self._first.line(),
            routing_usd=usd(self._priciest.difference_in_nusd),
            without_prompt_cache=self._uncached.line(),
            prompt_cache_usd=usd(self._uncached.difference_in_nusd),
            given_again=whole.given_again,
            failovers=Failovers(self._failovers, usd(self._wasted), usd(self._dearer)),
            rescues=Rescues(self._rescues, usd(self._kept)),
        )

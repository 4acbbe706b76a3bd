"""What one request would have cost under other rules: pure functions over a Case, with the router's own decision.

Whoever is asked under the other rules and was asked in truth too, does what it did then: its failure costs what that
cost, its answer what that cost. Whoever was not asked answers at once, with as many tokens as the answer really had.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias, get_args

from msgspec import Struct
from msgspec.structs import replace

from gateway.config.catalogue import Catalogue
from gateway.config.schema import Policy
from gateway.observation import Observation
from gateway.routing.ask import NO_PREFERENCES, Ask
from gateway.routing.candidate import Candidate, Plan
from gateway.routing.decide import decide
from gateway.routing.table import BALANCED, Row, Stage, Table, prepare
from gateway.whatif.case import Case
from providers.pricing import cost_in_nusd

Basis: TypeAlias = Literal["ledger", "priced", "estimated"]
"""ledger: as it was billed. priced: counted tokens times a price. estimated: tokens that nobody counted times a price.
"""
Kind: TypeAlias = Literal["on", "policy", "no_cache", "priciest", "cheapest", "first_choice"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
DRAW_BITS: Final = 53

NO_ANSWER: Final = "there was no answer: nobody knows how long it would have been"
NO_TABLE: Final = "neither its record nor today's configuration says who could have answered"
NO_PRICE: Final = "the price there is not known"
NOBODY_FITS: Final = "nobody there could have served it"
ALL_FAILED: Final = "everybody that would have been asked failed it in truth"
UNKNOWN_COST: Final = "nobody knows what it cost"
NO_SNAPSHOT: Final = "the prices it was billed by are not known any more"


class Verdict(Struct, frozen=True, gc=False):
    """What a request would have cost, or why nobody can say."""

    cost_in_nusd: int | None
    basis: Basis = "ledger"
    by_today: bool = False
    """Decided by today's configuration, because there is no record."""
    reason: str = ""
    """Why there is no cost."""


Scenario: TypeAlias = Callable[[Case], Verdict]


class _Decided(Struct, frozen=True):
    plan: Plan
    rows: dict[str, Row]
    by_today: bool


class World:
    """What decisions are made by where a request's own record does not say.

    Args:
        catalogue: Today's configuration; None: there is none.
    """

    def __init__(self, catalogue: Catalogue | None) -> None:
        self.catalogue = catalogue
        self._tables: dict[str, Table | None] = {}
        self._variants: dict[tuple[int, Policy], tuple[Table, Table]] = {}
        self._rows: dict[int, tuple[Table, dict[str, Row]]] = {}
        self._last: tuple[Case, _Decided | None] | None = None
        """Several questions about one request need the same decision."""

    def today(self, name: str) -> Table | None:
        """Who could answer for a name by today's configuration, whoever is off; None: nothing has that name."""
        if name not in self._tables:
            catalogue = self.catalogue
            route = None if catalogue is None else catalogue.find_route(name)
            self._tables[name] = None if catalogue is None or route is None else prepare([route], catalogue, {})
        return self._tables[name]

    def under(self, table: Table, policy: Policy) -> Table:
        """The same with another policy for every stage."""
        # By identity, and the Table is held so that its id stays its own.
        known = self._variants.get((id(table), policy))
        if known is None:
            known = self._variants[id(table), policy] = (table, with_policy(table, policy))
        return known[1]

    def rows(self, table: Table) -> dict[str, Row]:
        """Its rows by Endpoint."""
        known = self._rows.get(id(table))
        if known is None:
            known = self._rows[id(table)] = (table, {row.id: row for row in table.merged.rows})
        return known[1]

    def decided(self, case: Case, policy: Policy | None = None) -> _Decided | None:
        """The Plan for a request: by its record, or else by today's configuration as if all were well."""
        if policy is None and self._last is not None and self._last[0] is case:
            return self._last[1]
        decided = self._decide(case, policy)
        if policy is None:
            self._last = (case, decided)
        return decided

    def _decide(self, case: Case, policy: Policy | None) -> _Decided | None:
        table = case.table if case.record is not None else self.today(case.final.route)
        if table is None:
            return None
        changed = table if policy is None else self.under(table, policy)
        if case.record is None:
            plan = decide(changed, ask_of(case), {}, now_s=0.0, draw=draw_of(case), now_utc=case.now_utc)
            return _Decided(plan, self.rows(changed), by_today=True)
        record = case.record
        plan = decide(
            changed, record.ask, record.observations, now_s=record.now_s, draw=record.draw, now_utc=record.now_utc
        )
        return _Decided(plan, self.rows(changed), by_today=False)

    def decided_on(self, case: Case, table: Table) -> _Decided:
        """The Plan for a request on somebody else's Table: what it needs counts, what its client preferred does not."""
        seen: dict[str, Observation] = {} if case.record is None else case.record.observations
        now_s, draw = (0.0, draw_of(case)) if case.record is None else (case.record.now_s, case.record.draw)
        plan = decide(table, freed(ask_of(case)), seen, now_s=now_s, draw=draw, now_utc=case.now_utc)
        return _Decided(plan, self.rows(table), by_today=case.record is None)


def scenario_of(kind: Kind, name: str, world: World, no_cache: Scenario) -> Scenario:
    """The function that judges requests.

    Args:
        kind: What is asked.
        name: The model or Endpoint, or the policy.
        world: Where Tables come from.
        no_cache: For that one, which needs the prices that were billed by.

    Raises:
        ValueError: Nothing has that name.
    """
    if kind == "on":
        table = world.today(name)
        if table is None:
            raise ValueError(f"no model or endpoint is called {name!r} in the configuration")
        return lambda case: on(case, world, table)
    if kind == "policy":
        policies: dict[str, Policy] = {one: one for one in get_args(Policy)}
        if name not in policies:
            raise ValueError(f"there is no policy {name!r}: {', '.join(policies)}")
        return lambda case: under_policy(case, world, policies[name])
    if kind == "no_cache":
        return no_cache
    if kind == "first_choice":
        return lambda case: first_choice(case, world)
    return lambda case: extreme(case, world, dearest=kind == "priciest")


def on(case: Case, world: World, table: Table) -> Verdict:
    """All on one Model's Endpoints, or on one Endpoint."""
    return _walked(case, world.decided_on(case, table))


def under_policy(case: Case, world: World, policy: Policy) -> Verdict:
    """Every Route with that policy. Where the very same is decided, what it cost is what it cost."""
    decided = world.decided(case, policy)
    if decided is None:
        return Verdict(None, reason=NO_TABLE)
    if case.record is not None and case.table is not None:
        asked = [one.endpoint for one in case.record.decision.candidates]
        if asked == [one.endpoint.id for one in decided.plan.candidates]:
            return as_it_was(case)
    return _walked(case, decided)


def first_choice(case: Case, world: World) -> Verdict:
    """Always whoever comes first, as if it had answered."""
    decided = world.decided(case)
    if decided is None:
        return Verdict(None, reason=NO_TABLE)
    seats = decided.plan.candidates or decided.plan.resting
    if not seats:
        return Verdict(None, reason=NOBODY_FITS)
    return _answer_of(case, decided, seats[0])


def extreme(case: Case, world: World, *, dearest: bool) -> Verdict:
    """Always the dearest, or the cheapest, of those that could have answered: local ones and fallbacks apart.

    Could have: eligible, up as far as anybody knew, and not failed in truth.
    """
    decided = world.decided(case)
    if decided is None:
        return Verdict(None, reason=NO_TABLE)
    seats = _feasible(case, decided.plan)
    if not seats:
        return Verdict(None, reason=NOBODY_FITS)
    verdicts = [_answer_of(case, decided, seat) for seat in seats]
    known = [one for one in verdicts if one.cost_in_nusd is not None]
    if not known:
        return verdicts[0]
    pick = max if dearest else min
    return pick(known, key=_cost_of)


class Choice(Struct, frozen=True, gc=False):
    """Whom the router would choose, and what the answer costs there."""

    endpoint: str
    cost_in_nusd: int


def when_all_is_well(case: Case, world: World) -> Choice | None:
    """Whom the router would have asked first had every Endpoint been well; None: nobody, or at an unknown cost."""
    table = case.table if case.record is not None else world.today(case.final.route)
    if table is None:
        return None
    draw = draw_of(case) if case.record is None else case.record.draw
    plan = decide(table, ask_of(case), {}, now_s=0.0, draw=draw, now_utc=case.now_utc)
    if not plan.candidates:
        return None
    seat = plan.candidates[0]
    verdict = _answer_of(case, _Decided(plan, world.rows(table), by_today=case.record is None), seat)
    return None if verdict.cost_in_nusd is None else Choice(seat.endpoint.id, verdict.cost_in_nusd)


def as_it_was(case: Case) -> Verdict:
    """What it cost."""
    return Verdict(None, reason=UNKNOWN_COST) if case.unknown else Verdict(case.as_was_in_nusd)


def _cost_of(verdict: Verdict) -> int:
    return verdict.cost_in_nusd or 0


def _feasible(case: Case, plan: Plan) -> Sequence[Candidate]:
    failed = {one.endpoint for one in case.entries if one.outcome == "failed"}
    failed -= {one.endpoint for one in case.entries if one.outcome != "failed"}
    able = [one for one in (plan.candidates or plan.resting) if one.endpoint.id not in failed]
    hired = [one for one in able if not one.endpoint.local] or able
    first = min((one.stage for one in hired), default=0)
    return [one for one in hired if one.stage == first]


def _walked(case: Case, decided: _Decided) -> Verdict:
    """What the Plan would have cost, one after the other as long as each fails."""
    cost = 0
    seats = (*decided.plan.candidates, *decided.plan.resting)
    for seat in seats:
        entries = case.at(seat.endpoint.id)
        if not entries or any(entry.outcome != "failed" for entry in entries):
            verdict = _answer_of(case, decided, seat)
            if verdict.cost_in_nusd is None:
                return verdict
            return replace(verdict, cost_in_nusd=cost + verdict.cost_in_nusd)
        if any(entry.cost_in_nusd is None for entry in entries):
            return Verdict(None, reason=UNKNOWN_COST)
        cost += sum(entry.cost_in_nusd or 0 for entry in entries)
    return Verdict(None, reason=ALL_FAILED if seats else NOBODY_FITS)


def _answer_of(case: Case, decided: _Decided, seat: Candidate) -> Verdict:
    """What the answer costs at one Endpoint, whatever became of others."""
    entries = case.at(seat.endpoint.id)
    if case.final in entries and not case.spliced:
        if any(entry.cost_in_nusd is None for entry in entries):
            return Verdict(None, reason=UNKNOWN_COST)
        return Verdict(sum(entry.cost_in_nusd or 0 for entry in entries), by_today=decided.by_today)
    answered = case.answered
    if answered is None:
        return Verdict(None, reason=NO_ANSWER)
    tariff = decided.rows[seat.endpoint.id].tariff
    cost = cost_in_nusd(tariff.price, tariff.overrides, answered.usage, case.now_utc, images=case.images)
    if cost is None:
        return Verdict(None, reason=NO_PRICE)
    return Verdict(cost, "estimated" if answered.estimated else "priced", decided.by_today)


def with_policy(table: Table, policy: Policy) -> Table:
    """The same Table under another policy."""
    stages = tuple(_under(stage, policy) for stage in table.stages)
    plain = all(row.tariff.plain for row in table.merged.rows)
    return replace(table, stages=stages, merged=_under(table.merged, policy), usual=plain and policy == BALANCED)


def _under(stage: Stage, policy: Policy) -> Stage:
    return replace(stage, policy=policy)


def ask_of(case: Case) -> Ask:
    """What the request asked for; without a record, what follows from its first row."""
    if case.record is not None:
        return case.record.ask
    first = case.entries[0]
    return Ask(prompt_tokens=first.prompt_tokens, output_tokens=first.output_limit, stream=first.stream)


def freed(ask: Ask) -> Ask:
    """Without what binds it to the Endpoints of its own Route, its key or its prompt cache."""
    return replace(
        ask, preferences=NO_PREFERENCES, permitted=None, budget_in_nusd=None, warm_endpoint=None, warm_tokens=0
    )


def draw_of(case: Case) -> float:
    """A number in [0, 1) that is always the same for a request, in the place of the one that was drawn."""
    digest = hashlib.sha256(case.entries[0].attempt_id.encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> (64 - DRAW_BITS)) / (1 << DRAW_BITS)

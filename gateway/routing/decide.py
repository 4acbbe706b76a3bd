"""The decision: from a Table, an Ask and how everybody is doing to a Plan. Pure; the same inputs give the same Plan."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from gateway.config.schema import ORDERED
from gateway.observation import UNOBSERVED, Observation
from gateway.routing.ask import Ask
from gateway.routing.candidate import Candidate, Plan
from gateway.routing.costs import cost_at, price_now
from gateway.routing.eligible import Demand, demand_of, judge, judge_wishes, place_in
from gateway.routing.exclusion import Exclusion
from gateway.routing.policies import POLICIES, Draws, Entrants
from gateway.routing.table import Row, Stage, Table
from gateway.routing.usual import usual_of

# Handicaps, from the least to the worst; the sum decides before any policy does. UNVERIFIED (1) and LOCAL (1 << 12)
# are in gateway.routing.table, because they are the same for every request.
PARAMETER: Final = 1 << 1
"""For each parameter that it is known not to take."""
PARAMETERS_MAX: Final = 31
CUTOFF: Final = 1 << 6
"""For each of the wishes for throughput and latency that it misses."""
CAPABILITY: Final = 1 << 8
"""For each capability that has to be emulated."""
NAMED: Final = 1 << 13
"""For each place further back in `provider.order`."""
DEGRADED: Final = 1 << 60
"""Behind every healthy one, of all stages."""
LATE: Final = 1 << 61
"""Disabled, and due to be looked at again: when nobody else is left."""


class _Stand(Struct):
    """What becomes of the Endpoints of one stage, while it is worked out."""

    rows: list[Row]
    seen: list[Observation]
    costs: list[int | None]
    groups: list[int]
    """The sum of handicaps."""
    resting: list[tuple[Row, Candidate]]
    probing: bool = False


class _Moment(Struct, frozen=True):
    """The rest of what a decision depends on."""

    observations: Mapping[str, Observation]
    now_s: float
    policy: str | None
    """Of every stage, where the request sorts; else each has its own."""


def decide(
    table: Table,
    ask: Ask,
    observations: Mapping[str, Observation],
    *,
    now_s: float,
    draw: float,
    now_utc: datetime | None = None,
) -> Plan:
    """Whom to ask, in order, whom only when nobody is left, and why not the others.

    Args:
        table: Whoever could answer.
        ask: What the request asks for.
        observations: By Endpoint id; who is missing counts as never observed.
        now_s: The monotonic clock that the Observations were made by.
        draw: Uniform in [0, 1): all that is drawn is drawn from it.
        now_utc: For prices that depend on the time; without it those do not hold.
    """
    usual = usual_of(table)
    seen = observations if isinstance(observations, dict) else dict(observations)
    plan = None if usual is None else usual.decide(ask, seen, draw)
    return plan if plan is not None else _decide(table, ask, observations, now_s, draw, now_utc)


def _decide(
    table: Table,
    ask: Ask,
    observations: Mapping[str, Observation],
    now_s: float,
    draw: float,
    now_utc: datetime | None,
) -> Plan:
    """Whatever the request asks for, and however everybody is doing."""
    preferences = ask.preferences
    demand = demand_of(table, ask, now_utc)
    moment = _Moment(observations, now_s, preferences.sort)
    excluded = list(table.excluded)
    first: list[Candidate] = []
    behind: list[Candidate] = []
    late: list[Candidate] = []
    resting: list[Candidate] = []
    stages = (table.merged,) if preferences.across_models else table.stages
    for number, stage in enumerate(stages):
        policy = preferences.sort or stage.policy
        stand = _enter(stage, demand, moment, excluded)
        if stand.rows:
            order, scores = _order(stand, stage, demand, policy, Draws(draw, number))
            if not preferences.allow_fallbacks and not demand.order:
                order = _one_provider(stand, order, excluded)
            _seat(stand, order, scores, (first, behind, late))
        elif not preferences.allow_fallbacks and not demand.order:
            _one_provider(stand, [], excluded)
        resting += [candidate for _, candidate in stand.resting]
    if len(resting) > 1:
        resting.sort(key=_back_at)
    policy = preferences.sort or stages[0].policy
    return Plan(
        table.route,
        policy,
        (*first, *behind, *late),
        tuple(resting),
        tuple(excluded),
        table.explicit or policy == ORDERED or bool(preferences.order),
        table.emulate,
        table.rescue and preferences.allow_fallbacks,
        table.upcast,
        table.hedge and preferences.allow_fallbacks,
    )


def _back_at(candidate: Candidate) -> float:
    return candidate.observation.until_s


def _enter(stage: Stage, demand: Demand, moment: _Moment, excluded: list[Exclusion]) -> _Stand:
    """Everybody of the stage becomes an entrant with its handicaps, rests, or is excluded."""
    stand = _Stand([], [], [], [], [])
    rows, all_seen, costs, groups = stand.rows, stand.seen, stand.costs, stand.groups
    tokens, output, needed, hard = demand.tokens, demand.output_tokens, demand.needed, demand.hard
    ask, special, find = demand.ask, demand.special, moment.observations.get
    prompt, expected, images, warm = ask.prompt_tokens, demand.expected_tokens, ask.images, ask.warm_endpoint
    fine = special or bool(ask.parameters)
    ordered = (moment.policy or stage.policy) == ORDERED
    for row, handicap in zip(stage.rows, stage.ordered_handicaps if ordered else stage.handicaps, strict=True):
        lacking = needed & ~row.abilities
        unfit = lacking & hard or tokens > row.context_tokens or output > row.output_max_tokens
        if unfit or special:
            exclusion = judge(row, demand) if unfit else judge_wishes(row, demand)
            if exclusion is not None:
                excluded.append(exclusion)
                continue
        seen = find(row.id, UNOBSERVED)
        tariff = row.tariff
        if tariff.plain and row.id != warm:
            per_token = prompt * tariff.input_in_pusd + expected * tariff.output_in_pusd
            cost: int | None = per_token + tariff.request_in_pusd + images * tariff.image_in_pusd
        else:
            cost = _cost(row, demand)
        group = handicap + CAPABILITY * lacking.bit_count() if lacking else handicap
        if fine:
            group += _wishes_missed(row, seen, demand)
        if seen.standing != "healthy":
            behind = _stands(row, seen, cost, moment, stand, excluded)
            if behind is None:
                continue
            group += behind
        rows.append(row)
        all_seen.append(seen)
        costs.append(cost)
        groups.append(group)
    return stand


def _cost(row: Row, demand: Demand) -> int | None:
    ask = demand.ask
    return cost_at(
        price_now(row.tariff, ask.prompt_tokens, demand.now_utc),
        prompt_tokens=ask.prompt_tokens,
        output_tokens=demand.expected_tokens,
        images=ask.images,
        warm_tokens=ask.warm_tokens if row.id == ask.warm_endpoint else 0,
    )


def _wishes_missed(row: Row, seen: Observation, demand: Demand) -> int:
    """The handicap of what the client would rather have otherwise. What nobody measured misses nothing."""
    group = NAMED * place_in(demand.order, row, demand.slugs) if demand.order else 0
    measured = seen.throughput
    if measured is not None:
        for field, wish in demand.floors:
            if getattr(measured, field) < wish:
                group += CUTOFF
                break
    measured = seen.latency
    if measured is not None:
        for field, wish in demand.ceilings:
            if getattr(measured, field) > wish:
                group += CUTOFF
                break
    taken = row.endpoint.parameters
    if taken is not None and not demand.parameters <= taken:
        group += PARAMETER * min(len(demand.parameters - taken), PARAMETERS_MAX)
    return group


def _stands(
    row: Row, seen: Observation, cost: int | None, moment: _Moment, stand: _Stand, excluded: list[Exclusion]
) -> int | None:
    """The handicap of an Endpoint that is not healthy; None: it rests, or is excluded."""
    due = moment.now_s >= seen.until_s
    if seen.standing == "degraded":
        return DEGRADED
    if seen.standing == "probing" or (seen.standing == "open" and due):
        stand.probing = True
        return 0
    if seen.standing == "disabled":
        if due:
            return LATE
        reason = "our key, credit or model name is no good there: the operator must act"
        excluded.append(Exclusion(row.id, "disabled", reason))
        return None
    if due:
        return 0
    stand.resting.append((row, Candidate(row.endpoint, seen, row.stage, cost, panic=seen.standing == "open")))
    return None


def _order(stand: _Stand, stage: Stage, demand: Demand, policy: str, draws: Draws) -> tuple[list[int], Sequence[float]]:
    """Positions of the entrants, best first, and their scores."""
    groups = stand.groups
    entrants = Entrants(stand.rows, stand.seen, stand.costs, stage.weights, stage.score, draws)
    keys, scores = POLICIES[policy](entrants)
    order = sorted(range(len(groups)), key=keys.__getitem__)
    if any(groups):
        order.sort(key=groups.__getitem__)
    if stand.probing:
        _let_probe(stand, order)
    if demand.ask.warm_endpoint is not None and policy != ORDERED and not demand.order:
        _prefer_warm(stand, order, demand.ask.warm_endpoint)
    return order, scores


def _let_probe(stand: _Stand, order: list[int]) -> None:
    """One of those that recover goes before its equals, while there is somebody to fall to; the rest wait.

    Local ones wait their turn: an answer by a smaller model is not worth knowing that it is back.
    """
    groups = stand.groups
    due = [
        position
        for position in order
        if stand.seen[position].standing in ("probing", "open") and not stand.rows[position].endpoint.local
    ]
    for position in due[1:]:
        groups[position] += DEGRADED
    if len(due) > 1:
        order.sort(key=groups.__getitem__)
    if due:
        order.remove(due[0])
        order.insert(next((at for at, one in enumerate(order) if groups[one] >= groups[due[0]]), len(order)), due[0])


def _prefer_warm(stand: _Stand, order: list[int], warm: str) -> None:
    """Whoever holds the conversation in its cache goes first, where that costs no more than the policy's choice."""
    seen, costs = stand.seen, stand.costs
    position = next((at for at, row in enumerate(stand.rows) if row.id == warm), None)
    if position is None or seen[position].standing != "healthy" or seen[position].outage:
        return
    chosen = next(one for one in order if seen[one].standing == "healthy")
    ours, theirs = costs[position], costs[chosen]
    no_dearer = theirs is None or (ours is not None and ours <= theirs)
    if no_dearer and stand.groups[position] == stand.groups[chosen]:
        order.remove(position)
        order.insert(0, position)


def _one_provider(stand: _Stand, order: list[int], excluded: list[Exclusion]) -> list[int]:
    """Only the first one's provider is left, for requests that allow no fallbacks."""
    if order:
        provider = stand.rows[order[0]].provider
    elif stand.resting:
        provider = min(stand.resting, key=lambda one: one[1].observation.until_s)[0].provider
    else:
        return order
    reason = f"{provider} comes first, and the request allows no other provider"
    gone = [stand.rows[one] for one in order if stand.rows[one].provider != provider]
    gone += [row for row, _ in stand.resting if row.provider != provider]
    excluded += [Exclusion(row.id, "no_fallbacks", reason) for row in gone]
    stand.resting = [(row, candidate) for row, candidate in stand.resting if row.provider == provider]
    return [one for one in order if stand.rows[one].provider == provider]


def _seat(
    stand: _Stand,
    order: list[int],
    scores: Sequence[float],
    seats: tuple[list[Candidate], list[Candidate], list[Candidate]],
) -> None:
    """Candidates to where they stand among those of all stages: healthy, degraded, disabled but due."""
    rows, seen, costs, groups = stand.rows, stand.seen, stand.costs, stand.groups
    first, behind, late = seats
    for one in order:
        row, group = rows[one], groups[one]
        seat = first if group < DEGRADED else behind if group < LATE else late
        seat.append(Candidate(row.endpoint, seen[one], row.stage, costs[one], scores[one]))

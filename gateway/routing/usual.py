"""The decision for the usual request, at a third of the cost: no wishes, and everybody fit, healthy and `balanced`.

Whatever is not like that is left to `gateway.routing.decide`, whose Plan this one equals.
"""

from collections.abc import Callable
from math import log

from gateway.observation import UNOBSERVED, Observation
from gateway.routing.ask import NO_PREFERENCES, Ask
from gateway.routing.candidate import Candidate, Plan
from gateway.routing.eligible import OUTPUT_MIN_TOKENS
from gateway.routing.policies import BEHIND, INCREMENT, MASK, MULTIPLIER, PICO_PER_MICRO, UNIT, WEIGHT_MIN, mixed
from gateway.routing.table import ABILITIES, Table

Find = Callable[[str, Observation], Observation]
"""An Endpoint's Observation by its id, or what to take in its place."""


def decide_usual(table: Table, ask: Ask, find: Find, draw: float) -> Plan | None:
    """The Plan; None where anything is not as usual.

    Args:
        table: Whoever could answer.
        ask: What the request asks for.
        find: How everybody is doing.
        draw: As for `decide`.
    """
    if (
        not table.usual
        or ask.preferences is not NO_PREFERENCES
        or ask.parameters
        or ask.warm_endpoint is not None
        or ask.permitted is not None
        or ask.budget_in_nusd is not None
    ):
        return None
    candidates: list[Candidate] = []
    for number in range(len(table.stages)):
        ranked = _rank(table, number, ask, find, mixed(draw, number))
        if ranked is None:
            return None
        candidates += ranked
    return Plan(
        table.route,
        table.stages[0].policy,
        tuple(candidates),
        (),
        table.excluded,
        table.explicit,
        table.emulate,
        table.rescue,
        table.upcast,
        table.hedge,
    )


def _rank(table: Table, number: int, ask: Ask, find: Find, state: int) -> list[Candidate] | None:
    """The Candidates of one stage, as `balanced` puts them; None where one is not as usual."""
    stage = table.stages[number]
    prompt, output, images = ask.prompt_tokens, ask.output_tokens, ask.images
    tokens = prompt + (OUTPUT_MIN_TOKENS if output is None else output)
    expected = ask.expected_output_tokens
    if output is None:
        output = 0
    elif output < expected:
        expected = output
    needed = sum([ABILITIES[name] for name in ask.needed]) if ask.needed else 0
    entrants: list[tuple[int, float, int, Candidate]] = []
    for row, handicap in zip(stage.rows, stage.handicaps, strict=True):
        seen = find(row.id, UNOBSERVED)
        if (
            seen.standing != "healthy"
            or seen.outage
            or tokens > row.context_tokens
            or output > row.output_max_tokens
            or needed & ~row.abilities
        ):
            return None
        tariff = row.tariff
        cost = prompt * tariff.input_in_pusd + expected * tariff.output_in_pusd + tariff.request_in_pusd
        if images:
            cost += images * tariff.image_in_pusd
        if not cost:
            return None
        state = (state * MULTIPLIER + INCREMENT) & MASK
        micro = cost / PICO_PER_MICRO
        weight = seen.weight
        weight = (weight if weight > WEIGHT_MIN else WEIGHT_MIN) / (micro * micro)  # noqa: FURB136 (`max` is 60 ns)
        key = BEHIND + log(-log((state >> 11 | 1) * UNIT) / weight)
        # Its place in the configuration decides between equals, as a stable sort would.
        entrants.append((handicap, key, len(entrants), Candidate(row.endpoint, seen, row.stage, cost, weight)))
    entrants.sort()
    return [entrant[3] for entrant in entrants]

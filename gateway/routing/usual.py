"""The decision for the usual request, at a tenth of the cost: no wishes, and everybody fit, healthy and `balanced`.

Whatever is not like that is left to `gateway.routing.decide`, whose Plan this one equals. What it needs of a Table is
copied out once, because a record's Structs are slow to read for compiled modules.
"""

from collections.abc import Sequence
from math import log
from typing import Final

from gateway.observation import UNOBSERVED, Observation
from gateway.routing.ask import NO_PREFERENCES, Ask
from gateway.routing.candidate import Candidate, Plan
from gateway.routing.eligible import OUTPUT_MIN_TOKENS
from gateway.routing.policies import BEHIND, PICO_PER_MICRO, WEIGHT_MIN, Draws
from gateway.routing.table import ABILITIES, Row, Table
from providers.base import Endpoint

KEPT_MAX: Final = 256
"""Tables that `usual_of` remembers."""


class _Place:
    """A Row, less what the usual request does not look at."""

    __slots__ = (
        "abilities",
        "context_tokens",
        "endpoint",
        "handicap",
        "id",
        "image_in_pusd",
        "input_in_pusd",
        "output_in_pusd",
        "output_max_tokens",
        "request_in_pusd",
        "stage",
    )

    def __init__(self, row: Row, handicap: int) -> None:
        tariff = row.tariff
        self.endpoint: Endpoint = row.endpoint
        self.id: str = row.id
        self.stage: int = row.stage
        self.handicap = handicap
        self.context_tokens: int = row.context_tokens
        self.output_max_tokens: int = row.output_max_tokens
        self.abilities: int = row.abilities
        self.input_in_pusd: int = tariff.input_in_pusd
        self.output_in_pusd: int = tariff.output_in_pusd
        self.request_in_pusd: int = tariff.request_in_pusd
        self.image_in_pusd: int = tariff.image_in_pusd


class Usual:
    """A Table that is `usual`, ready for requests without wishes."""

    __slots__ = (
        "_emulate",
        "_excluded",
        "_explicit",
        "_hedge",
        "_policy",
        "_rescue",
        "_route",
        "_stages",
        "_upcast",
    )

    def __init__(self, table: Table) -> None:
        self._stages = [
            [_Place(row, handicap) for row, handicap in zip(stage.rows, stage.handicaps, strict=True)]
            for stage in table.stages
        ]
        self._route = table.route
        self._policy = table.stages[0].policy
        self._excluded = table.excluded
        self._explicit = table.explicit
        self._emulate = table.emulate
        self._rescue = table.rescue
        self._upcast = table.upcast
        self._hedge = table.hedge

    def decide(self, ask: Ask, observations: dict[str, Observation], draw: float) -> Plan | None:
        """The Plan; None where anything is not as usual."""
        if (
            ask.preferences is not NO_PREFERENCES
            or ask.parameters
            or ask.warm_endpoint is not None
            or ask.permitted is not None
            or ask.budget_in_nusd is not None
        ):
            return None
        return self.plan(
            ask.needed,
            ask.prompt_tokens,
            ask.output_tokens,
            ask.expected_output_tokens,
            ask.images,
            observations,
            draw,
            well=False,
        )

    def plan(
        self,
        needed: Sequence[str],
        prompt: int,
        output: int | None,
        expected: int,
        images: int,
        observations: dict[str, Observation],
        draw: float,
        *,
        well: bool,
    ) -> Plan | None:
        """The same for an Ask without wishes, by its figures. `well`: nobody has to be looked at."""
        lacking = 0
        for name in needed:
            lacking |= ABILITIES[name]
        tokens = prompt + (OUTPUT_MIN_TOKENS if output is None else output)
        if output is not None and output < expected:
            expected = output
        candidates: list[Candidate] = []
        for number, places in enumerate(self._stages):
            draws = Draws(draw, number)
            ranked: list[Candidate] = []
            order: list[tuple[int, float, int]] = []
            for place in places:
                seen = observations.get(place.id, UNOBSERVED)
                weight = 1.0
                if not well:
                    if seen.standing != "healthy" or seen.outage:
                        return None
                    weight = max(seen.weight, WEIGHT_MIN)
                cost = prompt * place.input_in_pusd + expected * place.output_in_pusd + place.request_in_pusd
                cost += images * place.image_in_pusd
                if (
                    cost == 0
                    or tokens > place.context_tokens
                    or (output is not None and output > place.output_max_tokens)
                    or lacking & ~place.abilities
                ):
                    return None
                micro = cost / PICO_PER_MICRO
                weight /= micro * micro
                order.append((place.handicap, BEHIND + log(-log(draws.next()) / weight), len(order)))
                ranked.append(Candidate(place.endpoint, seen, place.stage, cost, weight))
            order.sort()
            candidates += [ranked[at] for _, _, at in order]
        return Plan(
            self._route,
            self._policy,
            tuple(candidates),
            (),
            self._excluded,
            self._explicit,
            self._emulate,
            self._rescue,
            self._upcast,
            self._hedge,
        )


_known: Final[dict[int, tuple[Table, Usual]]] = {}


def usual_of(table: Table) -> Usual | None:
    """What is kept of a Table for usual requests; None where there are none."""
    if not table.usual:
        return None
    known = _known.get(id(table))
    if known is None:
        if len(_known) >= KEPT_MAX:
            _known.clear()
        known = _known[id(table)] = (table, Usual(table))  # with the Table, so that its id stays its own
    return known[1]

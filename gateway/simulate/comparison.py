"""What a policy costs, how fast it is and what it loses, next to what could have been had on the same luck.

The cheapest feasible choice for a request is, of the Endpoints that fit it, that health did not know to be bad when it
was decided and that would have answered it, the one with the least real cost at the request's real lengths. What
`balanced` expects is the mean of the expected costs under its rule: the first of a Plan is drawn by weight / cost^2.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from gateway.explain.trace import Trace
from gateway.routing.candidate import Candidate
from gateway.routing.decide import decide
from gateway.simulate.clients import Seen
from gateway.simulate.dice import Dice
from gateway.simulate.provider import Received
from gateway.simulate.running import Outcome
from gateway.simulate.texts import OUTPUT_TOKENS_MAX, prompt_tokens
from gateway.simulate.world import true_price
from providers.base import Endpoint

PICO_PER_USD: Final = 1e12
REDRAWS: Final = 8
"""How often each decision is drawn again: one draw of each would say little in a thousand."""
REDRAW_LUCK: Final = 4
WEIGHT_MIN: Final = 1e-9


class Figures(Struct):
    """Of one policy, over any number of runs."""

    policy: str
    requests: int = 0
    answered: int = 0
    failed: int = 0
    left: int = 0
    attempts: int = 0
    repeats: int = 0
    rescues: int = 0
    cost_in_pusd: int = 0
    """Of all Attempts of answered requests, by the providers' bills."""
    cheapest_in_pusd: int = 0
    compared_in_pusd: int = 0
    """As `cost_in_pusd`, of those requests for which there is a cheapest choice."""
    chosen_in_pusd: int = 0
    """Of those the Attempts that answered alone: without what failed ones were billed."""
    draws: int = 0
    """First choices that were drawn, and drawn again, where `balanced` had a choice."""
    drawn_excess: float = 0.0
    """Sum over them of what was drawn, as a share of what the rule expects, less one."""
    ttft_s: list[float] = []
    lost: list[tuple[int, int]] = []
    """Seed and number of requests that failed."""

    def add(self, other: "Figures") -> None:
        """Take those of other runs in."""
        for name in self.__struct_fields__:
            if name != "policy":
                setattr(self, name, getattr(self, name) + getattr(other, name))

    def over_cheapest(self) -> float | None:
        """How often the cost of the cheapest choices was paid."""
        return self.compared_in_pusd / self.cheapest_in_pusd if self.cheapest_in_pusd else None

    def chosen_over_cheapest(self) -> float | None:
        """The same without what providers billed for Attempts that failed."""
        return self.chosen_in_pusd / self.cheapest_in_pusd if self.cheapest_in_pusd else None

    def over_expected(self) -> float | None:
        """How the cost of what `balanced` drew compares with what its rule expects, in the mean: 1 is exact."""
        return 1.0 + self.drawn_excess / self.draws if self.draws else None

    def ttft_at(self, share: float) -> float | None:
        """The time to the first token that this share of the streams kept, in seconds."""
        if not self.ttft_s:
            return None
        ordered = sorted(self.ttft_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def add_run(figures: Figures, outcome: Outcome) -> None:
    """Count one run in."""
    by_job: dict[int, list[Received]] = defaultdict(list)
    for received in outcome.received:
        by_job[received.job].append(received)
    for seen in outcome.seen:
        asked = by_job[seen.job.number]
        figures.requests += 1
        figures.attempts += len(asked)
        figures.answered += seen.ending == "answered"
        figures.left += seen.ending == "left"
        if seen.ending == "failed":
            figures.failed += 1
            figures.lost.append((outcome.world.seed, seen.job.number))
        if seen.answer is not None:
            figures.repeats += sum(one.why == "again" for one in seen.answer.attempts)
            figures.rescues += seen.answer.rescued is not None
        if seen.ending == "answered":
            _add_answer(figures, outcome, seen, asked)
    if figures.policy == "balanced":
        dice = Dice(outcome.world.seed, REDRAW_LUCK)
        for trace in outcome.traces.values():
            _add_draws(figures, trace, dice)


def _add_answer(figures: Figures, outcome: Outcome, seen: Seen, asked: Sequence[Received]) -> None:
    cost = sum(received.cost_in_pusd for received in asked)
    figures.cost_in_pusd += cost
    if seen.job.stream and seen.first_s is not None:
        figures.ttft_s.append(seen.first_s - seen.started_s)
    cheapest = cheapest_feasible(outcome, seen)
    if cheapest is not None and seen.job.kind == "text":
        figures.compared_in_pusd += cost
        figures.chosen_in_pusd += asked[-1].cost_in_pusd
        figures.cheapest_in_pusd += cheapest


def cheapest_feasible(outcome: Outcome, seen: Seen) -> int | None:
    """The real cost of the cheapest feasible choice, in pico-USD; None where there was none."""
    plan = seen.plan
    if plan is None:
        return None
    good = [one for one in plan.candidates if _is_known_good(one) and one.expected_cost_in_pusd is not None]
    first = min((one.stage for one in good), default=0)
    return min(
        (
            _real_cost(outcome, seen, one.endpoint)
            for one in good
            if one.stage == first and outcome.providers[one.endpoint.id].would_answer(seen.job, seen.started_s)
        ),
        default=None,
    )


def _is_known_good(candidate: Candidate) -> bool:
    seen = candidate.observation
    room = seen.cap is None or seen.in_flight < seen.cap
    return seen.standing == "healthy" and not candidate.endpoint.local and room


def _real_cost(outcome: Outcome, seen: Seen, endpoint: Endpoint) -> int:
    price = true_price(endpoint, outcome.world.behaviours[endpoint.id])
    limits = (seen.job.limit_tokens, endpoint.max_output_tokens)
    tokens = min(seen.job.output_tokens, *(limit for limit in limits if limit is not None), OUTPUT_TOKENS_MAX)
    return prompt_tokens(seen.job) * (price.input_in_pusd or 0) + tokens * (price.output_in_pusd or 0)


def _add_draws(figures: Figures, trace: Trace, dice: Dice) -> None:
    """What the decision drew, and what it draws with other luck, next to what its rule expects."""
    rule = _Rule(trace)
    if rule.expected is None:
        return
    for number in range(REDRAWS + 1):
        draw = trace.draw if number == 0 else dice.unit()
        plan = decide(trace.table, trace.ask, trace.observations, now_s=trace.now_s, draw=draw, now_utc=trace.now_utc)
        figures.draws += 1
        figures.drawn_excess += rule.costs.get(plan.candidates[0].endpoint.id, 0.0) / rule.expected - 1.0


class _Rule:
    """What `balanced` expects of one decision, worked out from prices and observations alone."""

    def __init__(self, trace: Trace) -> None:
        ask = trace.ask
        tokens_out = min(ask.expected_output_tokens, ask.output_tokens or ask.expected_output_tokens)
        self.costs: dict[str, float] = {}
        self.expected: float | None = None
        weights: dict[str, float] = {}
        for candidate in trace.plan.candidates:
            endpoint, seen = candidate.endpoint, candidate.observation
            if candidate.stage or endpoint.local or endpoint.price is None or seen.standing == "probing" or ask.needed:
                if seen.standing == "probing" or ask.needed:
                    return  # the draw does not decide alone: somebody is to be tried, or can do more
                continue
            if seen.standing != "healthy" or seen.outage:
                continue
            price = endpoint.price
            cost = float(ask.prompt_tokens * (price.input_in_pusd or 0) + tokens_out * (price.output_in_pusd or 0))
            if not cost:
                return  # who asks for nothing comes first, and nothing is drawn
            self.costs[endpoint.id] = cost
            weights[endpoint.id] = max(seen.weight, WEIGHT_MIN) / cost**2
        if weights:
            total = sum(weights.values())
            self.expected = sum(self.costs[name] * weight for name, weight in weights.items()) / total

"""The policies: each gives every entrant of a stage a key, and the smallest key is asked first.

A policy sees entrants only, never who was excluded, and decides only their order: what is handicapped (unverified,
emulating, degraded, ...) stands behind whatever the policy says. Adding one is one function and one line in POLICIES.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import log
from typing import Final, TypeAlias

from msgspec import Struct

from gateway.config.catalogue import ScoreWeights
from gateway.observation import Observation
from gateway.routing.table import Row

PICO_PER_MICRO: Final = 1e6
WEIGHT_MIN: Final = 1e-9
"""What has no weight at all is still drawn, after everybody else."""
CAP_ASSUMED: Final = 64
"""How many Attempts at the same time an Endpoint is taken to bear when nobody has seen it refuse one."""
BEHIND: Final = 1e6
"""Further apart than any two keys of one tier can be: a key drawn from 53 bits lies well within +-1000."""

MULTIPLIER: Final = 6364136223846793005
INCREMENT: Final = 1442695040888963407
MASK: Final = (1 << 64) - 1
"""Of the 64-bit linear congruential generator that all draws of a decision come from."""
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
UNIT: Final = 2.0**-53
"""From its upper 53 bits to a number below 1."""

EXACTO: Final = ScoreWeights(cost=0, ttft=0, throughput=1, uptime=2, queue=0)
"""What answers well, and then fast: until somebody measures how well models call tools, uptime stands for it."""


class Entrants(Struct):
    """Who may be asked in one stage: parallel lists, in the order of the configuration."""

    rows: list[Row]
    seen: list[Observation]
    costs: list[int | None]
    """Expected, in pico-USD."""
    weights: Mapping[str, float]
    score: ScoreWeights
    seed: int
    """64 bits, from the request's draw."""

    def draws(self) -> Iterator[float]:
        """Numbers in (0, 1), endless, the same for the same seed (a 64-bit linear congruential generator)."""
        state = self.seed
        while True:
            state = (state * MULTIPLIER + INCREMENT) & MASK
            yield (state >> 11 | 1) * UNIT


Ranking: TypeAlias = tuple[Sequence[float], Sequence[float]]
"""A key and a score for each entrant: the first orders, the second tells people why."""
Policy: TypeAlias = Callable[[Entrants], Ranking]


def mixed(draw: float, stage: int) -> int:
    """The seed of a stage: SplitMix64's finish, so that draws that are close to each other lead far apart."""
    state = (int(draw * (1 << 53)) + (stage + 1) * 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ (state >> 30)) * _MIX_1) & MASK
    state = ((state ^ (state >> 27)) * _MIX_2) & MASK
    return state ^ (state >> 31)


def balanced(entrants: Entrants) -> Ranking:
    """Drawn without replacement, by weight / cost^2; after those whatever had an outage in the last 30 s.

    Among equals free ones come first, the least busy of them before the others, and those without a price last.
    Score: the weight that was drawn by, with the cost in micro-USD.

    Exponential variates with the weights as their rates, sorted, are such a draw (Efraimidis and Spirakis, 2006).
    Their logarithms keep that order and leave room for tiers.
    """
    keys: list[float] = []
    scores: list[float] = []
    for seen, cost, draw in zip(entrants.seen, entrants.costs, entrants.draws(), strict=False):
        weight = max(seen.weight, WEIGHT_MIN)
        if cost:
            micro = cost / PICO_PER_MICRO
            weight /= micro * micro
            key = BEHIND + log(-log(draw) / weight)
        elif cost is None:
            key = 2 * BEHIND + log(-log(draw) / weight)
        else:
            # Less than a whole one apart, so that the draw decides only between equally busy ones.
            key = min(seen.in_flight, BEHIND / 2) + draw
        keys.append(3 * BEHIND + key if seen.outage else key)
        scores.append(weight)
    return keys, scores


def weighted(entrants: Entrants) -> Ranking:
    """Drawn without replacement, by the Route's weights; those without one after the others. Score: the weight."""
    shares = [entrants.weights.get(row.id, 0.0) for row in entrants.rows]
    keys: list[float] = []
    for share, seen, draw in zip(shares, entrants.seen, entrants.draws(), strict=False):
        weight = share * max(seen.weight, WEIGHT_MIN)
        keys.append(log(-log(draw) / weight) if weight else BEHIND)
    return keys, shares


def price(entrants: Entrants) -> Ranking:
    """The least expected cost first, unknown ones last. Score: that cost, in micro-USD."""
    keys = [float("inf") if cost is None else cost for cost in entrants.costs]
    return keys, [0.0 if cost is None else cost / PICO_PER_MICRO for cost in entrants.costs]


def latency(entrants: Entrants) -> Ranking:
    """The shortest time to the first token first. Score: that time, in seconds."""
    keys = [_untried(seen) if seen.ttft_s is None else seen.ttft_s for seen in entrants.seen]
    return keys, [seen.ttft_s or 0.0 for seen in entrants.seen]


def throughput(entrants: Entrants) -> Ranking:
    """The most tokens per second first. Score: tokens per second."""
    keys = [_untried(seen) if seen.tokens_per_s is None else -seen.tokens_per_s for seen in entrants.seen]
    return keys, [seen.tokens_per_s or 0.0 for seen in entrants.seen]


def _untried(seen: Observation) -> float:
    """Who was not measured yet gets one request at a time before all others, unless it has only failed lately."""
    return BEHIND + seen.in_flight if seen.outage or seen.in_flight else -BEHIND


def ordered(entrants: Entrants) -> Ranking:
    """As the configuration lists them. Score: the position."""
    keys = range(len(entrants.rows))
    return keys, keys


def least_busy(entrants: Entrants) -> Ranking:
    """The least load first, equals drawn. Score: Attempts on their way per Attempt that it bears."""
    loads = [_load(seen) for seen in entrants.seen]
    draws = entrants.draws()
    return [round(load * BEHIND) + next(draws) for load in loads], loads


def score(entrants: Entrants) -> Ranking:
    """The highest score first: what the Route's weights say of how near each figure comes to the stage's best."""
    scores = _scores(entrants, entrants.score)
    return [-value for value in scores], scores


def exacto(entrants: Entrants) -> Ranking:
    """As `score`, by uptime and throughput alone."""
    scores = _scores(entrants, EXACTO)
    return [-value for value in scores], scores


def _scores(entrants: Entrants, weights: ScoreWeights) -> list[float]:
    """Of each entrant, from 0 to 1: the weighted mean of its figures, each as a share of the best one there is.

    cost: cheapest / own, 1 where it is free, 0 where it is unknown. ttft: shortest / own. throughput: own / highest.
    uptime: itself. queue: 1 - load, not below 0. What nobody measured counts as 1.
    """
    cheapest = min((cost for cost in entrants.costs if cost), default=0)
    shortest = min((seen.ttft_s for seen in entrants.seen if seen.ttft_s), default=0.0)
    highest = max((seen.tokens_per_s for seen in entrants.seen if seen.tokens_per_s), default=0.0)
    total = (weights.cost + weights.ttft + weights.throughput + weights.uptime + weights.queue) or 1.0
    return [
        (
            weights.cost * (0.0 if cost is None else cheapest / cost if cost else 1.0)
            + weights.ttft * (shortest / seen.ttft_s if seen.ttft_s else 1.0)
            + weights.throughput * (1.0 if seen.tokens_per_s is None else seen.tokens_per_s / (highest or 1.0))
            + weights.uptime * (1.0 if seen.uptime is None else seen.uptime)
            + weights.queue * max(0.0, 1.0 - _load(seen))
        )
        / total
        for seen, cost in zip(entrants.seen, entrants.costs, strict=True)
    ]


def _load(seen: Observation) -> float:
    return seen.in_flight / (seen.cap or CAP_ASSUMED)


POLICIES: Final[Mapping[str, Policy]] = {
    "balanced": balanced,
    "price": price,
    "latency": latency,
    "throughput": throughput,
    "ordered": ordered,
    "weighted": weighted,
    "least_busy": least_busy,
    "score": score,
    "exacto": exacto,
}
"""By the name that providers.yaml, or a request's `sort`, gives it."""

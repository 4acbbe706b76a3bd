"""The policies: each gives every entrant of a stage a key, and the smallest key is asked first.

A policy sees entrants only, never who was excluded, and decides only their order: what is handicapped (unverified,
emulating, degraded, ...) stands behind whatever the policy says. Adding one is one function and one line in POLICIES.
"""

from collections.abc import Callable, Mapping, Sequence
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

_LIMB_BITS: Final = 22
_LIMB: Final = (1 << 22) - 1
_HIGH: Final = (1 << 20) - 1
UNIT: Final = 2.0**-53
"""From 53 bits to a number below 1."""

EXACTO: Final = ScoreWeights(cost=0, ttft=0, throughput=1, uptime=2, queue=0)
"""What answers well, and then fast: until somebody measures how well models call tools, uptime stands for it."""


class Draws:
    """Numbers in (0, 1), endless, the same for the same draw and stage.

    A 64-bit linear congruential generator, whose seed goes through SplitMix64's finish, so that draws that are close to
    each other lead far apart. In three parts of 22, 22 and 20 bits: compiled modules multiply numbers of up to 30 bits
    without making objects of them.
    """

    __slots__ = ("_high", "_low", "_middle")

    def __init__(self, draw: float, stage: int) -> None:
        bits = int(draw * (1 << 53))
        by = stage + 1
        low = (bits & _LIMB) + by * 0xA7C15
        middle = (bits >> 22 & _LIMB) + by * 0x26E5FD + (low >> 22)
        self._low = low & _LIMB
        self._middle = middle & _LIMB
        self._high = ((bits >> 44) + by * 0x9E377 + (middle >> 22)) & _HIGH
        self._fold(30)
        self._multiply(0xBF584, 0x1DB473, 0x24E5B9)
        self._fold(27)
        self._multiply(0x94D04, 0x26EC4C, 0x3111EB)
        self._fold(31)

    def next(self) -> float:
        """The next number."""
        self._multiply(0x5851F, 0x10B532, 0x157F2D)
        low = self._low + 0x27814F
        middle = self._middle + 0x2DFBDD + (low >> 22)
        self._low = low & _LIMB
        self._middle = middle & _LIMB
        self._high = (self._high + 0x14057 + (middle >> 22)) & _HIGH
        return (self._high << 33 | self._middle << 11 | self._low >> 11 | 1) * UNIT

    def _fold(self, by: int) -> None:
        """Itself, exclusive or itself shifted right."""
        by -= _LIMB_BITS
        high = self._high
        self._low ^= self._middle >> by | high << (_LIMB_BITS - by) & _LIMB
        self._middle ^= high >> by

    def _multiply(self, high: int, middle: int, low: int) -> None:
        lowest = self._low * low
        above = self._low * middle + self._middle * low + (lowest >> 22)
        self._high = (self._low * high + self._middle * middle + self._high * low + (above >> 22)) & _HIGH
        self._middle = above & _LIMB
        self._low = lowest & _LIMB


class Entrants(Struct):
    """Who may be asked in one stage: parallel lists, in the order of the configuration."""

    rows: list[Row]
    seen: list[Observation]
    costs: list[int | None]
    """Expected, in pico-USD."""
    weights: Mapping[str, float]
    score: ScoreWeights
    draws: Draws


Ranking: TypeAlias = tuple[Sequence[float], Sequence[float]]
"""A key and a score for each entrant: the first orders, the second tells people why."""
Policy: TypeAlias = Callable[[Entrants], Ranking]


def balanced(entrants: Entrants) -> Ranking:
    """Drawn without replacement, by weight / cost^2; after those whatever had an outage in the last 30 s.

    Among equals free ones come first, the least busy of them before the others, and those without a price last.
    Score: the weight that was drawn by, with the cost in micro-USD.

    Exponential variates with the weights as their rates, sorted, are such a draw (Efraimidis and Spirakis, 2006).
    Their logarithms keep that order and leave room for tiers.
    """
    keys: list[float] = []
    scores: list[float] = []
    for seen, cost in zip(entrants.seen, entrants.costs, strict=True):
        draw = entrants.draws.next()
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
    for share, seen in zip(shares, entrants.seen, strict=True):
        draw = entrants.draws.next()
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
    draws = entrants.draws
    return [round(load * BEHIND) + draws.next() for load in loads], loads


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

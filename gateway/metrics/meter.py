"""Counts what is over: Attempts as the ledger settles them, requests as they leave their record.

Plain integers, bumped on the loop's thread; a microsecond for each. Nothing here knows of Prometheus.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from gateway.explain.trace import Trace
from gateway.ledger.entry import Settlement
from gateway.metrics.families import (
    ATTEMPT_DURATION,
    ATTEMPTS,
    CACHE_HITS,
    CACHE_SAVED,
    COST,
    DURATION_BOUNDS_MS,
    EXTRA_ATTEMPTS,
    FAILOVERS,
    NANO_PER_USD,
    OTHER,
    REQUEST_DURATION,
    REQUESTS,
    RESCUES,
    TOKENS,
    TTFT,
    TTFT_BOUNDS_MS,
    UNPRICED,
    Family,
    Sample,
    Spread,
)

NAMES_MAX: Final = 2048
"""Endpoints, or Routes, that are told apart: names of the configuration, and of earlier ones since the start."""
CODES_MAX: Final = 64
"""Codes of errors that are told apart for one Endpoint; each is a class of ours."""


class _Spreading:
    """A histogram that grows."""

    __slots__ = ("bounds", "counts", "sum_ms")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum_ms = 0

    def add(self, ms: int) -> None:
        # Counted through rather than halved: there are a dozen bounds, and most are reached early.
        bounds, counts, at = self.bounds, self.counts, 0
        while at < len(bounds) and bounds[at] < ms:
            at += 1
        counts[at] = counts[at] + 1
        self.sum_ms += ms

    def read(self) -> Spread:
        return Spread(tuple(self.counts), self.sum_ms)


class _EndpointCounts:
    """Of one Endpoint."""

    __slots__ = (
        "answered",
        "cache_write_tokens",
        "cached_tokens",
        "cost_in_nusd",
        "duration",
        "input_tokens",
        "others",
        "output_tokens",
        "reasoning_tokens",
        "ttft",
        "unpriced",
    )

    def __init__(self) -> None:
        self.answered = 0
        """Attempts that are ok, which most are."""
        self.others: dict[tuple[str, str], int] = {}
        """By outcome and code."""
        self.input_tokens = 0
        self.output_tokens = 0
        self.cached_tokens = 0
        self.cache_write_tokens = 0
        self.reasoning_tokens = 0
        self.cost_in_nusd: dict[str, int] = {}
        self.unpriced = 0
        self.ttft = _Spreading(TTFT_BOUNDS_MS)
        self.duration = _Spreading(DURATION_BOUNDS_MS)

    def add(self, outcome: str, code: str) -> None:
        """An Attempt that is not ok."""
        key = (outcome, code)
        if key not in self.others and len(self.others) + 1 >= CODES_MAX:
            key = (outcome, OTHER)
        self.others[key] = self.others.get(key, 0) + 1


class _RouteCounts:
    """Of one Route on one surface."""

    __slots__ = ("answered", "duration", "extra", "failovers", "hits", "others", "rescues", "saved_in_nusd")

    def __init__(self) -> None:
        self.answered = 0
        """Requests that are ok, which most are."""
        self.others: dict[str, int] = {}
        """By outcome."""
        self.extra: dict[str, int] = {}
        self.rescues: dict[str, int] = {}
        self.failovers = 0
        self.hits = 0
        self.saved_in_nusd = 0
        self.duration = _Spreading(DURATION_BOUNDS_MS)


class Meter:
    """All counters of this process. For the loop's thread."""

    __slots__ = ("_endpoints", "_routes")

    def __init__(self) -> None:
        self._endpoints: dict[str, _EndpointCounts] = {}
        self._routes: dict[tuple[str, str], _RouteCounts] = {}

    def settled(self, endpoint: str, settlement: Settlement) -> None:
        """An Attempt is in the ledger."""
        counts = self._endpoints.get(endpoint) or self._endpoint(endpoint)
        if settlement.outcome == "ok" and not settlement.code:
            counts.answered += 1
        else:
            counts.add(settlement.outcome, settlement.code or "")
        counts.input_tokens += settlement.input_tokens or 0
        counts.output_tokens += settlement.output_tokens or 0
        counts.cached_tokens += settlement.cached_tokens or 0
        counts.cache_write_tokens += settlement.cache_write_tokens or 0
        counts.reasoning_tokens += settlement.reasoning_tokens or 0
        cost = settlement.cost_in_nusd
        if cost is None:
            counts.unpriced += 1
        elif cost:
            source = settlement.cost_source
            counts.cost_in_nusd[source] = counts.cost_in_nusd.get(source, 0) + cost
        if settlement.ttft_ms is not None:
            counts.ttft.add(settlement.ttft_ms)
        counts.duration.add(settlement.duration_ms)

    def put(self, trace: Trace, /) -> bool:
        """A request is over."""
        key = (trace.plan.route, trace.surface)
        counts = self._routes.get(key) or self._route(key)
        outcome, attempts = trace.outcome, trace.attempts
        if outcome == "ok":
            counts.answered += 1
        else:
            counts.others[outcome] = counts.others.get(outcome, 0) + 1
        counts.duration.add(int((trace.ended_s - trace.now_s) * 1000))
        if len(attempts) > 1 or (attempts and attempts[0].why != "planned"):
            self._count_extra(counts, trace)
        if trace.rescued is not None:
            counts.rescues[trace.rescued.by] = counts.rescues.get(trace.rescued.by, 0) + 1
        if trace.cached is not None:
            counts.hits += 1
            counts.saved_in_nusd += trace.cached.saved_in_nusd or 0
        return True

    def read(self) -> Iterator[tuple[Family, Sample]]:
        """All of it now. What was counted for a Route on several surfaces is added up where they make no difference."""
        for name, counts in self._endpoints.items():
            yield from _read_endpoint(name, counts)
        routes: dict[str, list[_RouteCounts]] = {}
        for (route, surface), one in self._routes.items():
            routes.setdefault(route, []).append(one)
            if one.answered:
                yield REQUESTS, ((route, surface, "ok"), one.answered)
            for outcome, count in one.others.items():
                yield REQUESTS, ((route, surface, outcome), count)
        for route, several in routes.items():
            yield from _read_route(route, several)

    def _endpoint(self, name: str) -> _EndpointCounts:
        if len(self._endpoints) >= NAMES_MAX:
            name = OTHER
        return self._endpoints.setdefault(name, _EndpointCounts())

    def _route(self, key: tuple[str, str]) -> _RouteCounts:
        if len(self._routes) >= NAMES_MAX:
            key = (OTHER, key[1])
        return self._routes.setdefault(key, _RouteCounts())

    def _count_extra(self, counts: _RouteCounts, trace: Trace) -> None:
        attempts, extra = trace.attempts, counts.extra
        for attempt in attempts:
            if attempt.why != "planned":
                extra[attempt.why] = extra.get(attempt.why, 0) + 1
        first = attempts[0].endpoint.id
        if trace.outcome == "ok" and any(one.outcome == "ok" and one.endpoint.id != first for one in attempts):
            counts.failovers += 1


def _read_endpoint(name: str, counts: _EndpointCounts) -> Iterator[tuple[Family, Sample]]:
    if counts.answered:
        yield ATTEMPTS, ((name, "ok", ""), counts.answered)
    for (outcome, code), count in counts.others.items():
        yield ATTEMPTS, ((name, outcome, code), count)
    for kind, count in (
        ("input", counts.input_tokens),
        ("output", counts.output_tokens),
        ("cached", counts.cached_tokens),
        ("cache_write", counts.cache_write_tokens),
        ("reasoning", counts.reasoning_tokens),
    ):
        yield TOKENS, ((name, kind), count)
    for source, amount in counts.cost_in_nusd.items():
        # Division of integers rounds once: up to a million dollars every nano-USD is still there to read.
        yield COST, ((name, source), amount / NANO_PER_USD)
    yield UNPRICED, ((name,), counts.unpriced)
    yield TTFT, ((name,), counts.ttft.read())
    yield ATTEMPT_DURATION, ((name,), counts.duration.read())


def _read_route(route: str, several: list[_RouteCounts]) -> Iterator[tuple[Family, Sample]]:
    yield FAILOVERS, ((route,), sum(one.failovers for one in several))
    yield CACHE_HITS, ((route,), sum(one.hits for one in several))
    yield CACHE_SAVED, ((route,), sum(one.saved_in_nusd for one in several) / NANO_PER_USD)
    for by, count in _added(one.rescues for one in several).items():
        yield RESCUES, ((route, by), count)
    for why, count in _added(one.extra for one in several).items():
        yield EXTRA_ATTEMPTS, ((route, why), count)
    counts = tuple(map(sum, zip(*(one.duration.counts for one in several), strict=True)))
    yield REQUEST_DURATION, ((route,), Spread(counts, sum(one.duration.sum_ms for one in several)))


def _added(several: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for counts in several:
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count
    return total

"""Health that is looked at while it works: every permit and every change of a breaker is checked against the rules.

The rules are written here a second time, from what the documents say, so that a mistake would have to be made twice.
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from gateway.health import EndpointHealth, Health, Permit, Result

FAILURES_TO_OPEN: Final = 3
CONNECT_FAILURES_TO_OPEN: Final = 2
OWN_FAILURES: Final = frozenset({"connect", "overload", "server", "timeout", "stall", "midstream"})
RATIO_WINDOW_S: Final = 60.0
RATIO_BUCKET_S: Final = 5.0
RATIO_LEAST: Final = 10
OPEN_MIN_S: Final = 4.0
OPEN_MAX_S: Final = 24.0
PANIC_MAX: Final = 2
SUCCESSES_TO_CLOSE: Final = 2
TOLERANCE_S: Final = 1e-6

Report = Callable[[str, str], None]
"""Takes an invariant's name and what broke it."""


class WatchedEndpoint(EndpointHealth):
    """The health of one Endpoint, with a second opinion."""

    def __init__(self, name: str, health: "WatchedHealth", random: Callable[[], float]) -> None:
        super().__init__(name, random, health.may_open)
        self._report = health.report
        self._permits: Counter[Permit] = Counter()
        self._in_a_row = 0
        self._connects_in_a_row = 0
        self._most_in_a_row = 0
        """With the complaints of many clients, which may count as the Endpoint's own failures."""
        self._good_probes = 0
        self._samples: deque[tuple[float, bool]] = deque(maxlen=2000)
        self._opened_s = 0.0

    def enter(self, now_s: float, *, panic: bool = False) -> Permit:
        """As ever, and checked."""
        before = self._breaker.state
        limit = self._cap.settle(self.in_flight, now_s)
        permit = super().enter(now_s, panic=panic)
        after = self._breaker.state
        if permit is Permit.REFUSED:
            self._hold("I9", after == before, f"a refusal turned {before} into {after}")
            return permit
        self._permits[permit] += 1
        self._hold("I7", limit is None or self.in_flight <= limit, f"{self.in_flight} on their way, its cap is {limit}")
        self._hold("I7", now_s >= self._parking.until_s - TOLERANCE_S, "asked while it is parked")
        if permit is Permit.NORMAL:
            self._hold("I9", before == after == "closed", f"an ordinary permit while {before}")
        elif permit is Permit.PROBE:
            self._hold("I9", self._permits[permit] == 1, "two trial requests at the same time")
            early = before == "open" and now_s < self._opened_s + OPEN_MIN_S - TOLERANCE_S
            self._hold("I9", not early, "a trial request before it was due")
            self._hold("I9", after in ("half_open", "closed"), f"a trial request while {after}")
        else:
            self._hold("I7", self._permits[permit] <= PANIC_MAX, f"{self._permits[permit]} panic permits at once")
            self._hold("I9", before == after != "closed", f"a panic permit while {before}")
        return permit

    def leave(self, permit: Permit, result: Result, now_s: float) -> None:
        """As ever, and checked."""
        self._hold("I10", self._permits[permit] > 0, f"{permit.name} was given back and never taken")
        self._permits[permit] -= 1
        before = self._breaker.state
        super().leave(permit, result, now_s)
        after = self._breaker.state
        failed = result.failure in OWN_FAILURES
        if failed or result.failure is None:
            self._samples.append((now_s, failed))
        if before == "closed":
            self._judge_closed(permit, result, after, now_s)
        elif before == "half_open" and permit is Permit.PROBE:
            self._judge_probe(result, after, failed=failed)
        else:
            self._hold("I9", after == before, f"{permit.name} turned {before} into {after}")
        if after == "open" and before != "open":
            self._opened_s = now_s
            self._good_probes = self._in_a_row = self._connects_in_a_row = self._most_in_a_row = 0
            span_s = self._breaker.until_s - now_s
            self._hold("I9", OPEN_MIN_S <= span_s <= OPEN_MAX_S, f"open for {span_s:.1f} s")

    def settled(self) -> list[str]:
        """What is not as it should be once nobody asks any more."""
        open_permits = {permit.name: count for permit, count in self._permits.items() if count}
        wrong = [f"permits that nobody gave back: {open_permits}"] if open_permits else []
        return [*wrong, f"{self.in_flight} Attempts in flight"] if self.in_flight else wrong

    def _judge_closed(self, permit: Permit, result: Result, after: str, now_s: float) -> None:
        self._hold("I9", after in ("closed", "open"), f"closed turned into {after}")
        if permit is not Permit.NORMAL:
            self._hold("I9", after == "closed", f"{permit.name} opened it")
            return
        if result.failure is None:
            self._in_a_row = self._connects_in_a_row = self._most_in_a_row = 0
        elif result.failure in OWN_FAILURES or result.failure == "client":
            self._most_in_a_row += 1
        if result.failure in OWN_FAILURES:
            self._in_a_row += 1
            self._connects_in_a_row = self._connects_in_a_row + 1 if result.failure == "connect" else 0
        must = self._in_a_row >= FAILURES_TO_OPEN or self._connects_in_a_row >= CONNECT_FAILURES_TO_OPEN
        row = f"{self._in_a_row} failures in a row, {self._connects_in_a_row} of them to connect"
        if after == "open":
            may = must or self._most_in_a_row >= FAILURES_TO_OPEN or self._is_bad(now_s)
            self._hold("I9", may, f"opened after {row}, and not half of ten in a minute")
        elif result.failure in OWN_FAILURES:
            self._hold("I9", not must, f"still closed after {row}")

    def _judge_probe(self, result: Result, after: str, *, failed: bool) -> None:
        if failed or result.failure == "rate_limit":
            self._hold("I9", after == "open", f"a trial request failed, and it is {after}")
            return
        if result.failure is None:
            self._good_probes += 1
        closes = result.failure is None and self._good_probes >= SUCCESSES_TO_CLOSE
        wanted = "closed" if closes else "half_open"
        self._hold("I9", after == wanted, f"{self._good_probes} trial requests went well, and it is {after}")
        if closes:
            self._good_probes = 0
            self._samples.clear()

    def _is_bad(self, now_s: float) -> bool:
        """Whether half of ten or more failed in the last minute, or in the part of it that buckets still hold."""
        since_s = (now_s // RATIO_BUCKET_S + 1) * RATIO_BUCKET_S - RATIO_WINDOW_S
        recent = [failed for at_s, failed in self._samples if at_s >= since_s]
        return len(recent) >= RATIO_LEAST and 2 * sum(recent) >= len(recent)

    def _hold(self, name: str, holds: bool, words: str) -> None:  # noqa: FBT001 (the very thing that is asserted)
        if not holds:
            self._report(name, f"{self.id}: {words}")


class WatchedHealth(Health):
    """Health whose Endpoints are watched."""

    __slots__ = ("_draw", "report")

    def __init__(self, random: Callable[[], float], report: Report) -> None:
        super().__init__(random)
        self._draw = random
        self.report = report

    def of(self, endpoint_id: str) -> EndpointHealth:
        """The health of one Endpoint."""
        health = self._endpoints.get(endpoint_id)
        if health is None:
            health = self._endpoints[endpoint_id] = WatchedEndpoint(endpoint_id, self, self._draw)
        return health

    def may_open(self, endpoint_id: str) -> bool:
        """Whether one more may be left alone for its ratio."""
        return self._may_open(endpoint_id)

    def settled(self) -> dict[str, list[str]]:
        """By Endpoint id what is not as it should be once nobody asks any more."""
        watched = {name: health for name, health in self._endpoints.items() if isinstance(health, WatchedEndpoint)}
        return {name: wrong for name, health in watched.items() if (wrong := health.settled())}

"""How all Endpoints are doing. Nothing in this package reads a clock, throws dice or waits."""

from collections.abc import Callable, Collection, Iterable, Mapping

from msgspec.structs import replace

from gateway.health.budget import RetryBudget
from gateway.health.endpoint import EndpointHealth, OnChange
from gateway.health.uptime import MINUTES_MAX
from gateway.observation import UNOBSERVED, MinuteRow, Observation


class Health:
    """The health of every Endpoint, made when it is first asked.

    Args:
        random: Draws from 0 up to 1, for jitter.
        on_change: Told of each change of a standing.
    """

    __slots__ = ("_budgets", "_endpoints", "_hearsay", "_on_change", "_random", "_routes", "_siblings", "retries")

    def __init__(self, random: Callable[[], float], on_change: OnChange | None = None) -> None:
        self._random = random
        self._on_change = on_change
        self._endpoints: dict[str, EndpointHealth] = {}
        self._routes: Mapping[str, tuple[str, ...]] = {}
        self._siblings: dict[str, list[tuple[str, ...]]] = {}
        self._budgets: dict[str, RetryBudget] = {}
        self._hearsay: Mapping[str, tuple[float, float]] = {}
        self.retries = RetryBudget()
        """The whole gateway's; those of Routes draw on it."""

    def of(self, endpoint_id: str) -> EndpointHealth:
        """The health of one Endpoint. As many are made as are configured: `keep` drops the others."""
        health = self._endpoints.get(endpoint_id)
        if health is None:
            health = EndpointHealth(endpoint_id, self._random, self._may_open, self._on_change)
            self._endpoints[endpoint_id] = health
        return health

    def observe(self, endpoint_id: str, now_s: float) -> Observation:
        """How an Endpoint is doing; UNOBSERVED, which is good, where nothing is known."""
        health = self._endpoints.get(endpoint_id)
        observation = UNOBSERVED if health is None else health.observe(now_s)
        return self._heed(endpoint_id, observation, now_s) if self._hearsay else observation

    def observe_all(self, endpoint_ids: tuple[str, ...], now_s: float) -> tuple[dict[str, Observation], bool]:
        """The same of several, and whether all of them are healthy and to be asked as much as usual."""
        seen: dict[str, Observation] = {}
        well = True
        for name in endpoint_ids:
            health = self._endpoints.get(name)
            if health is None:
                seen[name] = UNOBSERVED
            else:
                seen[name] = health.observe(now_s)
                well = well and health.well
        if self._hearsay:
            for name, observation in seen.items():
                seen[name] = self._heed(name, observation, now_s)
            well = False  # as far as we have looked
        return seen, well

    def hear(self, hearsay: Mapping[str, tuple[float, float]]) -> None:
        """Take what others say of Endpoints that are down or want to be left alone, in place of what they said before.

        Such an Endpoint is asked after every healthy one, and no more than that, until its time has passed or it has
        answered here after the others had seen it fail: what happens here counts for more.

        Args:
            hearsay: By Endpoint, since when and until when, by the monotonic clock.
        """
        self._hearsay = hearsay

    def _heed(self, endpoint_id: str, observation: Observation, now_s: float) -> Observation:
        heard = self._hearsay.get(endpoint_id)
        if heard is None or now_s >= heard[1] or observation.standing != "healthy":
            return observation
        own = self._endpoints.get(endpoint_id)
        if own is not None and own.last_ok_s > heard[0]:
            return observation
        return replace(observation, standing="degraded")

    def keep(self, endpoint_ids: Collection[str]) -> None:
        """Forget all others, but those that Attempts are still on their way to."""
        kept = frozenset(endpoint_ids)
        self._endpoints = {name: health for name, health in self._endpoints.items() if name in kept or health.in_flight}

    def set_routes(self, routes: Mapping[str, tuple[str, ...]]) -> None:
        """Say which Endpoints stand in for one another, by Route: not all of one are left alone for their ratio."""
        self._routes = dict(routes)
        self._siblings = {}
        for members in self._routes.values():
            for name in members:
                self._siblings.setdefault(name, []).append(members)
        self._budgets = {name: budget for name, budget in self._budgets.items() if name in self._routes}

    def retries_of(self, route: str) -> RetryBudget:
        """The retry budget of one Route; the whole gateway's for one that `set_routes` did not name."""
        budget = self._budgets.get(route)
        if budget is None:
            if route not in self._routes:
                return self.retries
            budget = self._budgets[route] = RetryBudget(self.retries)
        return budget

    def drain_minutes(self, now_unix_minute: int) -> list[MinuteRow]:
        """What came since the last call, as rows of that minute; to be added to what is kept of it already.

        Call it as often as you like; a row belongs to the minute in which it was drained.
        """
        rows = (health.drain(now_unix_minute) for health in self._endpoints.values())
        return [row for row in rows if row is not None]

    def restore(self, rows: Iterable[MinuteRow], *, now_unix_minute: int, now_s: float) -> None:
        """Take up what an earlier process kept, before the first Attempt. Breakers start closed whatever was.

        Args:
            rows: Those older than a day, or of the future, are dropped.
            now_unix_minute: The wall clock.
            now_s: The monotonic clock at the same moment.
        """
        offset = int(now_s // 60) - now_unix_minute
        for row in sorted(rows, key=lambda row: row.minute):
            if now_unix_minute - MINUTES_MAX < row.minute <= now_unix_minute:
                self.of(row.endpoint_id).restore(row, row.minute + offset, now_s)

    def _may_open(self, endpoint_id: str) -> bool:
        """Whether one more may be left alone for its ratio: half of each of its Routes at most, but always one."""
        for members in self._siblings.get(endpoint_id, ()):
            out = sum(1 for name in members if name in self._endpoints and self._endpoints[name].is_out())
            if out + 1 > max(1, len(members) // 2):
                return False
        return True

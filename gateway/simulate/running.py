"""Runs one world to its end in virtual time: real engine, real health, real codec; pretended providers and clients."""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final

import msgspec
from msgspec import Struct

from gateway.config.catalogue import Catalogue
from gateway.config.schema import Policy
from gateway.engine import Engine
from gateway.explain.trace import Packer, Trace
from gateway.fleet import Fleet
from gateway.simulate.clients import Client, Seen
from gateway.simulate.dice import Dice
from gateway.simulate.provider import Provider, Received
from gateway.simulate.watched import WatchedHealth
from gateway.simulate.world import World
from gateway.upstream import Upstream
from gateway.virtual_time import START_UNIX_S, NeverEndsError, VirtualClockLoop
from providers.openai import OpenAi

LIMIT_S: Final = 7 * 86_400.0
"""How much virtual time one run may take."""
QUIET_S: Final = 0.5
"""How long all must be still before it counts as over: what was cancelled needs a moment to end."""
CONFIGURED: Final = "configured"
"""Instead of a policy's name: each Route has its own."""
POLICY_LUCK: Final = 3
"""Tells the gateway's own draws from those of the world."""


class Violation(Struct, frozen=True):
    """An invariant that did not hold."""

    seed: int
    policy: str
    invariant: str
    message: str
    job: int | None = None

    def __str__(self) -> str:
        """As one line."""
        request = "" if self.job is None else f"request {self.job}: "
        return f"{self.invariant}: seed {self.seed}, policy {self.policy}: {request}{self.message}"


class Outcome(Struct):
    """What came of one run."""

    world: World
    policy: str
    seen: list[Seen]
    received: list[Received]
    """Of all providers, in the order in which they were sent."""
    violations: list[Violation]
    records: dict[int, list[bytes]]
    """By request, all that the gateway would have kept of it."""
    leftovers: list[str]
    """What was not given back at the end."""
    providers: dict[str, Provider]
    """By Endpoint id."""
    traces: dict[int, Trace]
    """By request."""
    span_s: float = 0.0


def run_world(world: World, policy: Policy | None = None) -> Outcome:
    """Run a world to its end.

    Args:
        world: Who serves, who asks.
        policy: Of every Route; None: what the world's configuration says.
    """
    catalogue = world.catalogue if policy is None else with_policy(world.catalogue, policy)
    name = policy or CONFIGURED
    outcome = Outcome(world, name, [], [], [], {}, [], {}, {})
    runner = asyncio.Runner(loop_factory=lambda: VirtualClockLoop(limit_s=LIMIT_S))
    try:
        runner.run(_Run(world, catalogue, outcome).play())
    except NeverEndsError as error:
        outcome.violations.append(Violation(world.seed, name, "I10", str(error)))
    finally:
        runner.close()
    return outcome


def with_policy(catalogue: Catalogue, policy: Policy) -> Catalogue:
    """The same Catalogue, every Route with that policy."""
    routes = {name: msgspec.structs.replace(route, policy=policy) for name, route in catalogue.routes.items()}
    return msgspec.structs.replace(catalogue, routes=routes)


class _Run:
    """One run on its way."""

    def __init__(self, world: World, catalogue: Catalogue, outcome: Outcome) -> None:
        self._world = world
        self._catalogue = catalogue
        self._outcome = outcome

    async def play(self) -> None:
        """Let every request come when it comes, and wait until all is over."""
        loop = asyncio.get_running_loop()
        world, outcome = self._world, self._outcome
        start_s = loop.time()
        providers = self._providers()
        fleet = Fleet(
            catalogue=self._catalogue,
            upstreams={name: Upstream(OpenAi(), provider, {}) for name, provider in providers.items()},
            off={},
        )
        luck = Dice(world.seed, POLICY_LUCK)
        health = WatchedHealth(luck.unit, self._report)
        health.set_routes({name: route.endpoints for name, route in self._catalogue.routes.items()})
        traces = _Traces()
        engine = Engine(
            health,
            unix_time_s=lambda: START_UNIX_S + loop.time() - start_s,
            draw=Dice(world.seed, POLICY_LUCK, 1).unit,
            sink=traces,
        )
        clients: list[Client] = []
        for job in world.jobs:
            pause_s = start_s + job.at_s - loop.time()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            clients.append(Client(job, engine, fleet, loop))
        failures = await asyncio.gather(*(client.task for client in clients), return_exceptions=True)
        await asyncio.sleep(QUIET_S)
        outcome.span_s = loop.time() - start_s
        outcome.seen = [client.seen for client in clients]
        outcome.received = sorted(
            (received for provider in providers.values() for received in provider.log), key=_place
        )
        outcome.records = traces.packed()
        outcome.providers = providers
        outcome.traces = {int(trace.id): trace for trace in traces.kept}
        outcome.leftovers = self._leftovers(health, providers, failures)

    def _providers(self) -> dict[str, Provider]:
        jobs = {job.number: job for job in self._world.jobs}
        endpoints, places = self._catalogue.endpoints, count()
        return {
            name: Provider(endpoints[name], behaviour, jobs, self._world.seed, places)
            for name, behaviour in self._world.behaviours.items()
        }

    def _leftovers(
        self, health: WatchedHealth, providers: Mapping[str, Provider], failures: Sequence[BaseException | None]
    ) -> list[str]:
        found = [f"{name}: {words}" for name, many in health.settled().items() for words in many]
        found += [f"{name} still works on {one.in_flight}" for name, one in providers.items() if one.in_flight]
        found += [f"a request ended with {failure!r}" for failure in failures if failure is not None]
        running = asyncio.all_tasks() - {asyncio.current_task()}
        found += [f"the task {task.get_name()!r} still runs" for task in running]
        retries = health.retries
        if retries.in_flight or retries.retrying:
            found.append(f"the retry budget counts {retries.in_flight} requests and {retries.retrying} repeats")
        return found

    def _report(self, invariant: str, words: str) -> None:
        outcome = self._outcome
        outcome.violations.append(Violation(self._world.seed, outcome.policy, invariant, words))


class _Traces:
    """Keeps what the gateway would store, by request."""

    def __init__(self) -> None:
        self.kept: list[Trace] = []

    def put(self, record: Trace, /) -> bool:
        """Keep it."""
        self.kept.append(record)
        return True

    def packed(self) -> dict[int, list[bytes]]:
        """As it would be stored."""
        pack = Packer()
        found: dict[int, list[bytes]] = {}
        for trace in self.kept:
            found.setdefault(int(trace.id), []).append(pack(trace).data)
        return found


def _place(received: Received) -> int:
    return received.place

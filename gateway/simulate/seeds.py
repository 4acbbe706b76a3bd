"""Many worlds, one after the other or on several processors, and what came of them in all."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.config.catalogue import Catalogue
from gateway.config.schema import Policy
from gateway.simulate.comparison import Figures, add_run
from gateway.simulate.drawing import REQUESTS, draw_world, world_of
from gateway.simulate.invariants import check
from gateway.simulate.recorded import Recorded, recorded_world
from gateway.simulate.running import CONFIGURED, Violation, run_world
from gateway.simulate.world import World

CHUNK_SEEDS: Final = 10
"""How many seeds a process is given at a time."""
ALONE_MAX: Final = 40
"""Fewer runs are done sooner in one process than others are started."""
VIOLATIONS_MAX: Final = 100
"""How many are kept; the rest is counted."""

ReadCatalogue = Callable[[str], Catalogue]


class Plan(Struct, frozen=True, kw_only=True):
    """What is to be simulated."""

    seeds: tuple[int, ...]
    policies: tuple[Policy | None, ...]
    """None: as each Route says."""
    requests: int = REQUESTS
    plain: bool = False
    """Only worlds in which policies can be compared."""
    in_turn: bool = False
    """One policy for each seed, the next for the next, instead of every policy for every seed."""
    config: str | None = None
    """A providers.yaml whose Endpoints and prices are the world."""
    recorded: Recorded | None = None
    """Traffic and luck as a ledger has them, of that configuration; None: they are drawn."""

    @property
    def runs(self) -> int:
        """How many there are in all."""
        return len(self.seeds) * (1 if self.in_turn else len(self.policies))

    def policies_of(self, seed: int) -> tuple[Policy | None, ...]:
        """Those to run a seed with."""
        return (self.policies[seed % len(self.policies)],) if self.in_turn else self.policies

    def replay(self, violation: Violation) -> str:
        """The command that shows a violation again."""
        words = ["mixgate simulate", f"--seed {violation.seed}", f"--policy {violation.policy}"]
        words += [f"--requests {self.requests}"] if self.requests != REQUESTS else []
        words += ["--plain"] if self.plain else []
        words += [f"--config {self.config}"] if self.config is not None else []
        if self.recorded is not None:
            words += [f"--from-ledger --since {self.recorded.since} --until {self.recorded.until}"]
        return " ".join(words)


class Result(Struct):
    """What came of it."""

    figures: dict[str, Figures]
    """By policy."""
    violations: list[Violation]
    violated: int = 0
    """How many in all."""
    runs: int = 0


def simulate(plan: Plan, *, processes: int = 1, read: ReadCatalogue, progress: Callable[[int], None]) -> Result:
    """Run all of a Plan.

    Args:
        plan: What to run.
        processes: On how many processors.
        read: Reads a providers.yaml; called in every process, so it must be a function of a module.
        progress: Told how many runs are done, now and then.
    """
    chunks = [plan.seeds[start : start + CHUNK_SEEDS] for start in range(0, len(plan.seeds), CHUNK_SEEDS)]
    plans = [replace(plan, seeds=chunk) for chunk in chunks]
    result = Result({}, [])
    for part in _parts(plans, read, processes=processes if plan.runs > ALONE_MAX else 1):
        _add(result, part)
        progress(result.runs)
    return result


def _parts(plans: Sequence[Plan], read: ReadCatalogue, *, processes: int) -> Iterator[Result]:
    if processes <= 1:
        for plan in plans:
            yield run_chunk(plan, read)
        return
    # Processes that start anew, so that they are the same on every system and share nothing with the caller's.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(run_chunk, plans, [read] * len(plans))


def run_chunk(plan: Plan, read: ReadCatalogue) -> Result:
    """Run a Plan in this process."""
    catalogue = None if plan.config is None else read(plan.config)
    result = Result({}, [])
    for seed in plan.seeds:
        for policy in plan.policies_of(seed):
            outcome = run_world(world(plan, seed, catalogue), policy)
            found = check(outcome)
            result.runs += 1
            result.violated += len(found)
            result.violations += found[: VIOLATIONS_MAX - len(result.violations)]
            name = policy or CONFIGURED
            add_run(result.figures.setdefault(name, Figures(name)), outcome)
    return result


def world(plan: Plan, seed: int, catalogue: Catalogue | None) -> World:
    """The world of a seed."""
    if catalogue is not None and plan.recorded is not None:
        return recorded_world(catalogue, plan.recorded, seed, plan.requests)
    if catalogue is not None:
        return world_of(catalogue, seed, plan.requests)
    return draw_world(seed, plan.requests, plain=plan.plain)


def _add(whole: Result, part: Result) -> None:
    whole.runs += part.runs
    whole.violated += part.violated
    whole.violations += part.violations[: VIOLATIONS_MAX - len(whole.violations)]
    for name, figures in part.figures.items():
        if name in whole.figures:
            whole.figures[name].add(figures)
        else:
            whole.figures[name] = figures

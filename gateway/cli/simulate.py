"""`mixgate simulate`: traffic, prices and failures out of a seed, over the real router, in no time."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, get_args

import click

from gateway.cli.output import EXIT_FAILED, fail, load_or_exit, on_terminal, print_table
from gateway.cli.windows import Moment, read_ledger, until_now
from gateway.config.catalogue import Catalogue
from gateway.config.locations import find_config
from gateway.config.schema import Policy
from gateway.reports.reader import ReportReader
from gateway.simulate.comparison import PICO_PER_USD, Figures
from gateway.simulate.drawing import REQUESTS, world_of
from gateway.simulate.invariants import check
from gateway.simulate.recorded import Recorded, read_recorded
from gateway.simulate.running import CONFIGURED, run_world
from gateway.simulate.seeds import Plan, Result, simulate, world
from gateway.simulate.story import tell

SEEDS: Final = 100
REQUESTS_MAX: Final = 100_000
SEEDS_MAX: Final = 1_000_000
PROGRESS_EVERY_S: Final = 2.0
TOLD_MAX: Final = 5
"""Requests whose story is told where one seed is run."""
COMPARED: Final[tuple[Policy, ...]] = ("ordered", "balanced", "price", "latency", "throughput")
COLUMNS: Final = (
    "policy",
    "answered",
    "failed",
    "left",
    "attempts",
    "repeats",
    "rescues",
    "cost in USD",
    "x cheapest",
    "ttft p50",
    "p95",
    "p99",
)


@click.command("simulate")
@click.option("--seeds", type=click.IntRange(1, SEEDS_MAX), default=SEEDS, show_default=True, help="How many worlds.")
@click.option("--seed", type=click.IntRange(0), help="Only the world of this seed, and what went wrong in it.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    type=click.Choice([*get_args(Policy), CONFIGURED]),
    help="A policy to run; several may be given. [default: the usual five]",
)
@click.option("--requests", type=click.IntRange(1, REQUESTS_MAX), default=REQUESTS, show_default=True, help="In each.")
@click.option("--plain", is_flag=True, help="Only worlds in which policies can be compared: text, patient clients.")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A providers.yaml whose endpoints, routes and prices are the world. No key is used, nothing is sent.",
)
@click.option("--from-ledger", "from_ledger", is_flag=True, help="Traffic, failures and times as they were recorded.")
@click.option("--since", type=Moment(), default="7d", show_default=True, help="With --from-ledger: from when.")
@click.option("--until", type=Moment(), help="With --from-ledger: up to when; else now.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    seeds: int,
    seed: int | None,
    policies: tuple[str, ...],
    requests: int,
    config: Path | None,
    *,
    plain: bool,
    as_json: bool,
    **ledger: Any,
) -> None:
    """Compare policies over simulated traffic, prices and failures, and check that nothing goes wrong.

    Clients, providers and the clock are pretended; the router, its health and the codec are the real ones. Every run
    is the same for the same seed. Exits 1 where an invariant did not hold, with the command that shows it again.

    With --from-ledger the worlds are of the configuration that `mixgate serve` would read, and what clients ask and how
    often, how fast each endpoint is and how it fails are drawn from the ledger in MIXGATE_HOME.
    """
    if ledger["from_ledger"]:
        if plain:
            raise click.UsageError("--plain and --from-ledger exclude each other")
        config = config or find_config(None, os.environ, Path.cwd())
    plan = Plan(
        seeds=(seed,) if seed is not None else tuple(range(seeds)),
        policies=_chosen(policies, config),
        requests=requests,
        plain=plain,
        config=None if config is None else str(config),
        recorded=_recorded(config, ledger["since"], until_now(ledger["until"])) if ledger["from_ledger"] else None,
    )
    if config is not None:
        _refuse_empty(read_catalogue(str(config)), config)
    result = simulate(plan, processes=os.cpu_count() or 1, read=read_catalogue, progress=_progress(plan))
    if as_json:
        click.echo(json.dumps(_as_json(plan, result), indent=2))
    else:
        _print(plan, result)
    if seed is not None and not as_json:
        _tell(plan, seed)
    if result.violated:
        raise SystemExit(EXIT_FAILED)


def read_catalogue(path: str) -> Catalogue:
    """The configuration at a path. Keys are not looked for: every provider takes part."""
    return load_or_exit(Path(path), {})


def _recorded(config: Path | None, since: int, until: int) -> Recorded:
    """What was recorded, with what cannot be drawn from it said to standard error."""
    catalogue = read_catalogue(str(config))

    def read(reader: ReportReader) -> Recorded:
        try:
            return read_recorded(reader, catalogue, since, until)
        except ValueError as error:
            fail(str(error), "give a longer time with --since, or the configuration of that gateway with --config")

    found = read_ledger(read)
    for name, count in found.left_out.items():
        click.echo(f"left out: {count} attempts for {name!r}, which is not configured", err=True)
    if found.guessed:
        click.echo(f"nothing is recorded of {', '.join(found.guessed)}: taken to be sound", err=True)
    return found


def _refuse_empty(catalogue: Catalogue, path: Path) -> None:
    try:
        world_of(catalogue, 0, 1)
    except ValueError as error:
        raise click.UsageError(f"{path}: {error}") from None


def _chosen(policies: tuple[str, ...], config: Path | None) -> tuple[Policy | None, ...]:
    """The policies to run, None for what each Route says."""
    if not policies:
        return COMPARED if config is None else (None, *COMPARED)
    known: dict[str, Policy] = {name: name for name in get_args(Policy)}
    return tuple(known.get(name) for name in dict.fromkeys(policies))


def _progress(plan: Plan) -> Callable[[int], None]:
    said_s = time.monotonic()

    def say(done: int) -> None:
        nonlocal said_s
        if time.monotonic() - said_s >= PROGRESS_EVERY_S and done < plan.runs:
            said_s = time.monotonic()
            end = "\r" if on_terminal() else "\n"
            click.echo(f"{done} of {plan.runs} runs", err=True, nl=False)
            click.echo(end, err=True, nl=False)

    return say


def _print(plan: Plan, result: Result) -> None:
    many = len(plan.seeds)
    worlds = f"seed {plan.seeds[0]}" if many == 1 else f"{many} seeds"
    rows = [_row(figures) for figures in result.figures.values()]
    print_table(f"{worlds}, {plan.requests} requests each", COLUMNS, rows)
    for violation in result.violations:
        click.echo(f"{violation}\n    again: {plan.replay(violation)}", err=True)
    more = result.violated - len(result.violations)
    if more > 0:
        click.echo(f"... and {more} more", err=True)
    click.echo(f"{result.runs} runs, {result.violated} violations of the invariants")


def _row(figures: Figures) -> tuple[str, ...]:
    return (
        figures.policy,
        str(figures.answered),
        str(figures.failed),
        str(figures.left),
        str(figures.attempts),
        str(figures.repeats),
        str(figures.rescues),
        f"{figures.cost_in_pusd / PICO_PER_USD:.4f}",
        _number(figures.over_cheapest(), "", 3),
        *(_number(figures.ttft_at(share), " s", 2) for share in (0.5, 0.95, 0.99)),
    )


def _number(value: float | None, unit: str, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}{unit}"


def _as_json(plan: Plan, result: Result) -> dict[str, object]:
    return {
        "seeds": len(plan.seeds),
        "requests": plan.requests,
        "policies": {name: _figures(figures) for name, figures in result.figures.items()},
        "violated": result.violated,
        "violations": [
            {
                "invariant": one.invariant,
                "seed": one.seed,
                "policy": one.policy,
                "request": one.job,
                "message": one.message,
                "again": plan.replay(one),
            }
            for one in result.violations
        ],
    }


def _figures(figures: Figures) -> dict[str, object]:
    return {
        "requests": figures.requests,
        "answered": figures.answered,
        "failed": figures.failed,
        "left": figures.left,
        "attempts": figures.attempts,
        "repeats": figures.repeats,
        "rescues": figures.rescues,
        "cost_in_usd": figures.cost_in_pusd / PICO_PER_USD,
        "over_cheapest": figures.over_cheapest(),
        "chosen_over_cheapest": figures.chosen_over_cheapest(),
        "over_expected": figures.over_expected(),
        "ttft_s": {name: figures.ttft_at(share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))},
    }


def _tell(plan: Plan, seed: int) -> None:
    """The stories of those requests of one seed that violate an invariant."""
    catalogue = None if plan.config is None else read_catalogue(plan.config)
    for policy in plan.policies:
        outcome = run_world(world(plan, seed, catalogue), policy)
        wrong = dict.fromkeys(one.job for one in check(outcome) if one.job is not None)
        for number in list(wrong)[:TOLD_MAX]:
            for line in tell(outcome, number):
                click.echo(line)

"""`mixgate what-if`: what a window would have cost elsewhere, otherwise routed, or without a cache."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import click
import msgspec

from gateway.cli.output import EXIT_CONFIGURATION, fail, load_or_exit, on_terminal
from gateway.cli.sheets import print_json, print_sheet
from gateway.cli.windows import Form, form_of, forms, read_ledger, until_now, window
from gateway.config.catalogue import Catalogue
from gateway.config.locations import find_config
from gateway.config.schema import Policy
from gateway.reports.reader import ReportReader
from gateway.state.ledger_reader import Filter
from gateway.whatif.answer import Line, WhatIf
from gateway.whatif.run import ROWS_MAX, Inquiry, Question
from gateway.whatif.savings import Savings
from gateway.whatif.scenarios import Kind

Answer = WhatIf | Savings
_WORDS: Final = {
    "on": "all on {}",
    "policy": "every route by {}",
    "no_cache": "without providers' prompt caches",
    "priciest": "always the dearest that could",
    "cheapest": "always the cheapest that could",
    "first_choice": "always the first choice",
}
_COLUMNS: Final = {
    "what": "WHAT",
    "would_have_usd": "USD",
    "as_was_usd": "AS IT WAS",
    "difference_usd": "DIFFERENCE",
    "requests": "REQUESTS",
    "from_ledger": "BILLED SO",
    "priced": "PRICED",
    "estimated": "ESTIMATED",
    "left_out": "LEFT OUT",
}
_MEMBERS: Final = (
    *("kind", "name", "requests", "would_have_usd", "as_was_usd", "difference_usd"),
    *("from_ledger", "priced", "estimated", "by_today", "left_out"),
)


@click.command("what-if")
@click.option("--on", "places", multiple=True, metavar="NAME", help="All of it on this model or endpoint.")
@click.option("--policy", "policies", multiple=True, type=click.Choice(get_args(Policy)), help="Every route by it.")
@click.option("--no-cache", "no_cache", is_flag=True, help="Without the prompt caches of providers.")
@click.option("--priciest", is_flag=True, help="Always the dearest endpoint that could have answered.")
@click.option("--cheapest", is_flag=True, help="Always the cheapest endpoint that could have answered.")
@click.option("--first-choice", "first_choice", is_flag=True, help="Always whoever came first, had it answered.")
@click.option("--savings", "saved", is_flag=True, help="What failovers, rescues, caches and cheap routing saved.")
@window("30d")
@click.option("--key", "key_id", help="Only requests of this client key, by its public id.")
@click.option("--route", help="Only requests of this route.")
@click.option("--rows", "rows_max", type=click.IntRange(1), default=ROWS_MAX, help="Rows that are read at most.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file; as for `mixgate serve`.")
@forms
def command(
    *,
    since: int,
    until: int | None,
    rows_max: int,
    saved: bool,
    config: Path | None,
    as_json: bool,
    as_csv: bool,
    **asked: Any,
) -> None:
    """Work out what a window of the ledger would have cost otherwise. Times are UTC; nobody is asked anything.

    Every request is decided again by the router itself, from its decision record (kept for 7 days; older ones by
    today's configuration, which is said), and priced by the tokens that were counted. Where the same endpoint comes
    out as in truth, the figure is what was billed, to the nano-dollar. Without any question: --cheapest, --priciest,
    --first-choice and --no-cache. Ctrl-C ends it early, with the newest requests alone.
    """
    form = form_of(as_json=as_json, as_csv=as_csv)
    rows = Filter(since, until_now(until), key_id=asked.pop("key_id"), route=asked.pop("route"))
    questions = _questions(**asked)
    if saved and questions:
        raise click.UsageError("--savings goes with no other question")
    catalogue = load_or_exit(find_config(config, os.environ, Path.cwd()), os.environ)
    if saved:
        answer: Answer = read_ledger(lambda reader: _ask(reader, (), catalogue, rows, rows_max, save=True))
    else:
        chosen = questions or [
            Question("cheapest"),
            Question("priciest"),
            Question("first_choice"),
            Question("no_cache"),
        ]
        answer = read_ledger(lambda reader: _ask(reader, chosen, catalogue, rows, rows_max, save=False))
    if form == "json":
        print_json(msgspec.to_builtins(answer))
    elif isinstance(answer, Savings):
        _print_savings(answer, form)
    else:
        _print(answer, form)


def _questions(places: tuple[str, ...], policies: tuple[Policy, ...], **flags: bool) -> list[Question]:
    found = [Question("on", name) for name in places] + [Question("policy", name) for name in policies]
    kinds: tuple[Kind, ...] = ("cheapest", "priciest", "first_choice", "no_cache")
    return found + [Question(kind) for kind in kinds if flags[kind]]


def _ask(
    reader: ReportReader,
    questions: Sequence[Question],
    catalogue: Catalogue,
    rows: Filter,
    rows_max: int,
    *,
    save: bool,
) -> Answer:
    try:
        inquiry = Inquiry(reader, questions, catalogue, rows, rows_max=rows_max, save=save)
    except ValueError as error:
        fail(str(error), "see `mixgate models`", EXIT_CONFIGURATION)
    tell = _progress()
    try:
        for read in inquiry.steps():
            tell(read)
    except KeyboardInterrupt:
        click.echo("ended early: what follows is of the newest requests alone", err=True)
    return inquiry.savings() if save else inquiry.result()


def _progress() -> Callable[[int], None]:
    def tell(read: int) -> None:
        if sys.stderr.isatty() and on_terminal():
            click.echo(f"{read} rows\r", err=True, nl=False)

    return tell


def _print(answer: WhatIf, form: Form) -> None:
    if form == "csv":
        rows = [{name: _flat(line, name) for name in _MEMBERS} for line in answer.lines]
        print_sheet("", {name: name for name in _MEMBERS}, rows, "csv")
        return
    click.echo(
        f"{answer.requests} requests, {answer.attempts} attempts from {answer.since} to {answer.until}: "
        f"{answer.as_was_usd} USD, as it was"
    )
    _say_incomplete(answer.complete, answer.unknown_cost)
    print_sheet("What if", _COLUMNS, [_cells(line) for line in answer.lines], form)
    for line in answer.lines:
        for left in line.left_out:
            click.echo(f"left out of {_words(line)}: {left.requests} requests of {left.as_was_usd} USD: {left.reason}")
    again = answer.given_again
    if again.answers:
        click.echo(f"{again.answers} answers were given again, which would have cost {again.saved_usd} USD more.")
    if answer.without_record:
        click.echo(f"{answer.without_record} requests have no decision record.")
    for caveat in answer.caveats:
        click.echo(f"- {caveat}")


def _say_incomplete(complete: bool, unknown: int = 0) -> None:  # noqa: FBT001  # it is what it is of
    if not complete:
        click.echo("This is of the newest requests alone: it ended before it had read everything.")
    if unknown:
        click.echo(f"What {unknown} attempts cost nobody knows: they are in no sum.")


def _words(line: Line) -> str:
    return _WORDS[line.kind].format(line.name)


def _flat(line: Line, name: str) -> Any:
    return sum(one.requests for one in line.left_out) if name == "left_out" else getattr(line, name)


def _cells(line: Line) -> dict[str, Any]:
    return {"what": _words(line), **{name: _flat(line, name) for name in _COLUMNS if name != "what"}}


def _print_savings(answer: Savings, form: Form) -> None:
    failovers, rescues, again = answer.failovers, answer.rescues, answer.given_again
    rows = [
        ("by choosing cheaply, versus the dearest that could", answer.versus_priciest.requests, answer.routing_usd),
        ("by providers' prompt caches", answer.without_prompt_cache.requests, answer.prompt_cache_usd),
        ("by giving answers again (whole hours)", again.answers, again.saved_usd),
        (
            "versus always the first choice",
            answer.versus_first_choice.requests,
            answer.versus_first_choice.difference_usd,
        ),
        (
            "requests answered elsewhere after a failure; cost more than the first choice",
            failovers.requests,
            failovers.dearer_usd,
        ),
        ("their failed attempts were billed", failovers.requests, failovers.wasted_usd),
        ("cut answers that went on elsewhere; the part that was kept", rescues.requests, rescues.kept_usd),
    ]
    if form == "table":
        click.echo(f"{answer.requests} requests from {answer.since} to {answer.until}: {answer.as_was_usd} USD")
        _say_incomplete(answer.complete)
    columns = {"what": "WHAT", "requests": "REQUESTS", "usd": "USD"}
    print_sheet("Saved", columns, [dict(zip(columns, row, strict=True)) for row in rows], form)

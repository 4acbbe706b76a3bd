"""`mixgate spend`: what was spent on which model, provider, key or application, to the nano-dollar."""

from collections.abc import Sequence
from typing import Any, Final

import click

from gateway.cli.fleet import read_fleet
from gateway.cli.output import on_terminal
from gateway.cli.sheets import print_sheet
from gateway.cli.windows import US_PER_S, Form, clock, form_of, forms, read_ledger, until_now, window
from gateway.reports.money import usd
from gateway.reports.reader import ReportReader
from gateway.reports.sparkline import sparkline
from gateway.reports.spending import STEPS, Point, Step, curve, read_points
from gateway.state.ledger_reader import BYS, By, Spent

__all__ = ["command", "usd"]

CURVE_CELLS: Final = 24
"""Bars of a sparkline."""
_NOBODY: Final = "(none)"
_HEADINGS: Final = {
    "cost_usd": "USD",
    "requests": "REQUESTS",
    "attempts": "ATTEMPTS",
    "failed": "FAILED",
    "input_tokens": "INPUT TOKENS",
    "output_tokens": "OUTPUT TOKENS",
    "unknown_cost": "OF COST UNKNOWN",
}
_COUNTS: Final = tuple(name for name in Spent.__struct_fields__ if name not in {"name", "cost_in_nusd"})


@click.command("spend")
@click.option("--by", type=click.Choice(BYS), default="model", show_default=True, help="What to add up by.")
@window("7d")
@click.option("--step", type=click.Choice(STEPS), help="A line for each of these, instead of one for all of the time.")
@click.option("--name", help="Only this model, provider or whatever --by says.")
@click.option("--fleet", is_flag=True, help="Of all gateways that send their rows to the same Postgres.")
@forms
def command(
    by: By,
    since: int,
    until: int | None,
    step: Step | None,
    name: str | None,
    *,
    fleet: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show what was spent, from the ledger in MIXGATE_HOME. Times are UTC and count from the full hour.

    Every Attempt has its own row in the ledger, those too that failed or were cancelled, with the cost that the
    provider said or that follows from its prices. Where nobody counted, or a price is unknown, that is said apart. A
    request with several tags counts under each of them. On a terminal each line has a curve of its cost over the time.
    """
    form = form_of(as_json=as_json, as_csv=as_csv)
    end = until_now(until)
    if fleet and step is not None:
        raise click.UsageError("--fleet has no --step")
    if step is not None:
        points = read_ledger(lambda reader: read_points(reader, by, since, end, step))
        _print_points(by, [one for one in points if name in {None, one.name}], form)
        return
    curves: tuple[Point, ...] = ()
    if fleet:
        lines = read_fleet(None, lambda reader: reader.spend(by, since, end, name=name))
    else:
        lines, curves = read_ledger(lambda reader: _read(reader, by, since, end, name, curves=form == "table"))
    if form == "table":
        _print_table(by, lines, curves, since, end)
    else:
        rows = [{by: line.name, "cost_usd": usd(line.cost_in_nusd)} | _counts(line) for line in lines]
        print_sheet("", {name: name for name in (by, "cost_usd", *_COUNTS)}, rows, form)


def _read(
    reader: ReportReader, by: By, since: int, until: int, name: str | None, *, curves: bool
) -> tuple[tuple[Spent, ...], tuple[Point, ...]]:
    lines = reader.spend(by, since, until, name=name)
    wanted = curves and on_terminal() and by != "day"
    return lines, read_points(reader, by, since, until, "hour") if wanted else ()


def _counts(line: Spent) -> dict[str, int]:
    return {name: getattr(line, name) for name in _COUNTS}


def _print_table(by: By, lines: Sequence[Spent], points: Sequence[Point], since: int, until: int) -> None:
    names = [line.name for line in lines]
    rows = [_row(by if by == "all" else line.name or _NOBODY, line) for line in lines]
    if by != "tag" and len(lines) > 1:
        rows.append(_row("total", _total(lines)))
    columns = {"name": by.upper(), **_HEADINGS}
    if points:
        columns["curve"] = "COST OVER TIME"
        for row, name in zip(rows, [*names, None], strict=False):
            drawn = curve(points, name, since, until, CURVE_CELLS) if name is not None else []
            row["curve"] = sparkline(drawn)
    print_sheet(f"Spent by {by}", columns, rows, "table", curves="curve")
    estimated = sum(line.estimated for line in lines)
    if estimated and by != "tag":
        click.echo(f"The tokens of {estimated} of these attempts are estimates: no provider counted them.")


def _row(name: str, line: Spent) -> dict[str, Any]:
    return {"name": name, "cost_usd": usd(line.cost_in_nusd), **_counts(line)}


def _total(lines: Sequence[Spent]) -> Spent:
    sums = (sum(getattr(line, name) for line in lines) for name in Spent.__struct_fields__ if name != "name")
    return Spent("", *sums)


def _print_points(by: By, points: Sequence[Point], form: Form) -> None:
    columns = {"start": "FROM", by: by.upper(), **_HEADINGS}
    rows = [
        {
            "start": clock(point.start_unix_s * US_PER_S),
            by: (point.name or _NOBODY) if form == "table" and by != "all" else point.name,
            "cost_usd": usd(point.cost_in_nusd),
            **{name: getattr(point, name) for name in _HEADINGS if name != "cost_usd"},
        }
        for point in points
    ]
    print_sheet(f"Spent by {by}", columns, rows, form)

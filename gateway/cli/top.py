"""`mixgate top`: who spends at the moment, and which Endpoints answer."""

import time
from collections.abc import Sequence
from typing import Any, Final

import click

from gateway.cli.output import on_terminal
from gateway.cli.sheets import ABSENT, print_json, print_sheet, visible
from gateway.cli.windows import Form, Span, form_of, forms, now_us, read_ledger
from gateway.reports.activity import WHO, Activity, Line, Who, read_activity
from gateway.reports.money import NANO_PER_USD, usd
from gateway.reports.sparkline import sparkline

LINES: Final = 15
"""Of each table, on a terminal that refreshes."""
INTERVAL_MIN_S: Final = 0.5
HOUR_S: Final = 3600
MINUTE_S: Final = 60
_NOBODY: Final = "(none)"
_COLUMNS: Final = {
    "name": "NAME",
    "per_min": "PER MIN",
    "attempts": "ATTEMPTS",
    "failed": "FAILED",
    "cost_usd": "USD",
    "per_hour": "USD/H",
    "tokens_per_s": "TOK/S",
    "ttft": "TTFT P50",
    "curve": "ATTEMPTS OVER TIME",
}


@click.command("top")
@click.option("--by", type=click.Choice(WHO), default="key", show_default=True, help="Whose spending is shown.")
@click.option(
    "--window", "window_s", type=Span(), default="5m", show_default=True, help="How far back it looks: 30s, 5m, 2h, 7d."
)
@click.option("--interval", type=Span(), default="2s", show_default=True, help="How often it looks again: 2s, 1m.")
@click.option("--once", is_flag=True, help="Look once, on a terminal too.")
@forms
def command(by: Who, window_s: float, interval: float, *, once: bool, as_json: bool, as_csv: bool) -> None:
    """Show who spends at the moment and which Endpoints answer, from what is over: running answers are not in it.

    On a terminal it looks again until Ctrl-C; piped, or with --once, it prints one table of each and ends.
    """
    form = form_of(as_json=as_json, as_csv=as_csv)
    if form == "table" and on_terminal() and not once:
        _refresh(by, window_s, max(INTERVAL_MIN_S, interval))
        return
    activity = _look(by, window_s)
    if form == "json":
        print_json({by: _rows(activity.names, window_s), "endpoint": _rows(activity.endpoints, window_s)})
    else:
        _print(by, activity, window_s, form)


def _look(by: Who, window_s: float) -> Activity:
    return read_ledger(lambda reader: read_activity(reader, by, now_us(), window_s))


def _print(by: Who, activity: Activity, window_s: float, form: Form) -> None:
    if form == "csv":
        rows = [{"what": by, **row} for row in _rows(activity.names, window_s)]
        rows += [{"what": "endpoint", **row} for row in _rows(activity.endpoints, window_s)]
        names = ["what", "name", "requests", "attempts", "failed", "cost_usd", "unknown_cost"]
        names += ["input_tokens", "output_tokens", "ttft_ms"]
        print_sheet("", {name: name for name in names}, rows, "csv")
        return
    for title, lines in ((f"Who spends, by {by}", activity.names), ("Endpoints", activity.endpoints)):
        print_sheet(title, _COLUMNS, [_cells(line, window_s) for line in lines], "table", curves="curve")
    if not activity.complete:
        click.echo("There was more: only the newest attempts are counted.")


def _rows(lines: Sequence[Line], window_s: float) -> list[dict[str, Any]]:
    return [
        {
            "name": line.name,
            "requests": line.requests,
            "attempts": line.attempts,
            "failed": line.failed,
            "cost_usd": usd(line.cost_in_nusd),
            "unknown_cost": line.unknown_cost,
            "input_tokens": line.input_tokens,
            "output_tokens": line.output_tokens,
            "ttft_ms": line.ttft_ms,
            "window_s": window_s,
        }
        for line in lines
    ]


def _cells(line: Line, window_s: float) -> dict[str, Any]:
    return {
        "name": line.name or _NOBODY,
        "per_min": f"{line.requests * MINUTE_S / window_s:.1f}",
        "attempts": line.attempts,
        "failed": line.failed,
        "cost_usd": usd(line.cost_in_nusd),
        "per_hour": f"{line.cost_in_nusd / NANO_PER_USD * HOUR_S / window_s:.2f}",
        "tokens_per_s": f"{line.output_tokens / window_s:.1f}",
        "ttft": ABSENT if line.ttft_ms is None else f"{line.ttft_ms / 1000:.2f} s",
        "curve": sparkline(line.curve),
    }


def _refresh(by: Who, window_s: float, interval_s: float) -> None:
    # rich takes 0.1 s to import, which only a terminal should pay for.
    from rich.live import Live  # noqa: PLC0415

    try:
        with Live(screen=True, auto_refresh=False) as live:
            while True:
                live.update(_drawn(by, _look(by, window_s), window_s), refresh=True)
                time.sleep(interval_s)
    except KeyboardInterrupt:
        return


def _drawn(by: Who, activity: Activity, window_s: float) -> Any:
    from rich import box  # noqa: PLC0415 - as above
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    tables: list[Table] = []
    for title, lines in ((f"Who spends, by {by}", activity.names), ("Endpoints", activity.endpoints)):
        table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=box.SIMPLE_HEAD)
        for heading in _COLUMNS.values():
            table.add_column(heading)
        for line in lines[:LINES]:
            cells = _cells(line, window_s)
            # As Text, so that square brackets in a name are not taken for markup.
            table.add_row(*(Text(visible(cells[name])) for name in _COLUMNS))
        tables.append(table)
    return Group(*tables, Text("Ctrl-C ends it", style="dim"))

"""`mixgate requests`: look for requests in the ledger, by filters, newest first."""

import re
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import click
import msgspec

from gateway.cli.output import GAP
from gateway.cli.sheets import inert, print_json, print_sheet, visible
from gateway.cli.windows import US_PER_S, Form, Moment, clock, form_of, forms, now_us, read_ledger
from gateway.reports.money import NANO_PER_USD, usd
from gateway.reports.requests import RequestLine, RequestPage, Wanted, read_requests
from gateway.state.ledger_reader import Filter

COUNT_MAX: Final = 10_000
FOLLOW_EVERY_S: Final = 1.0
FOLLOWED_BACK_S: Final = 1800
"""How far back a followed request may have begun: it is listed once it is over."""
OVER_AFTER_S: Final = 660
"""A request without an answer and without a record is over by then."""
SHOWN_MAX: Final = 100_000
"""Requests that --follow remembers to have shown."""
_AMOUNT: Final = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)
_COLUMNS: Final = {
    "time": "TIME",
    "id": "ID",
    "route": "ROUTE",
    "endpoint": "ENDPOINT",
    "outcome": "OUTCOME",
    "attempts": "ATT",
    "input_tokens": "IN",
    "output_tokens": "OUT",
    "cost_usd": "USD",
    "ttft": "TTFT",
    "duration": "TOOK",
}
_MEMBERS: Final = (
    *("id", "time", "route", "model", "endpoint", "key_id", "app", "user", "tags", "attempts", "outcome", "code"),
    *("rescued", "input_tokens", "output_tokens", "cost_usd", "unknown_cost", "ttft_ms", "duration_ms"),
)


class Dollars(click.ParamType[int]):
    """An amount in nano-USD, given in dollars."""

    name = "USD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        if isinstance(value, int):
            return value
        if not _AMOUNT.fullmatch(str(value)):
            self.fail(f"{value!r} is no amount: give dollars as 0.05", param, ctx)
        return int(Decimal(value) * NANO_PER_USD)


@click.command("requests")
@click.option("--since", type=Moment(), help="As 90m, 24h, 7d or a day; else as far back as the ledger goes.")
@click.option("--until", type=Moment(), help="As for --since; else now.")
@click.option("--key", "key_id", help="Public id of a client key.")
@click.option("--model", help="The model that was asked.")
@click.option("--provider")
@click.option("--endpoint", help="provider/model-id; of any attempt.")
@click.option("--route")
@click.option("--app", help="What the application calls itself.")
@click.option("--user")
@click.option("--session")
@click.option("--tag")
@click.option("--outcome", type=click.Choice(["ok", "failed", "cancelled"]), help="Of any attempt.")
@click.option("--failed", is_flag=True, help="Only requests without an answer.")
@click.option("--failed-over", is_flag=True, help="Only requests that were answered after an attempt that failed.")
@click.option("--rescued", is_flag=True, help="Only answers that were cut and went on elsewhere.")
@click.option(
    "--min-cost", "min_cost_in_nusd", type=Dollars(), help="Only requests that cost at least so many dollars."
)
@click.option("--count", type=click.IntRange(1, COUNT_MAX), default=50, show_default=True, help="How many.")
@click.option("--before", type=click.IntRange(1), help="Go on where the last page ended, as it says.")
@click.option("--follow", is_flag=True, help="Go on printing requests as they end, until Ctrl-C.")
@forms
def command(
    *,
    count: int,
    before: int | None,
    follow: bool,
    as_json: bool,
    as_csv: bool,
    **chosen: Any,
) -> None:
    """List requests, newest first, each with all its attempts together. `mixgate explain ID` tells the whole story.

    Where there are more, the last line says how to go on. JSON has the next page's --before as `before`.
    """
    form = form_of(as_json=as_json, as_csv=as_csv)
    more = {name: chosen.pop(name) for name in ("failed", "failed_over", "rescued", "min_cost_in_nusd")}
    rows = Filter(since_unix_us=chosen.pop("since"), until_unix_us=chosen.pop("until"), **chosen)
    wanted = Wanted(rows=rows, **more)
    if follow:
        if before is not None or rows.until_unix_us is not None:
            raise click.UsageError("--follow goes with neither --before nor --until")
        _follow(wanted, form)
        return
    page = read_ledger(lambda reader: read_requests(reader, wanted, before=before, count=count))
    if form == "json":
        print_json({"requests": [_members(one) for one in page.requests], "before": page.before})
    elif form == "csv":
        print_sheet("", {name: name for name in _MEMBERS}, [_flat(one) for one in page.requests], "csv")
    else:
        print_sheet("Requests", _COLUMNS, [_cells(one) for one in page.requests], "table")
        _say_more(page)


def _say_more(page: RequestPage) -> None:
    if page.before is not None:
        click.echo(f"There may be more: --before {page.before}")
    elif not page.requests:
        click.echo("Nothing fits.")


def _members(line: RequestLine) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.to_builtins(line)
    built |= {"time": clock(line.unix_us), "cost_usd": usd(line.cost_in_nusd)}
    return {name: built[name] for name in _MEMBERS}


def _flat(line: RequestLine) -> dict[str, Any]:
    return _members(line) | {"tags": " ".join(line.tags)}


def _cells(line: RequestLine) -> dict[str, Any]:
    said = line.outcome if line.code is None else f"{line.outcome}: {line.code}"
    unknown = " + ?" if line.unknown_cost else ""
    return _members(line) | {
        "outcome": f"{said}, rescued" if line.rescued else said,
        "cost_usd": f"{usd(line.cost_in_nusd)}{unknown}",
        "ttft": None if line.ttft_ms is None else f"{line.ttft_ms / 1000:.2f} s",
        "duration": f"{line.duration_ms / 1000:.2f} s",
    }


def _follow(wanted: Wanted, form: Form) -> None:
    """Print each request once it is over, oldest first, until Ctrl-C."""
    started_us = now_us() if wanted.rows.since_unix_us is None else wanted.rows.since_unix_us
    shown: dict[str, None] = {}
    first = True
    try:
        while True:
            since = started_us if first else max(started_us, now_us() - FOLLOWED_BACK_S * US_PER_S)
            rows = msgspec.structs.replace(wanted.rows, since_unix_us=since)
            page = _look(msgspec.structs.replace(wanted, rows=rows))
            fresh = [one for one in reversed(page.requests) if one.id not in shown and _is_over(one)]
            _print_lines(fresh, form, heading=first)
            shown.update((one.id, None) for one in fresh)
            while len(shown) > SHOWN_MAX:
                shown.pop(next(iter(shown)))
            first = False
            time.sleep(FOLLOW_EVERY_S)
    except KeyboardInterrupt:
        return


def _is_over(line: RequestLine) -> bool:
    """Whether no further Attempt can follow. Records may be dropped, so that is not waited for for ever."""
    return line.over or now_us() - line.unix_us > OVER_AFTER_S * US_PER_S


def _look(wanted: Wanted) -> RequestPage:
    return read_ledger(lambda reader: read_requests(reader, wanted, count=COUNT_MAX))


def _print_lines(lines: Sequence[RequestLine], form: Form, *, heading: bool) -> None:
    """One line for each: JSON, CSV, or columns that are as wide as they need to be."""
    if form == "table":
        if heading:
            click.echo(GAP.join(_COLUMNS.values()))
        for line in lines:
            click.echo(_plain(_cells(line)))
    elif form == "json":
        for line in lines:
            click.echo(msgspec.json.encode(_members(line)).decode())
    else:
        if heading:
            click.echo(",".join(_MEMBERS))
        for line in lines:
            click.echo(",".join(_quoted(inert(value)) for value in _flat(line).values()))


def _plain(cells: Mapping[str, Any]) -> str:
    return GAP.join(visible(cells[name]) for name in _COLUMNS)


def _quoted(value: Any) -> str:
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if any(one in text for one in ',"\n\r') else text

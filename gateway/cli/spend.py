"""`mixgate spend`: what was spent on which model, provider, key or application, to the nano-dollar."""

import csv
import os
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
import msgspec

from gateway.cli.output import fail, print_table
from gateway.config.locations import home_folder
from gateway.state.connection import FILE_NAME
from gateway.state.errors import StoreError
from gateway.state.ledger_reader import BYS, By, LedgerReader, Spent

US_PER_S: Final = 1_000_000
NANO_PER_USD: Final = 10**9
CENTS_DIGITS: Final = 2
"""Decimals that a sum has at least."""
_SPAN: Final = re.compile(r"(\d{1,6})([mhdw])", re.ASCII)
_SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_COUNTS: Final = tuple(name for name in Spent.__struct_fields__ if name not in {"name", "cost_in_nusd"})
_NOBODY: Final = "(none)"


class _Moment(click.ParamType[int]):
    """A time in microseconds, given as how long ago or as a day."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        if isinstance(value, int):
            return value
        if found := _SPAN.fullmatch(str(value)):
            return max(0, int(time.time()) - int(found[1]) * _SECONDS[found[2]]) * US_PER_S
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time: give 90m, 24h, 7d, 4w or a day as 2026-01-31", param, ctx)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) * US_PER_S


@click.command("spend")
@click.option("--by", type=click.Choice(BYS), default="model", show_default=True, help="What to add up by.")
@click.option("--since", type=_Moment(), default="7d", show_default=True, help="As 90m, 24h, 7d, 4w or a day.")
@click.option("--until", type=_Moment(), help="As for --since; else now.")
@click.option("--json", "as_json", is_flag=True, help="As JSON; money as decimal strings, in dollars.")
@click.option("--csv", "as_csv", is_flag=True, help="As CSV.")
def command(
    by: By,
    since: int,
    until: int | None,
    as_json: bool,  # noqa: FBT001  # click passes flags so
    as_csv: bool,  # noqa: FBT001  # click passes flags so
) -> None:
    """Show what was spent, from the ledger in MIXGATE_HOME. Times are UTC and count from the full hour.

    Every Attempt has its own row in the ledger, those too that failed or were cancelled, with the cost that the
    provider said or that follows from its prices. Where nobody counted, or a price is unknown, that is said apart. A
    request with several tags counts under each of them.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    lines = _read(by, since, int(time.time() * US_PER_S) + 1 if until is None else until)
    if as_json:
        _print_json(by, lines)
    elif as_csv:
        _print_csv(by, lines)
    else:
        _print_lines(by, lines)


def usd(amount_in_nusd: int) -> str:
    """Dollars, exactly: nothing is rounded, and decimals beyond the cents are there where they are needed."""
    sign, amount = "-" if amount_in_nusd < 0 else "", abs(amount_in_nusd)
    whole, nano = divmod(amount, NANO_PER_USD)
    decimals = f"{nano:09d}".rstrip("0").ljust(CENTS_DIGITS, "0")
    return f"{sign}{whole}.{decimals}"


def _read(by: By, since_us: int, until_us: int) -> tuple[Spent, ...]:
    path = home_folder(os.environ) / FILE_NAME
    if not path.is_file():
        fail(
            f"there is no ledger: {path} does not exist",
            "set MIXGATE_HOME as it is for the gateway, and ask the gateway something first",
        )
    try:
        with LedgerReader(path) as reader:
            return reader.spend(by, since_us, until_us)
    except StoreError as error:
        fail(f"{path} cannot be read: {error}", "run it as the gateway's user, once a gateway of this version ran")


def _print_lines(by: By, lines: Sequence[Spent]) -> None:
    rows = [_cells(by if by == "all" else line.name or _NOBODY, line) for line in lines]
    if by != "tag" and len(lines) > 1:
        rows.append(_cells("total", _total(lines)))
    columns = (by.upper(), "USD", "REQUESTS", "ATTEMPTS", "FAILED", "INPUT TOKENS", "OUTPUT TOKENS", "OF COST UNKNOWN")
    print_table(f"Spent by {by}", columns, rows)
    estimated = sum(line.estimated for line in lines)
    if estimated and by != "tag":
        click.echo(f"The tokens of {estimated} of these attempts are estimates: no provider counted them.")


def _cells(name: str, line: Spent) -> tuple[str, ...]:
    counts = (line.requests, line.attempts, line.failed, line.input_tokens, line.output_tokens, line.unknown_cost)
    return (name, usd(line.cost_in_nusd), *map(str, counts))


def _total(lines: Sequence[Spent]) -> Spent:
    sums = (sum(getattr(line, name) for line in lines) for name in Spent.__struct_fields__ if name != "name")
    return Spent("", *sums)


def _print_json(by: By, lines: Sequence[Spent]) -> None:
    shown = [
        {by: line.name, "cost_usd": usd(line.cost_in_nusd), **{name: getattr(line, name) for name in _COUNTS}}
        for line in lines
    ]
    click.echo(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())


def _print_csv(by: By, lines: Sequence[Spent]) -> None:
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow((by, "cost_usd", *_COUNTS))
    table.writerows((_inert(line.name), usd(line.cost_in_nusd), *(getattr(line, n) for n in _COUNTS)) for line in lines)


def _inert(name: str) -> str:
    """Names come from clients: no spreadsheet may take one for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name

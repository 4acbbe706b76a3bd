"""`mixgate reconcile`: hold the ledger against what a provider says that it charged."""

import os
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final

import click
import msgspec

from gateway.cli.output import EXIT_CONFIGURATION, EXIT_FAILED, fail, load_or_exit
from gateway.cli.requests import Dollars
from gateway.cli.sheets import print_json, print_sheet
from gateway.cli.windows import US_PER_S, form_of, forms, read_ledger
from gateway.config.locations import find_config
from gateway.config.secrets import is_reference, resolve
from gateway.imports.draft import ImportSourceError
from gateway.reports.claims import FILE_MAX_BYTES, GUESSES, Claim, UnreadableClaimsError, read_claims
from gateway.reports.reconcile import Reconciliation, TooManyRowsError, read_rows, reconcile
from gateway.state.ledger_reader import Filter

SHOWN_MAX: Final = 200
"""Differences in a table; CSV and JSON have all of them."""
_COLUMNS: Final = {
    "kind": "WHAT",
    "day": "DAY",
    "model": "MODEL",
    "id": "ID",
    "ours_usd": "OURS",
    "theirs_usd": "THEIRS",
    "difference_usd": "DIFFERENCE",
    "ours_requests": "OUR REQUESTS",
    "theirs_requests": "THEIR REQUESTS",
}
_WORDS: Final = {"missing_here": "missing here", "missing_there": "missing there", "amount": "amount"}


class _Day(click.ParamType[date]):
    """A day."""

    name = "DAY"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Read it."""
        if isinstance(value, date):
            return value
        try:
            return date.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no day: give it as 2026-01-31", param, ctx)


@click.command("reconcile")
@click.argument("file", type=click.File("rb"), required=False)
@click.option("--ask", is_flag=True, help="Ask the provider itself, in the place of FILE.")
@click.option("--management-key", help="With --ask: its key for that, as env:NAME or file:/path.", metavar="REFERENCE")
@click.option("--config", type=click.Path(path_type=Path), help="With --ask: as for `mixgate serve`.")
@click.option("--provider", required=True, help="Whose charges they are, by its name in the configuration.")
@click.option("--since", type=_Day(), help="The first day, UTC; else the file's first.")
@click.option("--until", type=_Day(), help="The last day; else the file's last.")
@click.option(
    "--column", "columns", multiple=True, metavar="WHAT=NAME", help=f"Which column is the {', '.join(GUESSES)}."
)
@click.option(
    "--model", "models", multiple=True, metavar="THEIRS=OURS", help="What the ledger calls a model of theirs."
)
@click.option("--tolerance", type=Dollars(), default=0, help="Dollars that an amount may differ by; 0 if left out.")
@forms
def command(
    file: IO[bytes] | None,
    provider: str,
    *,
    since: date | None,
    until: date | None,
    as_json: bool,
    as_csv: bool,
    **more: Any,
) -> None:
    """Compare the ledger with FILE, what a provider says that it charged, and list every difference.

    FILE is an export of OpenRouter's (the JSON of /activity, or of /generation, one or many, also a line each), or the
    CSV of an invoice with a line of headings; - is standard input. Rows with an id are held against the very attempt,
    all others against the sums of their day (UTC) and model. Days, models, costs, tokens and ids are found by the
    usual names of their columns; --column says so where they have others. Exits 1 where anything differs.

    With --ask OpenRouter is asked for the last 30 complete days; that takes a management key.
    """
    if (file is None) != more["ask"]:
        raise click.UsageError("give a FILE, or --ask")
    form = form_of(as_json=as_json, as_csv=as_csv)
    columns = _pairs(more["columns"], "--column", GUESSES)
    data = _asked(provider, more["management_key"], more["config"]) if file is None else _read(file)
    claims = _understand(data, columns)
    if not claims and (since is None or until is None):
        fail("the file has no charges, so nothing says which days are meant", "give --since and --until", 2)
    first = since.isoformat() if since else min(one.day for one in claims)
    last = until.isoformat() if until else max(one.day for one in claims)
    rows = Filter(_start_us(first, -1), _start_us(last, 2), provider=provider)
    try:
        entries = read_ledger(lambda reader: read_rows(reader, rows))
    except TooManyRowsError as error:
        fail(str(error), "compare fewer days at a time, with --since and --until")
    names = _pairs(more["models"], "--model", None)
    found = reconcile(entries, claims, since=first, until=last, names=names, tolerance_in_nusd=more["tolerance"])
    if form == "json":
        print_json(msgspec.to_builtins(found))
    elif form == "csv":
        every = [msgspec.to_builtins(one) for one in found.differences]
        print_sheet("", {name: name for name in (*_COLUMNS, "attempt_id")}, every, "csv")
    else:
        _print(provider, found)
    if found.differences:
        raise SystemExit(EXIT_FAILED)


def _read(file: IO[bytes]) -> bytes:
    data = file.read(FILE_MAX_BYTES + 1)
    if len(data) > FILE_MAX_BYTES:
        fail(f"the file is over {FILE_MAX_BYTES} bytes", "export fewer days at a time", EXIT_CONFIGURATION)
    return data


def _asked(name: str, reference: str | None, config: Path | None) -> bytes:
    """What the provider says when it is asked."""
    # The HTTP client takes longer to load than a file takes to read.
    from gateway.cli.refresh import DIALECT  # noqa: PLC0415
    from gateway.imports.fetch import Catalogue as Published  # noqa: PLC0415

    entry = load_or_exit(find_config(config, os.environ, Path.cwd()), os.environ).providers.get(name)
    if entry is None or entry.dialect != DIALECT:
        fix = "export its charges as a file"
        fail(f"{name} is no provider of `dialect: {DIALECT}`: it cannot be asked", fix, EXIT_CONFIGURATION)
    found = resolve(reference, os.environ) if reference is not None and is_reference(reference) else None
    if found is None or found.secret is None:
        why = "it takes a management key" if found is None else f"{reference} does not resolve: {found.reason}"
        fail(why, "make one at the provider, and name it with --management-key env:NAME", EXIT_CONFIGURATION)
    proxy = entry.proxy.reveal() if entry.proxy else None
    published = Published(entry.base_url, api_key=found.secret.reveal(), proxy=proxy)
    try:
        return published.read_activity()
    except ImportSourceError as error:
        fail(f"{name}: {error.message}", error.fix)
    finally:
        published.close()


def _understand(data: bytes, columns: Mapping[str, str]) -> tuple[Claim, ...]:
    try:
        return read_claims(data, columns)
    except UnreadableClaimsError as error:
        fail(f"the file cannot be understood: {error}", "name its columns with --column", EXIT_CONFIGURATION)


def _pairs(given: tuple[str, ...], option: str, known: Mapping[str, Any] | None) -> dict[str, str]:
    pairs = {name: value for name, _, value in (one.partition("=") for one in given)}
    for name, value in pairs.items():
        if not name or not value or (known is not None and name not in known):
            expected = "THEIRS=OURS" if known is None else f"one of {', '.join(known)}, =, and the column's name"
            raise click.BadParameter(f"give {expected}", param_hint=option)
    return pairs


def _start_us(day: str, more_days: int) -> int:
    moment = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=more_days)
    return int(moment.timestamp()) * US_PER_S


def _print(provider: str, found: Reconciliation) -> None:
    if found.differences:
        some = found.differences[:SHOWN_MAX]
        rows = [msgspec.to_builtins(one) | {"kind": _WORDS[one.kind]} for one in some]
        print_sheet(f"What differs between the ledger and {provider}", _COLUMNS, rows, "table")
        if len(found.differences) > SHOWN_MAX:
            click.echo(f"... and {len(found.differences) - SHOWN_MAX} more: --csv and --json have all")
    click.echo(
        f"{found.since} to {found.until}: {found.rows} attempts here, {found.claims} charges there, {found.matched} "
        f"the same, {len(found.differences)} differ\n"
        f"ours {found.ours_usd} USD, theirs {found.theirs_usd} USD, difference {found.difference_usd} USD"
    )

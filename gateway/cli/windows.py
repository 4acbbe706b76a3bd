"""Options that the reports share: over what time, and in which form."""

import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeVar

import click

from gateway.cli.output import fail
from gateway.config.locations import home_folder
from gateway.reports.reader import ReportReader
from gateway.state.connection import FILE_NAME
from gateway.state.errors import DamagedStoreError, NewerStoreError, StoreError

US_PER_S: Final = 1_000_000
Form: TypeAlias = Literal["table", "csv", "json"]
Command = TypeVar("Command", bound=Callable[..., Any])
Answer = TypeVar("Answer")
_SPAN: Final = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class Moment(click.ParamType[int]):
    """A time in microseconds of Unix time, given as how long ago, as a day, or as a time."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        if isinstance(value, int):
            return value
        if found := _SPAN.fullmatch(str(value)):
            return max(0, int(time.time()) - int(found[1]) * _SECONDS[found[2]]) * US_PER_S
        if value == "now":
            return now_us()
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time: give 90m, 24h, 7d, 4w or a day as 2026-01-31", param, ctx)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) * US_PER_S


class Span(click.ParamType[float]):
    """A length of time in seconds, given as 30s, 5m, 2h, 7d."""

    name = "SPAN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        if isinstance(value, (int, float)):
            return float(value)
        found = _SPAN.fullmatch(str(value))
        if found is None or not int(found[1]):
            self.fail(f"{value!r} is no length of time: give 30s, 5m, 2h or 7d", param, ctx)
        return float(int(found[1]) * _SECONDS[found[2]])


def window(default: str) -> Callable[[Command], Command]:
    """The options --since and --until."""

    def add(function: Command) -> Command:
        function = click.option("--until", type=Moment(), help="As for --since; else now.")(function)
        return click.option(
            "--since", type=Moment(), default=default, show_default=True, help="As 90m, 24h, 7d, 4w or a day."
        )(function)

    return add


def forms(function: Command) -> Command:
    """The options --json and --csv."""
    function = click.option("--csv", "as_csv", is_flag=True, help="As CSV.")(function)
    return click.option("--json", "as_json", is_flag=True, help="As JSON; money as decimal strings, in dollars.")(
        function
    )


def form_of(*, as_json: bool, as_csv: bool) -> Form:
    """The one that was asked for."""
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    return "json" if as_json else "csv" if as_csv else "table"


def until_now(until: int | None) -> int:
    """The end of a window that ends now where nothing else is said."""
    return now_us() + 1 if until is None else until


def now_us() -> int:
    """The wall clock, in microseconds of Unix time."""
    return int(time.time() * US_PER_S)


def ledger_path() -> Path:
    """The store's file. Ends the command where there is none."""
    path = home_folder(os.environ) / FILE_NAME
    if not path.is_file():
        fail(
            f"there is no ledger: {path} does not exist",
            "set MIXGATE_HOME as it is for the gateway, and ask the gateway something first",
        )
    return path


def read_ledger(look: Callable[[ReportReader], Answer]) -> Answer:
    """What a look at the ledger gives. Ends the command where it cannot be read."""
    path = ledger_path()
    try:
        with ReportReader(path) as reader:
            return look(reader)
    except StoreError as error:
        fail(f"{path} cannot be read: {error}", remedy(error))


def remedy(error: StoreError) -> str:
    """What to do where the ledger's file cannot be used."""
    if isinstance(error, DamagedStoreError):
        return "start the gateway: it moves the file aside and keeps what can be read; or put a backup in its place"
    if isinstance(error, NewerStoreError):
        return "use the release of Mixgate that the gateway is of"
    return "run it as the gateway's user, once a gateway of this version ran"


def clock(unix_us: int) -> str:
    """A time for people, in UTC, to the second."""
    return datetime.fromtimestamp(unix_us / US_PER_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

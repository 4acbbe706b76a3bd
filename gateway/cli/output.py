"""What the commands print: tables and colours on a terminal, plain aligned text where the output is piped."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from gateway.config.catalogue import Catalogue
from gateway.config.load import load
from gateway.config.locations import home_folder
from gateway.errors import ConfigError, ConfigProblem
from gateway.keys.storage import has_issued_keys
from gateway.state.connection import FILE_NAME

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2
GAP = "  "


def on_terminal() -> bool:
    """Whether somebody is looking: then there are tables, colours and progress bars."""
    return sys.stdout.isatty()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their columns."""
    if on_terminal():
        _print_rich(title, columns, rows)
        return
    click.echo(title)
    cells = [columns, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo((GAP + GAP.join(padded)).rstrip())
    click.echo()


def _print_rich(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # rich takes 0.1 s to import, which only a terminal should pay for.
    from rich import box  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    styles = {"on": "green", "ok": "green", "off": "yellow", "warning": "yellow", "problem": "bold red"}
    styles |= {"degraded": "bold red", "not possible here": "yellow"}
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # As Text, so that square brackets in a name are not taken for markup.
        table.add_row(*(Text(cell, style=styles.get(cell, "")) for cell in row))
    Console(highlight=False).print(table)


def print_problems(problems: Sequence[ConfigProblem], word: str) -> None:
    """Print complaints, each with its place and its remedy, to standard error."""
    colour = "red" if word == "error" else "yellow"
    for problem in problems:
        place = click.style(problem.where, bold=True)
        label = click.style(word, fg=colour)
        click.echo(f"{place}: {label}: {problem.message}\n    fix: {problem.fix}", err=True)


def fail(message: str, fix: str, code: int = EXIT_FAILED) -> NoReturn:
    """Say what went wrong and what to do, and end the command."""
    label = click.style("error", fg="red")
    click.echo(f"{label}: {message}\n    fix: {fix}", err=True)
    raise SystemExit(code)


def load_or_exit(
    path: Path,
    env: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
) -> Catalogue:
    """Read the configuration; complaints go to standard error and end the command with EXIT_CONFIGURATION."""
    try:
        issued = has_issued_keys(home_folder(env) / FILE_NAME)
        return load(path, env, overrides, has_issued_keys=issued)
    except ConfigError as error:
        print_problems(error.problems, "error")
        raise SystemExit(EXIT_CONFIGURATION) from None

"""Rows as a table for people, as CSV for spreadsheets, or as JSON for programs: the same figures in all of them."""

import csv
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click
import msgspec

from gateway.cli.output import print_table
from gateway.cli.windows import Form

ABSENT: Final = "-"
"""In a table, what nobody knows."""
HIDDEN: Final = "\ufffd"
"""In a table, in the place of a character that is not for people."""


def print_sheet(
    title: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]], form: Form, *, curves: str | None = None
) -> None:
    """Print rows.

    Args:
        title: Above a table.
        columns: By member of a row, its heading in a table.
        rows: With at least those members; JSON has all that they have.
        form: In which form.
        curves: The member with a sparkline, which only tables show.
    """
    if form == "json":
        print_json([{name: value for name, value in row.items() if name != curves} for row in rows])
    elif form == "csv":
        names = [name for name in columns if name != curves]
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(names)
        table.writerows([inert(row[name]) for name in names] for row in rows)
    else:
        cells = [[visible(row[name]) for name in columns] for row in rows]
        print_table(title, [*columns.values()], cells)


def visible(value: Any) -> str:
    """A cell of a table. Names come from clients: none may tell the terminal what to do, or break a line."""
    text = ABSENT if value is None else str(value)
    return text if text.isprintable() else "".join(one if one.isprintable() else HIDDEN for one in text)


def print_json(value: Any) -> None:
    """Print JSON to be read by people too."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def inert(value: Any) -> Any:
    """Names come from clients: no spreadsheet may take one for a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "@", "\t", "\r")):
        return f"'{value}"
    # A negative amount begins with a minus, and is a number.
    if isinstance(value, str) and value.startswith("-") and not value[1:].replace(".", "", 1).isdigit():
        return f"'{value}"
    return "" if value is None else value

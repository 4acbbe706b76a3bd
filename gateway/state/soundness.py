"""Whether mixgate.db is sound, and whether the sums that it keeps are what its rows come to."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.state.connection import open_reader
from gateway.state.errors import translate
from gateway.state.ledger_rows import COLUMNS_BY, HOUR_US, HOURS_PER_DAY
from gateway.state.schema import SPENT_COLUMNS

SHOWN_MAX: Final = 5
"""Differences that are named; the rest is counted."""
SUMS: Final = (
    "sum(substr(attempt_id, -2) = '/1'), count(*), sum(outcome <> 'ok'), "
    "sum(usage_source IN ('estimate', 'recovered')), "
    + ", ".join(
        f"coalesce(sum({name}), 0)"
        for name in (
            *("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"),
            "cost_in_nusd",
        )
    )
    + ", sum(cost_in_nusd IS NULL)"
)
"""What SPENT_COLUMNS are of some rows, in SQL."""
_SPENT: Final = ", ".join(SPENT_COLUMNS)


def find_faults(path: Path) -> Iterator[tuple[str, list[str]]]:
    """What was looked at, one thing after the other, and what is wrong with it. All of one moment. Blocks.

    Raises:
        StoreError: It cannot be read.
    """
    connection = open_reader(path)
    try:
        connection.execute("BEGIN")
        said = [row[0] for row in connection.execute(f"PRAGMA integrity_check({SHOWN_MAX})")]
        yield "the file", [] if said == ["ok"] else said
        for by, column in COLUMNS_BY.items():
            for span, width in (("hour", HOUR_US), ("day", HOUR_US * HOURS_PER_DAY)):
                yield f"sums by {by} and {span}", _compare(connection, by, column, span, width)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise translate(error) from error
    finally:
        connection.close()


def _compare(connection: sqlite3.Connection, by: str, column: str, span: str, width: int) -> list[str]:
    """What differs between the sums that are kept and those of the rows."""
    each = ", json_each(CASE tags WHEN '' THEN '[\"\"]' ELSE tags END)" if by == "tag" else ""
    # Every value is bound; what is put together are names of our own.
    rows = f"SELECT unix_us / {width} AS at, {column} AS name, {SUMS} FROM entry{each} GROUP BY 1, 2"  # noqa: S608
    kept = f"SELECT {span} AS at, name, {_SPENT} FROM spend_{span} WHERE by = ?1"  # noqa: S608
    differing = f"SELECT * FROM ({kept} EXCEPT {rows}) UNION ALL SELECT * FROM ({rows} EXCEPT {kept})"  # noqa: S608
    found = connection.execute(f"SELECT DISTINCT at, name FROM ({differing}) LIMIT {SHOWN_MAX}", (by,))  # noqa: S608
    return [f"{name!r} at {span} {at}: the rows come to something else than is kept" for at, name in found]

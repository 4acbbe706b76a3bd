"""Which names occur in which stretch of the ledger, so that a look-up by filters reads only where there is something.

A stretch is STRETCH_ROWS rows that were written one after the other. An index of its own for every column would have
to be written with every row; a name is written once for a stretch, when that is full, and any combination of filters
is looked up. Stretches that nobody has looked through yet, the last ones, may have any name.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final

STRETCH_ROWS: Final = 1024
"""Rows of the ledger in a stretch. Files hold what was worked out with it: it can only be changed by a migration."""
COLUMNS: Final = {
    "key": "key_id",
    "app": "app",
    "tag": "json_each.value",
    "endpoint": "endpoint",
    "outcome": "outcome",
    "route": "route",
    "model": "model",
    "provider": "provider",
}
"""What a name can be of, and what says it. Users and sessions may be as many as there are rows: they are not here."""

NOTED_AT_ONCE: Final = 16
"""Stretches that one step looks through, so that a step never takes long."""

_NAMES: Final = (
    "CREATE TABLE entry_stretch (by TEXT NOT NULL, name TEXT NOT NULL, stretch INTEGER NOT NULL, "
    "PRIMARY KEY (by, name, stretch)) STRICT, WITHOUT ROWID"
)
_TIMES: Final = (
    "CREATE TABLE entry_stretch_time (stretch INTEGER PRIMARY KEY, first_us INTEGER NOT NULL, "
    "last_us INTEGER NOT NULL) STRICT"
)
"""All stretches up to the last one that is in it have been looked through."""
STRETCH_TABLES: Final = (_NAMES, _TIMES)
"""Statements that make the tables. They are filled by and by."""
STRETCH_TABLES_GONE: Final = ("DROP TABLE entry_stretch", "DROP TABLE entry_stretch_time")
"""Nothing is lost with them: they are made again from the rows."""

_EACH: Final = ", json_each(CASE tags WHEN '' THEN '[]' ELSE tags END)"
_NOTE: Final = "INSERT INTO entry_stretch (by, name, stretch) " + " UNION ALL ".join(  # noqa: S608 # our names
    f"SELECT DISTINCT '{by}', {column}, entry / {STRETCH_ROWS} FROM entry{_EACH if by == 'tag' else ''} "  # noqa: S608
    "WHERE entry >= ?1 AND entry < ?2"
    for by, column in COLUMNS.items()
)
_NOTE_TIMES: Final = (
    "INSERT INTO entry_stretch_time (stretch, first_us, last_us) "  # noqa: S608 # names and numbers of our own
    f"SELECT entry / {STRETCH_ROWS}, min(unix_us), max(unix_us) FROM entry WHERE entry >= ?1 AND entry < ?2 GROUP BY 1"
)
_NEXT: Final = "SELECT coalesce(max(stretch) + 1, 0) FROM entry_stretch_time"
_OCCURS: Final = "EXISTS (SELECT 1 FROM entry_stretch WHERE by = ? AND name = ? AND stretch = {at})"
_END: Final = "SELECT coalesce(max(entry) + 1, 0) FROM entry"


def note_stretches(connection: sqlite3.Connection) -> bool:
    """Look through some stretches that are full and were not looked through yet. Whether there are more.

    Raises:
        sqlite3.Error: Nothing of it is there once the transaction, which is the caller's, is rolled back.
    """
    first = _one(connection, _NEXT)
    end = _one(connection, _END) // STRETCH_ROWS
    some = min(end, first + NOTED_AT_ONCE)
    if first < some:
        bounds = (first * STRETCH_ROWS, some * STRETCH_ROWS)
        connection.execute(_NOTE, bounds)
        connection.execute(_NOTE_TIMES, bounds)
    return some < end


def _one(connection: sqlite3.Connection, statement: str) -> int:
    found: int = connection.execute(statement).fetchone()[0]
    return found


def find_stretches(
    connection: sqlite3.Connection,
    names: Mapping[str, str],
    *,
    since_us: int | None,
    until_us: int | None,
    before: int | None,
) -> Iterator[tuple[int, int]]:
    """First and last row of each stretch in which all of these names may occur at that time, newest first.

    Args:
        connection: It is read while the result is used.
        names: By what they are of, as in COLUMNS.
        since_us: In microseconds of Unix time; None: from the beginning.
        until_us: The first microsecond that is not wanted; None: up to now.
        before: The first row that is not wanted; None: up to the last.

    Raises:
        sqlite3.Error: The file cannot be read.
    """
    known = _one(connection, _NEXT)
    end = _one(connection, _END) if before is None else before
    for stretch in range((end - 1) // STRETCH_ROWS, known - 1, -1):
        yield _rows_of(stretch)
    yield from map(_rows_of, _known_stretches(connection, names, since_us, until_us, (end - 1) // STRETCH_ROWS))


def _rows_of(stretch: int) -> tuple[int, int]:
    return stretch * STRETCH_ROWS, (stretch + 1) * STRETCH_ROWS - 1


def _known_stretches(
    connection: sqlite3.Connection, names: Mapping[str, str], since_us: int | None, until_us: int | None, last: int
) -> Iterator[int]:
    values: list[str | int] = [last]
    if names:
        # One name leads; the others are looked up where it is.
        source, at = "entry_stretch AS n CROSS JOIN entry_stretch_time AS t ON t.stretch = n.stretch", "n.stretch"
        conditions = [f"{at} <= ? AND n.by = ? AND n.name = ?"]
        conditions += [_OCCURS.format(at=at)] * (len(names) - 1)
        values += chain.from_iterable(names.items())
    else:
        source, at = "entry_stretch_time AS t", "t.stretch"
        conditions = [f"{at} <= ?"]
    for condition, value in (("t.last_us >= ?", since_us), ("t.first_us < ?", until_us)):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    found = connection.execute(
        f"SELECT {at} FROM {source} WHERE {' AND '.join(conditions)} ORDER BY {at} DESC",  # noqa: S608 # bound
        values,
    )
    return (stretch for (stretch,) in found)

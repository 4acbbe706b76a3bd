"""A ledger with any number of rows over some time, made by SQL: the same ones for the same numbers.

The rows are one recursive statement, and what they come to is added up in large bites: a row at a time, with a commit
that waits for the disk, it takes ten times as long. Tests and measurements use the same one.
"""

import sqlite3
from pathlib import Path

from gateway.observation import TTFT_BUCKETS
from gateway.state.connection import open_writer
from gateway.state.entries import ENTRY_COLUMNS
from gateway.state.ledger_rows import COLUMNS_BY, HOUR_US, HOURS_PER_DAY
from gateway.state.request_rows import count_requests
from gateway.state.schema import COUNT_COLUMNS, HISTOGRAM_COLUMN, KEY_COLUMNS, SPENT_COLUMNS
from gateway.state.soundness import SUMS
from gateway.state.stretches import note_stretches

DAYS = 90
DAY_S = 86_400
MODELS, PROVIDERS, KEYS, APPS, ROUTES, USERS, SESSIONS = 12, 6, 40, 25, 8, 5000, 100_000
ROWS_AT_ONCE = 200_000
MINUTES_FOR_DAYS = 7
"""Minutes of Endpoints are kept for so long; what is older is there by the hour."""
# One request in ten has a second Attempt, after a first one that failed; one Attempt in a hundred costs nobody knows
# what. The high bits of a step of a multiplicative generator are as good as random here, and need no function of ours;
# no product may pass 2**63, where SQLite would go on with floats. What is taken out of one number is divided out of it
# first, so that every name occurs with every other.
_ROWS = """
WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :end),
h AS (SELECT i, i - (i % 11 = 10) AS request, i % 11 = 10 AS again, i % 11 = 9 AS fails,
  ((i + :seed) * 2654435761 & 4294967295) >> 7 AS a,
  (((i + :seed) * 40503 + 12345 & 1073741823) * 2246822519 & 4294967295) >> 7 AS b,
  (((i + :seed) * 69069 + 54321 & 1073741823) * 3266489917 & 4294967295) >> 7 AS c FROM n),
r AS (SELECT *, a % {keys} AS key, a / {keys} % {users} AS user, b % {providers} AS provider,
  b / {providers} % {routes} AS route, b / {providers} / {routes} % {apps} AS app, c % {models} AS model,
  c / {models} AS d FROM h)
INSERT INTO entry ({columns}) SELECT
  printf('gen-01%024d/%d', request, 1 + again), :since + (i * :span) / :rows, 'key' || key, 'route' || route,
  'vendor/model-' || model, 'p' || provider || '/model-' || model, 'p' || provider, 'openai', 1, '', 100 + a % 5000,
  NULL, 0, CASE WHEN d % 3 THEN 'app ' || app ELSE '' END, '', 'user' || user, 'session' || (b % {sessions}),
  CASE d / 3 % 4 WHEN 0 THEN '["red","blue"]' WHEN 1 THEN '["red"]' ELSE '' END,
  :since + (i * :span) / :rows + 900000, CASE WHEN fails THEN 'failed' WHEN d % 50 = 0 THEN 'cancelled' ELSE 'ok' END,
  CASE WHEN fails THEN 'provider_error' END, 100 + a % 5000, b % 900, a % 100, 0, 0,
  CASE WHEN b % 20 THEN 'provider' ELSE 'estimate' END,
  CASE WHEN d % 100 = 7 THEN NULL WHEN fails THEN b % 90000 ELSE (a % 50000) * (b % 4000) END,
  'price', CASE WHEN fails AND a % 2 THEN NULL ELSE 200 + a % 3000 END, 500 + b % 9000, NULL FROM r
"""
_COUNTED = {"ok": "sum(outcome = 'ok')", "fail_server": "sum(outcome = 'failed')"}
_ADDED = {"ok": "attempts - failed", "fail_server": "failed"}


def fill(
    path: Path, rows: int, *, since_unix_s: int, days: int = DAYS, seed: int = 0, at_once: int = ROWS_AT_ONCE
) -> None:
    """Write so many rows into a new file, evenly over so many days, with all that is added up of them."""
    names = {"keys": KEYS, "routes": ROUTES, "models": MODELS, "providers": PROVIDERS, "apps": APPS, "users": USERS}
    statement = _ROWS.format(columns=", ".join(ENTRY_COLUMNS), sessions=SESSIONS, **names)
    span = {"since": since_unix_s * 10**6, "span": days * DAY_S * 10**6, "rows": rows, "seed": seed}
    connection = _open(path)
    try:
        for first in range(0, rows, at_once):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(statement, span | {"first": first, "end": min(rows, first + at_once)})
            _add_up(connection, first)
            while count_requests(connection, at_once):
                pass
            while note_stretches(connection):
                pass
            connection.execute("COMMIT")
        connection.execute("ANALYZE entry").fetchall()
    finally:
        connection.close()


def _add_up(connection: sqlite3.Connection, last: int) -> None:
    """Add what the rows behind one come to."""
    spent = ", ".join(SPENT_COLUMNS)
    added = ", ".join(f"{name} = {name} + excluded.{name}" for name in SPENT_COLUMNS)
    for span, width in (("hour", HOUR_US), ("day", HOUR_US * HOURS_PER_DAY)):
        for by, column in COLUMNS_BY.items():
            each = ", json_each(CASE tags WHEN '' THEN '[\"\"]' ELSE tags END)" if by == "tag" else ""
            connection.execute(
                f"INSERT INTO spend_{span} (by, {span}, name, {spent}) "  # noqa: S608 # our names
                f"SELECT '{by}', unix_us / {width}, {column}, {SUMS} FROM entry{each} WHERE entry > ? GROUP BY 2, 3 "
                f"ON CONFLICT (by, {span}, name) DO UPDATE SET {added}",
                (last,),
            )


def fill_spans(path: Path, until_unix_s: int) -> None:
    """What Endpoints did, of the rows that the file has: the last days by the minute, those before by the hour."""
    first_minute = (until_unix_s // DAY_S - MINUTES_FOR_DAYS) * DAY_S // 60
    histogram = b"".join((at % 7).to_bytes(4, "little") for at in range(TTFT_BUCKETS))
    columns = ", ".join((*KEY_COLUMNS, *COUNT_COLUMNS, HISTOGRAM_COLUMN))
    by_minute, by_hour = (
        ", ".join(sums.get(name, "0") for name in COUNT_COLUMNS) for sums in (_COUNTED, _ADDED)
    )  # the rest of what is counted has no part in what is shown
    connection = _open(path)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            f"INSERT INTO endpoint_minute ({columns}) SELECT endpoint, unix_us / 60000000, {by_minute}, ?1 FROM entry "  # noqa: S608
            "WHERE unix_us >= ?2 * 60000000 GROUP BY 1, 2",
            (histogram, first_minute),
        )
        connection.execute(
            f"INSERT INTO endpoint_hour ({columns}) SELECT name, hour * 60, {by_hour}, ?1 FROM spend_hour "  # noqa: S608
            "WHERE by = 'endpoint' AND hour < ?2 / 60",
            (histogram, first_minute),
        )
        connection.execute("COMMIT")
    finally:
        connection.close()


def _open(path: Path) -> sqlite3.Connection:
    """For one writer in a hurry: a file that is not finished is of no use anyway."""
    connection = open_writer(path)
    for pragma in ("synchronous = OFF", "journal_mode = OFF", "temp_store = MEMORY", "cache_size = -400000"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.execute("PRAGMA cell_size_check = OFF")
    return connection


def read_all(path: Path) -> sqlite3.Connection:
    """A connection for questions of the caller's own."""
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)

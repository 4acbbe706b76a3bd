"""A ledger with any number of rows over some time, made by SQL: the same ones for the same numbers."""

import sqlite3
from pathlib import Path

from gateway.state.connection import open_writer
from gateway.state.entries import ENTRY_COLUMNS
from gateway.state.ledger_rows import add_up
from gateway.state.request_rows import count_requests
from gateway.state.stretches import note_stretches

MODELS, PROVIDERS, KEYS, APPS, ROUTES, USERS = 12, 6, 40, 25, 8, 5000
ROWS_AT_ONCE = 200_000
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# One request in ten has a second Attempt, after a first one that failed; one Attempt in a hundred costs nobody knows
# what. A step of the multiplicative generator is as good as random here, and needs no function of ours.
_ROWS = """
WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :end),
r AS (SELECT i, i - (i % 11 = 10) AS request, i % 11 = 10 AS again, i % 11 = 9 AS fails,
  (i * 2654435761) % 4294967296 AS a, (i * 40503 + 12345) * 2654435761 % 4294967296 AS b FROM n)
INSERT INTO entry ({columns}) SELECT
  printf('gen-01%024d/%d', request, 1 + again), :since + (i * :span) / :rows, 'key' || (a % {keys}),
  'route' || (b % {routes}), 'vendor/model-' || (a % {models}), 'p' || (b % {providers}) || '/model-' || (a % {models}),
  'p' || (b % {providers}), 'openai', 1, '', 100 + a % 5000, NULL, 0,
  CASE WHEN a % 3 THEN 'app ' || (b % {apps}) ELSE '' END, '', 'user' || (a % {users}), 'session' || (b % 100000),
  CASE b % 4 WHEN 0 THEN '["red","blue"]' WHEN 1 THEN '["red"]' ELSE '' END,
  :since + (i * :span) / :rows + 900000, CASE WHEN fails THEN 'failed' WHEN a % 50 = 0 THEN 'cancelled' ELSE 'ok' END,
  CASE WHEN fails THEN 'provider_error' END, 100 + a % 5000, b % 900, a % 100, 0, 0,
  CASE WHEN b % 20 THEN 'provider' ELSE 'estimate' END,
  CASE WHEN a % 100 = 7 THEN NULL WHEN fails THEN b % 90000 ELSE (a % 50000) * (b % 4000) END,
  'price', CASE WHEN fails AND a % 2 THEN NULL ELSE 200 + a % 3000 END, 500 + b % 9000, NULL FROM r
"""


def fill(path: Path, rows: int, *, since_unix_s: int, days: int) -> None:
    """Write so many rows, evenly over so many days, with all that is added up of them."""
    statement = _ROWS.format(
        columns=", ".join(ENTRY_COLUMNS),
        keys=KEYS,
        routes=ROUTES,
        models=MODELS,
        providers=PROVIDERS,
        apps=APPS,
        users=USERS,
    )
    connection = open_writer(path)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cell_size_check = OFF")
    connection.execute("PRAGMA cache_size = -400000")
    try:
        for first in range(0, rows, ROWS_AT_ONCE):
            span = {"since": since_unix_s * 10**6, "span": days * 86_400 * 10**6, "rows": rows}
            connection.execute("BEGIN IMMEDIATE")
            last = connection.execute("SELECT coalesce(max(entry), 0) FROM entry").fetchone()[0]
            connection.execute(statement, span | {"first": first, "end": min(rows, first + ROWS_AT_ONCE)})
            add_up(connection, last)
            while count_requests(connection, ROWS_AT_ONCE):
                pass
            while note_stretches(connection):
                pass
            connection.execute("COMMIT")
        connection.execute("ANALYZE entry").fetchall()
    finally:
        connection.close()


def read_all(path: Path) -> sqlite3.Connection:
    """A connection for questions of the test's own."""
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)

"""What requests come to, by the hour: how many cost how much, and how many were answered only as others were asked.

A request is all rows of its Attempts together, which may be written one by one. So whenever rows come, what their
requests came to before is taken off and what they come to now is put on: the sums are what adding all up would give.
"""

import sqlite3
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, final

from gateway.state.entries import ENTRY_COLUMNS, Row

COST_BOUNDS_IN_NUSD: Final = tuple(digit * 10**place for place in range(3, 12) for digit in (1, 2, 5))
"""Where buckets of costs begin, from a millionth of a dollar to 500 dollars, a third of a decade each."""
FREE: Final = 0
"""The bucket of requests that cost nothing. The next one goes from more than nothing to the first bound."""
UNKNOWN: Final = -1
"""The bucket of requests of which nobody knows what they cost."""
ROWS_AT_ONCE: Final = 2000
"""Rows of the ledger that one step looks through."""
SEVERAL_MAX: Final = 65_536
"""Requests of several Attempts that are remembered."""
HOUR_US: Final = 3_600_000_000

_HOURS: Final = (
    "CREATE TABLE request_hour (what TEXT NOT NULL, hour INTEGER NOT NULL, bucket INTEGER NOT NULL, "
    "requests INTEGER NOT NULL, cost_in_nusd INTEGER NOT NULL, PRIMARY KEY (what, hour, bucket)) STRICT, WITHOUT ROWID"
)
REQUEST_TABLES: Final = (
    _HOURS,
    "CREATE TABLE request_counted (one INTEGER PRIMARY KEY CHECK (one = 1), entry INTEGER NOT NULL) STRICT",
    "INSERT INTO request_counted (one, entry) VALUES (1, 0)",
)
"""Statements that make the tables. They are filled by and by."""
REQUEST_TABLES_GONE: Final = ("DROP TABLE request_hour", "DROP TABLE request_counted")
"""Nothing is lost with them: they are made again from the rows."""

_BUCKET: Final = " + ".join(f"(cost >= {bound})" for bound in COST_BOUNDS_IN_NUSD)
_MAKE_TOUCHED: Final = "CREATE TEMP TABLE IF NOT EXISTS touched (request TEXT PRIMARY KEY) STRICT, WITHOUT ROWID"
# Most requests are a single row. Whether one is, a step in the index of ids tells, beside the row itself.
_ALONE: Final = (
    "NOT EXISTS (SELECT 1 FROM entry AS other WHERE other.attempt_id > substr(one.attempt_id, 1, "
    "instr(one.attempt_id, '/')) AND other.attempt_id < substr(one.attempt_id, 1, instr(one.attempt_id, '/') - 1) "
    "|| '0' AND other.entry <> one.entry AND other.entry <= ?2)"
)
_TOUCH: Final = (
    "INSERT OR IGNORE INTO temp.touched SELECT substr(attempt_id, 1, instr(attempt_id, '/')) FROM entry AS one "  # noqa: S608
    f"WHERE entry > ?1 AND entry <= ?2 AND NOT {_ALONE}"
)
# From `<id>/` to before `<id>0`, the character that comes next. An answer that was cut after it had begun has a time
# to its first token and is no good one.
_REQUESTS: Final = (
    "SELECT {sign} AS sign, min(unix_us) / {hour_us} AS hour, coalesce(sum(cost_in_nusd), 0) AS cost, "
    "max(cost_in_nusd IS NULL) AS unknown, max(outcome = 'ok') AS ok, sum(outcome = 'failed') AS failed, "
    "coalesce(sum(CASE WHEN outcome = 'failed' THEN cost_in_nusd END), 0) AS wasted, "
    "coalesce(max(outcome = 'failed' AND stream = 1 AND ttft_ms IS NOT NULL), 0) AS cut, "
    "min(endpoint) <> max(endpoint) AS moved FROM temp.touched CROSS JOIN entry "
    "WHERE attempt_id > request AND attempt_id < substr(request, 1, length(request) - 1) || '0' "
    "AND entry <= {upto} GROUP BY request"
)
_BOTH: Final = " UNION ALL ".join(
    _REQUESTS.format(sign=sign, hour_us=HOUR_US, upto=upto) for sign, upto in ((-1, "?1"), (1, "?2"))
)
_ADD: Final = (
    "ON CONFLICT (what, hour, bucket) DO UPDATE SET requests = requests + excluded.requests, "
    "cost_in_nusd = cost_in_nusd + excluded.cost_in_nusd"
)
_COUNT_ALONE: Final = (
    "INSERT INTO request_hour (what, hour, bucket, requests, cost_in_nusd) "  # noqa: S608 # names and numbers of our own
    f"SELECT 'cost', unix_us / {HOUR_US}, CASE WHEN cost IS NULL THEN {UNKNOWN} WHEN cost = 0 THEN {FREE} "
    f"ELSE 1 + {_BUCKET} END AS bucket, count(*), coalesce(sum(cost), 0) FROM "
    "(SELECT unix_us, cost_in_nusd AS cost FROM entry WHERE entry > ?1 AND entry <= ?2 "
    "AND substr(attempt_id, 1, instr(attempt_id, '/')) NOT IN temp.touched) WHERE true GROUP BY 2, 3 " + _ADD
)
_COUNT: Final = (
    f"WITH one AS MATERIALIZED ({_BOTH}) "  # noqa: S608 # names and numbers of our own
    "INSERT INTO request_hour (what, hour, bucket, requests, cost_in_nusd) "
    "SELECT what, hour, bucket, sum(sign), sum(sign * amount) FROM ("
    f"SELECT sign, hour, 'cost' AS what, cost AS amount, CASE WHEN unknown THEN {UNKNOWN} WHEN cost = 0 THEN {FREE} "
    f"ELSE 1 + {_BUCKET} END AS bucket FROM one UNION ALL "
    "SELECT sign, hour, CASE WHEN cut THEN 'rescue' WHEN moved THEN 'failover' ELSE 'retry' END, wasted, 0 FROM one "
    "WHERE ok AND failed) WHERE true GROUP BY what, hour, bucket HAVING sum(sign) <> 0 OR sum(sign * amount) <> 0 "
    + _ADD
)


_COUNT_LINE: Final = (
    f"INSERT INTO request_hour (what, hour, bucket, requests, cost_in_nusd) VALUES ('cost', ?, ?, ?, ?) {_ADD}"  # noqa: S608
)
_COST: Final = ENTRY_COLUMNS.index("cost_in_nusd")


@final
class Requests:
    """Counts the requests of rows as they are written. For the one who writes all of them.

    Most requests are a single row: those are counted without looking for others, for nobody else has written one since
    this was made or found another's last, and what was there before has smaller ids, as they grow with time. All others
    are looked up.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._before = _greatest(connection)
        """Up to here ids are of requests that may have rows which nobody remembers."""
        self._last = _last(connection)
        """The last row that there was when this looked."""
        self._several: set[str] = set()
        """Requests with a row that is not of their first Attempt, each as `<id>/`."""

    def count(self, connection: sqlite3.Connection, rows: Sequence[Row], last: int) -> None:
        """Count the requests of rows that were just added, behind a last one.

        Raises:
            sqlite3.Error: Nothing of it is there once the transaction, which is the caller's, is rolled back.
        """
        if self._last != last:
            self._forget(connection)  # another one has written rows
        touched = self._remember(connection, rows)
        done: int = connection.execute("SELECT entry FROM request_counted").fetchone()[0]
        upto = self._last = _last(connection)
        if done != last:
            count_requests(connection, ROWS_AT_ONCE + len(rows))
            return
        buckets: dict[tuple[int, int], list[int]] = {}
        several, before = self._several, self._before
        for row in rows:
            attempt_id: str = row[0]
            if attempt_id <= before or (several and attempt_id[:-1] in several):
                touched.add(_request(attempt_id))
            elif attempt_id.endswith("/1"):
                cost: int | None = row[_COST]
                bucket = buckets.setdefault((row[1] // HOUR_US, bucket_of(cost)), [0, 0])
                bucket[0] += 1
                bucket[1] += cost or 0
        connection.executemany(_COUNT_LINE, [(*key, *sums) for key, sums in buckets.items()])
        if touched:
            _forget_touched(connection)
            connection.executemany("INSERT INTO temp.touched VALUES (?)", [(one,) for one in touched])
            connection.execute(_COUNT, (last, upto))
        connection.execute("UPDATE request_counted SET entry = ?", (upto,))

    def _forget(self, connection: sqlite3.Connection) -> None:
        self._several.clear()
        self._before = _greatest(connection)

    def _remember(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> set[str]:
        """The requests of rows that are not of first Attempts."""
        if len(self._several) > SEVERAL_MAX:
            self._forget(connection)
        found = {_request(row[0]) for row in rows if not row[0].endswith("/1")}
        self._several |= found
        return found


def bucket_of(cost_in_nusd: int | None) -> int:
    """The bucket of a request that costs so much."""
    if cost_in_nusd is None:
        return UNKNOWN
    return FREE if cost_in_nusd == 0 else 1 + bisect_right(COST_BOUNDS_IN_NUSD, cost_in_nusd)


def _request(attempt_id: str) -> str:
    """Of which request an Attempt is, as SQL says it here: `<id>/`."""
    return attempt_id[: attempt_id.find("/") + 1]


def _greatest(connection: sqlite3.Connection) -> str:
    found: str = connection.execute("SELECT coalesce(max(attempt_id), '') FROM entry").fetchone()[0]
    return found


def _last(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("SELECT coalesce(max(entry), 0) FROM entry").fetchone()[0]
    return found


def _forget_touched(connection: sqlite3.Connection) -> None:
    connection.execute(_MAKE_TOUCHED)
    connection.execute("DELETE FROM temp.touched")


def count_requests(connection: sqlite3.Connection, rows_max: int = ROWS_AT_ONCE) -> bool:
    """Count the requests of some rows that were not counted yet. Whether there are more.

    Raises:
        sqlite3.Error: Nothing of it is there once the transaction, which is the caller's, is rolled back.
    """
    done: int = connection.execute("SELECT entry FROM request_counted").fetchone()[0]
    last = _last(connection)
    if done >= last:
        return False
    upto = min(last, done + rows_max)
    _forget_touched(connection)
    connection.execute(_TOUCH, (done, upto))
    connection.execute(_COUNT_ALONE, (done, upto))
    connection.execute(_COUNT, (done, upto))
    connection.execute("UPDATE request_counted SET entry = ?", (upto,))
    return upto < last

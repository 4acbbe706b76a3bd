"""The tables of mixgate.db, and how a file of an earlier version becomes one of this version."""

import sqlite3
from typing import Final

from msgspec import Struct
from msgspec.structs import fields

from gateway.observation import MinuteRow
from gateway.state.cache_rows import CACHE_TABLES, CACHE_TABLES_GONE
from gateway.state.errors import NewerStoreError, StoreError
from gateway.state.key_rows import KEY_TABLES
from gateway.state.outbox_rows import OUTBOX_TABLES, OUTBOX_TABLES_GONE
from gateway.state.request_rows import REQUEST_TABLES, REQUEST_TABLES_GONE
from gateway.state.stretches import STRETCH_TABLES, STRETCH_TABLES_GONE

KEY_COLUMNS: Final = ("endpoint_id", "minute")
HISTOGRAM_COLUMN: Final = "ttft_hist"
SPANS: Final = ("endpoint_minute", "endpoint_hour", "endpoint_day")
"""Tables of what Endpoints did, one row per Endpoint and span. `minute` is the first minute of the span."""

SPENT_COLUMNS: Final = (
    *("requests", "attempts", "failed", "estimated", "input_tokens", "output_tokens", "cached_tokens"),
    *("cache_write_tokens", "reasoning_tokens", "cost_in_nusd", "unknown_cost"),
)
"""What the roll-ups of the ledger add up. `unknown_cost` counts rows whose cost nobody knows."""

COUNT_COLUMNS: Final = tuple(
    field.name for field in fields(MinuteRow) if field.name not in (*KEY_COLUMNS, HISTOGRAM_COLUMN)
)
"""Columns that add up."""

_COUNTS = ", ".join(f"{name} INTEGER NOT NULL" for name in COUNT_COLUMNS)
_SPAN = (
    f"endpoint_id TEXT NOT NULL, minute INTEGER NOT NULL, {_COUNTS}, {HISTOGRAM_COLUMN} BLOB NOT NULL, "
    "PRIMARY KEY (endpoint_id, minute)"
)

_BLOCKS = (
    "CREATE TABLE decision_block (block INTEGER PRIMARY KEY, first_id TEXT NOT NULL, last_id TEXT NOT NULL, "
    "min_id TEXT NOT NULL, max_id TEXT NOT NULL, made_unix_s INTEGER NOT NULL, count INTEGER NOT NULL, "
    # The data comes last: what is in front of it is read without fetching it.
    "size_bytes INTEGER NOT NULL, data BLOB NOT NULL) STRICT"
)
_TABLES = (
    "CREATE TABLE decision_table (digest TEXT PRIMARY KEY, used_unix_s INTEGER NOT NULL, data BLOB NOT NULL) STRICT"
)
_EVENTS = (
    "CREATE TABLE endpoint_event (event INTEGER PRIMARY KEY, unix_s REAL NOT NULL, endpoint_id TEXT NOT NULL, "
    "standing TEXT NOT NULL, cause TEXT NOT NULL) STRICT"
)

_ENTRY = (
    "CREATE TABLE entry (entry INTEGER PRIMARY KEY, attempt_id TEXT NOT NULL UNIQUE, unix_us INTEGER NOT NULL, "
    "key_id TEXT NOT NULL, route TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL, provider TEXT NOT NULL, "
    "surface TEXT NOT NULL, stream INTEGER NOT NULL, price_id TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, "
    "output_limit INTEGER, reserved_in_nusd INTEGER NOT NULL, app TEXT NOT NULL, referer TEXT NOT NULL, "
    "user TEXT NOT NULL, session TEXT NOT NULL, tags TEXT NOT NULL, ended_unix_us INTEGER NOT NULL, "
    "outcome TEXT NOT NULL, code TEXT, input_tokens INTEGER, output_tokens INTEGER, cached_tokens INTEGER, "
    "cache_write_tokens INTEGER, reasoning_tokens INTEGER, usage_source TEXT NOT NULL, cost_in_nusd INTEGER, "
    "cost_source TEXT NOT NULL, ttft_ms INTEGER, duration_ms INTEGER NOT NULL, upstream_id TEXT) STRICT"
)
_PRESUMED = (
    # For what keys may owe for Attempts in the middle of which a gateway was killed: few rows of any ledger.
    "CREATE INDEX entry_recovered ON entry (unix_us, key_id, reserved_in_nusd, cost_in_nusd) "
    "WHERE usage_source = 'recovered'"
)
_PRICES = "CREATE TABLE price_snapshot (price_id TEXT PRIMARY KEY, endpoint TEXT NOT NULL, data TEXT NOT NULL) STRICT"
_SPENT = ", ".join(f"{name} INTEGER NOT NULL" for name in SPENT_COLUMNS)


class Migration(Struct, frozen=True):
    """How a file of version n becomes one of n + 1, and that one of n again."""

    forward: tuple[str, ...]
    back: tuple[str, ...] | None
    """None: the version before has no place for what would be lost."""


MIGRATIONS: Final = (
    Migration(
        (
            _BLOCKS,
            "CREATE INDEX decision_block_ids ON decision_block (max_id, min_id)",
            _TABLES,
            *(f"CREATE TABLE {span} ({_SPAN}) STRICT, WITHOUT ROWID" for span in SPANS),
            # For tidying, and for what all Endpoints did in some time.
            *(f"CREATE INDEX {span}_time ON {span} (minute)" for span in SPANS),
            _EVENTS,
            "CREATE INDEX endpoint_event_of ON endpoint_event (endpoint_id, unix_s)",
        ),
        back=None,
    ),
    Migration(
        (
            _ENTRY,
            _PRICES,
            *(
                f"CREATE TABLE spend_{span} (by TEXT NOT NULL, {span} INTEGER NOT NULL, name TEXT NOT NULL, {_SPENT}, "
                f"PRIMARY KEY (by, {span}, name)) STRICT, WITHOUT ROWID"
                for span in ("hour", "day")
            ),
        ),
        back=None,
    ),
    Migration(KEY_TABLES, back=None),
    Migration(STRETCH_TABLES, back=STRETCH_TABLES_GONE),
    Migration(CACHE_TABLES, back=CACHE_TABLES_GONE),
    Migration(REQUEST_TABLES, back=REQUEST_TABLES_GONE),
    Migration(OUTBOX_TABLES, back=OUTBOX_TABLES_GONE),
    Migration((_PRESUMED,), back=("DROP INDEX entry_recovered",)),
)
"""`PRAGMA user_version` says how many of them a file has had. Released ones never change.

The last one can always be taken back, so that whoever goes back to the release before has a file that it can use: a
table whose content can be made again is dropped, one that cannot stays, and `forward` makes it IF NOT EXISTS.
"""


def version_of(connection: sqlite3.Connection) -> int:
    """Of which version a file is; 0: it is empty.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def migrate(connection: sqlite3.Connection, to: int = len(MIGRATIONS)) -> None:
    """Bring a file to this version, or to another, each step wholly or not at all.

    Raises:
        NewerStoreError: A later version of Mixgate has written it.
        StoreError: There is no way back to that version.
        sqlite3.Error: It cannot be read or written.
    """
    version = version_of(connection)
    if version > len(MIGRATIONS):
        raise NewerStoreError(
            f"the file is of version {version}, and this Mixgate knows versions up to {len(MIGRATIONS)}; "
            "start the newer Mixgate again, have it lead the file back (`mixgate ledger migrate`), or set MIXGATE_HOME "
            "to another folder"
        )
    for step in range(version, to, -1):
        if MIGRATIONS[step - 1].back is None:
            raise StoreError(f"version {step - 1} has no place for what a file of version {step} holds")
    for step in range(version, to):
        _take(connection, MIGRATIONS[step].forward, step + 1)
    for step in range(version, to, -1):
        _take(connection, MIGRATIONS[step - 1].back or (), step - 1)


def _take(connection: sqlite3.Connection, statements: tuple[str, ...], version: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise

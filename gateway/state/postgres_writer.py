"""The SQL that puts a replica's rows into a fleet's Postgres, each once, and what they come to with them.

One statement adds rows and raises the sums by just those that were not there before, so that a row that is sent again
raises nothing, whatever breaks off in between. It is a transaction of its own: nobody waits for a lock that a replica
holds while its network is slow.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from gateway.observation import MinuteRow
from gateway.state.entries import ENTRY_COLUMNS, Entry, PriceSnapshot
from gateway.state.key_rows import KeyRow
from gateway.state.ledger_rows import COLUMNS_BY, HOUR_US, HOURS_PER_DAY
from gateway.state.postgres_database import translate
from gateway.state.schema import SPENT_COLUMNS

_TURN: Final = 0x6D69786761746502
"""The advisory lock under which sums are raised: two that raise the same in another order would wait for each other."""
_SWAPPED: Final = "\ufffd"
"""Stands for the one character that Postgres does not take."""

NAMES_BY: Final = COLUMNS_BY | {"tag": "tag.name"}
SUMMED: Final = (
    "count(*) FILTER (WHERE right(attempt_id, 2) = '/1'), count(*), count(*) FILTER (WHERE outcome <> 'ok'), "
    "count(*) FILTER (WHERE usage_source IN ('estimate', 'recovered')), "
    + ", ".join(
        f"coalesce(sum({name}), 0)::bigint"
        for name in (
            *("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"),
            "cost_in_nusd",
        )
    )
    + ", count(*) FILTER (WHERE cost_in_nusd IS NULL)"
)


def _type(name: str) -> str:
    if name == "stream":
        return "boolean"
    return "text" if Entry.__annotations__[name] in {str, str | None} else "bigint"


# Every value in these statements is bound; what is put together are names of our own.
_QUOTED: Final = ", ".join(f'"{name}"' for name in ENTRY_COLUMNS)
_TYPED: Final = ", ".join(f'"{name}" {_type(name)}' for name in ENTRY_COLUMNS)
_SPENT: Final = ", ".join(SPENT_COLUMNS)
TAGS: Final = (
    "CROSS JOIN LATERAL jsonb_array_elements_text(CASE tags WHEN '' THEN '[\"\"]' ELSE tags END::jsonb) AS tag (name)"
)
_SUMS: Final = " UNION ALL ".join(
    f"SELECT '{by}', unix_us / {HOUR_US}, {name}, {SUMMED} FROM added {TAGS if by == 'tag' else ''} GROUP BY 2, 3"  # noqa: S608
    for by, name in NAMES_BY.items()
)


def _raise(span: str) -> str:
    added = ", ".join(f"{name} = spend_{span}.{name} + excluded.{name}" for name in SPENT_COLUMNS)
    sums = ", ".join(f"sum({name})::bigint" for name in SPENT_COLUMNS)
    return (
        f'INSERT INTO spend_{span} ("by", {span}, name, {_SPENT}) '  # noqa: S608 # names of our own
        f'SELECT "by", hour / {HOURS_PER_DAY if span == "day" else 1}, name, {sums} FROM sums GROUP BY 1, 2, 3 '
        f'ON CONFLICT ("by", {span}, name) DO UPDATE SET {added}'
    )


_ADD: Final = text(
    "WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock(:turn)), "  # noqa: S608 # names of our own
    "prices AS (INSERT INTO price_snapshot (price_id, endpoint, data) SELECT p.price_id, p.endpoint, p.data FROM turn, "
    "jsonb_to_recordset(CAST(:prices AS jsonb)) AS p (price_id text, endpoint text, data text) "
    "ON CONFLICT (price_id) DO NOTHING), "
    f"added AS (INSERT INTO entry (replica, {_QUOTED}) SELECT :replica, sent.* FROM turn, "
    f"jsonb_to_recordset(CAST(:rows AS jsonb)) AS sent ({_TYPED}) ON CONFLICT (attempt_id) DO NOTHING "
    f"RETURNING {_QUOTED}), "
    f'sums ("by", hour, name, {_SPENT}) AS ({_SUMS}), '
    f"hours AS ({_raise('hour')}), days AS ({_raise('day')}) SELECT count(*) FROM added"
)
_COUNTS: Final = tuple(name for name in MinuteRow.__struct_fields__ if name not in {"endpoint_id", "ttft_hist"})
_MINUTES: Final = text(
    f"INSERT INTO endpoint_minute (replica, endpoint_id, {', '.join(_COUNTS)}, ttft_hist) "  # noqa: S608 # our names
    f"SELECT :replica, endpoint_id, {', '.join(_COUNTS)}, decode(ttft_hist, 'hex') "
    "FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS sent "
    f"(endpoint_id text, {', '.join(f'{name} bigint' for name in _COUNTS)}, ttft_hist text) "
    "ON CONFLICT (replica, endpoint_id, minute) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in (*_COUNTS, "ttft_hist") if name != "minute")
)
_PRUNE: Final = text("DELETE FROM endpoint_minute WHERE replica = :replica AND minute < :before")
_SEEN: Final = text(
    "INSERT INTO replica (replica, host, release, seen, waiting) VALUES (:replica, :host, :release, now(), :waiting) "
    "ON CONFLICT (replica) DO UPDATE SET host = excluded.host, release = excluded.release, seen = excluded.seen, "
    "waiting = excluded.waiting"
)
_KEY_COLUMNS: Final = KeyRow.__struct_fields__
_SAVE_KEY: Final = text(
    f"INSERT INTO client_key ({', '.join(_KEY_COLUMNS)}, revision) "  # noqa: S608 # names of our own
    f"VALUES ({', '.join(f':{name}' for name in _KEY_COLUMNS)}, nextval('client_key_revision')) "
    "ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in (*_KEY_COLUMNS[1:], "revision"))
    # The later change counts, and what is deleted stays so.
    + " WHERE (excluded.updated_us > client_key.updated_us AND client_key.deleted_us IS NULL) "
    "OR (excluded.deleted_us IS NOT NULL AND client_key.deleted_us IS NULL)"
)
_KEYS_SINCE: Final = text(
    f"SELECT revision, {', '.join(_KEY_COLUMNS)} FROM client_key WHERE revision > :since ORDER BY created_us, id"  # noqa: S608
)
_AGREE: Final = text("INSERT INTO fleet (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING")
_AGREED: Final = text("SELECT value FROM fleet WHERE name = :name")


def add_entries(
    connection: Connection, replica: str, rows: Sequence[Sequence[Any]], prices: Sequence[PriceSnapshot]
) -> int:
    """Add rows, and what they come to; how many were not there.

    Raises:
        RefusedError: Postgres will never take one of them.
        PostgresError: It cannot now.
    """
    records = [dict(zip(ENTRY_COLUMNS, map(_sent, row), strict=True)) for row in rows]
    for record in records:
        record["stream"] = bool(record["stream"])
    shown = [{name: _sent(getattr(one, name)) for name in PriceSnapshot.__struct_fields__} for one in prices]
    values = {"turn": _TURN, "replica": replica, "rows": _json(records), "prices": _json(shown)}
    try:
        return int(connection.execute(_ADD, values).scalar_one())
    except SQLAlchemyError as error:
        raise translate(error) from error


def set_minutes(connection: Connection, replica: str, rows: Sequence[MinuteRow]) -> None:
    """Say what Endpoints did in some minutes, as this replica saw it, whatever was said before."""
    sent = [
        {name: getattr(row, name) for name in _COUNTS}
        | {"endpoint_id": _sent(row.endpoint_id), "ttft_hist": row.ttft_hist.hex()}
        for row in rows
    ]
    connection.execute(_MINUTES, {"replica": replica, "rows": _json(sent)})


def prune_minutes(connection: Connection, replica: str, before: int) -> None:
    """Remove this replica's minutes before one of Unix time."""
    connection.execute(_PRUNE, {"replica": replica, "before": before})


def note_replica(connection: Connection, replica: str, host: str, release: str, waiting: int) -> None:
    """Say that this replica is there, and how many of its rows are not."""
    connection.execute(_SEEN, {"replica": replica, "host": host, "release": release, "waiting": waiting})


def agree(connection: Connection, name: str, value: str) -> str:
    """What the fleet has settled on: the first replica's word counts."""
    connection.execute(_AGREE, {"name": name, "value": value})
    return str(connection.execute(_AGREED, {"name": name}).scalar_one())


def save_keys(connection: Connection, rows: Sequence[KeyRow]) -> None:
    """Let the fleet have keys, where it has no later word on them. Inside a transaction of the caller's."""
    # Changes get their numbers in the order in which they are committed, so that nobody passes one over.
    connection.execute(text("LOCK TABLE client_key IN SHARE ROW EXCLUSIVE MODE"))
    connection.execute(_SAVE_KEY, [msgspec.structs.asdict(row) for row in rows])


def changed_keys(connection: Connection, since: int) -> tuple[int, list[KeyRow]]:
    """The fleet's keys that changed after a revision, oldest keys first, and the last revision."""
    found = connection.execute(_KEYS_SINCE, {"since": since}).all()
    rows = [KeyRow(*row[1:]) for row in found]
    return max((int(row[0]) for row in found), default=since), rows


def _sent(value: Any) -> Any:
    return value.replace("\0", _SWAPPED) if isinstance(value, str) and "\0" in value else value


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()

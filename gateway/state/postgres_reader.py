"""Reads the ledger of a fleet: what LedgerReader says of one gateway's file, of all that have sent their rows."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, Self

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.engine import Connection

from gateway.state.entries import ENTRY_COLUMNS, Entry, PriceSnapshot
from gateway.state.ledger_reader import NAMES_MAX, PAGE_MAX, By, Filter, Page, Spent
from gateway.state.ledger_rows import HOUR_US, HOURS_PER_DAY, PRESUMED
from gateway.state.postgres_database import Database
from gateway.state.postgres_writer import NAMES_BY, SUMMED, TAGS
from gateway.state.schema import SPENT_COLUMNS

_SHOWN_MAX: Final = 5
_COLUMNS: Final = ", ".join(f'"{name}"' for name in ENTRY_COLUMNS)
_SPENT: Final = ", ".join(SPENT_COLUMNS)
_SUMS: Final = ", ".join(f"sum({name})::bigint AS {name}" for name in SPENT_COLUMNS)
_HOURS: Final = f'SELECT name, {_SPENT} FROM spend_hour WHERE "by" = :by AND hour >= :{{a}} AND hour < :{{b}}'  # noqa: S608 # our names
_WHOLE_DAYS: Final = f'SELECT name, {_SPENT} FROM spend_day WHERE "by" = :by AND day >= :day AND day < :end_day'  # noqa: S608 # our names
_EVERY_DAY: Final = (
    f"SELECT to_char(to_timestamp(hour * 3600) AT TIME ZONE 'UTC', 'YYYY-MM-DD') COLLATE \"C\" AS name, {_SPENT} "  # noqa: S608
    "FROM spend_hour WHERE \"by\" = 'all' AND hour >= :first AND hour < :end"
)
_BOUNDS: Final = {
    "since_unix_us": "unix_us >= :since_unix_us",
    "until_unix_us": "unix_us < :until_unix_us",
    "cost_least_in_nusd": "cost_in_nusd >= :cost_least_in_nusd",
    "tag": "CASE tags WHEN '' THEN '[]' ELSE tags END::jsonb ? :tag",
}


class Replica(Struct, frozen=True, gc=False):
    """A gateway that sends its rows."""

    replica: str
    host: str
    release: str
    seen: datetime
    """When it last said so."""
    silent_s: float
    """How long that is ago, by the database's clock."""
    waiting: int
    """Rows that it had still to send then."""


class PostgresLedgerReader:
    """Look-ups in the ledger of a fleet. One thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of its connections. Idempotent."""
        self._database.close()

    def entries(self, wanted: Filter, *, before: int | None = None, count: int = 100) -> Page:
        """Rows, in the order in which they arrived, newest first. As LedgerReader's.

        Raises:
            StoreError: The database cannot be read.
        """
        count = max(1, min(count, PAGE_MAX))
        conditions, values = ["true"], dict[str, Any](count=count + 1)
        for name in Filter.__struct_fields__:
            if (value := getattr(wanted, name)) is not None:
                conditions.append(_BOUNDS.get(name, f'"{name}" = :{name}'))
                values[name] = value
        if before is not None:
            conditions.append("entry < :before")
            values["before"] = before
        rows = self._rows(
            f"SELECT entry, {_COLUMNS} FROM entry WHERE {' AND '.join(conditions)} "  # noqa: S608 # bound
            "ORDER BY entry DESC LIMIT :count",
            values,
        )
        return Page(tuple(Entry(*row[1:]) for row in rows[:count]), rows[count - 1][0] if len(rows) > count else None)

    def find_entries(self, generation_id: str) -> tuple[Entry, ...]:
        """The rows of one request, in the order of its Attempts.

        Raises:
            StoreError: The database cannot be read.
        """
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM entry WHERE attempt_id > :first AND attempt_id < :last "  # noqa: S608 # bound
            "ORDER BY length(attempt_id), attempt_id LIMIT :count",
            {"first": f"{generation_id}/", "last": f"{generation_id}0", "count": PAGE_MAX},
        )
        return tuple(Entry(*row) for row in rows)

    def price(self, price_id: str) -> PriceSnapshot | None:
        """The prices by which something was billed.

        Raises:
            StoreError: The database cannot be read.
        """
        rows = self._rows("SELECT price_id, endpoint, data FROM price_snapshot WHERE price_id = :id", {"id": price_id})
        return PriceSnapshot(*rows[0]) if rows else None

    def spend(self, by: By, since_unix_us: int, until_unix_us: int, *, name: str | None = None) -> tuple[Spent, ...]:
        """What a fleet spent from one hour to before another. As LedgerReader's.

        Raises:
            StoreError: The database cannot be read.
        """
        first, end = since_unix_us // HOUR_US, -(-until_unix_us // HOUR_US)
        first_day, end_day = -(-first // HOURS_PER_DAY), end // HOURS_PER_DAY
        values: dict[str, Any] = {"by": by, "first": first, "end": end}
        select = _HOURS.format(a="first", b="end")
        if by == "day":
            select = _EVERY_DAY
        elif first_day < end_day:
            parts = (_HOURS.format(a="first", b="day_hour"), _WHOLE_DAYS, _HOURS.format(a="end_hour", b="end"))
            select = " UNION ALL ".join(parts)
            values |= {"day": first_day, "end_day": end_day}
            values |= {"day_hour": first_day * HOURS_PER_DAY, "end_hour": end_day * HOURS_PER_DAY}
        where = ""
        if name is not None:
            where, values["name"] = "WHERE name = :name ", name
        order = "name" if by == "day" else "cost_in_nusd DESC, attempts DESC, name"
        rows = self._rows(
            f"SELECT name, {_SUMS} FROM ({select}) AS part {where}GROUP BY name ORDER BY {order} LIMIT {NAMES_MAX}",  # noqa: S608
            values,
        )
        return tuple(Spent(*row) for row in rows)

    def presumed(self, since_unix_us: int) -> dict[str, int]:
        """By key: what Attempts that were cut by a kill may cost beyond their estimates. As LedgerReader's.

        Raises:
            StoreError: The database cannot be read.
        """
        rows = self._rows(PRESUMED.format(since=":since"), {"since": since_unix_us})
        return {key_id: int(amount) for key_id, amount in rows}

    def replicas(self) -> tuple[Replica, ...]:
        """Every gateway that ever sent rows, and how many it has still to send.

        Raises:
            StoreError: The database cannot be read.
        """
        rows = self._rows(
            "SELECT replica, host, release, seen, extract(epoch FROM now() - seen)::float8, waiting FROM replica "
            "ORDER BY host, replica",
            {},
        )
        return tuple(Replica(*row) for row in rows)

    def faults(self) -> Iterator[tuple[str, list[str]]]:
        """By what is added up, and where what is kept is not what the rows come to.

        Raises:
            StoreError: The database cannot be read.
        """
        for by, name in NAMES_BY.items():
            summed = (
                f"SELECT unix_us / {HOUR_US} AS hour, {name} AS name, {SUMMED} "  # noqa: S608 # our names
                f"FROM entry {TAGS if by == 'tag' else ''} GROUP BY 1, 2"
            )
            kept = f'SELECT hour, name, {_SPENT} FROM spend_hour WHERE "by" = :by'  # noqa: S608 # our names
            rows = self._rows(
                f"(({kept}) EXCEPT ({summed})) UNION (({summed}) EXCEPT ({kept})) LIMIT {_SHOWN_MAX}", {"by": by}
            )
            yield by, [f"{row[1]!r} at hour {row[0]}: the rows come to more or less than is kept" for row in rows]

    def _rows(self, statement: str, values: dict[str, Any]) -> Sequence[Any]:
        with self._database.connect() as connection:
            return self._run(connection, statement, values)

    @staticmethod
    def _run(connection: Connection, statement: str, values: dict[str, Any]) -> Sequence[Any]:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        return connection.execute(text(statement), values).all()


def open_fleet(url: str) -> PostgresLedgerReader:
    """The ledger of the fleet whose Postgres is at a URL.

    Raises:
        PostgresError: That is no such URL. Whether anybody answers there, the first look-up says.
    """
    return PostgresLedgerReader(Database(url))

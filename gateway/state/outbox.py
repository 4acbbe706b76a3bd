"""What of mixgate.db has still to reach a fleet's Postgres: the file is the outbox, and keeps how far that has come.

Nothing is taken out of it: a position moves forward once the other side has committed. So a row may be sent twice,
which changes nothing there, and is never lost on the way.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from gateway.observation import MinuteRow
from gateway.state.connection import open_reader
from gateway.state.entries import ENTRY_COLUMNS, PriceSnapshot
from gateway.state.errors import translate
from gateway.state.key_rows import KeyRow, read_keys

MINUTES_AGAIN: Final = 15
"""Minutes that are sent once more: what could not be written at once may be added to them late."""

_ENTRIES: Final = f"SELECT entry, {', '.join(ENTRY_COLUMNS)} FROM entry WHERE entry > ? ORDER BY entry LIMIT ?"  # noqa: S608 # our names
_MINUTES: Final = (
    f"SELECT {', '.join(MinuteRow.__struct_fields__)} FROM endpoint_minute WHERE minute >= ? "  # noqa: S608 # our names
    "ORDER BY minute, endpoint_id LIMIT ?"
)


class Parcel(Struct, frozen=True):
    """Rows of the ledger that are sent together, and the prices by which they were billed."""

    last: int
    """Their last one's place in the file."""
    rows: Sequence[Sequence[Any]]
    prices: Sequence[PriceSnapshot]


class Outbox:
    """Reads the file beside its writer. One thread at a time.

    Raises:
        StoreError: It is not there or cannot be read; so does every method.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _identity(path)
        self._connection = open_reader(path)

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    @property
    def gone(self) -> bool:
        """Whether another file has taken its place, as it does where this one is damaged."""
        return _identity(self._path) != self._file

    @property
    def replica(self) -> str:
        """The name of this store among those of a fleet."""
        return self._facts()["replica"]

    @property
    def position(self) -> int:
        """Up to where the rows were sent."""
        return int(self._facts().get("entry", "0"))

    @property
    def last(self) -> int:
        """The last row's place, which is how many there are."""
        found: int = self._rows("SELECT coalesce(max(entry), 0) FROM entry")[0][0]
        return found

    def parcel(self, after: int, count_max: int) -> Parcel | None:
        """The rows behind a position; None where there are none."""
        rows = self._rows(_ENTRIES, (after, count_max))
        if not rows:
            return None
        prices = sorted({row[_PRICE_ID] for row in rows})
        marks = ", ".join("?" * len(prices))
        snapshots = self._rows(
            f"SELECT price_id, endpoint, data FROM price_snapshot WHERE price_id IN ({marks})",  # noqa: S608 # bound
            prices,
        )
        return Parcel(rows[-1][0], [row[1:] for row in rows], [PriceSnapshot(*row) for row in snapshots])

    def minutes(self, since: int, count_max: int) -> list[MinuteRow]:
        """What Endpoints did from one minute of Unix time on, oldest first."""
        rows = self._rows(_MINUTES, (since, count_max))
        return [MinuteRow(**dict(zip(MinuteRow.__struct_fields__, row, strict=True))) for row in rows]

    def keys(self) -> list[KeyRow]:
        """Every issued key."""
        try:
            return read_keys(self._connection)
        except sqlite3.Error as error:
            raise translate(error) from error

    def key_state(self) -> tuple[int, int]:
        """Something that is different once a key has changed."""
        rows = self._rows("SELECT count(*), coalesce(max(updated_us), 0) FROM client_key")
        return (rows[0][0], rows[0][1])

    def _facts(self) -> dict[str, str]:
        return dict(self._rows("SELECT name, value FROM outbox"))

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise translate(error) from error


_PRICE_ID: Final = 1 + ENTRY_COLUMNS.index("price_id")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)

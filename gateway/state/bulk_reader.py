"""A ledger reader for a busy process: whatever a look-up finds comes out of SQLite in one piece.

Python fetches a row at a time and takes its lock anew for each. Beside an event loop that is busy, each such step may
wait for milliseconds, and makes the loop wait. So the rows are put together as JSON by SQLite, without the lock.
"""

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.state.errors import StoreError, translate
from gateway.state.ledger_reader import LedgerReader

SHAPES_MAX: Final = 256
"""Statements whose width is remembered."""


class SlowReadError(StoreError):
    """The look-up was broken off: it took too long."""


class BulkReader(LedgerReader):
    """Look-ups in the ledger, each of which can be broken off from another thread."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._widths: dict[str, int] = {}
        self._given_up = False
        self._whole = True

    def begin(self) -> None:
        """Another look-up begins."""
        self._given_up = False

    def give_up(self) -> None:
        """Break off what runs, and refuse what comes until `begin`. From any thread."""
        self._given_up = True
        self._connection.interrupt()

    @property
    def gave_up(self) -> bool:
        """Whether what runs was broken off."""
        return self._given_up

    @contextmanager
    def one_moment(self) -> Generator[None]:
        """Several look-ups inside see the same rows, whatever is written meanwhile.

        Raises:
            StoreError: The store cannot be read.
        """
        try:
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise translate(error) from error

    def find_record(self, record_id: str) -> bytes | None:
        """As every Reader: few rows, and bytes, which JSON has no place for."""
        with self._one_by_one():
            return super().find_record(record_id)

    def find_static(self, digest: str) -> bytes | None:
        """As every Reader."""
        with self._one_by_one():
            return super().find_static(digest)

    @contextmanager
    def _one_by_one(self) -> Generator[None]:
        """Fetch rows as any other reader does."""
        self._whole = False
        try:
            yield
        finally:
            self._whole = True

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        if not self._whole:
            return super()._rows(statement, values)
        if self._given_up:
            raise SlowReadError("the look-up took too long")
        try:
            count = self._width(statement, values)
            names = ", ".join(f"c{number}" for number in range(count))
            found: str = self._connection.execute(
                f"WITH found({names}) AS ({statement}) SELECT json_group_array(json_array({names})) FROM found",  # noqa: S608 # our own text
                values,
            ).fetchone()[0]
        except sqlite3.Error as error:
            raise SlowReadError("the look-up took too long") if self._given_up else translate(error) from error
        rows: list[Any] = msgspec.json.decode(found)
        return rows

    def _width(self, statement: str, values: Sequence[Any]) -> int:
        """How many columns a statement gives."""
        width = self._widths.get(statement)
        if width is None:
            if len(self._widths) >= SHAPES_MAX:
                self._widths.clear()
            asked = self._connection.execute(f"SELECT * FROM ({statement}) LIMIT 0", values)  # noqa: S608 # our own text
            width = self._widths[statement] = len(asked.description)
        return width

"""Reads mixgate.db beside its writer, in this process or another. Changes nothing."""

import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

from msgspec import Struct

from gateway.observation import MinuteRow
from gateway.state.blocks import find, records
from gateway.state.connection import open_reader
from gateway.state.errors import DamagedStoreError, translate
from gateway.state.schema import SPANS
from gateway.state.writer import EndpointEvent

ROWS_MAX: Final = 200_000
"""Rows that one look-up returns at most."""
STATIC_MAX_BYTES: Final = 64 * 1024 * 1024
"""A static part when it is unpacked."""
_MINUTE_COLUMNS: Final = ", ".join(MinuteRow.__struct_fields__)


class Kept(Struct, frozen=True, gc=False):
    """From when to when records are kept, and how many."""

    count: int
    first_id: str | None
    last_id: str | None


class Uptime(Struct, frozen=True, gc=False):
    """What became of an Endpoint's Attempts in some time, as far as that counts."""

    ok: int
    failed: int

    @property
    def ratio(self) -> float | None:
        """Share of good ones, 0 to 1; None where there was nothing to judge by."""
        total = self.ok + self.failed
        return self.ok / total if total else None


class Reader:
    """Look-ups in the store. One thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            StoreError: It is not there or cannot be read.
        """
        self._connection = open_reader(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back. Idempotent."""
        self._connection.close()

    def find_record(self, record_id: str) -> bytes | None:
        """The data of one record; None where it never was, is not written yet, or is gone.

        Raises:
            StoreError: The store cannot be read.
        """
        # Most records are in the first block that can have them: the others hold much longer requests.
        blocks = self._rows(
            "SELECT block FROM decision_block WHERE max_id >= ? AND min_id <= ? ORDER BY max_id, min_id",
            (record_id, record_id),
        )
        for (block,) in blocks:
            # The block may have been pruned in the meantime.
            for (data,) in self._rows("SELECT data FROM decision_block WHERE block = ?", (block,)):
                if (found := find(data, record_id)) is not None:
                    return found
        return None

    def find_static(self, digest: str) -> bytes | None:
        """What records with that digest refer to.

        Raises:
            StoreError: The store cannot be read.
        """
        rows = self._rows("SELECT data FROM decision_table WHERE digest = ?", (digest,))
        if not rows:
            return None
        try:
            return zlib.decompressobj().decompress(rows[0][0], STATIC_MAX_BYTES)
        except zlib.error as error:
            raise DamagedStoreError(f"the static part {digest} cannot be unpacked ({error})") from error

    def newest_records(self, count: int) -> list[tuple[str, bytes]]:
        """The last records written, newest first.

        Raises:
            StoreError: The store cannot be read.
        """
        found: list[tuple[str, bytes]] = []
        before = 1 << 62
        while len(found) < count:
            rows = self._rows(
                "SELECT block, data FROM decision_block WHERE block < ? ORDER BY block DESC LIMIT 1", (before,)
            )
            if not rows:
                break
            before = rows[0][0]
            found += reversed(records(rows[0][1]))
        return found[:count]

    def kept(self) -> Kept:
        """Which records there are.

        Raises:
            StoreError: The store cannot be read.
        """
        return Kept(*self._rows("SELECT coalesce(sum(count), 0), min(min_id), max(max_id) FROM decision_block")[0])

    def read_minutes(self, endpoint_id: str | None, from_minute: int, until_minute: int) -> list[MinuteRow]:
        """What one Endpoint (None: every one) did from one minute of Unix time to before another, oldest first.

        Older times come by the hour and by the day. Minutes without traffic are not there. Of more than ROWS_MAX rows
        the newest.

        Raises:
            StoreError: The store cannot be read.
        """
        of = "" if endpoint_id is None else "AND endpoint_id = ?"
        names = () if endpoint_id is None else (endpoint_id,)
        each = " UNION ALL ".join(
            f"SELECT {_MINUTE_COLUMNS} FROM {span} WHERE minute >= ? AND minute < ? {of}"  # noqa: S608 # our names
            for span in SPANS
        )
        values = (from_minute, until_minute, *names) * len(SPANS)
        # Where there are too many, the newest are the ones that are wanted.
        rows = self._rows(f"{each} ORDER BY minute DESC, endpoint_id DESC LIMIT {ROWS_MAX}", values)
        return [MinuteRow(**dict(zip(MinuteRow.__struct_fields__, row, strict=True))) for row in reversed(rows)]

    def read_uptime(self, endpoint_id: str, window_s: float, *, now_unix_s: float) -> Uptime:
        """The uptime of one Endpoint over a time that ends now, this minute included.

        Raises:
            StoreError: The store cannot be read.
        """
        end = int(now_unix_s // 60) + 1
        rows = self.read_minutes(endpoint_id, end - max(1, round(window_s / 60)), end)
        return Uptime(sum(row.ok for row in rows), sum(row.failed for row in rows))

    def events(self, endpoint_id: str | None, since_unix_s: float) -> list[EndpointEvent]:
        """Changes of standing of one Endpoint (None: every one) since then, oldest first.

        Raises:
            StoreError: The store cannot be read.
        """
        of = "" if endpoint_id is None else "AND endpoint_id = ?"
        names = () if endpoint_id is None else (endpoint_id,)
        rows = self._rows(
            f"SELECT unix_s, endpoint_id, standing, cause FROM endpoint_event WHERE unix_s >= ? {of} "  # noqa: S608
            f"ORDER BY unix_s, event LIMIT {ROWS_MAX}",
            (since_unix_s, *names),
        )
        return [EndpointEvent(*row) for row in rows]

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise translate(error) from error

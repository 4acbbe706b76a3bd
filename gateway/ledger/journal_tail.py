"""Rows of the ledger, read from a journal that another process writes, up to where that says it is."""

import mmap
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.ledger.entry import completed
from gateway.ledger.intent import Intent
from gateway.ledger.journal import ENTRY, INTENT, SETTLED
from gateway.ledger.segment import HEAD_BYTES, MAGIC, path_of, records
from gateway.state.entries import Place, Row

_HEAD: Final = len(Intent.__struct_fields__) - 1
"""Values of an Intent, without its tags."""
_decode: Final = msgspec.msgpack.Decoder(tuple[Any, ...]).decode


class TailError(ValueError):
    """The journal does not say what it should."""


class JournalTail:
    """Follows it, file by file.

    Args:
        folder: The journal's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._at = 0
        self._map: mmap.mmap | None = None
        self._begun: dict[str, tuple[Any, ...]] = {}
        """What is begun in this file and was not settled in it up to here."""

    def rows(self, place: Place, count_max: int) -> list[Row]:
        """The next rows of a place, in their order; its start and its counts are moved behind them.

        Raises:
            TailError: They cannot be read.
            OSError: A file cannot be.
        """
        found: list[Row] = []
        last, end = place.end
        if self._number == place.start[0] and self._at > place.start[1]:
            self.close()  # what was read last was not written, so it is read again
        for number in range(place.start[0], last + 1):
            data = self._open(number, gone=number < last)
            if data is None:
                continue
            upto = end if number == last else len(data)
            behind = place.start[1] if number == place.start[0] else 0
            before = len(found)
            for kind, at, payload in records(data, self._at, upto):
                self._at = at
                row = self._take(kind, payload)
                if row is not None and at > behind:
                    found.append(row)
                    if len(found) >= count_max:
                        break
            place.start = (number, self._at)
            if len(found) > before:
                place.counts[number] = place.counts.get(number, 0) + len(found) - before
            if len(found) >= count_max:
                break
            if any(data[self._at : min(upto, self._at + HEAD_BYTES)]):
                raise TailError(f"file {number} of the journal breaks off at {self._at}")
        return found

    def close(self) -> None:
        """Let go of the file."""
        if self._map is not None:
            self._map.close()
        self._map, self._number = None, 0

    def _open(self, number: int, *, gone: bool) -> mmap.mmap | None:
        """One of the files, from its beginning where it is another than before; None where it may be gone, and is."""
        if self._map is None or number != self._number:
            self.close()
            try:
                with path_of(self._folder, number).open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except FileNotFoundError:
                # All its rows are in the store, so it was removed.
                if gone:
                    return None
                raise
            self._number, self._at = number, len(MAGIC)
            self._begun.clear()
        return self._map

    def _take(self, kind: int, payload: bytes) -> Row | None:
        try:
            if kind == INTENT:
                begun = _decode(payload)
                self._begun[begun[0]] = begun
            elif kind == SETTLED:
                attempt_id, tail = _decode(payload)
                begun = self._begun.pop(attempt_id)
                tags = begun[_HEAD] if len(begun) > _HEAD else ()
                return completed(begun[:_HEAD], tags, tuple(tail))
            elif kind == ENTRY:
                row = _decode(payload)
                self._begun.pop(row[0], None)
                return row
        except (msgspec.MsgspecError, KeyError, IndexError, TypeError, ValueError) as error:
            raise TailError(f"a record of the journal cannot be read: {error!r}") from error
        return None

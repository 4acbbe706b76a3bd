"""Walks through the ledger request by request, and finds each one's decision record; no block is unpacked twice."""

import re
import sqlite3
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from gateway.explain.errors import UnreadableRecordError
from gateway.explain.record import Record, decode
from gateway.explain.static import read_static
from gateway.ledger.costs import Tariff, read_tariff
from gateway.routing.table import Table
from gateway.state.blocks import records
from gateway.state.cache_rows import read_cache_rows
from gateway.state.entries import ENTRY_COLUMNS, Entry
from gateway.state.errors import translate
from gateway.state.ledger_reader import PAGE_MAX, By, Filter, LedgerReader
from gateway.state.ledger_rows import HOUR_US

BLOCKS_MAX: Final = 32
"""Blocks of records that are held unpacked."""
MISSES_MAX: Final = 50
"""Records that are looked for in the file and are not there, before it is read where all of them are."""
SPAN_MAX: Final = 4 * PAGE_MAX
"""Rows of the requests of one page, where they are looked for all at once."""
HOURS_MAX: Final = 1_000_000
"""Sums of one report over time: names times hours."""
_STREAM: Final = ENTRY_COLUMNS.index("stream")
_SELECT: Final = f"SELECT entry, {', '.join(ENTRY_COLUMNS)} FROM entry WHERE"  # noqa: S608 # our names
_NUMBER: Final = re.compile(r"(.+)/(\d{1,9})", re.ASCII | re.DOTALL)


class Request(Struct, frozen=True, gc=False):
    """One request as the ledger has it."""

    id: str
    entries: tuple[Entry, ...]
    """Its Attempts that are wanted, in their order; at least one."""
    place: int = 0
    """Rows that were read before it."""


class Row(Struct, frozen=True, gc=False):
    """One Attempt, and where it is."""

    place: int
    """Of the row in the ledger: later ones are larger."""
    number: int
    """Of the Attempt in its request, from 1."""
    entry: Entry


class BlockIndex:
    """Where records are, in memory.

    Args:
        rows: Each block with its least and its greatest id.
    """

    def __init__(self, rows: Sequence[tuple[int, str, str]]) -> None:
        ordered = sorted(rows, key=_greatest_of)
        self._blocks = [block for block, _, _ in ordered]
        self._least = [least for _, least, _ in ordered]
        self._greatest = [greatest for _, _, greatest in ordered]
        # The least id from each place on: where that is greater, nothing further can have a record.
        self._least_from = [*accumulate(reversed(self._least), min)][::-1]

    def find(self, record_id: str) -> list[int]:
        """The blocks that can have a record, likely ones first."""
        found: list[int] = []
        place = bisect_left(self._greatest, record_id)
        while place < len(self._blocks) and self._least_from[place] <= record_id:
            if self._least[place] <= record_id:
                found.append(self._blocks[place])
            place += 1
        return found


def _greatest_of(row: tuple[int, str, str]) -> str:
    return row[2]


class ReportReader(LedgerReader):
    """Look-ups for reports. One thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            StoreError: It is not there or cannot be read.
        """
        super().__init__(path)
        self._blocks: OrderedDict[int, dict[str, bytes]] = OrderedDict()
        self._index: BlockIndex | None = None
        self._misses = 0
        self._tables: dict[str, Table | None] = {}
        self._tariffs: dict[str, Tariff | None] = {}

    def walk(self, wanted: Filter, *, rows_max: int) -> Iterator[Request]:
        """Every request with an Attempt that is wanted, newest first, each once, with just those Attempts.

        Ends after `rows_max` rows. By time and name alone: of `wanted` all of the request's Attempts count that lie
        within its times.

        Raises:
            StoreError: The store cannot be read.
        """
        before: int | None = None
        read = 0
        while read < rows_max:
            page = self.entries(wanted, before=before, count=min(PAGE_MAX, rows_max - read))
            requests = self.requests_of(page.entries)
            for entry in page.entries:
                name, _ = split_id(entry.attempt_id)
                attempts = [one.entry for one in requests[name] if is_wanted(one.entry, wanted)]
                # Its Attempts lie anywhere: it comes up at the first of those that are wanted.
                if attempts and attempts[0].attempt_id == entry.attempt_id:
                    yield Request(name, tuple(attempts), read)
                read += 1
            if page.before is None:
                return
            before = page.before

    def requests_of(self, entries: Sequence[Entry]) -> dict[str, list[Row]]:
        """All rows of the requests that these rows are of, by generation id, in the order of their Attempts.

        Raises:
            StoreError: The store cannot be read.
        """
        found: dict[str, list[Row]] = {split_id(entry.attempt_id)[0]: [] for entry in entries}
        if not found:
            return found
        # Rows that lie together are of requests that began together, so one span of the index has them all.
        rows = self._rows(
            f"{_SELECT} attempt_id > ? AND attempt_id < ? LIMIT ?", (*_span(min(found), max(found)), SPAN_MAX)
        )
        if len(rows) == SPAN_MAX:
            rows = [
                row
                for name in found
                for row in self._rows(f"{_SELECT} attempt_id > ? AND attempt_id < ?", _span(name, name))
            ]
        for place, *values in rows:
            values[_STREAM] = bool(values[_STREAM])
            entry = Entry(*values)
            name, number = split_id(entry.attempt_id)
            if name in found:
                found[name].append(Row(place, number, entry))
        for attempts in found.values():
            attempts.sort(key=_number_of)
        return found

    def record(self, generation_id: str) -> Record | None:
        """The decision record of a request; None where it is not kept, or of another version.

        Raises:
            StoreError: The store cannot be read.
        """
        for block, data in self._blocks.items():
            if generation_id in data:
                self._blocks.move_to_end(block)
                return _record(data[generation_id])
        for block in self._places(generation_id):
            if block not in self._blocks and generation_id in self._unpack(block):
                return _record(self._blocks[block][generation_id])
        self._misses += 1
        return None

    def _places(self, generation_id: str) -> list[int]:
        """The blocks that can have a record."""
        if self._misses >= MISSES_MAX and self._index is None:
            # Each look for a record that is not there goes through all later blocks: from some number on it is cheaper
            # to have them in memory.
            self._index = BlockIndex(self._rows("SELECT block, min_id, max_id FROM decision_block"))
        if self._index is not None:
            return self._index.find(generation_id)
        found = self._rows(
            "SELECT block FROM decision_block WHERE max_id >= ? AND min_id <= ? ORDER BY max_id, min_id",
            (generation_id, generation_id),
        )
        return [block for (block,) in found]

    def table(self, digest: str) -> Table | None:
        """The static side of decisions; None where it is not kept, or of another version.

        Raises:
            StoreError: The store cannot be read.
        """
        if digest not in self._tables:
            data = self.find_static(digest)
            try:
                self._tables[digest] = None if data is None else read_static(data)
            except UnreadableRecordError:
                self._tables[digest] = None
        return self._tables[digest]

    def tariff(self, price_id: str) -> Tariff | None:
        """The prices by which something was billed; None where they are not known any more.

        Raises:
            StoreError: The store cannot be read.
        """
        if price_id not in self._tariffs:
            snapshot = self.price(price_id) if price_id else None
            try:
                self._tariffs[price_id] = None if snapshot is None else read_tariff(snapshot)
            except ValueError:
                self._tariffs[price_id] = None
        return self._tariffs[price_id]

    def hours(self, by: By, first: int, end: int) -> list[tuple[Any, ...]]:
        """Name, hour and sums of the roll-ups, from one hour of Unix time to before another.

        The sums are of requests, Attempts, failed ones, tokens in and out, nano-USD, and Attempts of unknown cost.

        Raises:
            StoreError: The store cannot be read.
        """
        return self._rows(
            "SELECT name, hour, requests, attempts, failed, input_tokens, output_tokens, cost_in_nusd, unknown_cost "
            "FROM spend_hour WHERE by = ? AND hour >= ? AND hour < ? ORDER BY hour LIMIT ?",
            ("all" if by == "day" else by, first, end, HOURS_MAX),
        )

    def given_again(self, since_us: int, until_us: int, *, key_id: str | None, route: str | None) -> tuple[int, int]:
        """How many answers were given again in the hours of a time, and what they would have cost, in nano-USD.

        Raises:
            StoreError: The store cannot be read.
        """
        try:
            rows = read_cache_rows(self._connection, since_us // HOUR_US, -(-until_us // HOUR_US))
        except sqlite3.Error as error:
            raise translate(error) from error
        some = [row for row in rows if key_id in {None, row.key_id} and route in {None, row.route}]
        return sum(row.hits for row in some), sum(row.saved_in_nusd for row in some)

    def _unpack(self, block: int) -> dict[str, bytes]:
        if len(self._blocks) >= BLOCKS_MAX:
            self._blocks.popitem(last=False)
        # It may have been pruned in the meantime.
        rows = self._rows("SELECT data FROM decision_block WHERE block = ?", (block,))
        found = self._blocks[block] = dict(records(rows[0][0])) if rows else {}
        return found


def _span(first: str, last: str) -> tuple[str, str]:
    """What the ids of Attempts of these requests, and of those between them, lie between."""
    return f"{first}/", f"{last}0"  # 0 is the character behind the slash


def _number_of(row: Row) -> int:
    return row.number


def split_id(attempt_id: str) -> tuple[str, int]:
    """The generation id and the number of an Attempt."""
    found = _NUMBER.fullmatch(attempt_id)
    return (attempt_id, 1) if found is None else (found[1], int(found[2]))


def is_wanted(entry: Entry, wanted: Filter) -> bool:
    """Whether a row passes a filter, tags apart."""
    since, until = wanted.since_unix_us, wanted.until_unix_us
    if (since is not None and entry.unix_us < since) or (until is not None and entry.unix_us >= until):
        return False
    named = ("key_id", "model", "provider", "endpoint", "route", "app", "user", "session", "outcome")
    return all(getattr(wanted, name) is None or getattr(entry, name) == getattr(wanted, name) for name in named)


def _record(data: bytes) -> Record | None:
    try:
        return decode(data)
    except UnreadableRecordError:
        return None

"""What a process that was killed left in its journal: rows for all that it settled, estimates for what it did not."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from gateway.ledger.costs import Tariff, read_tariff, recovered
from gateway.ledger.entry import Settlement, completed, head_of, row_of
from gateway.ledger.intent import Intent
from gateway.ledger.journal import CHECKPOINT, ENTRY, INTENT, PRICE, SETTLED, Journal
from gateway.state.entries import ENTRY_COLUMNS, PriceSnapshot, Row

_log = logging.getLogger("mixgate.ledger")
_decode_intent: Final = msgspec.msgpack.Decoder(Intent).decode
_decode_price: Final = msgspec.msgpack.Decoder(PriceSnapshot).decode
_decode_checkpoint: Final = msgspec.msgpack.Decoder(tuple[str, int]).decode
_decode_settled: Final = msgspec.msgpack.Decoder(tuple[str, tuple[str | int | None, ...]]).decode
decode_row: Final = msgspec.msgpack.Decoder(list[str | int | bool | None]).decode
"""A row of the ledger, as the journal has it."""


class Recovery:
    """Reads what was left, one file after the other. `read` are the files that need not be read again."""

    def __init__(self, journal: Journal, unix_us: Callable[[], int]) -> None:
        self.read: list[Path] = []
        self.prices: dict[str, PriceSnapshot] = {}
        self.settled = 0
        """Rows that were exact already."""
        self.estimated = 0
        """Attempts in the middle of which the process ended."""
        self._journal = journal
        self._unix_us = unix_us
        self._open: dict[str, Intent] = {}
        self._output_tokens: dict[str, int] = {}

    def rows(self) -> Iterator[Row]:
        """A row for every Attempt in the files. A row may be in the store already."""
        for path in list(self._journal.old):
            try:
                for kind, payload in self._journal.read_old(path):
                    row = self._take(kind, payload)
                    if row is not None:
                        self.settled += 1
                        yield row
            except (OSError, msgspec.DecodeError, ValueError) as error:
                _log.error("%s cannot be read and is kept: %s", path, error)
            else:
                self.read.append(path)
        # An intent may lie in an older file than the entry that settles it, so only the end of all shows what is open.
        for intent in self._open.values():
            self.estimated += 1
            yield row_of(intent, self._estimate(intent))

    def _take(self, kind: int, payload: bytes) -> Row | None:
        if kind in {ENTRY, SETTLED}:
            row = decode_row(payload) if kind == ENTRY else self._settled(payload)
            if len(row) != len(ENTRY_COLUMNS):
                raise ValueError("another version of Mixgate has written it")
            self._open.pop(str(row[0]), None)
            self._output_tokens.pop(str(row[0]), None)
            return row
        if kind == INTENT:
            intent = _decode_intent(payload)
            self._open[intent.attempt_id] = intent
        elif kind == PRICE:
            snapshot = _decode_price(payload)
            self.prices[snapshot.price_id] = snapshot
        elif kind == CHECKPOINT:
            attempt_id, output_tokens = _decode_checkpoint(payload)
            self._output_tokens[attempt_id] = output_tokens
        return None

    def _settled(self, payload: bytes) -> Row:
        """The row of an Attempt whose intent was read before."""
        attempt_id, tail = _decode_settled(payload)
        intent = self._open.get(attempt_id)
        if intent is None:
            raise ValueError(f"{attempt_id} is settled in it, and not begun")
        return completed(head_of(intent), intent.tags, tail)

    def _estimate(self, intent: Intent) -> Settlement:
        output_tokens = self._output_tokens.get(intent.attempt_id, 0)
        return recovered(intent, output_tokens, self._tariff(intent.price_id), unix_us=self._unix_us())

    def _tariff(self, price_id: str) -> Tariff | None:
        snapshot = self.prices.get(price_id)
        try:
            return None if snapshot is None else read_tariff(snapshot)
        except msgspec.DecodeError:
            _log.warning("the prices %s are of another version: what was billed by them is unknown", price_id)
            return None

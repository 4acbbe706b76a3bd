"""The ledger as the engine has it: an Attempt is begun before it is sent and settled once; nothing here ever waits.

What is begun and settled is in the journal at once, which survives the process, and in the store a moment later. Where
the store cannot be written the journal keeps it; where the journal has no room either, `available` says that nothing
that costs money may be sent.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from gateway.ledger.backlog import Backlog
from gateway.ledger.costs import MICROSECONDS, Ending, Tariff, settlement_of
from gateway.ledger.entry import Head, Settlement, Tail, completed, mended, tail_of
from gateway.ledger.intent import Intent
from gateway.ledger.journal import CHECKPOINT, ENTRY, INTENT, PRICE, SETTLED, Journal
from gateway.ledger.recovery import Recovery
from gateway.ledger.segment import Segment, size_of
from gateway.state.store import Store

FOLDER_NAME: Final = "journal"
CHECKPOINT_TOKENS: Final = 256
"""So many tokens further, how far an answer is is noted anew."""
RETRY_AFTER_S: Final = 5.0
"""When to come back while nothing can be written down."""

_log = logging.getLogger("mixgate.ledger")
_encode: Final = msgspec.msgpack.Encoder().encode
ID_AT: Final = 0
SENT_AT: Final = 1
ENDPOINT_AT: Final = 5
"""Where in a Head they are."""
_UNSTORABLE: Final = (OverflowError, UnicodeEncodeError)
"""A number or a text that no file takes, whoever it came from."""


class _Open(Struct):
    """An Attempt that is on its way."""

    head: Head
    tags: tuple[str, ...]
    tariff: Tariff
    segment: Segment | None = None
    output_tokens: int = 0
    """As last noted in the journal."""

    @property
    def sent_us(self) -> int:
        """When it was sent."""
        return cast("int", self.head[SENT_AT])

    @property
    def noted(self) -> tuple[Any, ...]:
        """An Intent as the journal has it."""
        return (*self.head, self.tags) if self.tags else self.head

    @property
    def intent(self) -> Intent:
        """The same for whoever wants to look at it."""
        return Intent(*self.noted)


class Books:
    """Used by the loop's thread, but for `open` and `close`."""

    def __init__(self, journal: Journal, store: Store, *, unix_time_s: Callable[[], float] = time.time) -> None:
        self.repeated = 0
        """Settlements of what was settled before, or never begun. They change nothing."""
        self.unjournaled = 0
        """Attempts whose beginning the journal could not take: a crash would have lost them."""
        self.on_settled: Callable[[str, Settlement], None] | None = None
        """Told of every Attempt that is settled, once: its Endpoint, and what became of it."""
        self._journal = journal
        self._store = store
        self._recovery = Recovery(journal, lambda: int(unix_time_s() * MICROSECONDS))
        self._backlog = Backlog(journal, self._recovery)
        self._open: dict[str, _Open] = {}
        self._known_prices: set[str] = set()
        self._noted: Segment | None = None
        """Where the last Attempt is noted that has a price."""
        self._waits = False

    @classmethod
    def open(cls, home: Path, store: Store, **settings: Any) -> "Books":
        """Begin to keep books, and let the store's thread put in order what a crash left. Blocks for a moment."""
        journal = Journal(home / FOLDER_NAME)
        books = cls(journal, store, **settings)
        books.start()
        return books

    def start(self) -> None:
        """Open the journal and give the store what was left. Blocks for a moment."""
        self._journal.on_found = self._store.wake
        self._journal.open()
        self._store.attach(self._backlog)

    @property
    def available(self) -> bool:
        """Whether what begins now can be written down: else nothing that costs money may be sent."""
        available = self._journal.usable or (self._store.failure is None and not self._backlog.full)
        if available == self._waits:
            self._waits = not available
            if available:
                _log.warning("the ledger can be written again")
            else:
                _log.error("neither the journal nor the store can be written: what costs money is refused")
        return available

    @property
    def in_flight(self) -> int:
        """Attempts that are begun and not settled."""
        return len(self._open)

    def on_their_way(self) -> list[tuple[Intent, int]]:
        """Attempts that are begun and not settled, and tokens that have come of each, as last noted."""
        return [(one.intent, one.output_tokens) for one in self._open.values()]

    @property
    def behind(self) -> bool:
        """Whether the store does not have everything yet."""
        return not self._backlog.empty

    def wait_recovered(self, timeout_s: float) -> bool:
        """Wait until the store has everything that a crash left. Blocks."""
        return self._backlog.recovered.wait(timeout_s)

    def begin(self, head: Head, tags: tuple[str, ...], tariff: Tariff) -> None:
        """An Attempt is about to be sent. To be called before a byte of it is.

        Args:
            head: What it is.
            tags: Its client's.
            tariff: What it will be billed by.
        """
        if self._journal.failed:
            self._write_again()
        one, attempt_id = _Open(head, tags, tariff), cast("str", head[ID_AT])
        if self._open.setdefault(attempt_id, one) is not one:
            self.repeated += 1
            return
        try:
            segment = self._note(one)
        except _UNSTORABLE:
            one.head, one.tags = mended(head), mended(tags)
            segment = self._note(one)
        if segment is None:
            self.unjournaled += 1
        else:
            segment.held += 1
            one.segment = segment

    def checkpoint(self, attempt_id: str, output_tokens: int) -> None:
        """An answer has come this far: what would be estimated, were the gateway killed now."""
        one = self._open.get(attempt_id)
        if one is not None and output_tokens >= one.output_tokens + CHECKPOINT_TOKENS:
            one.output_tokens = output_tokens
            self._journal.append(CHECKPOINT, _encode((attempt_id, output_tokens)))

    def end(self, attempt_id: str, ending: Ending) -> Settlement | None:
        """An Attempt is over: work out what it cost, by the tariff with which it was begun, and settle it.

        None where it was settled before or never begun: then nothing changes.
        """
        one = self._open.get(attempt_id)
        if one is None:
            self.repeated += 1
            return None
        settlement = settlement_of(one.sent_us, ending, one.tariff)
        tail = tail_of(settlement)
        del self._open[attempt_id]
        try:
            self._settle(one, tail)
        except _UNSTORABLE:
            self._settle(one, mended(tail))
        self._store.wake()
        if self.on_settled is not None:
            self.on_settled(cast("str", one.head[ENDPOINT_AT]), settlement)
        return settlement

    def close(self) -> None:
        """Hand the journal to the disk; to be called once the store is closed. Blocks."""
        self._journal.close()

    def _settle(self, one: _Open, tail: Tail) -> None:
        """Write down what became of it, and let the store have its row."""
        began, journal, backlog = one.segment, self._journal, self._backlog
        if began is not None:
            payload = _encode((one.head[ID_AT], tail))
            if journal.append_to(began, SETTLED, payload):
                # Its last word is where its first is.
                if not backlog.leave(began, size_of(payload)):
                    backlog.add(completed(one.head, one.tags, tail), began)
                return
        row = completed(one.head, one.tags, tail)
        payload = _encode(row)
        segment = journal.append(ENTRY, payload)
        if segment is None:
            # Its intent stays in the journal: after a crash that is all there is. It is let go when the row is safe.
            backlog.add(row, began)
            return
        segment.held += 1
        if began is not None:
            began.held -= 1
        if not backlog.leave(segment, size_of(payload)):
            backlog.add(row, segment)

    def _note(self, one: _Open) -> Segment | None:
        """Write down by what it is billed, and behind that in the same file what begins."""
        payload = _encode(one.noted)
        price_id = one.tariff.price_id
        if not price_id:
            return self._journal.append(INTENT, payload)
        noted = self._noted
        if noted is None or price_id not in noted.prices:
            # First, as a kill may come between the two: an Attempt that is known must have a price.
            noted = self._note_price(one.tariff)
        segment = self._journal.append(INTENT, payload)
        if segment is not noted and segment is not None and price_id not in segment.prices:
            self._note_price(one.tariff)
            segment = self._journal.append(INTENT, payload)
        self._noted = segment
        return segment

    def _note_price(self, tariff: Tariff) -> Segment | None:
        snapshot = tariff.snapshot
        if snapshot.price_id not in self._known_prices:
            self._known_prices.add(snapshot.price_id)
            self._backlog.add_price(snapshot)
        segment = self._journal.append(PRICE, _encode(snapshot))
        if segment is not None:
            segment.prices.add(snapshot.price_id)
        return segment

    def _write_again(self) -> None:
        """The disk did not take a file: what is on its way is written into the next one."""
        self._journal.failed = False
        for one in self._open.values():
            if one.segment is not None and one.segment.failed:
                segment = self._note(one)
                if segment is not None:
                    one.segment.held -= 1
                    segment.held += 1
                    one.segment = segment

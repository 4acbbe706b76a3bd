"""What all workers together have spent and reserved, from the moment on in which that is known.

An owner that takes over from one that died has to learn it first: what the ledger has, and what workers that went on
have reserved. Until then what they ask and tell waits, in order. No Attempt counts twice: what the ledger had by the
moment in which it was read is not counted again when a worker tells of it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from gateway.errors import KeysUnavailableError
from gateway.keys.purse import Past
from gateway.state.entries import Row
from gateway.state.errors import StoreError
from gateway.state.store import Store
from gateway.workers.counter import Counter
from gateway.workers.messages import Hello, Hold, Release, Reserve, Settle, UsageAsked
from gateway.workers.past import PastReader

LOOK_EVERY_S: Final = 0.02
"""How often it is looked whether everybody has said what there is to say."""
FLUSH_WAIT_S: Final = 10.0
RECALL_EVERY_S: Final = 1.0
LATER_MAX: Final = 100_000
"""What workers may ask and tell until then."""
MONEY: Final = (Reserve, Hold, Settle, Release, UsageAsked)
"""Messages that are about it."""

_log = logging.getLogger("mixgate.workers")


class Money:
    """All of it.

    Args:
        counter: Does the sums.
        awaited: Workers that are there already, and have to say what they have reserved.
    """

    def __init__(self, counter: Counter, awaited: Sequence[str]) -> None:
        self.counter = counter
        self.whole = False
        """Whether it is known."""
        self._awaited = set(awaited)
        self._hellos: dict[str, Hello] = {}
        self._later: list[tuple[str, Any, asyncio.Future[Any]]] = []

    def greet(self, hello: Hello) -> None:
        """A worker is there, and says what it has reserved."""
        if self.whole:
            self.counter.take_up(hello.name, hello)
        else:
            self._hellos[hello.name] = hello

    def confirm(self, name: str) -> None:
        """What it had settled by then is in the store."""
        self._awaited.discard(name)

    def count_left(self, name: str, rows: Sequence[Row]) -> None:
        """A worker is gone, and these rows of its journal are in the store."""
        if self.whole:
            self.counter.count_left(name, rows)

    def bury(self, name: str) -> None:
        """A worker is gone, and all of its journal is in the store."""
        self._awaited.discard(name)
        if self.whole:
            self.counter.bury(name)
            return
        self._hellos.pop(name, None)
        self._later = [one for one in self._later if one[0] != name]

    def take(self, name: str, message: Any) -> Any:
        """Do what a worker asks or tells: now, or when that is possible."""
        if self.whole:
            return self._do(name, message)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if len(self._later) >= LATER_MAX:
            answer.set_exception(KeysUnavailableError("what keys have spent is not known yet", retry_after_s=1.0))
        else:
            self._later.append((name, message, answer))
        return answer

    async def become_whole(
        self, store: Store, clear: Callable[[], bool], key_ids: Callable[[], Sequence[str]], first_entry: int
    ) -> None:
        """Learn what was spent and is reserved.

        Args:
            store: With what workers that live had settled, or soon so.
            clear: Whether it has all that a crash left.
            key_ids: All keys.
            first_entry: The last row that was in the ledger before this owner.
        """
        while not self.whole:
            if self._awaited or not clear():
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            held = [one.attempt_id for hello in self._hellos.values() for lease in hello.leases for one in lease.holds]
            try:
                past, counted = await asyncio.to_thread(_read, store, key_ids(), first_entry, held)
            except StoreError as error:
                _log.warning("client keys with a budget have to wait, as what they spent is not known: %s", error)
                await asyncio.sleep(RECALL_EVERY_S)
                continue
            self._begin(past, counted)

    def _begin(self, past: Past, counted: frozenset[str]) -> None:
        self.counter.purse.load(past)
        for name, hello in self._hellos.items():
            self.counter.take_up(name, hello, counted)
        self.whole = True
        self._hellos.clear()
        later, self._later = self._later, []
        for name, message, answer in later:
            if isinstance(message, (Hold, Settle)) and message.attempt_id in counted:
                _settle(answer, None)
                continue
            try:
                value = self._do(name, message)
            except Exception as error:  # noqa: BLE001 - whoever asked is told
                if not answer.done():
                    answer.set_exception(error)
            else:
                _settle(answer, value)

    def _do(self, name: str, message: Any) -> Any:
        counter = self.counter
        if isinstance(message, Reserve):
            return counter.reserve(name, message)
        if isinstance(message, Hold):
            return counter.hold(name, message)
        if isinstance(message, Settle):
            return counter.settle(name, message)
        if isinstance(message, Release):
            return counter.release(name, message)
        return counter.usage(name, message)


def _settle(answer: "asyncio.Future[Any]", value: Any) -> None:
    if asyncio.isfuture(value):
        asking: asyncio.Future[Any] = value

        def pass_on(_: "asyncio.Future[Any]") -> None:
            if answer.done() or asking.cancelled():
                answer.cancel()
            elif (error := asking.exception()) is not None:
                answer.set_exception(error)
            else:
                answer.set_result(asking.result())

        asking.add_done_callback(pass_on)
    elif not answer.done():
        answer.set_result(value)


def _read(store: Store, key_ids: Sequence[str], first_entry: int, held: Sequence[str]) -> tuple[Past, frozenset[str]]:
    """What was spent, and which Attempts are part of that although workers may tell of them yet. Blocks."""
    if not store.flush(FLUSH_WAIT_S):
        raise store.failure or StoreError("the ledger is not written yet")
    with PastReader(store.path) as reader:
        return reader.past(key_ids, time.time(), first_entry, held)

"""One answer on its way to several who asked the same at the same time.

The answer is read by a task of its own and belongs to nobody who listens: whoever asked first may leave, and it goes on
for the others. With the last listener it is broken off.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from providers.errors import MixgateError
from providers.messages import Event, ExtrasDelta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta

HELD_MAX_BYTES: Final = 4 * 1024 * 1024
"""So much of an answer is held for whoever comes later. A longer one is sent on only as fast as the slowest reads."""
EVENT_COST_BYTES: Final = 200
"""What one step takes beside its text, about."""

_log = logging.getLogger("mixgate.cache")


class Source(Protocol):
    """An answer, as `gateway.answer.Answer`."""

    complete: bool

    async def next(self) -> Sequence[Event]:
        """The next of it."""
        ...

    def close(self) -> None:
        """Stop."""
        ...


AnySource = TypeVar("AnySource", bound=Source)


class LeftError(MixgateError):
    """Whoever asked first left before anybody was asked. Never seen by a client: another one asks."""


class Flight(Generic[AnySource]):
    """One answer and who listens to it. Belongs to one event loop."""

    def __init__(self, source_id: str, *, held_max_bytes: int = HELD_MAX_BYTES) -> None:
        self.source_id = source_id
        """The generation id of the request that it is made for."""
        self.source: AnySource | None = None
        self.whole = False
        """Whether all of it is here."""
        self.error: BaseException | None = None
        """What it ended with, if not well."""
        self.joinable = True
        """Whether whoever comes now gets all of it."""
        self._held_max_bytes = held_max_bytes
        self._batches: list[Sequence[Event]] = []
        self._first = 0
        self._size_bytes = 0
        self._listeners: set[Listener[AnySource]] = set()
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None

    def begin(self, source: AnySource, ended: "Callable[[Flight[AnySource]], None]") -> None:
        """Read it, for as long as somebody listens.

        Args:
            source: The answer.
            ended: Called once when all is over, before any listener can know.
        """
        self.source = source
        self._task = asyncio.get_running_loop().create_task(self._run(source, ended))
        self._wake()

    def fail(self, error: BaseException) -> None:
        """There will be no more of it."""
        self.joinable = False
        if self.error is None:
            self.error = error
        self._wake()

    def listen(self) -> "Listener[AnySource]":
        """Get all of it, from the beginning. `Listener.leave` must be called in any case."""
        listener = Listener(self)
        self._listeners.add(listener)
        return listener

    def events(self) -> list[Event]:
        """All that is held."""
        return [event for batch in self._batches for event in batch]

    def end(self) -> int:
        """How many batches there have been."""
        return self._first + len(self._batches)

    def since(self, position: int) -> Sequence[Event]:
        """What came after so many batches."""
        batches = self._batches[position - self._first :]
        return batches[0] if len(batches) == 1 else [event for batch in batches for event in batch]

    def lose(self, listener: "Listener[AnySource]") -> None:
        """Somebody does not listen any more."""
        self._listeners.discard(listener)
        if self._listeners:
            self.look_drained()
        elif self._task is not None:
            self.joinable = False
            self._task.cancel()

    def look_drained(self) -> None:
        """Whether everybody has heard everything, in case that is waited for."""
        drained = self._drained
        if drained is not None and not drained.done() and self._is_heard():
            drained.set_result(None)

    def _is_heard(self) -> bool:
        return all(one.position >= self.end() for one in self._listeners)

    async def _run(self, source: AnySource, ended: "Callable[[Flight[AnySource]], None]") -> None:
        try:
            while not source.complete:
                self._add(await source.next(), whole=source.complete)
                if self._size_bytes > self._held_max_bytes:
                    await self._drain()
        except (MixgateError, asyncio.CancelledError) as error:
            self.fail(error)
        except Exception as error:  # noqa: BLE001 - whoever listens must hear of it, whatever it is; logged
            _log.exception("an answer that is shared failed")
            self.fail(error)
        finally:
            source.close()
            ended(self)

    def _add(self, events: Sequence[Event], *, whole: bool) -> None:
        self._size_bytes += sum(map(_size_bytes, events))
        self._batches.append(events)
        self.whole = whole
        self._wake()

    async def _drain(self) -> None:
        """It is too long to be held: let everybody hear what there is, and forget that."""
        self.joinable = False
        while not self._is_heard():
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        self._drained = None
        self._first = self.end()
        self._batches.clear()

    def _wake(self) -> None:
        for listener in self._listeners:
            listener.wake()


class Listener(Generic[AnySource]):
    """One who gets all of an answer."""

    __slots__ = ("_flight", "_waiter", "position")

    def __init__(self, flight: Flight[AnySource]) -> None:
        self._flight = flight
        self._waiter: asyncio.Future[None] | None = None
        self.position = 0
        """Batches heard."""

    async def begun(self) -> AnySource:
        """The answer, once it is known that there will be one.

        Raises:
            MixgateError: There will be none.
        """
        flight = self._flight
        while flight.source is None:
            if flight.error is not None:
                raise flight.error
            await self._wait()
        return flight.source

    async def next(self) -> Sequence[Event]:
        """What came since the last time; waits for it where that is nothing.

        Raises:
            MixgateError: It broke off.
        """
        flight = self._flight
        while (end := flight.end()) == self.position:
            if flight.error is not None:
                raise flight.error
            if flight.whole:
                return ()
            await self._wait()
        events, self.position = flight.since(self.position), end
        flight.look_drained()
        return events

    @property
    def heard_all(self) -> bool:
        """Whether there is nothing more to come."""
        return self._flight.whole and self.position == self._flight.end()

    def wake(self) -> None:
        """There is something new."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def leave(self) -> None:
        """Hear no more of it. Idempotent."""
        self._flight.lose(self)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


def _size_bytes(event: Event) -> int:
    match event:
        case TextDelta() | ReasoningDelta() | RefusalDelta():
            return EVENT_COST_BYTES + len(event.text)
        case ToolCallDelta():
            return EVENT_COST_BYTES + len(event.arguments)
        case ExtrasDelta():
            return EVENT_COST_BYTES + sum(len(str(value)) for value in event.members.values())
        case _:
            return EVENT_COST_BYTES

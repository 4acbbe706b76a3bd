"""One connection to Redis that commands of many requests share: sent together, answered in order.

Nobody who waits for an answer touches the connection, so nobody who stops waiting can part a question from its answer.
Whatever goes wrong with the connection ends it, and what was on it ends with LaneDownError: nobody knows then whether
it was done. The next connection is a new one. While there is none, asking fails at once.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

CONNECT_MAX_S: Final = 2.0
"""How long connecting and introducing oneself may take."""
BATCH_MAX_S: Final = 2.0
"""How long the answer to what was sent may take; then the connection is given up."""
BATCH_MAX: Final = 256
"""Commands sent at once."""
STUCK_S: Final = 0.5
"""Redis that is slow for so long is not asked for what could be refused instead."""
WAITING_MAX: Final = 65_536
"""Commands that wait to be sent; beyond that, asking fails."""
BACK_FIRST_S: Final = 0.1
"""When a connection is tried again, later and later."""
BACK_MAX_S: Final = 1.0

Word: TypeAlias = str | bytes | int
Command: TypeAlias = tuple[Word, ...]
_log = logging.getLogger("mixgate.sharing")


class LaneDownError(Exception):
    """There is no connection, or it was lost while somebody waited."""


class ScriptError(Exception):
    """Redis refused one command, and went on with the others."""


class Link(Protocol):
    """A connection as the lane uses it."""

    async def open(self) -> None:
        """Connect.

        Raises:
            OSError: It could not.
        """
        ...

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send all, and read as many answers; a refused one is a ScriptError in its place.

        Raises:
            OSError: The connection is of no use any more.
        """
        ...

    async def close(self) -> None:
        """Break it off, wherever it is. Does not raise."""
        ...


Greet: TypeAlias = Callable[[Link], Awaitable[None]]


class Lane:
    """A connection that is made again whenever it is lost.

    Args:
        make: A new connection, not yet open.
        greet: Called with each new connection before anything else is sent; what it raises ends the connection.
        name: For the log.
    """

    def __init__(self, make: Callable[[], Link], greet: Greet, name: str) -> None:
        self._make = make
        self._greet = greet
        self._name = name
        self._waiting: deque[tuple[Command, asyncio.Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._quit = False
        self.up = False
        """Whether a connection was greeted and is of use as far as known."""
        self.slow = False
        """Whether somebody waited longer than anybody should; until the next answer."""
        self._slow_since_s = 0.0
        self.reason = "not connected yet"
        """Why it is not up, without addresses."""
        self.losses = 0
        """Connections that were lost."""
        self.down_since_s = 0.0
        """Since when it is not up, by the loop's clock. Means something while it is not."""
        self.on_down: Callable[[], None] = _nothing
        self.on_up: Callable[[], None] = _nothing

    @property
    def brisk(self) -> bool:
        """Whether a question is likely to be answered soon."""
        return self.up and not self.slow

    def note_slow(self) -> None:
        """Somebody waited longer than anybody should, and has no answer yet."""
        if not self.slow:
            self.slow = True
            self._slow_since_s = asyncio.get_running_loop().time()

    @property
    def is_stuck(self) -> bool:
        """Whether it has been slow for a while: a busy machine is not, a Redis that does not answer is."""
        return self.slow and asyncio.get_running_loop().time() >= self._slow_since_s + STUCK_S

    def ask(self, command: Command) -> "asyncio.Future[Any]":
        """Send a command. The future may be left alone; whoever waits for it shields it.

        Raises:
            LaneDownError: There is no connection.
        """
        if not self.up or len(self._waiting) >= WAITING_MAX:
            raise LaneDownError(self.reason or "too much waits to be sent")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_look)
        self._waiting.append((command, future))
        self._wake.set()
        return future

    def tell(self, command: Command) -> bool:
        """Send a command whose answer nobody wants, if there is a connection. Never raises, never waits."""
        if not self.up or len(self._waiting) >= WAITING_MAX:
            return False
        self.ask(command)
        return True

    async def ask_within(self, command: Command, limit_s: float) -> Any:
        """Send a command, and wait so long for the answer.

        Raises:
            LaneDownError: None came; whether it was done, nobody knows.
            ScriptError: It was refused.
        """
        future = self.ask(command)
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.shield(future)
        except TimeoutError:
            if not future.done():
                self.note_slow()
            raise LaneDownError("no answer in time") from None

    def reset(self, reason: str) -> None:
        """Give the connection up, and greet anew."""
        self._quit = True
        self.reason = reason
        self._go_down()
        self._wake.set()

    async def run(self) -> None:
        """Keep a connection, until cancelled."""
        back_s = 0.0
        self.down_since_s = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(back_s)
            back_s = min(max(BACK_FIRST_S, back_s * 2), BACK_MAX_S)
            link = self._make()
            try:
                async with asyncio.timeout(CONNECT_MAX_S):
                    await link.open()
                    await self._greet(link)
                self._open_up()
                back_s = 0.0
                await self._serve(link)
            except (OSError, ScriptError, LaneDownError) as error:  # a TimeoutError is an OSError
                self._note_loss(error)
            finally:
                self._go_down()
                await link.close()
                self._fail_all()
            back_s = max(back_s, BACK_FIRST_S)

    def _open_up(self) -> None:
        if self.reason:
            _log.info("Redis (%s) can be used", self._name)
        self._quit = self.slow = False
        self.up = True
        self.reason = ""
        self.on_up()

    def _go_down(self) -> None:
        if self.up:
            self.up = False
            self.down_since_s = asyncio.get_running_loop().time()
            self.on_down()

    def _note_loss(self, error: Exception) -> None:
        if not self.reason or not self.losses:
            _log.warning("Redis (%s) cannot be used now: %s", self._name, error or type(error).__name__)
        self.losses += 1
        self.reason = "Redis does not answer in time" if isinstance(error, TimeoutError) else "Redis cannot be used"

    async def _serve(self, link: Link) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                if self._quit:
                    raise LaneDownError(self.reason)
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_MAX))]
                await self._exchange(link, batch)
            if self._quit:
                raise LaneDownError(self.reason)

    async def _exchange(self, link: Link, batch: list[tuple[Command, "asyncio.Future[Any]"]]) -> None:
        try:
            async with asyncio.timeout(BATCH_MAX_S):
                answers = await link.exchange([command for command, _ in batch])
        except BaseException:
            for _, future in batch:
                if not future.done():
                    future.set_exception(LaneDownError("the connection was lost"))
            raise
        self.slow = False
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, ScriptError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _fail_all(self) -> None:
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(LaneDownError(self.reason))


def _look(future: "asyncio.Future[Any]") -> None:
    """Somebody has looked at how it ended, even where nobody waits for it any more."""
    if not future.cancelled():
        future.exception()


def _nothing() -> None:
    """Nobody wants to know."""

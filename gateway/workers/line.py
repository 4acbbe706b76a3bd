"""A worker's line to the owner: made, made anew whenever it breaks, and begun with all that the owner must know."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.keys.key import KeyRecord
from gateway.workers.link import AwayError, DeclinedError, Link, connect, socket_path
from gateway.workers.messages import (
    FiguresAsked,
    Hello,
    HintTold,
    KeyChanged,
    Live,
    LiveAsked,
    LocalHead,
    LocalModels,
    LocalPiece,
    Welcome,
    Written,
)

CONNECT_TIMEOUT_S: Final = 2.0
RECONNECT_EVERY_S: Final = 0.05
"""How often it is looked for an owner that is away."""
RECONNECT_EVERY_MAX_S: Final = 1.0
WELCOME_WAIT_S: Final = 10.0
FLUSH_WAIT_S: Final = 10.0
"""How long what was settled may take to be in the owner's store before it is said once more."""
EXIT_TORN: Final = 71
"""The line broke and the owner lives: what either of them has not heard nobody knows, so the journal must say."""

_log = logging.getLogger("mixgate.workers")


class OwnerLine:
    """The line.

    Args:
        home: MIXGATE_HOME.
        name: Of this worker.
        hello: What is to be said first.
        flush: Waits until the owner's store has all that was settled so far; False if that took too long. Blocks.
    """

    def __init__(self, home: Path, name: str, flush: Callable[[float], bool]) -> None:
        self.hello: Callable[[], Hello] = lambda: Hello(name)
        self.on_key: Callable[[KeyRecord], None] = _ignore
        self.on_hint: Callable[[HintTold], None] = _ignore
        self.on_local: Callable[[LocalHead | LocalPiece | LocalModels | None], None] = _ignore
        self.on_figures: Callable[[], Any] = lambda: None
        self.on_live: Callable[[], Live] = lambda: (0, ())
        self.reconnections = 0
        self._path = socket_path(home)
        self._flush = flush
        self._link: Link | None = None
        self._owner = ""
        self._up = asyncio.Event()
        self._lost = asyncio.Event()

    @property
    def up(self) -> bool:
        """Whether the owner is there."""
        return self._up.is_set()

    async def run(self) -> None:
        """Keep it up, until cancelled; what was told by then is still delivered."""
        try:
            await self._keep_up()
        finally:
            self._up.clear()
            if self._link is not None:
                self._link.close()

    async def _keep_up(self) -> None:
        wait_s = RECONNECT_EVERY_S
        while True:
            try:
                await self._connect()
            except (OSError, AwayError, DeclinedError, TimeoutError) as error:
                _log.debug("the owner is not there yet: %s", error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RECONNECT_EVERY_MAX_S)
                continue
            wait_s = RECONNECT_EVERY_S
            confirming = asyncio.create_task(self._confirm())
            await self._lost.wait()
            confirming.cancel()
            self._up.clear()
            self.on_local(None)
            _log.warning("the owner of the store is away; its part waits, requests go on")

    async def wait_up(self, timeout_s: float) -> bool:
        """Wait until it is there. False if that takes too long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._up.wait(), timeout_s)
        return self.up

    def tell(self, message: Any) -> None:
        """Say something. Where the owner is away, the next one learns what it comes to from the greeting."""
        if self._link is not None and self._up.is_set():
            self._link.tell(message)

    async def ask(self, message: Any, kind: Any) -> Any:
        """Ask something.

        Raises:
            AwayError: The owner is away, or went before it answered.
            DeclinedError: It says no.
        """
        if self._link is None or not self._up.is_set():
            raise AwayError
        return await self._link.ask(message, kind)

    async def ask_until_heard(self, message: Any, kind: Any) -> Any:
        """Ask something that may be asked twice, of the next owner too. To be called with a limit of time.

        Raises:
            DeclinedError: It says no.
        """
        while True:
            await self._up.wait()
            with contextlib.suppress(AwayError):
                return await self.ask(message, kind)
            await asyncio.sleep(0)

    async def _connect(self) -> None:
        self._lost.clear()
        connection = await asyncio.to_thread(connect, self._path, CONNECT_TIMEOUT_S)
        connection.setblocking(False)  # noqa: FBT003  # the socket API
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(lambda: Link(self._answer, self._lost.set), sock=connection)
        # Said in one step: what was is in the greeting, and what comes is told behind it.
        answering = link.begin(self.hello())
        self._link = link
        self._up.set()
        try:
            welcome = msgspec.msgpack.decode(await asyncio.wait_for(answering, WELCOME_WAIT_S), type=Welcome)
        except BaseException:
            self._up.clear()
            self._link = None
            link.abort()
            raise
        if welcome.owner == self._owner:
            _log.critical("the line to the owner broke; this worker ends, and its journal says what it has done")
            os._exit(EXIT_TORN)
        self.reconnections += bool(self._owner)
        self._owner = welcome.owner

    async def _confirm(self) -> None:
        """Say when the store has all that Hello did not speak of."""
        while not await asyncio.to_thread(self._flush, FLUSH_WAIT_S):
            _log.warning("the owner's store does not take what this worker has settled; keys with a budget wait for it")
        self.tell(Written())

    def _answer(self, message: Any) -> Any:
        if isinstance(message, FiguresAsked):
            return self.on_figures()
        if isinstance(message, LiveAsked):
            return self.on_live()
        if isinstance(message, KeyChanged):
            self.on_key(message.record)
        elif isinstance(message, HintTold):
            self.on_hint(message)
        elif isinstance(message, (LocalHead, LocalPiece, LocalModels)):
            self.on_local(message)
        return None


def _ignore(_: Any) -> None:
    """Nobody wants to know."""

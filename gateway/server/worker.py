"""Answers the requests of one connection, one after the other, in one task."""

import asyncio
from typing import Any

from gateway.request_id import REQUEST_ID
from gateway.server.exchange import Answerer, Exchange
from gateway.server.scope import App


class Worker:
    """One for each connection. Between two requests its task waits: making one for each costs more than waking it.

    Args:
        app: Answers. An `Answerer` is spared ASGI.
        loop: In which.
        tasks: Has the task in it as long as there is something to answer.
    """

    __slots__ = ("_answerer", "_app", "_due", "_ended", "_loop", "_task", "_tasks", "_waiter")

    def __init__(self, app: App, loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[Any]]) -> None:
        self._app = app
        application: object = app
        self._answerer: Answerer | None = application if isinstance(application, Answerer) else None
        self._loop = loop
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._due: Exchange | None = None
        self._ended = False

    def begin(self, exchange: Exchange) -> None:
        """Have a request answered. The one before has its answer."""
        self._due = exchange
        if self._task is None:
            self._task = self._loop.create_task(self._work())
        else:
            self._wake()

    def end(self) -> None:
        """There will be no more; one that is being answered is not disturbed."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _work(self) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 (we are in it)
        tasks = self._tasks
        try:
            while (exchange := self._due) is not None:
                self._due = None
                exchange.task = task
                tasks.add(task)
                try:
                    if self._answerer is None:
                        await self._app(exchange.scope(), exchange.receive, exchange.send)
                    else:
                        await self._answerer.answer(exchange)
                    exchange.check_answered()
                except asyncio.CancelledError:
                    exchange.cut()
                    raise
                except Exception:  # noqa: BLE001 - the last place to turn a fault into an answer; logged there
                    exchange.fail()
                finally:
                    tasks.discard(task)
                    exchange.task = None
                    REQUEST_ID.set("")  # what is logged of the next one is not of this one
                del exchange  # Nothing of it need wait for the next one.
                if self._due is None and not self._ended:
                    self._waiter = self._loop.create_future()
                    await self._waiter
        finally:
            self._task = self._waiter = None

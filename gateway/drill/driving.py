"""How a drill has the real engine answer: the one place that knows how an engine is built and asked."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from gateway.answer import Answer
from gateway.config.catalogue import Catalogue
from gateway.engine import Engine
from gateway.fleet import Fleet
from gateway.health import Health
from gateway.upstream import Upstream
from gateway.virtual_time import VirtualClockLoop
from providers.messages import ChatRequest

SEED: Final = 20
"""Of every draw: a drill comes out the same every time."""

Send = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Takes the messages by which a server is told what to send: a start with a status, and bodies."""


class Replier(Protocol):
    """Writes an Answer to a client, as the server does."""

    async def __call__(self, answering: Awaitable[Answer], send: Send) -> Answer | None:
        """Write it to its end. An error is written too, never raised. None where there was no Answer at all."""
        ...


class Driver:
    """One engine over pretended providers. Make it inside a loop of virtual time."""

    def __init__(self, catalogue: Catalogue, upstreams: Mapping[str, Upstream], off: Mapping[str, str]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockLoop)  # noqa: S101 (nobody would wait through a drill in real time)
        draw = random.Random(SEED).random  # noqa: S311 (repeatable on purpose)
        health = Health(draw)
        health.set_routes({route.name: route.endpoints for route in catalogue.routes.values()})
        self._fleet = Fleet(catalogue, upstreams, off)
        self._engine = Engine(health, unix_time_s=loop.unix_time_s, draw=draw)

    async def answer(self, request: ChatRequest) -> Answer:
        """The answer to a request, on its way.

        Raises:
            MixgateError: Nothing can answer it.
        """
        return await self._engine.answer(request, self._fleet)

"""What all connections of one server share: the limits, a coarse clock, and the sweep that keeps the limits."""

import asyncio
import logging
import time
from email.utils import formatdate
from typing import Any, Protocol

from gateway.server.lifecycle import Lifecycle
from gateway.server.limits import DEFAULT_LIMITS, Limits

_log = logging.getLogger("mixgate.server")


class Swept(Protocol):
    """A connection as the sweep and the drain know it."""

    @property
    def busy(self) -> bool:
        """Whether a request is being received or answered."""
        ...

    def check_time(self, now_s: float) -> None:
        """End what has taken too long."""
        ...

    def shutdown(self) -> None:
        """End the connection as soon as it is not busy."""
        ...

    def abort(self) -> None:
        """End the connection now."""
        ...


class EdgeState:
    """Shared by the connections of one server. To uvicorn it is a `ServerState`, as which it has its members."""

    def __init__(self, lifecycle: Lifecycle, limits: Limits = DEFAULT_LIMITS) -> None:
        self.total_requests = 0
        self.connections: set[Swept] = set()
        self.tasks: set[asyncio.Task[Any]] = set()
        """Those in which requests are being answered now."""
        self.default_headers: list[tuple[bytes, bytes]] = []
        self.lifecycle = lifecycle
        self.limits = limits
        self.now_s = 0.0
        """The time of the last sweep: exact enough for limits of seconds, and free to read."""
        self.date_line = b""
        self.bodies_bytes = 0
        """Bytes of bodies still being received, over all connections."""
        self.sweep()

    def open_connections(self) -> list[Swept]:
        """The connections of this moment."""
        return list(self.connections)

    def sweep(self) -> None:
        """Move the clock, and have every connection look at its limits."""
        now_s = self.now_s = time.monotonic()
        self.date_line = b"date: %b\r\n" % formatdate(usegmt=True).encode("ascii")
        for connection in self.open_connections():
            try:
                connection.check_time(now_s)
            except Exception:  # noqa: BLE001 - one broken connection must not end the sweep for all; logged
                _log.exception("a connection could not be checked and is cut")
                connection.abort()

    def after(self, seconds: float) -> float:
        """The moment `seconds` from now, late enough that the coarse clock cannot make it early."""
        return self.now_s + seconds + self.limits.sweep_s

"""The default Transport: a small keep-alive HTTP/1.1 client over httptools.

Theory of operation. One `Connection` carries one exchange at a time. `send` takes an idle connection of the origin or
opens one, writes the request, and wakes once: at the end of the head for a stream, at the end of the body otherwise.
A connection goes back to the pool only when its answer was complete, was read to the end, and left no byte behind;
everything else drops it, so a cancelled exchange can never leak into the next one. A reset of a reused connection
before any byte came is the server's keep-alive clock running out, and is sent once more on a fresh connection.

Why not a library: the client is what a request costs here (docs/adr/0003-own-http-client.md). What it does not do, on
purpose: follow redirects, read proxies from the environment, decompress, cookies.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from providers.base import WireRequest
from providers.errors import ConnectError, ResetError
from providers.http_connection import Connection, HttpResponse, Pool, StaleError

TARGETS_MAX: Final = 1024
"""URLs that are kept taken apart. More come only from providers that hand out URLs, each of them used once."""
HEADS_MAX: Final = 64
"""Heads of requests that are kept for one URL. Signed ones are new every time and only pass through."""
CONNECTIONS_MAX: Final = 4096
"""Open connections to one origin; one more is refused rather than queued."""


class Origin(Struct, frozen=True):
    """Where a URL's connection goes."""

    host: str
    port: int
    tls: bool


class _Target(Struct):
    """A URL taken apart once, with the heads of the last requests to it."""

    origin: Origin
    line: bytes
    host: bytes
    pool: Pool
    heads: dict[int, tuple[Mapping[str, str], bytes]] = {}
    """By the identity of the headers, which are kept so that it stays theirs. Models of one provider share its URL."""
    last: tuple[Mapping[str, str], bytes] | None = None
    """What was asked for last."""

    def head(self, headers: Mapping[str, str]) -> bytes:
        """All of a request's head but its length. Whoever sends the same headers object again gets the same bytes."""
        last = self.last
        if last is not None and last[0] is headers:
            return last[1]
        known = self.heads.get(id(headers))
        if known is None:
            if len(self.heads) >= HEADS_MAX:
                self.heads.clear()
            known = self.heads[id(headers)] = (headers, _head(self, headers))
        self.last = known
        return known[1]


class HttpTransport:
    """Carries requests over pooled connections. Belongs to one event loop."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._loop: asyncio.AbstractEventLoop | None = None
        self._targets: dict[tuple[str, str], _Target] = {}
        self._pools: dict[Origin, Pool] = {}

    async def send(self, request: WireRequest, *, connect_timeout_s: float) -> HttpResponse:
        """Send, and return once the head is here (stream) or the whole body (not stream).

        Raises:
            ProviderError: ConnectError, TruncatedError or GarbledError.
        """
        target = self._targets.get((request.method, request.url)) or self._target(request)
        data = b"%bcontent-length: %d\r\n\r\n%b" % (target.head(request.headers), len(request.body), request.body)
        pool = target.pool
        # Kept, because asking which loop runs is a system call on some Pythons.
        loop = self._loop = self._loop or asyncio.get_running_loop()
        connection = pool.take(loop.time())
        while True:
            fresh = connection is None
            if connection is None:
                connection = await self._connect(target.origin, pool, connect_timeout_s, loop)
            try:
                await connection.begin(data, stream=request.stream)
            except StaleError:
                connection.drop()
                if fresh:
                    host = target.origin.host
                    raise ResetError(f"{host} closed the connection before it answered") from None
                connection = None
            except BaseException:
                connection.drop()
                raise
            else:
                return connection.answered()

    async def aclose(self) -> None:
        """Drop every connection."""
        for pool in self._pools.values():
            for connection in tuple(pool.open):
                connection.drop()

    def _target(self, request: WireRequest) -> _Target:
        parts = urlsplit(request.url)
        tls = parts.scheme == "https"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        origin = Origin(parts.hostname or "", parts.port or (443 if tls else 80), tls)
        target = _Target(
            origin=origin,
            line=f"{request.method} {path} HTTP/1.1\r\n".encode("ascii"),
            host=parts.netloc.rpartition("@")[2].encode("ascii"),
            pool=self._pools.get(origin) or self._pools.setdefault(origin, Pool()),
        )
        if len(self._targets) >= TARGETS_MAX:
            self._targets.clear()
        self._targets[request.method, request.url] = target
        return target

    async def _connect(
        self, origin: Origin, pool: Pool, timeout_s: float, loop: asyncio.AbstractEventLoop
    ) -> Connection:
        if len(pool.open) >= CONNECTIONS_MAX:
            raise ConnectError(f"{CONNECTIONS_MAX} connections to {origin.host} are open already")
        if origin.tls and self._tls is None:
            # Reading the system's certificates takes tens of milliseconds.
            self._tls = await loop.run_in_executor(None, ssl.create_default_context)
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(pool, loop), origin.host, origin.port, ssl=self._tls if origin.tls else None
                )
        except TimeoutError:
            raise ConnectError(f"no connection to {origin.host} within {timeout_s:g} s") from None
        except ssl.SSLError as error:
            raise ConnectError(f"no secure connection to {origin.host}: {error.reason}") from error
        except (OSError, UnicodeError) as error:
            raise ConnectError(f"cannot connect to {origin.host}: {_os_reason(error)}") from error
        return connection


def _os_reason(error: OSError | UnicodeError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or error.__class__.__name__


def _head(target: _Target, headers: Mapping[str, str]) -> bytes:
    lines = [target.line, b"host: ", target.host, b"\r\naccept-encoding: identity\r\n"]
    for name, value in headers.items():
        line = f"{name}: {value}"
        if "\r" in line or "\n" in line or "\0" in line:
            raise ValueError(f"header {name!r} holds a line break")
        lines.append(line.encode("latin-1") + b"\r\n")
    return b"".join(lines)

"""The default Transport: a small keep-alive HTTP/1.1 client over httptools.

Theory of operation. One `_Connection` carries one exchange at a time. `send` takes an idle connection of the origin or
opens one, writes the request, and wakes once: at the end of the head for a stream, at the end of the body otherwise.
A connection goes back to the pool only when its answer was complete, was read to the end, and left no byte behind;
everything else drops it, so a cancelled exchange can never leak into the next one. A reset of a reused connection
before any byte came is the server's keep-alive clock running out, and is sent once more on a fresh connection.

Why not a library: the client is what a request costs here (docs/adr/0003-own-http-client.md). What it does not do, on
purpose: follow redirects, read proxies from the environment, decompress, cookies.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

import httptools
from msgspec import Struct

from providers.base import WireRequest
from providers.errors import ConnectError, GarbledError, ProviderError, TruncatedError

HEAD_MAX_BYTES: Final = 32 * 1024
BODY_MAX_BYTES: Final = 32 * 1024 * 1024
STREAM_MAX_BYTES: Final = 64 * 1024 * 1024
QUEUE_PAUSE_BYTES: Final = 256 * 1024
"""Unread bytes of a stream at which the provider is told to wait."""
SMALL_PART_BYTES: Final = 256
JOINED_PART_BYTES: Final = 4096
"""Unread parts up to these sizes are joined as they come."""
TARGETS_MAX: Final = 1024
"""URLs that are kept taken apart. More come only from providers that hand out URLs, each of them used once."""
IDLE_CONNECTIONS_MAX: Final = 512
CONNECTIONS_MAX: Final = 4096
"""Open connections to one origin; one more is refused rather than queued."""
IDLE_MAX_S: Final = 55.0
"""How long an unused connection is trusted: under the 60 s after which most servers and balancers hang up."""


LINGER_S: Final = 1.0
"""How long the end of an answer's framing may lag behind its content before the connection is dropped."""


_TELLING_LENGTHS: Final = frozenset(map(len, ("content-length", "transfer-encoding", "content-encoding")))
"""Only headers of these lengths can say how the body is framed or coded."""


class Origin(Struct, frozen=True):
    """Where a URL's connection goes."""

    host: str
    port: int
    tls: bool


class _Target(Struct):
    """A URL taken apart once, with the head of the last request to it."""

    origin: Origin
    line: bytes
    host: bytes
    headers: Mapping[str, str] | None = None
    head: bytes = b""


class HttpTransport:
    """Carries requests over pooled connections. Belongs to one event loop."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._loop: asyncio.AbstractEventLoop | None = None
        self._targets: dict[tuple[str, str], _Target] = {}
        self._pools: dict[Origin, _Pool] = {}

    async def send(self, request: WireRequest, *, connect_timeout_s: float) -> "HttpResponse":
        """Send, and return once the head is here (stream) or the whole body (not stream).

        Raises:
            ProviderError: ConnectError, TruncatedError or GarbledError.
        """
        target = self._targets.get((request.method, request.url)) or self._target(request)
        if request.headers is not target.headers:
            target.head = _head(target, request.headers)
            target.headers = request.headers
        data = b"%bcontent-length: %d\r\n\r\n%b" % (target.head, len(request.body), request.body)
        pool = self._pools.get(target.origin) or self._pools.setdefault(target.origin, _Pool())
        # Kept, because asking which loop runs is a system call on some Pythons.
        loop = self._loop = self._loop or asyncio.get_running_loop()
        connection = pool.take(loop.time())
        if connection is not None:
            try:
                return await connection.exchange(data, stream=request.stream)
            except _StaleError:
                pass
        connection = await self._connect(target.origin, pool, connect_timeout_s, loop)
        try:
            return await connection.exchange(data, stream=request.stream)
        except _StaleError:
            raise ConnectError(f"{target.origin.host} closed the connection before it answered") from None

    async def aclose(self) -> None:
        """Drop every connection."""
        for pool in self._pools.values():
            for connection in tuple(pool.open):
                connection.drop()

    def _target(self, request: WireRequest) -> _Target:
        parts = urlsplit(request.url)
        tls = parts.scheme == "https"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        target = _Target(
            origin=Origin(parts.hostname or "", parts.port or (443 if tls else 80), tls),
            line=f"{request.method} {path} HTTP/1.1\r\n".encode("ascii"),
            host=parts.netloc.rpartition("@")[2].encode("ascii"),
        )
        if len(self._targets) >= TARGETS_MAX:
            self._targets.clear()
        self._targets[request.method, request.url] = target
        return target

    async def _connect(
        self, origin: Origin, pool: "_Pool", timeout_s: float, loop: asyncio.AbstractEventLoop
    ) -> "_Connection":
        if len(pool.open) >= CONNECTIONS_MAX:
            raise ConnectError(f"{CONNECTIONS_MAX} connections to {origin.host} are open already")
        if origin.tls and self._tls is None:
            # Reading the system's certificates takes tens of milliseconds.
            self._tls = await loop.run_in_executor(None, ssl.create_default_context)
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(pool, loop), origin.host, origin.port, ssl=self._tls if origin.tls else None
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


class _StaleError(Exception):
    """The connection closed before a byte of the answer came."""


class _Pool:
    """The connections to one origin. Last used is used first: the rest may then run out."""

    __slots__ = ("idle", "open")

    def __init__(self) -> None:
        self.idle: deque[_Connection] = deque()
        self.open: set[_Connection] = set()

    def take(self, now_s: float) -> "_Connection | None":
        while self.idle:
            connection = self.idle.pop()
            if connection.usable(now_s):
                return connection
            connection.drop()
        return None

    def put(self, connection: "_Connection") -> None:
        if len(self.idle) < IDLE_CONNECTIONS_MAX:
            self.idle.append(connection)
        else:
            connection.drop()


class _Headers(Mapping[str, str]):
    """An answer's headers, put in order only when somebody looks: most answers' are never read."""

    __slots__ = ("_raw", "_read")

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._raw = raw
        self._read: dict[str, str] | None = None

    def _table(self) -> dict[str, str]:
        if self._read is None:
            self._read = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._raw}
        return self._read

    def __getitem__(self, name: str) -> str:
        return self._table()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table())

    def __len__(self) -> int:
        return len(self._table())


class HttpResponse:
    """One answer. Its body must be read to the end or closed."""

    __slots__ = ("_connection", "body", "headers", "status")

    def __init__(
        self, connection: "_Connection | None", status: int, headers: Mapping[str, str], body: bytes | None
    ) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers
        self.body = body

    async def read(self) -> bytes:
        """The next bytes of the body, `b""` once it is complete."""
        connection = self._connection
        if connection is None:
            return b""
        data = await connection.next_bytes()
        if connection.released:
            self._connection = None
        return data

    def close(self, *, ended: bool = False) -> None:
        """Drop the connection unless the body was read to its end, or is about to end."""
        if self._connection is not None:
            if ended:
                self._connection.linger()
            else:
                self._connection.drop()
            self._connection = None


class _Connection(asyncio.Protocol):
    """One connection; httptools calls the `on_...` methods while it parses."""

    __slots__ = (
        "_awaited",
        "_barren_bytes",
        "_busy",
        "_complete",
        "_encoding",
        "_error",
        "_framed",
        "_head_bytes",
        "_headed",
        "_headers",
        "_idle_since_s",
        "_informational",
        "_keep",
        "_lingering",
        "_loop",
        "_parser",
        "_parts",
        "_paused",
        "_pool",
        "_queued_bytes",
        "_status",
        "_stream",
        "_total_bytes",
        "_touched",
        "_transport",
        "released",
    )

    def __init__(self, pool: _Pool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parts: deque[bytes] = deque()
        self._awaited: asyncio.Future[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._busy = False
        self._idle_since_s = 0.0
        self._reset(stream=False)

    def _reset(self, *, stream: bool) -> None:
        self._stream = stream
        self._headers: list[tuple[bytes, bytes]] = []
        self._encoding = b""
        self._error: ProviderError | None = None
        self._barren_bytes = self._head_bytes = self._queued_bytes = self._total_bytes = 0
        self._status = 0
        self._headed = self._complete = self._framed = self._informational = self._paused = self._touched = False
        self.released = False
        self._keep = True

    # --- used by the transport and the response ---

    def usable(self, now_s: float) -> bool:
        """Whether it is still worth trying."""
        return self._transport is not None and now_s - self._idle_since_s < IDLE_MAX_S

    async def exchange(self, data: bytes, *, stream: bool) -> HttpResponse:
        """Write one request and wait for its head, or its whole answer."""
        transport = self._transport
        if transport is None:
            raise _StaleError
        self._reset(stream=stream)
        self._busy = True
        transport.write(data)
        self._awaited = self._loop.create_future()
        try:
            await self._awaited
        except BaseException:
            self.drop()
            raise
        finally:
            self._awaited = None
        if stream:
            return HttpResponse(self, self._status, _Headers(self._headers), None)
        return HttpResponse(None, self._status, _Headers(self._headers), self._take_whole())

    def _take_whole(self) -> bytes:
        """The complete body; the connection is free again."""
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._release()
        return body

    async def next_bytes(self) -> bytes:
        """What has come since the last call; waits when nothing has."""
        parts = self._parts
        while not parts:
            if self._error is not None:
                raise self._error
            if self._complete:
                self._release()
                return b""
            self._awaited = self._loop.create_future()
            try:
                await self._awaited
            finally:
                self._awaited = None
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._queued_bytes = 0
        if self._complete and self._error is None:
            self._release()
        elif self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def linger(self) -> None:
        """The answer has been understood: keep the connection if its last bytes come soon, drop it otherwise."""
        self._parts.clear()
        if self._complete:
            self._release()
        else:
            self._lingering = self._loop.call_later(LINGER_S, self.drop)

    def drop(self) -> None:
        """Close at once. Whoever waits is told by connection_lost."""
        if self._transport is not None:
            self._transport.abort()
            self._forget()

    def _forget(self) -> None:
        self._transport = None
        self._pool.open.discard(self)

    def _release(self) -> None:
        """The answer is complete and read: the connection may serve again."""
        self._busy = False
        self.released = True
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._keep and self._transport is not None:
            if self._paused:  # a last burst stopped the reading; without this the next exchange would hear nothing
                self._paused = False
                self._transport.resume_reading()
            self._idle_since_s = self._loop.time()
            self._pool.put(self)
        else:
            self.drop()

    def _wake(self) -> None:
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(None)

    def _fail(self, error: Exception) -> None:
        """End the exchange with an error, at the place where somebody waits for it."""
        self._keep = False
        if isinstance(error, ProviderError):
            self._error = error
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_exception(error)
        if self._transport is not None:
            self._transport.abort()
            self._forget()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # TCP and TLS transports are asyncio.Transport
        self._pool.open.add(self)

    def data_received(self, data: bytes) -> None:
        if not self._busy or self._complete:
            self.drop()
            return
        self._touched = True
        body_bytes = self._total_bytes
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._complete:
                self._fail(GarbledError("the provider's answer is not HTTP"))
            return
        if self._total_bytes != body_bytes:
            self._barren_bytes = 0
        elif not self._complete and self._error is None:
            # The parser shows a header, a trailer or an extension when it is whole: an endless one never is.
            self._barren_bytes += len(data)
            if self._barren_bytes > HEAD_MAX_BYTES:
                self._fail(GarbledError("the provider's answer has too large a head"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        if not self._busy or self._complete or self._error is not None:
            if self in self._pool.idle:
                self._pool.idle.remove(self)
            return
        if not self._touched:
            self._fail(_StaleError())
        elif self._headed and not self._framed and exc is None:
            self._finish()  # a body that ends where the connection does
        else:
            self._fail(TruncatedError("the provider hung up in the middle of its answer"))

    # --- httptools callbacks ---

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header. Framing headers decide where the body ends."""
        if self._complete:
            self._refuse_surplus()
            return
        length = len(name)
        self._head_bytes += length + len(value)
        if self._head_bytes > HEAD_MAX_BYTES:
            self._fail(GarbledError("the provider's answer has too large a head"))
            return
        self._headers.append((name, value))
        if length in _TELLING_LENGTHS:
            key = name.lower()
            if key in (b"content-length", b"transfer-encoding"):
                self._framed = True
            elif key == b"content-encoding":
                self._encoding = value.lower()

    def on_headers_complete(self) -> None:
        """The head is here: 1xx heads are passed over, a compressed body is refused."""
        if self._complete:
            self._refuse_surplus()
            return
        self._status = self._parser.get_status_code()
        if 100 <= self._status < 200:
            self._informational = True
            return
        self._headed = True
        if self._encoding not in (b"", b"identity"):
            self._fail(GarbledError("the provider compressed its answer though asked not to"))
        elif self._stream:
            self._wake()

    def on_body(self, body: bytes) -> None:
        """More of the body."""
        if self._complete:
            self._refuse_surplus()
            return
        parts = self._parts
        if parts and len(body) < SMALL_PART_BYTES and len(parts[-1]) < JOINED_PART_BYTES:
            parts[-1] += body  # a body in chunks of one byte would otherwise take ten times its size
        else:
            parts.append(body)
        self._total_bytes += len(body)
        self._queued_bytes += len(body)
        if self._total_bytes > (STREAM_MAX_BYTES if self._stream else BODY_MAX_BYTES):
            self._parts.clear()
            self._fail(GarbledError("the provider's answer is over the size limit"))
        elif self._stream:
            if self._queued_bytes > QUEUE_PAUSE_BYTES and not self._paused and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()
            self._wake()

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._informational:
            self._informational = False
            self._headers = []
            return
        if self._complete:
            self._refuse_surplus()
            return
        self._keep = self._keep and self._parser.should_keep_alive()
        self._finish()

    def _refuse_surplus(self) -> None:
        """Bytes behind the answer that nobody asked for: whose answer are they? The connection serves no more."""
        self._keep = False
        if self.released:
            self.drop()

    def _finish(self) -> None:
        self._complete = True
        if self._lingering is not None:
            self._release()
        else:
            self._wake()

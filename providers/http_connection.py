"""One keep-alive HTTP/1.1 connection, the pool it waits in, and the answer that is read from it.

A `Connection` carries one exchange at a time and goes back to its pool only when the answer was complete, was read to
the end, and left no byte behind; everything else drops it, so a cancelled exchange never leaks into the next one.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Iterator, Mapping
from types import SimpleNamespace
from typing import Final

import httptools

from providers.errors import GarbledError, ProviderError, TruncatedError

HEAD_MAX_BYTES: Final = 32 * 1024
BODY_MAX_BYTES: Final = 32 * 1024 * 1024
STREAM_MAX_BYTES: Final = 64 * 1024 * 1024
QUEUE_PAUSE_BYTES: Final = 64 * 1024
"""Unread bytes of a stream at which the provider is told to wait."""
SMALL_PART_BYTES: Final = 256
JOINED_PART_BYTES: Final = 4096
"""Unread parts up to these sizes are joined as they come."""
IDLE_CONNECTIONS_MAX: Final = 512
IDLE_MAX_S: Final = 55.0
"""How long an unused connection is trusted: under the 60 s after which most servers and balancers hang up."""
LINGER_S: Final = 1.0
"""How long the end of an answer's framing may lag behind its content before the connection is dropped."""
_FRAMING: Final = frozenset({"content-length", "transfer-encoding"})
_CODING: Final = b"content-encoding"
_HEAD_END: Final = b"\r\n\r\n"


class StaleError(Exception):
    """The connection closed before a byte of the answer came."""


class Pool:
    """The connections to one origin. Last used is used first: the rest may then run out."""

    __slots__ = ("idle", "open")

    def __init__(self) -> None:
        self.idle: deque[Connection] = deque()
        self.open: set[Connection] = set()

    def take(self, now_s: float) -> "Connection | None":
        """An idle connection that is worth trying."""
        while self.idle:
            connection = self.idle.pop()
            if connection.usable(now_s):
                return connection
            connection.drop()
        return None

    def put(self, connection: "Connection") -> None:
        """Keep a connection for later."""
        if len(self.idle) < IDLE_CONNECTIONS_MAX:
            self.idle.append(connection)
        else:
            connection.drop()


class _Headers(Mapping[str, str]):
    """An answer's headers, taken apart only when somebody looks: most answers' are never read.

    The parser has read the head before and lets only lines of a name, a colon and a value pass, each with CR LF.
    """

    __slots__ = ("_head", "_read")

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._read: dict[str, str] | None = None

    def _table(self) -> dict[str, str]:
        if self._read is None:
            lines = self._head.decode("latin-1").split("\r\n")[1:]
            parts = (line.partition(":") for line in lines)
            self._read = {name.lower(): value.strip(" \t") for name, _, value in parts}
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
        self, connection: "Connection | None", status: int, headers: Mapping[str, str], body: bytes | None
    ) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers
        self.body = body

    def read(self) -> Awaitable[bytes]:
        """The next bytes of the body, `b""` once it is complete."""
        return _nothing() if self._connection is None else self._connection.next_bytes()

    def let_go(self) -> None:
        """The body has been read to its end: the connection is no longer ours."""
        self._connection = None

    def close(self, *, ended: bool = False) -> None:
        """Drop the connection unless the body was read to its end, or is about to end."""
        if self._connection is not None:
            if ended:
                self._connection.linger()
            else:
                self._connection.drop()
            self._connection = None


async def _nothing() -> bytes:
    return b""


def _is_plain(headers: Mapping[str, str]) -> bool:
    return headers.get("content-encoding", "").lower() in ("", "identity")


class Connection(asyncio.Protocol):
    """One connection; httptools calls the `_on_...` methods while it parses."""

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        # httptools is told of no headers: most are never looked at, and being shown each costs more than all else.
        self._parser = httptools.HttpResponseParser(
            SimpleNamespace(
                on_message_begin=self._on_message_begin,
                on_headers_complete=self._on_headers_complete,
                on_body=self._on_body,
                on_message_complete=self._on_message_complete,
            )
        )
        self._parts: deque[bytes] = deque()
        self._awaited: asyncio.Future[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._busy = False
        self._response: HttpResponse | None = None
        self._idle_since_s = 0.0
        self._reset(stream=False)

    def _reset(self, *, stream: bool) -> None:
        self._stream = stream
        self._head = b""
        self._error: ProviderError | None = None
        self._barren_bytes = self._queued_bytes = self._total_bytes = self._status = 0
        self._headed = self._complete = self._informational = self._paused = self._touched = self.released = False
        self._keep = True

    # --- used by the transport and the response ---

    def usable(self, now_s: float) -> bool:
        """Whether it is still worth trying."""
        return self._transport is not None and now_s - self._idle_since_s < IDLE_MAX_S

    def begin(self, data: bytes, *, stream: bool) -> "asyncio.Future[None]":
        """Write one request. To be awaited: its answer's head, or its whole answer. If that fails, `drop` it.

        Raises:
            StaleError: It has been closed meanwhile.
        """
        transport = self._transport
        if transport is None:
            raise StaleError
        self._reset(stream=stream)
        self._busy = True
        transport.write(data)
        awaited = self._awaited = self._loop.create_future()
        return awaited

    def answered(self) -> HttpResponse:
        """What was waited for."""
        self._awaited = None
        headers = _Headers(self._head)
        if self._stream:
            response = self._response = HttpResponse(self, self._status, headers, None)
            return response
        return HttpResponse(None, self._status, headers, self._take_whole())

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
        if self._response is not None:
            self._response.let_go()
            self._response = None
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
        """The connection is open."""
        self._transport = transport  # type: ignore[assignment]  # TCP and TLS transports are asyncio.Transport
        self._pool.open.add(self)

    def data_received(self, data: bytes) -> None:
        """More bytes of the answer."""
        if not self._busy or self._complete:
            self.drop()
            return
        self._touched = True
        body_bytes = self._total_bytes
        if not self._headed:
            self._head += data
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
        """The connection is gone, whoever ended it: what that means depends on how far the answer had come."""
        self._forget()
        if not self._busy or self._complete or self._error is not None:
            if self in self._pool.idle:
                self._pool.idle.remove(self)
            return
        if not self._touched:
            self._fail(StaleError())
        elif self._headed and exc is None and _FRAMING.isdisjoint(_Headers(self._head)):
            self._finish()  # a body that ends where the connection does
        else:
            self._fail(TruncatedError("the provider hung up in the middle of its answer"))

    # --- httptools callbacks ---

    def _on_message_begin(self) -> None:
        """The first byte of an answer's head."""
        if self._complete:
            self._refuse_surplus()

    def _on_headers_complete(self) -> None:
        """The head is here: 1xx heads are passed over, a compressed body is refused."""
        if self._complete:
            return
        self._status = self._parser.get_status_code()
        if 100 <= self._status < 200:
            self._informational = True
            return
        self._headed = True
        head = self._head.lstrip(b"\r\n")
        head = self._head = head[: head.find(_HEAD_END)]
        if len(head) > HEAD_MAX_BYTES:
            self._fail(GarbledError("the provider's answer has too large a head"))
        elif head.lower().find(_CODING) >= 0 and not _is_plain(_Headers(head)):
            self._fail(GarbledError("the provider compressed its answer though asked not to"))
        elif self._stream:
            self._wake()

    def _on_body(self, body: bytes) -> None:
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

    def _on_message_complete(self) -> None:
        """The answer is whole."""
        if self._informational:
            self._informational = False
            self._head = self._head.lstrip(b"\r\n").partition(_HEAD_END)[2]
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

"""One request and its answer, as the ASGI application sees it: scope, receive, send.

Differs from a general server where our application lets it be cheaper: the body is handed over whole, the head of the
answer waits for the first piece of its body and leaves in the same write, and nothing is made that most requests do
not use.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from uvicorn.protocols.http.flow_control import FlowControl

from gateway.errors import ShuttingDownError
from gateway.server.answer_head import BODILESS_STATUSES, STATUS_LINES, join_lines
from gateway.server.guard import Head
from gateway.server.refusals import InternalError, error_body
from gateway.server.state import EdgeState
from providers.errors import MixgateError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
SendWhole = Callable[[int, bytes, bytes], Awaitable[None]]
"""Status, header block, body: `Exchange.send_whole`."""
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ON_DISCONNECT = "mixgate.on_disconnect"
"""Scope member: give it a callable (or None) to be called once, from the event loop, if the client leaves first."""
FIELDS = "mixgate.fields"
"""Scope member: the headers as a dict of lower-case name to value, both bytes."""
HOST = "mixgate.host"
"""Scope member: the Host header's name, lower case, without port."""
SEND_WHOLE = "mixgate.send_whole"
"""Scope member: `Exchange.send_whole`, the cheap way to send an answer that is complete. `send` is as good."""
LOOPBACK = "mixgate.loopback"
"""Scope member: whether the peer is this machine."""

JOIN_MAX_BYTES = 32 * 1024
"""Pieces up to this size are copied into one write; a larger one is written on its own."""
_log = logging.getLogger("mixgate.server")


class Connection(Protocol):
    """What an exchange needs of the connection it belongs to."""

    @property
    def edge(self) -> EdgeState:
        """What all connections share."""
        ...

    @property
    def scope(self) -> Scope:
        """What the scopes of all its requests have in common."""
        ...

    @property
    def flow(self) -> FlowControl:
        """Whether the client reads slower than we write."""
        ...

    @property
    def transport(self) -> asyncio.Transport:
        """Where the bytes go."""
        ...

    def want_body(self) -> None:
        """The application asks for the body: keep reading."""
        ...

    def end_exchange(self, exchange: "Exchange") -> None:
        """The answer is complete."""
        ...

    def break_off(self) -> None:
        """The answer cannot be completed; the client must not take it for complete."""
        ...


class Exchange:
    """One request and its answer on a connection."""

    __slots__ = (
        "_callback",
        "_chunked",
        "_connection",
        "_delivered",
        "_edge",
        "_flow",
        "_left",
        "_parts",
        "_start",
        "_task",
        "_tasks",
        "_waiter",
        "_write",
        "answered",
        "body_complete",
        "content_length",
        "gone",
        "head_sent",
        "is_head",
        "keep_alive",
        "owes_continue",
        "received",
        "scope",
        "wanted",
    )

    def __init__(self, connection: Connection, head: Head) -> None:
        self._connection = connection
        self._edge = connection.edge
        self._flow = connection.flow
        self._write = connection.transport.write
        line = head.line
        self.scope: Scope = {
            **connection.scope,
            "method": line.method,
            "path": line.path,
            "raw_path": line.raw_path,
            "query_string": line.query,
            "headers": head.headers,
            FIELDS: head.fields,
            HOST: head.host,
            ON_DISCONNECT: self.on_disconnect,
            SEND_WHOLE: self.send_whole,
        }
        self.content_length = head.content_length
        self.keep_alive = head.keep_alive
        self.owes_continue = head.expects_continue
        self.is_head = line.method == "HEAD"
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] | None = None
        # Request side.
        self.received = 0
        self.body_complete = False
        self.wanted = False
        self._parts: list[bytes] = []
        self._delivered = False
        self._waiter: asyncio.Future[None] | None = None
        # Answer side.
        self.gone = False
        self.head_sent = False
        self.answered = False
        self._start: Message | None = None
        self._chunked = False
        self._left = 0
        self._callback: Callable[[], None] | None = None

    # ---- called by the connection

    def start(self, loop: asyncio.AbstractEventLoop, app: App, tasks: set[asyncio.Task[None]]) -> None:
        """Run the application for this request in a task of its own, which is in `tasks` as long as it runs."""
        self._tasks = tasks
        self._task = loop.create_task(self._run(app))
        tasks.add(self._task)

    def add_body(self, data: bytes) -> None:
        """A piece of the body arrived."""
        self.received += len(data)
        self._parts.append(data)

    def complete_body(self) -> None:
        """The body is here in full."""
        self.body_complete = True
        self.owes_continue = False
        self._wake()

    def abandon(self) -> None:
        """The client is gone, or will be told by the connection itself: nothing more is sent from here."""
        if self.gone or self.answered:
            return
        self.gone = True
        self._parts.clear()
        self._wake()
        callback, self._callback = self._callback, None
        if callback is not None:
            try:
                callback()
            except Exception:  # noqa: BLE001 - whatever it is, the connection must still be taken down; logged
                _log.exception("the application's disconnect callback failed")

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # ---- called by the application

    def on_disconnect(self, callback: Callable[[], None] | None) -> None:
        """Have `callback` called once if the client leaves before the answer is complete; None takes it back.

        A client that has already left means a call at once.
        """
        if callback is not None and self.gone:
            callback()
            return
        self._callback = callback

    async def receive(self) -> Message:
        """The whole body as one `http.request`; after that, waits for the client to leave."""
        if not self.wanted:
            self.wanted = True
            if self.owes_continue and not self.received and not self.gone:
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.owes_continue = False
            if not self.body_complete:
                self._connection.want_body()
        while not (self.gone or self.answered) and (self._delivered or not self.body_complete):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.gone or self.answered:
            return {"type": "http.disconnect"}
        self._delivered = True
        parts, self._parts = self._parts, []
        return {"type": "http.request", "body": parts[0] if len(parts) == 1 else b"".join(parts), "more_body": False}

    async def send(self, message: Message) -> None:
        """Take the start of the answer, or a piece of its body. Waits while the client reads too slowly."""
        if self._flow.write_paused and not self.gone:
            await self._flow.drain()
        if self.gone:
            return
        kind = message["type"]
        if kind == "http.response.body" and not self.answered:
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
        elif kind == "http.response.start" and self._start is None and not self.head_sent:
            self._start = message
        else:
            raise RuntimeError(f"{kind} is out of turn")

    async def send_whole(self, status: int, block: bytes, body: bytes) -> None:
        """Answer in one call, which says what the two messages of ASGI would and costs half as much.

        Args:
            status: Of an answer that has a body: neither 204 nor 304.
            block: Headers as `answer_head.header_block` renders them; several blocks may be joined.
            body: All of it.
        """
        if self._flow.write_paused and not self.gone:
            await self._flow.drain()
        if self.gone:
            return
        if self._start is not None or self.head_sent or status in BODILESS_STATUSES:
            raise RuntimeError("a whole answer is out of turn")
        edge = self._edge
        ending = b"\r\n"
        if not (self.keep_alive and self.body_complete) or edge.lifecycle.draining:
            self.keep_alive = False
            ending = b"connection: close\r\n\r\n"
        head = b"%b%b%bcontent-length: %d\r\n%b" % (STATUS_LINES[status], edge.date_line, block, len(body), ending)
        self.head_sent = True
        self._put(head, b"" if self.is_head else body, b"")
        self._end()

    def _end(self) -> None:
        """Nothing more is to be said."""
        self.answered = True
        self._callback = None
        self._wake()
        self._connection.end_exchange(self)

    def _send_body(self, body: bytes, *, more: bool) -> None:
        lead = trail = b""
        if not self.head_sent:
            lead = self._render_head(body, more=more)
        if self.is_head:
            body = b""
        elif self._chunked:
            if body:
                lead += b"%x\r\n" % len(body)
                trail = b"\r\n"
            if not more:
                trail += b"0\r\n\r\n"
        else:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body's length is not the announced Content-Length")
        self.head_sent = True
        self._put(lead, body, trail)
        if not more:
            self._end()

    def _put(self, lead: bytes, body: bytes, trail: bytes) -> None:
        """Put three pieces on the wire, in one write where copying is cheaper than writing twice."""
        if len(body) > JOIN_MAX_BYTES:
            self._write(lead)
            self._write(body)
            self._write(trail)
        elif data := lead + body + trail:
            self._write(data)

    def _render_head(self, body: bytes, *, more: bool) -> bytes:
        """Status line and headers; decides how the body is framed."""
        start = self._start
        if start is None:
            raise RuntimeError("http.response.body came before http.response.start")
        status: int = start["status"]
        lines = [STATUS_LINES[status], self._edge.date_line]
        length = None
        for name, value in start.get("headers", ()):
            if name == b"connection":
                self.keep_alive = self.keep_alive and value != b"close"
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
            if name == b"content-length":
                length = int(value)
        if length is None and status not in BODILESS_STATUSES:
            if more:
                self._chunked = not self.is_head
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                length = len(body)
                lines.append(b"content-length: %d\r\n" % length)
        self._left = length or 0
        if not (self.keep_alive and self.body_complete) or self._edge.lifecycle.draining:
            self.keep_alive = False
            lines.append(b"connection: close\r\n")
        return join_lines(lines) + b"\r\n"

    # ---- the life of the task

    async def _run(self, app: App) -> None:
        """Run the application for this request; whatever it does, the client gets an answer or a clear break."""
        try:
            await app(self.scope, self.receive, self.send)
            if not (self.answered or self.gone):
                _log.error("the application returned without completing its answer")
                self._fail(InternalError("The gateway failed to answer; this is its fault. Its log says more."))
        except asyncio.CancelledError:
            self._fail(ShuttingDownError("The gateway is shutting down; ask again.", retry_after_s=1))
            raise
        except Exception:  # noqa: BLE001 - the last place to turn a fault into an answer; logged
            _log.exception("the application failed")
            self._fail(InternalError("The gateway failed to answer; this is its fault. Its log says more."))
        finally:
            if self._tasks is not None and self._task is not None:
                self._tasks.discard(self._task)
            # Task and scope hold this exchange, and it holds them: broken up, all go at once, without the collector.
            self._task = None
            self.scope = {}

    def _fail(self, error: MixgateError) -> None:
        """Answer with `error` where nothing was sent yet, else break off so that nobody takes the answer for whole."""
        if self.answered or self.gone:
            return
        if self.head_sent:
            self._connection.break_off()
            return
        self._start = {
            "status": error.status,
            "headers": [(b"content-type", b"application/json"), (b"connection", b"close")],
        }
        self._send_body(error_body(error), more=False)

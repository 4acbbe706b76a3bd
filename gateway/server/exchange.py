"""One request and its answer, as the ASGI application sees it: scope, receive, send.

Differs from a general server where our application lets it be cheaper: the body is handed over whole, the head of the
answer waits for the first piece of its body and leaves in the same write, and nothing is made that most requests do
not use.
"""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Final

from gateway.errors import ShuttingDownError
from gateway.server.answer_head import BODILESS_STATUSES, STATUS_LINES, join_lines
from gateway.server.client import Client
from gateway.server.flow import Flow
from gateway.server.guard import Head
from gateway.server.refusals import InternalError, error_body
from gateway.server.scope import FIELDS, HOST, ON_DISCONNECT, SEND_WHOLE, Message, Scope
from gateway.server.state import EdgeState
from providers.errors import MixgateError

JOIN_MAX_BYTES: Final = 32 * 1024
"""Pieces up to this size are copied into one write; a larger one is written on its own."""
_OUR_FAULT: Final = "The gateway failed to answer; this is its fault. Its log says more."
_log = logging.getLogger("mixgate.server")


class Connection:
    """What an exchange needs of the connection it belongs to."""

    edge: EdgeState
    """What all connections share."""
    scope: Scope
    """What the scopes of all its requests have in common."""
    flow: Flow
    """Whether the client reads slower than we write."""
    write: Callable[[bytes], Any]
    """Puts bytes on the wire."""

    @abstractmethod
    def want_body(self) -> None:
        """The application asks for the body: keep reading."""

    @abstractmethod
    def end_exchange(self, exchange: "Exchange") -> None:
        """The answer is complete."""

    @abstractmethod
    def break_off(self) -> None:
        """The answer cannot be completed; the client must not take it for complete."""


class Answerer:
    """An application that our server can hand a request without ASGI."""

    @abstractmethod
    async def answer(self, exchange: "Exchange") -> None:
        """Answer it."""


class Exchange(Client):
    """One request and its answer on a connection."""

    __slots__ = (
        "_callback",
        "_chunked",
        "_delivered",
        "_left",
        "_parts",
        "_start",
        "_waiter",
        "answered",
        "body_complete",
        "connection",
        "content_length",
        "gone",
        "head",
        "head_sent",
        "is_head",
        "keep_alive",
        "owes_continue",
        "received",
        "wanted",
    )

    def __init__(self, connection: Connection, head: Head, content_length: int) -> None:
        self.connection = connection
        self.head = head
        """Not to be changed, and of several requests: the length of the body is not always this one's."""
        self.path = head.line.path
        self.fields = head.fields
        self.task = None
        self.content_length = content_length
        self.keep_alive = head.keep_alive
        self.owes_continue = head.expects_continue
        self.is_head = head.line.method == "HEAD"
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

    def scope(self) -> Scope:
        """The request as ASGI has it."""
        head = self.head.with_length(self.content_length)
        line = head.line
        return {
            **self.connection.scope,
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

    # ---- called by the connection

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

    def body_at_hand(self) -> bytes | None:
        """The whole body, once; None: it has to be waited for."""
        if not self.body_complete or self._delivered or self.gone:
            return None
        self.wanted = self._delivered = True
        parts = self._parts
        self._parts = []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def body(self) -> bytes:
        """The whole body; nothing where the client has left."""
        if not self.wanted:
            self.wanted = True
            if self.owes_continue and not self.received and not self.gone:
                self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.owes_continue = False
            if not self.body_complete:
                self.connection.want_body()
        while not (self.gone or self.answered) and (self._delivered or not self.body_complete):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return b"" if self.answered else self.body_at_hand() or b""

    async def receive(self) -> Message:
        """The whole body as one `http.request`; after that, waits for the client to leave."""
        body = await self.body()
        if self.gone or self.answered:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """Take the start of the answer, or a piece of its body. Waits while the client reads too slowly."""
        flow = self.connection.flow
        if flow.write_paused and not self.gone:
            await flow.drain()
        if self.gone:
            return
        kind = message["type"]
        if kind == "http.response.body" and not self.answered:
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
        elif kind == "http.response.start" and self._start is None and not self.head_sent:
            self._start = message
        else:
            raise RuntimeError(f"{kind} is out of turn")

    def put(self, status: int, block: bytes, body: bytes) -> Awaitable[None] | None:
        """As `Client.put`. Says what the two messages of ASGI would and costs half as much."""
        if self.connection.flow.write_paused and not self.gone:
            return self.send_whole(status, block, body)
        self._put_whole(status, block, body)
        return None

    async def send_whole(self, status: int, block: bytes, body: bytes) -> None:
        """The same, in ASGI's way."""
        flow = self.connection.flow
        if flow.write_paused and not self.gone:
            await flow.drain()
        self._put_whole(status, block, body)

    def _put_whole(self, status: int, block: bytes, body: bytes) -> None:
        if self.gone:
            return
        if self._start is not None or self.head_sent or status in BODILESS_STATUSES:
            raise RuntimeError("a whole answer is out of turn")
        edge = self.connection.edge
        ending = b"\r\n"
        if not (self.keep_alive and self.body_complete) or edge.lifecycle.draining:
            self.keep_alive = False
            ending = b"connection: close\r\n\r\n"
        length = str(len(body)).encode()
        head = b"%b%b%bcontent-length: %b\r\n%b" % (STATUS_LINES[status], edge.date_line, block, length, ending)
        self.head_sent = True
        self._put(head, b"" if self.is_head else body, b"")
        self._end()

    def _end(self) -> None:
        """Nothing more is to be said."""
        self.answered = True
        self._callback = None
        self._wake()
        self.connection.end_exchange(self)

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
        write = self.connection.write
        if len(body) > JOIN_MAX_BYTES:
            write(lead)
            write(body)
            write(trail)
        elif data := b"%b%b%b" % (lead, body, trail):
            write(data)

    def _render_head(self, body: bytes, *, more: bool) -> bytes:
        """Status line and headers; decides how the body is framed."""
        start = self._start
        if start is None:
            raise RuntimeError("http.response.body came before http.response.start")
        status: int = start["status"]
        lines = [STATUS_LINES[status], self.connection.edge.date_line]
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
        if not (self.keep_alive and self.body_complete) or self.connection.edge.lifecycle.draining:
            self.keep_alive = False
            lines.append(b"connection: close\r\n")
        return join_lines(lines) + b"\r\n"

    # ---- called by whoever runs the application

    def check_answered(self) -> None:
        """The application is done: it should have answered."""
        if not (self.answered or self.gone):
            _log.error("the application returned without completing its answer")
            self._fail(InternalError(_OUR_FAULT))

    def fail(self) -> None:
        """The application has raised something: the client gets an answer or a clear break, whatever it is."""
        _log.exception("the application failed")
        self._fail(InternalError(_OUR_FAULT))

    def cut(self) -> None:
        """The application was cancelled, which is what the end of the process does."""
        self._fail(ShuttingDownError("The gateway is shutting down; ask again.", retry_after_s=1))

    def _fail(self, error: MixgateError) -> None:
        """Answer with `error` where nothing was sent yet, else break off so that nobody takes the answer for whole."""
        if self.answered or self.gone:
            return
        if self.head_sent:
            self.connection.break_off()
            return
        self._start = {
            "status": error.status,
            "headers": [(b"content-type", b"application/json"), (b"connection", b"close")],
        }
        self._send_body(error_body(error), more=False)

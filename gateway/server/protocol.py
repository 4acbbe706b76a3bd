"""One client connection: bytes in, requests to the application, answers out, in order and one at a time.

uvicorn listens; this protocol takes the place of its own. Framing is judged twice: `guard` reads the raw head and
decides where the body ends, httptools reads the same bytes, and where the two do not agree the request is refused.
Nothing of a later request reaches the parser before its head has been judged.

Time limits cost nothing per request: a connection only notes until when it may stay as it is, and one sweep over all
connections (`EdgeState.sweep`) ends those that stayed longer.
"""

import asyncio
import math
from enum import IntEnum
from types import SimpleNamespace
from typing import Any, Final, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from gateway.errors import OverCapacityError, PayloadTooLargeError, RefusalError
from gateway.server.exchange import Connection, Exchange
from gateway.server.flow import Flow
from gateway.server.guard import check_partial_head, is_loopback, without_upgrade
from gateway.server.limits import KIB
from gateway.server.refusals import MalformedRequestError, SlowRequestError, refusal_response
from gateway.server.repeated_head import HeadReader
from gateway.server.scope import LOOPBACK, App
from gateway.server.state import EdgeState
from gateway.server.worker import Worker

CHUNK_FRAMING_MAX_BYTES = 64 * KIB
"""Bytes of chunk sizes, extensions and trailers allowed on top of as many as the body itself may have."""

_ASGI = {"version": "3.0", "spec_version": "2.4"}
_NO_PARSER: Final = httptools.HttpRequestParser(SimpleNamespace())
_CR = 13


class Phase(IntEnum):
    """What a connection is doing; says what the next bytes are."""

    HEAD = 0
    BODY = 1
    ANSWER = 2
    CLOSING = 3


class EdgeProtocol(Connection):
    """One client connection: to asyncio a `Protocol`, as which it has its methods."""

    def __init__(
        self,
        config: Config,
        server_state: EdgeState,
        app_state: dict[str, Any],  # noqa: ARG002 - uvicorn passes it; lifespan is off
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._loop = _loop or asyncio.get_running_loop()
        self.edge = server_state
        self._worker = Worker(cast("App", config.app), self._loop, server_state.tasks)
        self._limits = server_state.limits
        # httptools is told of no headers: `guard` has read them.
        self._parser = httptools.HttpRequestParser(
            SimpleNamespace(
                on_message_begin=self._begin_message,
                on_body=self._take_body,
                on_message_complete=self._complete_message,
            )
        )
        self.transport: asyncio.Transport
        self.scope = {}
        self._heads = HeadReader()
        self._phase = Phase.HEAD
        self._deadline_s = math.inf
        # Between requests: bytes that came and are not judged yet, and whether their time is running.
        self._pending = b""
        self._head_begun = True  # The first head's time runs from the connection on.
        # The request at hand.
        self._exchange: Exchange | None = None
        self._message_open = False
        self._surplus = False
        self._raw_bytes = 0
        self._counted_bytes = 0
        self._body_began_s = 0.0
        # A client that does not read, and one that goes on talking after the end.
        self._stalled_at_s = math.inf
        self._unsent_bytes = 0
        self._discarded_bytes = 0

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self.transport = cast("asyncio.Transport", transport)
        self.flow = Flow(self.transport)
        self.write = self.transport.write
        client = get_remote_addr(self.transport)
        self.scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": "1.1",
            "server": get_local_addr(self.transport),
            "client": client,
            "scheme": "https" if is_ssl(self.transport) else "http",
            "root_path": "",
            LOOPBACK: client is not None and is_loopback(client[0]),
        }
        self.edge.connections.add(self)
        self._deadline_s = self.edge.after(self._limits.head_s)
        if len(self.edge.connections) > self._limits.connections_max:
            self._refuse(OverCapacityError("Too many connections are open; try again shortly.", retry_after_s=1))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why it ended makes no difference
        """The connection is gone, whoever ended it."""
        self.edge.connections.discard(self)
        self._phase = Phase.CLOSING
        self.flow.resume_writing()
        self._drop_exchange()
        self._worker.end()
        self._parser = _NO_PARSER  # Ours holds this object, and this object it.

    def eof_received(self) -> None:
        """The client will send no more: asyncio closes the connection."""

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        self.flow.pause_writing()
        self._stalled_at_s = self.edge.now_s

    def resume_writing(self) -> None:
        """The client caught up."""
        self.flow.resume_writing()
        self._stalled_at_s = math.inf

    def data_received(self, data: bytes) -> None:
        """Bytes from the client; what they mean depends on the phase."""
        phase = self._phase
        try:
            if phase is Phase.HEAD:
                self._receive_head(data)
            elif phase is Phase.BODY:
                self._receive_body(data)
            elif phase is Phase.ANSWER:
                self._keep_for_later(data)
            else:
                self._discard(data)
        except RefusalError as error:
            self._refuse(error)

    # ---- a request comes in

    def _receive_head(self, data: bytes) -> None:
        if self._pending:
            data = self._pending + data
        if data[0] == _CR and data.startswith(b"\r\n"):
            data = data[2:]  # RFC 9112 section 2.2: one empty line before a request is to be ignored.
        found = self._heads.read(data)
        if found is None:
            self._wait_for_head(data)
            return
        head, end, length = found.head, found.end, found.content_length
        if length > self._limits.body_max_bytes:
            raise self._too_large()
        if head.upgrades:
            rest = data[end:]
            data = without_upgrade(data[:end])
            end = len(data)
            data += rest
        self._pending = b""
        self._raw_bytes = 0
        self._phase = Phase.BODY
        exchange = self._exchange = Exchange(self, head, length)
        if found.repeated and len(data) - end == length:
            # The parser has read this head before, and there is nothing in the body that it would look at.
            exchange.add_body(data[end:])
            self._complete_message()
        else:
            self._feed(exchange, data, end)
            if not found.repeated:
                self._heads.remember(data[:end], head)
        self._worker.begin(exchange)
        if not exchange.body_complete:
            self._body_began_s = self.edge.now_s
            self._extend_body_time(exchange)

    def _wait_for_head(self, data: bytes) -> None:
        check_partial_head(data)
        self._pending = data
        if data and not self._head_begun:
            self._head_begun = True
            self._deadline_s = self.edge.after(self._limits.head_s)

    def _receive_body(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        before = exchange.received
        self._feed(exchange, data, 0)
        grown = exchange.received - before
        self._counted_bytes += grown
        self.edge.bodies_bytes += grown
        if exchange.body_complete:
            return
        if self.edge.bodies_bytes > self._limits.bodies_max_bytes:
            raise OverCapacityError("Too many large requests at once; try again shortly.", retry_after_s=1)
        self._extend_body_time(exchange)

    def _feed(self, exchange: Exchange, data: bytes, head_bytes: int) -> None:
        """Give the parser what belongs to this request and no byte more; what follows waits in `_pending`."""
        length = exchange.content_length
        whole = False
        if length >= 0:
            here = head_bytes + length - exchange.received
            whole = len(data) >= here
            if len(data) > here:
                self._pending = data[here:]
                data = data[:here]
        else:
            self._raw_bytes += len(data)
        self._message_open = head_bytes > 0 or self._message_open
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not (self._surplus and exchange.body_complete):
                if exchange.received > self._limits.body_max_bytes:
                    raise self._too_large() from error
                raise MalformedRequestError(f"This is not a well-formed HTTP/1.1 request: {error}.") from error
            # Bytes of another request came right behind a chunked one. Where it ended only the parser knows, so this
            # request is answered, the rest is dropped and the connection ends.
            exchange.keep_alive = False
        if length >= 0 and exchange.body_complete is not whole:
            raise MalformedRequestError("The request head can be read in two ways.")
        if self._raw_bytes > 2 * self._limits.body_max_bytes + CHUNK_FRAMING_MAX_BYTES:
            raise self._too_large()

    def _too_large(self) -> PayloadTooLargeError:
        return PayloadTooLargeError(f"The request body is over {self._limits.body_max_bytes} bytes.")

    def _extend_body_time(self, exchange: Exchange) -> None:
        """Let the time for the body grow with what arrived, or stand still while the application does not want it."""
        limits = self._limits
        if not exchange.wanted and exchange.received > limits.unread_max_bytes:
            self.flow.pause_reading()
            self._deadline_s = math.inf
            return
        earned_s = exchange.received / limits.body_bytes_per_s
        self._deadline_s = self._body_began_s + limits.body_s + earned_s + limits.sweep_s

    def _keep_for_later(self, data: bytes) -> None:
        """Bytes of a later request while one is being answered."""
        self._pending += data
        if len(self._pending) > self._limits.pipeline_max_bytes:
            self.flow.pause_reading()

    # ---- httptools

    def _begin_message(self) -> None:
        """A request line begins. Raises when none is due, which stops the parser."""
        if not self._message_open:
            self._surplus = True
            raise MalformedRequestError("bytes behind the end of the request")

    def _take_body(self, data: bytes) -> None:
        """A piece of body. Raises when the body is over its bound, which stops the parser."""
        exchange = self._exchange
        if exchange is None:
            return
        exchange.add_body(data)
        if exchange.received > self._limits.body_max_bytes:
            raise self._too_large()

    def _complete_message(self) -> None:
        """The request is here in full."""
        self._message_open = False
        self._phase = Phase.ANSWER
        self._deadline_s = math.inf
        if self._exchange is not None:
            self._exchange.complete_body()

    # ---- an answer goes out (called by the exchange)

    def want_body(self) -> None:
        """The application asks for the body: keep reading."""
        if self.flow.read_paused:
            self.flow.resume_reading()
            self._body_began_s = self.edge.now_s
            if self._exchange is not None:
                self._extend_body_time(self._exchange)

    def end_exchange(self, exchange: Exchange) -> None:
        """The answer is complete: on to the next request, or to the end of the connection."""
        self._exchange = None
        if self._counted_bytes:
            self._forget_body()
        if self._phase is Phase.CLOSING:
            return
        if not (exchange.body_complete and exchange.keep_alive):
            self._close(linger=not exchange.body_complete or bool(self._pending) or self._surplus)
            return
        self._phase = Phase.HEAD
        self._head_begun = False
        self._deadline_s = self.edge.after(self._limits.idle_s)
        self.flow.resume_reading()
        if self._pending:
            self._loop.call_soon(self._take_pending)

    def _take_pending(self) -> None:
        if self._phase is Phase.HEAD and self._pending:
            data, self._pending = self._pending, b""
            self.data_received(data)

    def break_off(self) -> None:
        """The answer cannot be completed; the client sees a chunked body without its end, or too short a one."""
        self._drop_exchange()
        self._close(linger=False)

    # ---- the end

    @property
    def busy(self) -> bool:
        """Whether a request is being received or answered."""
        return self._exchange is not None

    def shutdown(self) -> None:
        """End the connection as soon as it is not busy."""
        if self._exchange is not None:
            self._exchange.keep_alive = False
        elif self._phase is Phase.HEAD:
            self._close(linger=False)

    def abort(self) -> None:
        """End the connection now."""
        self.transport.abort()

    def check_time(self, now_s: float) -> None:
        """End what has taken too long: receiving, idling, or a client that reads nothing."""
        if self._stalled_at_s != math.inf or self._phase is Phase.CLOSING:
            self._check_progress(now_s)
        if now_s < self._deadline_s:
            return
        if self._phase is Phase.BODY:
            self._refuse(SlowRequestError("The request body did not arrive in time."))
        elif self._phase is Phase.HEAD and self._pending:
            self._refuse(SlowRequestError("The request headers did not arrive in time."))
        elif self._phase is Phase.HEAD:
            self._close(linger=False)
        elif self.transport.get_write_buffer_size() == 0:
            self.transport.abort()

    def _check_progress(self, now_s: float) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent_bytes:
            self._unsent_bytes = unsent
            self._stalled_at_s = now_s
        elif unsent and now_s - self._stalled_at_s > self._limits.write_stall_s:
            self.transport.abort()

    def _refuse(self, error: RefusalError) -> None:
        """Say no, unless an answer is already on its way, and end the connection."""
        exchange = self._exchange
        answering = exchange is not None and exchange.head_sent
        self._drop_exchange()
        if not answering:
            self.transport.write(refusal_response(error))
        self._close(linger=not answering)

    def _drop_exchange(self) -> None:
        if self._counted_bytes:
            self._forget_body()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()

    def _forget_body(self) -> None:
        self.edge.bodies_bytes -= self._counted_bytes
        self._counted_bytes = 0

    def _close(self, *, linger: bool) -> None:
        """Send what is left to send and hang up.

        A client that is still sending would lose the answer to the reset that unread bytes cause, so with `linger` its
        bytes are read and thrown away for a moment, and only our side of the connection is closed at once.
        """
        self._phase = Phase.CLOSING
        self._pending = b""
        self._deadline_s = self.edge.after(self._limits.linger_s)
        if self.transport.is_closing():
            return
        if not linger:
            self.transport.close()
            return
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _discard(self, data: bytes) -> None:
        self._discarded_bytes += len(data)
        if self._discarded_bytes > self._limits.linger_max_bytes:
            self.transport.abort()

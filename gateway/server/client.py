"""Who a chat completion is for: what it says, and the way back. Our own server has a shorter one than ASGI's."""

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.server.scope import FIELDS, ON_DISCONNECT, SEND_WHOLE, Message, Receive, Scope, Send, SendWhole


class Client:
    """One request, as whoever answers it sees it."""

    __slots__ = ("fields", "path", "task")

    path: str
    fields: dict[bytes, bytes]
    """Its headers by name, in lower case; not to be changed. Its Content-Length may be another request's."""
    task: asyncio.Task[Any] | None
    """The one in which it is answered."""

    @abstractmethod
    def body_at_hand(self) -> bytes | None:
        """The whole body, once; None: it has to be waited for."""

    @abstractmethod
    async def body(self) -> bytes:
        """The whole body; what there is of it where the client leaves meanwhile."""

    @abstractmethod
    def on_disconnect(self, callback: Callable[[], None] | None) -> None:
        """Have `callback` called once if the client leaves before the answer is complete; None takes it back."""

    @abstractmethod
    async def send(self, message: Message) -> None:
        """As ASGI's `send`."""

    @abstractmethod
    def put(self, status: int, block: bytes, body: bytes) -> Awaitable[None] | None:
        """Answer in one piece; gives what has to be waited for, if anything has.

        Args:
            status: Of an answer that has a body: neither 204 nor 304.
            block: Headers as `answer_head.header_block` renders them; several blocks may be joined.
            body: All of it.
        """


class AsgiClient(Client):
    """The client of any ASGI server."""

    __slots__ = ("_receive", "_scope", "_send")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.path = scope["path"]
        self.fields = scope[FIELDS]
        self.task = asyncio.current_task()

    def body_at_hand(self) -> bytes | None:
        """None."""
        return None

    async def body(self) -> bytes:
        """As `Client.body`."""
        message = await self._receive()
        body: bytes = message.get("body", b"")
        while message.get("more_body"):
            message = await self._receive()
            body += message.get("body", b"")
        return body

    def on_disconnect(self, callback: Callable[[], None] | None) -> None:
        """As `Client.on_disconnect`, where the server knows of such a thing."""
        listen = self._scope.get(ON_DISCONNECT)
        if listen is not None:
            listen(callback)

    async def send(self, message: Message) -> None:
        """As ASGI's `send`."""
        await self._send(message)

    def put(self, status: int, block: bytes, body: bytes) -> Awaitable[None] | None:
        """As `Client.put`."""
        return whole_sender(self._scope, self._send)(status, block, body)


def whole_sender(scope: Scope, send: Send) -> SendWhole:
    """What sends an answer in one call, also on a server that knows nothing better than ASGI's two messages."""
    known: SendWhole | None = scope.get(SEND_WHOLE)
    if known is not None:
        return known

    async def in_two(status: int, block: bytes, body: bytes) -> None:
        headers = [tuple(line.split(b": ", 1)) for line in block.split(b"\r\n") if line]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return in_two

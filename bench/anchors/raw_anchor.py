"""The raw anchor: asyncio protocols on both sides, httptools, uvloop. `python -m bench.anchors.raw_anchor PORT`.

About the least that a Python process can spend on relaying a request: no timeouts, no flow control, no error mapping,
no header validation. Frozen: see bench/README.md before changing a line.
"""

import asyncio
import gc
import sys
from typing import ClassVar, cast

import httptools
import uvloop

from bench.anchors.rewrite import NOT_FOUND, UPSTREAM, UPSTREAM_KEY, UsageReader, finish, prepare

HOST, _, PORT = UPSTREAM.removeprefix("http://").partition(":")
HEAD = (
    f"POST /v1/chat/completions HTTP/1.1\r\nhost: {HOST}:{PORT}\r\ncontent-type: application/json\r\n"
    f"authorization: Bearer {UPSTREAM_KEY}\r\naccept: */*\r\n"
).encode()
BACKLOG = 4096


class Upstream(asyncio.Protocol):
    """One kept connection to the upstream, with one request on it at a time."""

    __slots__ = ("alive", "client", "parser", "parts", "status", "stream", "transport", "usage")

    idle: ClassVar[list["Upstream"]] = []

    def __init__(self) -> None:
        self.client: Client | None = None
        self.alive = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def start(self, client: "Client", data: bytes, *, stream: bool) -> None:
        """Send a request on behalf of a client."""
        self.client = client
        self.stream = stream
        self.parts: list[bytes] = []
        self.parser = httptools.HttpResponseParser(self)
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Parse; bytes that nobody asked for end the connection."""
        if self.client is not None:
            self.parser.feed_data(data)
        else:
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Open the client's stream."""
        self.status = self.parser.get_status_code()
        if self.stream and self.client is not None:
            self.usage = UsageReader()
            self.client.transport.write(
                b"HTTP/1.1 %d OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" % self.status
            )

    def on_body(self, data: bytes) -> None:
        """Relay a chunk, or keep a piece of a whole answer."""
        if not self.stream:
            self.parts.append(data)
            return
        self.usage.feed(data)
        if self.client is not None:
            self.client.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def on_message_complete(self) -> None:
        """End the client's answer and keep the connection."""
        client, self.client = self.client, None
        keep = self.parser.should_keep_alive()
        if client is not None:
            if self.stream:
                client.transport.write(b"0\r\n\r\n")
            else:
                body = finish(self.parts[0] if len(self.parts) == 1 else b"".join(self.parts))
                client.transport.write(
                    b"HTTP/1.1 %d OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                    % (self.status, len(body), body)
                )
            client.upstream = None
        if keep and self.alive:
            self.idle.append(self)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Take the client down with us."""
        self.alive = False
        if self in self.idle:
            self.idle.remove(self)
        if self.client is not None:
            self.client.transport.close()


class Client(asyncio.Protocol):
    """One connection of a client, one request at a time."""

    __slots__ = ("connecting", "parser", "parts", "transport", "upstream")

    def __init__(self) -> None:
        self.upstream: Upstream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpRequestParser(self)
        self.parts: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Every path is the chat path."""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Headers are parsed and not looked at."""

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        self.parts.append(data)

    def on_message_complete(self) -> None:
        """Send the request on."""
        body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        self.parts = []
        prepared = prepare(body)
        if prepared is None:
            head = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(head % len(NOT_FOUND) + NOT_FOUND)
            return
        body, stream = prepared
        data = b"%bcontent-length: %d\r\n\r\n%b" % (HEAD, len(body), body)
        if Upstream.idle:
            self.upstream = Upstream.idle.pop()
            self.upstream.start(self, data, stream=stream)
        else:
            self.connecting = asyncio.get_running_loop().create_task(self.connect(data, stream=stream))

    async def connect(self, data: bytes, *, stream: bool) -> None:
        """Send the request on a new connection."""
        _, self.upstream = await asyncio.get_running_loop().create_connection(Upstream, HOST, int(PORT))
        self.upstream.start(self, data, stream=stream)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Take the upstream connection down with us."""
        if self.upstream is not None:
            upstream, self.upstream = self.upstream, None
            upstream.client = None
            upstream.transport.close()


async def serve(port: int) -> None:
    """Serve until the process ends."""
    server = await asyncio.get_running_loop().create_server(Client, "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    gc.freeze()
    uvloop.run(serve(int(sys.argv[1])))

"""The HTTP edge on a real socket and on uvloop, with an application that remembers what it was asked."""

import asyncio
import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import uvloop
from uvicorn.config import Config

from gateway.server.lifecycle import Lifecycle
from gateway.server.limits import Limits
from gateway.server.protocol import EdgeProtocol
from gateway.server.state import EdgeState

STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass
class Conversation:
    """What came back on one connection, and whether the server ended it."""

    data: bytes
    closed: bool

    @property
    def statuses(self):
        """The statuses of the answers, without interim ones."""
        return [int(status) for status in STATUS.findall(self.data) if status != b"100"]

    @property
    def error(self):
        """The OpenAI-shaped error in the last answer."""
        return json.loads(self.data.rpartition(b"\r\n\r\n")[2])["error"]


@dataclass
class Edge:
    """A listening edge, on a loop and thread of its own."""

    app: Callable | None
    limits: Limits
    port: int = 0
    state: EdgeState | None = None
    seen: list = field(default_factory=list)
    loop: asyncio.AbstractEventLoop | None = None
    done: asyncio.Event | None = None

    async def connect(self):
        """A plain client connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def converse(self, *pieces, quiet_s=0.25, until=None, pause_s=0.0):
        """Send the pieces and collect what comes back.

        Ends when the server closes, when `until` answers are complete, or when nothing came for `quiet_s`. After an
        answer that announces the end of the connection the end itself is awaited, however long the machine takes.
        """
        reader, writer = await self.connect()
        data, closed = b"", False
        try:
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(pause_s)
            while not (until and complete_answers(data) >= until):
                patient = until or b"connection: close\r\n" in data
                got = await asyncio.wait_for(reader.read(65536), 10 if patient else quiet_s)
                closed = not got
                if closed:
                    break
                data += got
        except TimeoutError:
            pass
        except ConnectionError:
            closed = True
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()  # or it is left to the collector, which warns
        return Conversation(data, closed)

    async def answer(self, scope, receive, send):
        """The application used when a test brings none."""
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        target = scope["raw_path"] + query
        self.seen.append((scope["method"], target, message["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"ok " + target})

    async def serve(self, sock, started):
        """Serve until `stop`."""
        self.loop = asyncio.get_running_loop()
        self.done = asyncio.Event()
        self.state = EdgeState(Lifecycle(), self.limits)
        config = Config(app=self.app or self.answer, http=EdgeProtocol, ws="none", lifespan="off", log_config=None)
        config.load()
        server = await self.loop.create_server(
            lambda: EdgeProtocol(config, self.state, {}, self.loop), sock=sock, backlog=2048
        )
        sweeping = self.loop.create_task(self._sweep())
        started.set()
        await self.done.wait()
        sweeping.cancel()
        server.close()
        for connection in self.state.open_connections():
            connection.abort()
        for task in list(self.state.tasks):
            task.cancel()
        await asyncio.sleep(0.02)

    async def _sweep(self):
        while True:
            await asyncio.sleep(self.limits.sweep_s)
            self.state.sweep()

    def stop(self):
        """End it, from any thread."""
        self.loop.call_soon_threadsafe(self.done.set)


def complete_answers(data):
    """How many whole answers with a Content-Length `data` begins with."""
    count = 0
    while True:
        head, mark, rest = data.partition(b"\r\n\r\n")
        if not mark:
            return count
        if head.startswith(b"HTTP/1.1 100"):
            data = rest
            continue
        found = re.search(rb"content-length: (\d+)", head)
        length = int(found[1]) if found else 0
        if len(rest) < length:
            return count
        count += 1
        data = rest[length:]


@pytest.fixture
def listen() -> Iterator[Callable]:
    """Starts an edge when called as `listen(app=None, **limits)`."""
    running = []

    def start(app=None, **limits):
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        edge = Edge(app, Limits(**limits), sock.getsockname()[1])
        started = threading.Event()

        def work():
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(edge.serve(sock, started))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert started.wait(10)
        running.append((edge, thread))
        return edge

    yield start
    for edge, thread in running:
        edge.stop()
        thread.join(10)
        assert not thread.is_alive()

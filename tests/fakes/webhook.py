"""Somebody who is told things: a real server on loopback that keeps what it was sent, and answers as it is told to."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Told:
    """One POST."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Webhook:
    """The server."""

    url: str = ""
    statuses: list[bytes] = field(default_factory=list)
    """Status lines in turn; after them, 204."""
    told: list[Told] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_for(self, count: int, timeout_s: float = 30.0) -> list[Told]:
        async with asyncio.timeout(timeout_s):
            while len(self.told) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.told

    async def serve(self, reader, writer):
        try:
            while line := await reader.readline():
                headers = {}
                while text := (await reader.readline()).decode().strip():
                    name, _, value = text.partition(": ")
                    headers[name.lower()] = value
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.told.append(Told(line.split()[1].decode(), headers, body))
                self.arrived.set()
                status = self.statuses.pop(0) if self.statuses else b"204 No Content"
                more = b"location: http://127.0.0.1:1/else\r\n" if status.startswith(b"30") else b""
                writer.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n%b\r\n" % (status, more))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def webhook(*statuses: bytes):
    made = Webhook(statuses=list(statuses))
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield made
    finally:
        server.close()
        await asyncio.sleep(0)

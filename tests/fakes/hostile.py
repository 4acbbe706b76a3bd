"""A provider that means harm: raw bytes over a socket, as much of them and for as long as it likes."""

import asyncio
import contextlib
import gzip
import json
import os
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.provider import chunk, completion

BLOCK_BYTES = 64 * 1024
GIB = 1 << 30
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
SCRIPT = "<script>alert(document.domain)</script>"


@dataclass(frozen=True)
class Forever:
    """These bytes again and again, until so many were sent or nobody listens any more."""

    unit: bytes
    total_bytes: int = GIB


@dataclass(frozen=True)
class Pause:
    """Nothing, for so long."""

    seconds: float


Part = bytes | Forever | Pause


@dataclass
class HostileProvider:
    """Answers every request with `script`, whatever it says."""

    script: tuple[Part, ...] = ()
    requests: list[bytes] = field(default_factory=list)
    sent_bytes: int = 0
    base_url: str = ""
    open: set[asyncio.Task[None] | None] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self.open.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()  # the test is over
        finally:
            self.open.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                self.requests.append(await read_request(reader))
                for part in self.script:
                    await self._send(writer, part)
                if not (self.script and self.script[-1] == b""):  # an empty last part keeps the connection
                    break
            writer.close()
            await writer.wait_closed()

    async def _send(self, writer: asyncio.StreamWriter, part: Part) -> None:
        if isinstance(part, Pause):
            await asyncio.sleep(part.seconds)
            return
        for data in blocks(part):
            writer.write(data)
            self.sent_bytes += len(data)
            await writer.drain()
            if writer.transport.is_closing():
                raise ConnectionResetError


def blocks(part: bytes | Forever) -> Iterator[bytes]:
    """What is written at once: lazily, so that a gigabyte is never in memory."""
    if isinstance(part, bytes):
        yield part
        return
    block = part.unit * max(1, BLOCK_BYTES // len(part.unit))
    for _ in range(part.total_bytes // len(block)):
        yield block


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request, head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
    return head + await reader.readexactly(int(length.split(b":")[1]))


@asynccontextmanager
async def hostile_provider(*script: Part) -> AsyncIterator[HostileProvider]:
    """A provider that listens while the block runs."""
    provider = HostileProvider(script)
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, limit=64 * 1024 * 1024)
    provider.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield provider
    finally:
        server.close()
        running = [task for task in provider.open if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running)


@dataclass
class Canary:
    """A listener that nobody has any business with."""

    port: int = 0
    connections: int = 0
    received: bytes = b""


@asynccontextmanager
async def canary(path: Path | None = None) -> AsyncIterator[Canary]:
    """Counts who connects: on a loopback port, or at a unix socket."""
    bird = Canary()

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bird.connections += 1
        with contextlib.suppress(OSError):
            bird.received += await reader.read(4096)
        writer.close()

    if path is None:
        server = await asyncio.start_server(count, "127.0.0.1", 0)
        bird.port = server.sockets[0].getsockname()[1]
    else:
        server = await asyncio.start_unix_server(count, path)
    try:
        yield bird
    finally:
        server.close()


# --- answers ---


def whole(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """A framed answer of JSON."""
    lines = (b"content-type: application/json", b"content-length: %d" % len(body), *headers)
    return b"HTTP/1.1 %b\r\n%b\r\n\r\n%b" % (status, b"\r\n".join(lines), body)


def events(*payloads: bytes) -> bytes:
    """A stream that ends with its connection."""
    return EVENTS + b"\r\n" + b"".join(payloads)


def said(**members: object) -> bytes:
    """A good whole answer with some members replaced."""
    return json.dumps({**completion("fine"), **members}).encode()


def delta(text: str = "a") -> bytes:
    return chunk({"content": text})


def memory_bytes(pid: int, name: str) -> int:
    """`VmRSS` or `VmHWM` (the highest since the last reset) of a process."""
    for line in (Path("/proc") / str(pid) / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def reset_peak(pid: int) -> None:
    """Let VmHWM start anew."""
    (Path("/proc") / str(pid) / "clear_refs").write_text("5")


def gzip_bomb(size_bytes: int = GIB) -> bytes:
    """Zeros, a thousand times smaller."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1 << 20)
    return b"".join(packer.compress(block) for _ in range(size_bytes >> 20)) + packer.flush()


def brotli_bomb() -> bytes:
    """What claims to be brotli: nobody here may even try to unpack it."""
    return b"\x5b\xff\xff\x3f\x00" + os.urandom(64) * 1000


def small_gzip(body: bytes) -> bytes:
    return gzip.compress(body)

"""A TCP proxy that does to bytes what networks do, without privileges: one direction, one exchange at a time.

Offsets count the bytes of one exchange in one direction: a client that speaks again after it was answered starts a new
one. The faults may be changed between exchanges; a connection that lives on has the new ones from then on.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.fakes.scripted import reset

READ_BYTES = 16 * 1024
QUEUE_PIECES = 8


@dataclass(frozen=True)
class Faults:
    """What happens to the bytes of one direction."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = 0.0
    """0: as fast as it goes."""
    slice_bytes: int = 0
    """Pieces of at most this size, each in a write of its own."""
    slice_pause_s: float = 0.0
    pause_chance: float = 0.0
    """That a piece is held back for `pause_s`, as a lost packet is until it is sent again."""
    pause_s: float = 0.2
    reset_at: int | None = None
    """RST to both sides once this many bytes went through."""
    close_at: int | None = None
    """FIN to the receiver, and nothing more, once this many bytes went through."""
    half_close_at: int | None = None
    """FIN to the receiver there; the other direction goes on."""
    stall_at: int | None = None
    """Nothing more, and no end, from there on."""
    corrupt_at: int | None = None
    """One bit of this byte is another."""
    slow_close_s: float = 0.0
    """How much later than it came the sender's FIN is passed on."""
    black_hole: bool = False
    """Swallows all."""
    reply_early: bytes | None = None
    """Sent to the client before the server was asked, once it said anything at all; the server hears nothing."""


NO_FAULTS = Faults()


@dataclass
class FaultProxy:
    """Stands before one server. `down`: what the server says, `up`: what the client says."""

    host: str
    to_port: int
    down: Faults = NO_FAULTS
    up: Faults = NO_FAULTS
    port: int = 0
    connections: int = 0
    draw: random.Random = field(default_factory=lambda: random.Random(7))
    tasks: set["asyncio.Task[None] | None"] = field(default_factory=set)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.tasks.add(asyncio.current_task())
        try:
            far_reader, far_writer = await asyncio.open_connection(self.host, self.to_port)
        except OSError:
            reset(writer)
            return
        link = _Link(self, writer, far_writer)
        try:
            await asyncio.gather(link.carry("up", reader, far_writer), link.carry("down", far_reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(asyncio.current_task())
            for one in (writer, far_writer):
                one.transport.abort()


class _CutError(ConnectionError):
    """The fault ended the connection."""


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: FaultProxy, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._near = near
        self._far = far
        self._passed = {"up": 0, "down": 0}

    def faults(self, way: str) -> Faults:
        return self._proxy.up if way == "up" else self._proxy.down

    async def carry(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """All of one direction: what is read gets a time at which it is due, so that latency costs no throughput."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUE_PIECES)
        delivering = asyncio.ensure_future(self._deliver(way, queue, writer))
        try:
            due_s = 0.0
            data = b"-"
            while data:
                reading = asyncio.ensure_future(reader.read(READ_BYTES))
                await asyncio.wait({reading, delivering}, return_when=asyncio.FIRST_COMPLETED)
                if delivering.done():
                    reading.cancel()
                    break
                data = reading.result()
                if data and way == "up":
                    if self._passed["down"]:
                        self._passed = {"up": 0, "down": 0}
                    if (early := self.faults("down").reply_early) is not None:
                        self._near.write(early)
                        continue
                due_s = max(due_s, time.monotonic() + self._delay_s(self.faults(way), ended=not data))
                await queue.put((due_s, data))
            await delivering
        finally:
            delivering.cancel()

    def _delay_s(self, faults: Faults, *, ended: bool) -> float:
        draw = self._proxy.draw
        delay_s = faults.latency_s + draw.uniform(-faults.jitter_s, faults.jitter_s)
        if draw.random() < faults.pause_chance:
            delay_s += faults.pause_s
        return max(0.0, delay_s) + (faults.slow_close_s if ended else 0.0)

    async def _deliver(
        self, way: str, queue: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter
    ) -> None:
        while True:
            due_s, data = await queue.get()
            if (wait_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            await self._write(way, data, writer)

    async def _write(self, way: str, data: bytes, writer: asyncio.StreamWriter) -> None:
        place = 0
        while place < len(data):
            faults = self.faults(way)
            passed = self._passed[way]
            if faults.black_hole or passed == faults.stall_at:
                await asyncio.sleep(3600)
            if passed in (faults.reset_at, faults.close_at, faults.half_close_at):
                self._cut(faults, passed, writer)
                return
            size = len(data) - place if faults.slice_bytes == 0 else faults.slice_bytes
            for edge in (faults.reset_at, faults.close_at, faults.half_close_at, faults.stall_at):
                if edge is not None and passed < edge:
                    size = min(size, edge - passed)
            if faults.bytes_per_s:
                size = min(size, max(1, int(faults.bytes_per_s / 20)))
            piece = data[place : place + size]
            place += len(piece)
            await self._put(piece, passed, faults, writer)
            self._passed[way] = passed + len(piece)
        self._cut_at_the_end(way, writer)

    async def _put(self, piece: bytes, passed: int, faults: Faults, writer: asyncio.StreamWriter) -> None:
        if faults.corrupt_at is not None and 0 <= faults.corrupt_at - passed < len(piece):
            spot = faults.corrupt_at - passed
            piece = piece[:spot] + bytes([piece[spot] ^ 0x20]) + piece[spot + 1 :]
        writer.write(piece)
        await writer.drain()
        if faults.bytes_per_s:
            await asyncio.sleep(len(piece) / faults.bytes_per_s)
        elif faults.slice_bytes:
            await asyncio.sleep(faults.slice_pause_s)

    def _cut_at_the_end(self, way: str, writer: asyncio.StreamWriter) -> None:
        """An edge that is exactly where the sender paused is reached now, not with the next byte."""
        faults, passed = self.faults(way), self._passed[way]
        if passed in (faults.reset_at, faults.close_at, faults.half_close_at):
            self._cut(faults, passed, writer)

    def _cut(self, faults: Faults, passed: int, writer: asyncio.StreamWriter) -> None:
        if passed == faults.half_close_at:
            writer.write_eof()
            return
        if passed == faults.close_at:
            self._near.close()
            self._far.close()
        else:
            reset(self._near)
            reset(self._far)
        raise _CutError


@asynccontextmanager
async def fault_proxy(to_port: int, *, down: Faults = NO_FAULTS, up: Faults = NO_FAULTS) -> AsyncIterator[FaultProxy]:
    """A proxy before a server on this machine, while the block runs."""
    proxy = FaultProxy("127.0.0.1", to_port, down, up)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        left = [task for task in proxy.tasks if task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await server.wait_closed()
        await asyncio.sleep(0)

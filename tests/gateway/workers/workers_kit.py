"""An owner and workers' lines to it in one process, over a real socket."""

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.keys.limits import Limiter
from gateway.keys.ring import KeyRing
from gateway.workers.line import OwnerLine
from gateway.workers.messages import Hello
from gateway.workers.owner import ALONE, Owner
from gateway.workers.shared import OwnerState

WAIT_S = 20.0


@dataclass(frozen=True)
class ToldModel:
    name: str
    state: str


class SilentAnswer:
    def __init__(self, pieces):
        self.status, self.headers = 200, {"content-type": "application/jsonl"}
        self._pieces, self.closed = list(pieces), False

    async def read(self):
        await asyncio.sleep(0)
        return self._pieces.pop(0) if self._pieces else b""

    def close(self):
        self.closed = True


class FakeBackend:
    """Local models that say what they are told to."""

    def __init__(self, *pieces):
        self.pieces, self.asked, self.state = pieces, [], "ready"
        self.answers = []

    async def start(self):
        pass

    async def aclose(self):
        pass

    def models(self):
        return [{"name": "tiny", "state": self.state}]

    async def send(self, request, *, connect_timeout_s):
        assert connect_timeout_s > 0
        self.asked.append(request)
        self.answers.append(SilentAnswer(self.pieces))
        return self.answers[-1]


async def until(true, what="it"):
    async with asyncio.timeout(WAIT_S):
        while not true():  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.005)


@asynccontextmanager
async def owner_of(home, *records, backend=None, living=(), settings=ALONE):
    """An owner at work, whose keys are these."""
    owner = Owner(home, backend or FakeBackend(), living, settings)
    for record in records:
        owner.access.ring.put(record)
    await owner.start()
    try:
        yield owner
    finally:
        await owner.aclose()


@asynccontextmanager
async def line_of(home, name, flush=lambda _: True):
    """A worker's line, as it is kept up."""
    line = OwnerLine(home, name, flush)
    running = asyncio.create_task(line.run())
    try:
        yield line
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def worker_of(home, name, *records):
    """What a worker shares with others."""
    ring = KeyRing(b"pepper", records)
    async with line_of(home, name) as line:
        state = OwnerState(line, ring.chain, Limiter(ring.chain), time.monotonic)
        line.hello = lambda: Hello(name, state.budgets.open_leases(), state.rates.running())
        line.on_hint = lambda told: state.hints.hear(told.hint)
        line.on_key = ring.put
        await until(lambda: line.up)
        yield state

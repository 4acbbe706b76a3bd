"""A real Redis, and stores that share it."""

import asyncio
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.keys.budget import Offer
from gateway.keys.key import KeyLimits, KeyRecord
from gateway.keys.limits import Limiter
from gateway.keys.ring import KeyRing
from gateway.sharing.redis_link import links_of
from gateway.sharing.redis_store import RedisStore, Sharing
from gateway.sharing.shared_purse import SharedPurse

SERVER = shutil.which("redis-server")
START_S = 20.0
READY_S = 20.0
NOON = 1_795_348_800.0
"""2026-11-22 12:00 UTC."""
DOLLAR = 10**9
OFFERS = (Offer("e", 0, 1_000, 1_000),)
"""Up to 1,000 nano-USD."""


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Server:
    """A redis-server process on a port of this machine."""

    def __init__(self, folder, port):
        self.folder, self.port = folder, port
        self.process = None

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self, *flags):
        assert SERVER is not None, "redis-server is not installed"
        self.process = await asyncio.create_subprocess_exec(
            *(SERVER, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--save", "", "--appendonly", "no", *flags),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(START_S):
            while True:
                try:
                    if await self.say("PING"):
                        return
                except OSError:
                    await asyncio.sleep(0.02)

    async def say(self, *words):
        """One command over a connection of its own; gives the raw answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(b"*%d\r\n" % len(words))
            for word in words:
                data = str(word).encode()
                writer.write(b"$%d\r\n%b\r\n" % (len(data), data))
            return await reader.readuntil(b"\r\n")
        finally:
            writer.close()
            await writer.wait_closed()

    async def number(self, *words):
        """One command that gives a number, or nothing, which is 0."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write((" ".join(f'"{word}"' for word in words) + "\r\n").encode())
            head = await reader.readuntil(b"\r\n")
            return 0 if head == b"$-1\r\n" else int(await reader.readuntil(b"\r\n"))
        finally:
            writer.close()
            await writer.wait_closed()

    async def settle(self, prefix="t:"):
        """Let there have been gateways with this prefix for long, so that none has to wait for others."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"INFO server\r\n")
        size = int((await reader.readuntil(b"\r\n"))[1:])
        info = (await reader.readexactly(size)).decode()
        writer.close()
        await writer.wait_closed()
        run = info.partition("run_id:")[2].split()[0]
        await self.say("HSET", f"{prefix}epoch", "id", "first", "run", run, "since", 0)

    async def kill(self):
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def redis_server(folder) -> AsyncIterator[Server]:
    server = Server(folder, free_port())
    try:
        await server.start()
        await server.settle()
        yield server
    finally:
        await server.kill()


def record(key_id, parent=None, **limits):
    return KeyRecord(
        id=key_id, name=key_id, digest=b"", created_us=1, updated_us=1, parent=parent, limits=KeyLimits(**limits)
    )


def redis_store(url, records, *, name="a", prefix="t:", past=(), now=lambda: NOON, **settings):
    """A store of its own process, so to say: with its own purse."""
    ring = records if isinstance(records, KeyRing) else KeyRing(b"pepper", records)
    purse = SharedPurse(ring.chain)
    if past is not None:
        purse.load(past)
    else:
        purse.knows_past = False
    return RedisStore(
        links_of(url),
        Sharing(name=name, prefix=prefix, **({"wait_max_s": 5.0} | settings)),
        chain_of=ring.chain,
        key_ids=lambda: [one.id for one in ring.records()],
        purse=purse,
        limiter=Limiter(ring.chain),
        unix_time_s=now,
    )


async def until(true, what="it"):
    """Wait for something that is bound to happen."""
    try:
        async with asyncio.timeout(READY_S):
            while not true():  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{what} did not happen") from None


@asynccontextmanager
async def running(*stores):
    """Stores that are ready."""
    try:
        for store in stores:
            await store.start()
        for store in stores:
            await until(lambda store=store: store.status().whole, "joining")
        yield stores
    finally:
        for store in stores:
            await store.aclose()


async def ask(store, lease, key="k", offers=OFFERS, unix_s=NOON, now_s=None, total_s=600.0):
    now_s = time.monotonic() if now_s is None else now_s
    return await store.budgets.reserve(lease, key, offers, unix_s=unix_s, now_s=now_s, total_s=total_s)


async def hold(store, lease, attempt, worst, unix_s=NOON):
    found = store.budgets.hold(lease, attempt, worst, unix_s=unix_s)
    return await found if hasattr(found, "__await__") else found

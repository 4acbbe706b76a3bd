"""Clients that leave and clients that hardly read: what they cost ends with them."""

import asyncio
import gc
import json
import os
import random
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.duo import stage
from tests.fakes.gateway import chat
from tests.fakes.listener import FULL, listen
from tests.fakes.scripted import TEXT, chunk, silent, tells

LEAVING = 5_000 if FULL else 200
AT_ONCE = 20
GONE_S = 0.25 if FULL else 2.0
"""How soon a provider may notice; a busy machine gets more time."""
SLOW = 200 if FULL else 20
READ_BYTES_PER_S = 1024
SLOW_FOR_S = 20.0 if FULL else 2.0
MEMORY_MAX_BYTES = 64 * 1024 * 1024
BUFFERS_MAX_BYTES = 16 * 1024 * 1024
"""What the kernel's socket buffers between a provider and a client may hold, both connections together."""


def request_bytes(marker, **members):
    body = json.dumps(chat(marker, **members)).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def connect(url, *, receive_bytes=None):
    """A raw socket to the gateway."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    sock = socket.socket()
    if receive_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    return sock


def open_files():
    gc.collect()
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def memory_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Left:
    """When a client left, and how."""

    marker: str
    at_s: float


async def leave(url, marker, rng, longest_s):
    """Ask, read for a while, and leave: with FIN or RST, sometimes before the request is complete."""
    loop = asyncio.get_running_loop()
    sock = await connect(url)
    data = request_bytes(marker, stream=rng.random() < 0.8)
    if rng.random() < 0.1:
        data = data[: rng.randrange(len(data))]
    await loop.sock_sendall(sock, data)
    until_s = loop.time() + rng.uniform(0, longest_s)
    while (left_s := until_s - loop.time()) > 0:
        try:
            async with asyncio.timeout(left_s):
                if not await loop.sock_recv(sock, 4096):
                    break
        except TimeoutError:
            break
    if rng.random() < 0.5:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    at_s = time.monotonic()
    sock.close()
    return Left(marker, at_s)


async def wait_until(check, limit_s=10.0):
    for _ in range(int(limit_s / 0.05)):
        if check():
            return
        await asyncio.sleep(0.05)
    assert check()


async def test_what_clients_left_behind_is_given_up_at_once(tmp_path):
    rng = random.Random(15)
    scripts = [tells(gap_s=0.005), tells(gap_s=0.005, late_s=0.1), tells(late_s=0.3), silent()]

    async def any_of_them(talk):
        await rng.choice(scripts)(talk)

    async with stage(tmp_path, [tells(), any_of_them]) as on:
        provider = on.providers[0]
        assert (await listen(on.running.client, chat("before", stream=True))).complete
        before = open_files(), len(asyncio.all_tasks())
        left: dict[str, Left] = {}
        for start in range(0, LEAVING, AT_ONCE):
            group = (f"c{number}" for number in range(start, start + AT_ONCE))
            for one in await asyncio.gather(*(leave(on.running.url, marker, rng, 0.3) for marker in group)):
                left[one.marker] = one
        await wait_until(lambda: provider.running == 0)
        late = []
        for call in provider.calls[1:]:
            marker = call.body["messages"][0]["content"]
            if call.left_s is not None and call.left_s - left[marker].at_s > GONE_S:
                late.append((marker, call.left_s - left[marker].at_s))
        assert late == []
        assert len(provider.calls) >= 0.8 * LEAVING
        assert sum(call.left_s is not None for call in provider.calls) >= 0.5 * LEAVING
        # Idle connections to the provider may be kept, and no more than were in use at once.
        await wait_until(lambda: open_files() <= before[0] + 2 * AT_ONCE)
        await wait_until(lambda: len(asyncio.all_tasks()) <= before[1] + AT_ONCE + 2)
        on.providers[0].scripts = [tells()]
        assert (await listen(on.running.client, chat(stream=True))).text == TEXT


async def test_health_does_not_blame_a_provider_for_clients_that_leave(tmp_path):
    async with stage(tmp_path, silent(), tells()) as on:
        rng = random.Random(3)
        for number in range(12):
            await leave(on.running.url, f"c{number}", rng, 0.02)
        await wait_until(lambda: on.providers[0].running == 0)
        on.providers[0].scripts = [tells()]
        told = await listen(on.running.client, chat(stream=True))
        assert told.chunks[0]["provider"] == "p0"
        assert on.tries[1] == 0


def endless(written):
    """A stream of large tokens for as long as somebody takes them; `written` counts by question."""

    async def script(talk):
        piece = chunk({"content": "x" * 4096})
        marker = talk.call.body["messages"][0]["content"]
        if marker == "quick":
            await tells()(talk)
            return
        await talk.head()
        while True:
            await talk.send(piece)
            written[marker] = written.get(marker, 0) + len(piece)
            await asyncio.sleep(0)

    return script


async def read_slowly(sock, enough):
    loop = asyncio.get_running_loop()
    read = 0
    while not enough.is_set():
        read += len(await loop.sock_recv(sock, READ_BYTES_PER_S // 4))
        await asyncio.sleep(0.25)
    return read


async def until_buffers_are_full(written):
    """However long a busy machine takes to fill what the kernel and the gateway hold."""
    for _ in range(60):
        before = sum(written.values())
        await asyncio.sleep(SLOW_FOR_S / 2)
        if len(written) == SLOW and sum(written.values()) - before <= SLOW * 32 * 1024:
            return
    pytest.fail("the provider is never slowed down")


async def test_clients_that_hardly_read_slow_their_providers_down_and_nobody_else(tmp_path):
    written: dict[str, int] = {}
    loop = asyncio.get_running_loop()
    async with stage(tmp_path, endless(written)) as on:
        await listen(on.running.client, chat("quick", stream=True))
        before_bytes = memory_bytes()
        socks = [await connect(on.running.url, receive_bytes=4096) for _ in range(SLOW)]
        for number, sock in enumerate(socks):
            await loop.sock_sendall(sock, request_bytes(f"slow{number}", stream=True))
        enough = asyncio.Event()
        reading = [asyncio.ensure_future(read_slowly(sock, enough)) for sock in socks]
        await until_buffers_are_full(written)
        full_bytes, full_at_s = sum(written.values()), loop.time()
        waits_s = []
        for _ in range(10):
            told = await listen(on.running.client, chat("quick", stream=True))
            assert told.text == TEXT
            waits_s.append(told.elapsed_s)
        await asyncio.sleep(max(0.0, full_at_s + SLOW_FOR_S / 2 - loop.time()))
        grown_upstream_bytes = sum(written.values()) - full_bytes
        enough.set()
        read = await asyncio.gather(*reading)
        grown_bytes = memory_bytes() - before_bytes
        assert min(read) > 0
        assert len(written) == SLOW
        # What the kernel does not hold stays with the provider: nothing moves but what is read.
        assert max(written.values()) <= BUFFERS_MAX_BYTES
        assert grown_upstream_bytes <= SLOW * 64 * 1024 + 8 * sum(read)
        assert grown_bytes < MEMORY_MAX_BYTES
        assert sorted(waits_s)[5] < (0.5 if FULL else 2.0)
        for sock in socks:
            sock.close()
        await wait_until(lambda: on.providers[0].running == 0)


@pytest.mark.parametrize("pauses_s", [(12.0, 12.0, 12.0)] if FULL else [(0.8,)])
async def test_time_that_a_client_takes_is_not_the_providers(tmp_path, pauses_s):
    """While nobody reads, the idle limit does not run; the provider is not blamed, and nothing is lost."""
    tokens = tuple(f"{number:06d}" + "y" * 8000 for number in range(1500 if FULL else 400))
    loop = asyncio.get_running_loop()
    async with stage(tmp_path, tells(tokens=tokens), tells()) as on:
        sock = await connect(on.running.url, receive_bytes=4096)
        await loop.sock_sendall(sock, request_bytes("x", stream=True))
        parts = [b""]
        for pause_s in pauses_s:
            await asyncio.sleep(pause_s)
            while sum(map(len, parts)) % (1 << 20) < 1 << 19:  # half of each MiB, so that something moves
                parts.append(await loop.sock_recv(sock, 65536))
                assert parts[-1]
            while sum(map(len, parts)) % (1 << 20) >= 1 << 19:
                parts.append(await loop.sock_recv(sock, 65536))
                assert parts[-1]
        while b"[DONE]" not in parts[-1][-64:]:
            parts.append(await loop.sock_recv(sock, 1 << 20))
            assert parts[-1]
        sock.close()
        received = b"".join(parts)
        assert b"error" not in received
        assert all(b'"%06dyyy' % number in received for number in range(len(tokens)))
        assert on.tries == (1, 0)

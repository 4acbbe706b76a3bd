"""Clients on raw sockets, cheap enough to offer more than a gateway takes: what they sent, and what they saw."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.gateway import chat


def request_head(size_bytes: int, key: str | None = None) -> bytes:
    """The headers of a chat request whose body has so many bytes."""
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
    lines += [f"authorization: Bearer {key}"] if key else []
    return "\r\n".join([*lines, f"content-length: {size_bytes}", "", ""]).encode()


def request_bytes(key: str | None = None, **members: Any) -> bytes:
    """A whole chat request."""
    body = json.dumps(chat(**members)).encode()
    return request_head(len(body), key) + body


@dataclass
class Reply:
    """One answer, read whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.body)["error"]


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, url: str) -> "RawClient":
        host, _, port = url.removeprefix("http://").rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def ask(self, data: bytes) -> Reply:
        """Send, and read the answer; it must have a length."""
        self.writer.write(data)
        return await self.read()

    async def read(self) -> Reply:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rest)}
        body = await self._reader.readexactly(int(headers["content-length"]))
        return Reply(int(line.split(" ")[1]), headers, body)

    @property
    def over(self) -> bool:
        """Whether the other side has closed it: what was idle for too long is."""
        return self._reader.at_eof() or self.writer.is_closing()

    def close(self) -> None:
        self.writer.transport.abort()


@dataclass
class Load:
    """What clients of one kind saw."""

    answered_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    retry_after_s: set[int] = field(default_factory=set)
    broken: int = 0

    def note(self, reply: Reply, took_s: float) -> None:
        self.statuses[reply.status] = self.statuses.get(reply.status, 0) + 1
        if reply.status == 200:
            self.answered_s.append(took_s)
        else:
            self.refused_s.append(took_s)
            self.retry_after_s.add(int(reply.headers["retry-after"]))


def quantile(values: list[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def keep_asking(url: str, clients: int, for_s: float, key: str | None = None) -> Load:
    """Closed loops: each client asks again as soon as it is answered."""
    load, until_s, data = Load(), time.monotonic() + for_s, request_bytes(key)

    async def one() -> None:
        client = await RawClient.connect(url)
        while (began_s := time.monotonic()) < until_s:
            load.note(await client.ask(data), time.monotonic() - began_s)
        client.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return load


async def offer(url: str, per_s: float, for_s: float, key: str | None = None) -> Load:
    """Open loop: so many requests a second, whatever becomes of those before."""
    load, data, idle = Load(), request_bytes(key), list[RawClient]()
    running: set[asyncio.Task[None]] = set()

    async def one() -> None:
        began_s = time.monotonic()
        while idle and idle[-1].over:
            idle.pop().close()
        client = idle.pop() if idle else await RawClient.connect(url)
        try:
            reply = await client.ask(data)
        except (ConnectionError, asyncio.IncompleteReadError):
            load.broken += 1
            client.close()
            return
        load.note(reply, time.monotonic() - began_s)
        if reply.headers.get("connection") == "close":
            client.close()
        else:
            idle.append(client)

    began_s = time.monotonic()
    for number in range(round(per_s * for_s)):
        if (early_s := began_s + number / per_s - time.monotonic()) > 0:
            await asyncio.sleep(early_s)
        task = asyncio.ensure_future(one())
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    for client in idle:
        client.close()
    return load

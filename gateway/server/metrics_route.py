"""`/metrics`: figures for whoever may watch, one scrape at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.server.asgi import Place
from gateway.server.scope import FIELDS, Receive, Scope, Send

METRICS_PATH: Final = "/metrics"
ACCEPT_MAX_BYTES: Final = 1024

Read = Callable[[], Awaitable[Callable[[str], tuple[bytes, str]]]]
"""Gathers all figures, and gives what puts them into words: takes an Accept header, for any thread."""


class MetricsRoute:
    """Answers scrapes."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._one = asyncio.Lock()
        self._place: Place = ("watch", {"GET": self._answer})

    def find(self, path: str) -> Place | None:
        """Who may come there, and what answers."""
        return self._place if path == METRICS_PATH else None

    async def _answer(self, scope: Scope, _receive: Receive, send: Send) -> None:
        accept: bytes = scope[FIELDS].get(b"accept", b"")[:ACCEPT_MAX_BYTES]
        async with self._one:
            body, content_type = await asyncio.to_thread(await self._read(), accept.decode("latin-1"))
        headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

"""A model hub on this machine, its storage on another port as with the real one, and every fault a test asks for."""

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.local_backend.gguf_files import Draft

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK_BYTES = 64 << 10


def model_content(*, layers: int = 1, seed_bytes: bytes | None = None) -> bytes:
    """A good header with about 3 MB of random weights for each layer."""
    draft = Draft(width=256, inner=512, layers=layers)
    whole = draft.encode()
    start = len(draft.header())
    start += -start % 32
    tail = seed_bytes or os.urandom(len(whole) - start)
    return whole[:start] + tail


@dataclass
class MockHub:
    """What the hub has, how it misbehaves, and what it was asked."""

    files: dict[str, bytes]
    promised: dict[str, str] = field(default_factory=dict)
    """Checksums that differ from the content's."""
    drops_after: list[int] = field(default_factory=list)
    """For the next downloads: the connection breaks after so many bytes."""
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """For the next metadata requests: answer this instead."""
    storage_statuses: list[int] = field(default_factory=list)
    ignores_range: bool = False
    stalls_after: int | None = None
    """Send so many bytes of a file, then nothing."""
    chunk_pause_s: float = 0.0
    redirect_to: str | None = None
    metadata: bytes | None = None
    extra_bytes: bytes = b""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    sent_bytes: int = 0
    endpoint: str = ""
    storage: str = ""
    has_sent: asyncio.Event = field(default_factory=asyncio.Event)

    def ranges(self) -> list[str | None]:
        """The Range header of every request to the storage."""
        return [headers.get("range") for path, headers in self.requests if path.startswith("/storage/")]

    async def describe(self, request: web.Request) -> web.Response:
        self._note(request)
        if self.statuses:
            status, headers = self.statuses.pop(0)
            return web.Response(status=status, headers=headers)
        if self.metadata is not None:
            return web.Response(body=self.metadata, content_type="application/json")
        if request.match_info["repository"] != "some/model-GGUF":
            return web.json_response({"error": "Repository not found"}, status=404)
        rows = [{"rfilename": "README.md", "size": 3, "blobId": "x"}]
        for path, content in self.files.items():
            sha256 = self.promised.get(path) or hashlib.sha256(content).hexdigest()
            rows.append({"rfilename": path, "size": len(content), "lfs": {"sha256": sha256, "size": len(content)}})
        return web.json_response({"sha": COMMIT, "siblings": rows, "gated": False})

    async def resolve(self, request: web.Request) -> web.Response:
        self._note(request)
        target = self.redirect_to or f"{self.storage}/storage/{request.match_info['path']}"
        return web.Response(status=302, headers={"location": target})

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self._note(request)
        if self.storage_statuses:
            return web.Response(status=self.storage_statuses.pop(0))
        content = self.files[request.match_info["path"]]
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        start = int(asked[1]) if asked and not self.ignores_range else 0
        if start >= len(content):
            return web.Response(status=416)
        body = content[start:] + self.extra_bytes
        response = web.StreamResponse(status=206 if start else 200)
        if start:
            response.headers["content-range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        response.content_length = len(body)
        await response.prepare(request)
        await self._send(request, response, body)
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, body: bytes) -> None:
        limit = self.drops_after.pop(0) if self.drops_after else self.stalls_after
        stalls = limit is not None and limit == self.stalls_after
        for at in range(0, len(body) if limit is None else limit, CHUNK_BYTES):
            chunk = body[at : min(at + CHUNK_BYTES, len(body) if limit is None else limit)]
            await response.write(chunk)
            self.sent_bytes += len(chunk)
            self.has_sent.set()
            await asyncio.sleep(self.chunk_pause_s)
        if stalls:
            await asyncio.Event().wait()
        elif limit is not None and request.transport is not None:
            request.transport.close()

    def _note(self, request: web.Request) -> None:
        self.requests.append((request.path, {name.lower(): value for name, value in request.headers.items()}))


@asynccontextmanager
async def run_hub(files: dict[str, bytes]) -> AsyncGenerator[MockHub]:
    """Start the hub and its storage on ports of the system's choice."""
    hub = MockHub(files)
    front, storage = web.Application(), web.Application()
    front.router.add_get("/api/models/{repository:[^/]+/[^/]+}/revision/{revision}", hub.describe)
    front.router.add_get("/{repository:[^/]+/[^/]+}/resolve/{commit}/{path:.+}", hub.resolve)
    storage.router.add_get("/storage/{path:.+}", hub.serve)
    runners = [web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True) for app in (front, storage)]
    try:
        hub.endpoint, hub.storage = [await _listen(runner) for runner in runners]
        yield hub
    finally:
        for runner in runners:
            await runner.cleanup()


async def _listen(runner: web.AppRunner) -> str:
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"

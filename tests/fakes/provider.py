"""A scripted OpenAI-compatible provider on a real socket. Its request log and bill are the oracle of a test."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

PRICE_INPUT_PUSD = 1_000_000
PRICE_OUTPUT_PUSD = 2_000_000


@dataclass
class Seen:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    cancelled: bool = False


Reply = Callable[[web.Request, Seen], Awaitable[web.StreamResponse]]


@dataclass
class FakeProvider:
    """Answers with `replies` in order; the last one is for everything after."""

    replies: list[Reply]
    requests: list[Seen] = field(default_factory=list)
    billed_pusd: int = 0
    base_url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        seen = Seen(request.path, {k.lower(): v for k, v in request.headers.items()}, json.loads(raw) if raw else {})
        self.requests.append(seen)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        try:
            return await reply(request, seen)
        except (asyncio.CancelledError, ConnectionError):
            seen.cancelled = True
            raise

    def bill(self, usage: dict[str, int]) -> None:
        self.billed_pusd += usage["prompt_tokens"] * PRICE_INPUT_PUSD + usage["completion_tokens"] * PRICE_OUTPUT_PUSD


@asynccontextmanager
async def fake_provider(*replies: Reply) -> AsyncIterator[FakeProvider]:
    """A provider that listens while the block runs."""
    provider = FakeProvider(list(replies) or [says("Hello from the fake.")])
    application = web.Application(client_max_size=64 * 1024 * 1024, handler_args={"handler_cancellation": True})
    application.router.add_route("*", "/{path:.*}", provider.handle)
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    provider.base_url = f"http://127.0.0.1:{port}/v1"
    try:
        yield provider
    finally:
        await runner.cleanup()


def usage_of(text: str) -> dict[str, int]:
    words = max(1, len(text.split()))
    return {"prompt_tokens": 7, "completion_tokens": words, "total_tokens": 7 + words}


def completion(text: str, **choice: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1,
        "model": "fake-upstream",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
                **choice,
            }
        ],
        "usage": usage_of(text),
    }


def chunk(delta: dict[str, Any], finish_reason: str | None = None, index: int = 0, **members: Any) -> bytes:
    body = {
        "id": "chatcmpl-fake",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake-upstream",
        "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
        **members,
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def stream_chunks(text: str, *, usage: bool = True, finish_reason: str | None = "stop") -> list[bytes]:
    """A whole stream of one text, one chunk per word."""
    words = text.split(" ")
    pieces = [word if place == 0 else f" {word}" for place, word in enumerate(words)]
    chunks = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": piece}) for piece in pieces)]
    if finish_reason is not None:
        chunks.append(chunk({}, finish_reason))
    if usage:
        last = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1, "model": "fake-upstream"}
        chunks.append(b"data: " + json.dumps({**last, "choices": [], "usage": usage_of(text)}).encode() + b"\n\n")
    return [*chunks, b"data: [DONE]\n\n"]


def says(text: str) -> Reply:
    """Answers with that text, whole or as a stream as asked, and bills it."""

    async def reply(request: web.Request, seen: Seen) -> web.StreamResponse:
        provider: FakeProvider = request.match_info.handler.__self__  # type: ignore[attr-defined]
        provider.bill(usage_of(text))
        if seen.body.get("stream"):
            return await _send(request, stream_chunks(text))
        return web.json_response(completion(text))

    return reply


def streams(*parts: bytes | float, cut: bool = False, content_type: str = "text/event-stream") -> Reply:
    """Sends these bytes; a number is a pause in seconds. `cut` drops the connection at the end."""

    async def reply(request: web.Request, seen: Seen) -> web.StreamResponse:
        return await _send(request, list(parts), cut=cut, content_type=content_type)

    return reply


async def _send(
    request: web.Request, parts: list[bytes | float], *, cut: bool = False, content_type: str = "text/event-stream"
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": content_type})
    await response.prepare(request)
    for part in parts:
        if isinstance(part, bytes):
            await response.write(part)
        else:
            await asyncio.sleep(part)
    if cut:
        assert request.transport is not None
        request.transport.abort()
        return response
    await response.write_eof()
    return response


def fails(status: int, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
    """Answers with an error: a dict is sent as JSON, text as HTML."""

    async def reply(request: web.Request, seen: Seen) -> web.StreamResponse:
        if isinstance(body, str):
            return web.Response(status=status, text=body, content_type="text/html", headers=headers)
        said = body if body is not None else {"error": {"message": f"fake {status}", "type": "x", "code": None}}
        return web.json_response(said, status=status, headers=headers)

    return reply


def resets() -> Reply:
    """Drops the connection before it answers."""

    async def reply(request: web.Request, seen: Seen) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return reply


def hangs(seconds: float = 3600) -> Reply:
    """Says nothing at all."""

    async def reply(request: web.Request, seen: Seen) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.Response()

    return reply

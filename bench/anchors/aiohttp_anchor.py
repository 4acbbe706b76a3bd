"""The aiohttp anchor: aiohttp as server and as client on uvloop. `python -m bench.anchors.aiohttp_anchor PORT`.

Frozen: see bench/README.md before changing a line.
"""

import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web

from bench.anchors.rewrite import NOT_FOUND, UPSTREAM, UPSTREAM_KEY, UsageReader, finish, prepare

URL = UPSTREAM + "/v1/chat/completions"
BODY_BYTES_MAX = 1 << 26
SESSION: web.AppKey[aiohttp.ClientSession] = web.AppKey("session", aiohttp.ClientSession)


async def chat(request: web.Request) -> web.StreamResponse:
    """Relay one chat completion, streamed or whole."""
    prepared = prepare(await request.read())
    if prepared is None:
        return web.Response(body=NOT_FOUND, status=404, content_type="application/json")
    body, stream = prepared
    headers = {"content-type": "application/json", "authorization": "Bearer " + UPSTREAM_KEY}
    async with request.app[SESSION].post(URL, data=body, headers=headers) as answer:
        if not stream:
            whole = finish(await answer.read())
            return web.Response(body=whole, status=answer.status, content_type="application/json")
        out = web.StreamResponse(status=answer.status, headers={"content-type": "text/event-stream"})
        await out.prepare(request)
        usage = UsageReader()
        async for data in answer.content.iter_any():
            usage.feed(data)
            await out.write(data)
        await out.write_eof()
        return out


async def open_session(app: web.Application) -> AsyncIterator[None]:
    """Hold one client session for the life of the server."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        app[SESSION] = session
        yield


def build() -> web.Application:
    """The application."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.cleanup_ctx.append(open_session)
    app.router.add_post("/v1/chat/completions", chat)
    return app


if __name__ == "__main__":
    uvloop.install()
    web.run_app(build(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)

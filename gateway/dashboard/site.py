"""The dashboard as an ASGI application: from a path below /dashboard to what answers there."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from gateway.dashboard.answers import (
    ASK_AGAIN,
    FOR_EVER,
    NO_STORE,
    Reply,
    Send,
    Table,
    error_reply,
    json_reply,
    send,
    table_reply,
)
from gateway.dashboard.aside import Aside
from gateway.dashboard.assets import PLACE, Assets, load_assets
from gateway.dashboard.configuration import pack_catalogue
from gateway.dashboard.fleet_views import budgets_table, live_table, look, prices_table, standings
from gateway.dashboard.gate import FIELDS, Gate
from gateway.dashboard.jobs import CHART, Job, Seen
from gateway.dashboard.query import Query
from gateway.dashboard.sessions import SharedSessions
from gateway.dashboard.sources import Receive, Sources
from gateway.errors import InvalidRequestError, MethodNotAllowedError, NotFoundError, PayloadTooLargeError
from providers.errors import MixgateError

BASE: Final = "/dashboard"
API: Final = "/dashboard/api/"
SEGMENTS_MAX: Final = 2
"""Of a page's path."""
SIGN_IN_MAX_BYTES: Final = 4096
"""The body of a sign-in."""
LABELS_MAX: Final = 2000
"""Keys that are called by their names; others by their public id."""
CHART_MAX_BYTES: Final = 256 * 1024
"""What describes a chart."""
_REDIRECT: Final = 308
_NOTHING: Final = 204
_log = logging.getLogger("mixgate.dashboard")

Scope = MutableMapping[str, Any]


class Dashboard:
    """Answers every request below /dashboard. Belongs to the event loop."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        sessions = None if sources.shelf is None else SharedSessions(sources.shelf, sources.seal)
        self._gate = Gate(sources.door, sources.monotonic_s, sources.unix_s, sources.tries, sessions)
        self._aside = Aside(sources.path)
        self._assets: Assets | None = None
        self._posts = {"sign-in": self._sign_in, "sign-out": self._sign_out, "chart": self._chart}
        self._tables: dict[str, Callable[[float], Awaitable[Table]]] = {
            "live": self._live,
            "budgets": self._budgets,
            "prices": self._prices,
        }
        self._warming: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, to: Send) -> None:
        """Answer one request."""
        try:
            reply = await self._answer(scope, receive)
        except MixgateError as error:
            reply = error_reply(error)
        await send(reply, to)

    async def aclose(self) -> None:
        """Give everything back."""
        if self._warming is not None:
            await self._warming
        await self._aside.aclose()

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        self._gate.check_host(scope)
        path, method = str(scope["path"]), str(scope["method"])
        if path.startswith(API):
            name = path[len(API) :]
            post = self._posts.get(name)
            if post is not None:
                _expect(method, "POST")
                return await post(scope, receive)
            _expect(method, "GET", "HEAD")
            return await self._look_up(name, scope)
        _expect(method, "GET", "HEAD")
        if path == BASE:
            return Reply(b"", status=_REDIRECT, headers=((b"location", b"/dashboard/"), NO_STORE))
        return await self._file(path)

    # Files.

    async def _file(self, path: str) -> Reply:
        assets = self._assets
        if assets is None:
            assets = self._assets = await asyncio.to_thread(load_assets)
        if path.startswith(PLACE):
            found = assets.find(path)
            if found is None:
                raise NotFoundError("there is no such file")
            asset, same_for_ever = found
            return Reply(asset.body, asset.kind, headers=(FOR_EVER if same_for_ever else ASK_AGAIN,))
        parts = path.removeprefix(f"{BASE}/").rstrip("/").split("/")
        plain = all(part.replace("-", "").replace("_", "").replace(".", "").isalnum() or not part for part in parts)
        if not path.startswith(f"{BASE}/") or len(parts) > SEGMENTS_MAX or not (plain and path.isascii()):
            raise NotFoundError("there is no such page")
        if self._warming is None or self._warming.done():
            self._warming = asyncio.create_task(self._aside.warm())  # what it needs next takes a moment to start
        return Reply(assets.page.body, assets.page.kind)

    # Changes.

    async def _sign_in(self, scope: Scope, receive: Receive) -> Reply:
        self._gate.check_change(scope)
        body = await _read_json(scope, receive, SIGN_IN_MAX_BYTES)
        try:
            token = msgspec.json.decode(body, type=dict[str, str]).get("token", "")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequestError(f'send {{"token": "..."}}: {error}') from error
        shown, cookie = await self._gate.sign_in(scope, token)
        _log.info("somebody signed in to the dashboard as %s", shown["role"])
        return json_reply(shown, headers=((b"set-cookie", cookie),))

    async def _sign_out(self, scope: Scope, _receive: Receive) -> Reply:
        cookie = await self._gate.sign_out(scope)
        return Reply(b"", status=_NOTHING, headers=(NO_STORE, (b"set-cookie", cookie)))

    async def _chart(self, scope: Scope, receive: Receive) -> Reply:
        self._gate.check_change(scope)
        await self._gate.admit(scope)
        body = await _read_json(scope, receive, CHART_MAX_BYTES)
        return await self._aside.ask(Job(number=0, what=CHART, body=body))

    # Look-ups.

    async def _look_up(self, name: str, scope: Scope) -> Reply:
        if name == "session":
            return json_reply(await self._gate.session(scope))
        visitor = await self._gate.admit(scope)
        text, unix_s = bytes(scope["query_string"]), self._sources.unix_s()
        table = self._tables.get(name)
        if table is not None:
            query = Query(text, unix_s)
            query.expect(("format",))
            return table_reply(await table(unix_s), as_csv=query.flag("format", "csv"), name=name)
        job = Job(number=0, what=name, query=text, role=visitor.role, unix_s=unix_s, labels=self._labels())
        return await self._aside.ask(await self._with_facts(job))

    async def _with_facts(self, job: Job) -> Job:
        """With what only the gateway knows, where it takes that."""
        match job.what:
            case "overview":
                return replace(
                    job,
                    facts={
                        "budgets": (await self._budgets(job.unix_s)).rows,
                        "in_flight": (await self._sources.live())[0],
                        "endpoints": standings(self._look()),
                    },
                )
            case "endpoints":
                return replace(job, seen=self._look(), now_s=self._sources.monotonic_s())
            case "what-if":
                return replace(job, body=pack_catalogue(self._sources.fleet().catalogue))
            case _:
                return job

    async def _live(self, _unix_s: float) -> Table:
        in_flight, on_their_way = await self._sources.live()
        return live_table(on_their_way, self._labels(), in_flight)

    async def _budgets(self, unix_s: float) -> Table:
        return await budgets_table(self._sources.key_records(), self._sources.spending, unix_s)

    async def _prices(self, _unix_s: float) -> Table:
        return prices_table(self._sources.fleet())

    def _labels(self) -> dict[str, str]:
        """Names of keys, by their public id."""
        return {one.id: one.name for one in islice(self._sources.key_records(), LABELS_MAX)}

    def _look(self) -> tuple[Seen, ...]:
        sources = self._sources
        return look(sources.fleet(), sources.health, sources.monotonic_s())


def _expect(method: str, *known: str) -> None:
    if method not in known:
        raise MethodNotAllowedError(f"this takes {known[0]}, not {method}")


async def _read_json(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """A body that is said to be JSON, which no form of another site can send unasked.

    Raises:
        InvalidRequestError: It is not said to be.
        PayloadTooLargeError: It is too large.
    """
    kind: bytes = scope[FIELDS].get(b"content-type", b"")
    if kind.partition(b";")[0].strip().lower() != b"application/json":
        raise InvalidRequestError("send the body as JSON, with the header `content-type: application/json`")
    body = b""
    while True:
        message = await receive()
        piece: bytes = message.get("body", b"")
        body += piece
        if len(body) > max_bytes:
            raise PayloadTooLargeError(f"the body has more than {max_bytes} bytes")
        if not message.get("more_body"):
            return body

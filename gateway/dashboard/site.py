"""The dashboard as an ASGI application: from a path below /dashboard to what answers there."""

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import msgspec
from msgspec import Struct

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
from gateway.dashboard.assets import PLACE, Assets, load_assets
from gateway.dashboard.explorer import request_detail, requests_table
from gateway.dashboard.fleet_views import (
    Seen,
    budgets_table,
    days_table,
    endpoints_table,
    events_table,
    live_table,
    look,
    minutes_table,
    prices_table,
    standings,
)
from gateway.dashboard.gate import FIELDS, Gate, Visitor
from gateway.dashboard.outcomes import distribution_table, savings_since
from gateway.dashboard.query import US_PER_S, Query, iso
from gateway.dashboard.reading import Readers
from gateway.dashboard.sources import Receive, Sources
from gateway.dashboard.spending import (
    DAY_US,
    forecast,
    month_start_us,
    series_table,
    spend_table,
    totals,
)
from gateway.dashboard.what_if import what_if_table
from gateway.errors import InvalidRequestError, MethodNotAllowedError, NotFoundError, PayloadTooLargeError
from gateway.state.figures_reader import FiguresReader
from gateway.state.ledger_reader import By
from providers.errors import MixgateError

BASE: Final = "/dashboard"
API: Final = "/dashboard/api/"
SEGMENTS_MAX: Final = 2
"""Of a page's path."""
SIGN_IN_MAX_BYTES: Final = 4096
CHART_MAX_BYTES: Final = 256 * 1024
_REDIRECT: Final = 308
_NOTHING: Final = 204
_log = logging.getLogger("mixgate.dashboard")

Scope = MutableMapping[str, Any]


class _Asked(Struct, frozen=True):
    """One look-up."""

    query: Query
    visitor: Visitor
    unix_s: float
    labels: dict[str, str]
    """Names of keys, by their public id."""

    @property
    def now_us(self) -> int:
        return int(self.unix_s * US_PER_S)

    def label(self, by: By, name: str) -> str | None:
        return self.labels.get(name) if by == "key" else None


_View = Callable[[FiguresReader, _Asked], Table]


def _spend(reader: FiguresReader, asked: _Asked) -> Table:
    return spend_table(reader, asked.query, asked.label)


def _series(reader: FiguresReader, asked: _Asked) -> Table:
    return series_table(reader, asked.query, asked.label)


def _days(reader: FiguresReader, asked: _Asked) -> Table:
    return days_table(reader, asked.query, asked.unix_s)


def _minutes(reader: FiguresReader, asked: _Asked) -> Table:
    return minutes_table(reader, asked.query)


def _events(reader: FiguresReader, asked: _Asked) -> Table:
    return events_table(reader, asked.query)


def _distribution(reader: FiguresReader, asked: _Asked) -> Table:
    return distribution_table(reader, asked.query)


def _requests(reader: FiguresReader, asked: _Asked) -> Table:
    return requests_table(reader, asked.query, asked.visitor.role, asked.labels.get)


_VIEWS: Final[dict[str, _View]] = {
    "spend": _spend,
    "spend/series": _series,
    "cost-distribution": _distribution,
    "endpoints/days": _days,
    "endpoints/minutes": _minutes,
    "events": _events,
    "requests": _requests,
}
"""Tables that the store alone says."""


class Dashboard:
    """Answers every request below /dashboard. Belongs to the event loop."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._gate = Gate(sources.door, sources.monotonic_s, sources.unix_s)
        self._readers = Readers(sources.path)
        self._assets: Assets | None = None
        self._posts = {"sign-in": self._sign_in, "sign-out": self._sign_out, "chart": self._chart}
        self._tables = {
            "live": self._live,
            "budgets": self._budgets,
            "prices": self._prices,
            "endpoints": self._endpoints,
            "what-if": self._what_if,
        }

    async def __call__(self, scope: Scope, receive: Receive, to: Send) -> None:
        """Answer one request."""
        try:
            reply = await self._answer(scope, receive)
        except MixgateError as error:
            reply = error_reply(error)
        await send(reply, to)

    def close(self) -> None:
        """Give everything back."""
        self._readers.close()

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
        return Reply(assets.page.body, assets.page.kind)

    # Changes.

    async def _sign_in(self, scope: Scope, receive: Receive) -> Reply:
        self._gate.check_change(scope)
        body = await _read_json(scope, receive, SIGN_IN_MAX_BYTES)
        try:
            token = msgspec.json.decode(body, type=dict[str, str]).get("token", "")
        except msgspec.DecodeError as error:
            raise InvalidRequestError(f'send {{"token": "..."}}: {error}') from error
        shown, cookie = self._gate.sign_in(scope, token)
        _log.info("somebody signed in to the dashboard as %s", shown["role"])
        return json_reply(shown, headers=((b"set-cookie", cookie),))

    async def _sign_out(self, scope: Scope, _receive: Receive) -> Reply:
        cookie = self._gate.sign_out(scope)
        return Reply(b"", status=_NOTHING, headers=(NO_STORE, (b"set-cookie", cookie)))

    async def _chart(self, scope: Scope, receive: Receive) -> Reply:
        self._gate.check_change(scope)
        self._gate.admit(scope)
        body = await _read_json(scope, receive, CHART_MAX_BYTES)
        drawn = await self._readers.draw(body)
        return Reply(drawn, "image/svg+xml")

    # Look-ups.

    async def _look_up(self, name: str, scope: Scope) -> Reply:
        if name == "session":
            return json_reply(self._gate.session(scope))
        visitor = self._gate.admit(scope)
        sources = self._sources
        unix_s = sources.unix_s()
        query = Query(bytes(scope["query_string"]), unix_s)
        asked = _Asked(query, visitor, unix_s, {one.id: one.name for one in sources.key_records()})
        if name == "overview":
            return json_reply(await self._overview(asked))
        if name == "savings":
            return json_reply(await self._readers.ask(lambda reader: savings_since(reader, query, asked.now_us)))
        if name.startswith("requests/"):
            wanted = name.removeprefix("requests/")
            query.expect(())
            return json_reply(await self._readers.ask(lambda reader: request_detail(reader, wanted, visitor.role)))
        view = _VIEWS.get(name)
        as_csv = query.flag("format", "csv")
        # Putting rows into words takes longer than finding them: that too is done beside the loop.
        words = name.replace("/", "-")
        if view is not None:
            found = view
            return await self._readers.ask(lambda reader: table_reply(found(reader, asked), as_csv=as_csv, name=words))
        table = self._tables.get(name)
        if table is None:
            raise NotFoundError("there is nothing of this name in the dashboard's API")
        return table_reply(await table(asked), as_csv=as_csv, name=words)

    async def _overview(self, asked: _Asked) -> dict[str, Any]:
        asked.query.expect(())
        now_us = asked.now_us
        month_us = month_start_us(now_us)

        def read(reader: FiguresReader) -> dict[str, Any]:
            return {
                "now": iso(now_us // US_PER_S * US_PER_S),
                "today": totals(reader, now_us // DAY_US * DAY_US, now_us),
                "month": totals(reader, month_us, now_us),
                "forecast": forecast(reader, now_us),
                "savings": savings_since(reader, asked.query, now_us),
            }

        figures = await self._readers.ask(read)
        return figures | {
            "budgets": self._budget_rows(asked).rows,
            "in_flight": self._sources.in_flight(),
            "endpoints": standings(self._look()),
        }

    async def _live(self, asked: _Asked) -> Table:
        asked.query.expect(("format",))
        return live_table(self._sources.on_their_way(), asked.labels, self._sources.in_flight())

    async def _budgets(self, asked: _Asked) -> Table:
        asked.query.expect(("format",))
        return self._budget_rows(asked)

    async def _prices(self, asked: _Asked) -> Table:
        return prices_table(self._sources.fleet(), asked.query)

    async def _endpoints(self, asked: _Asked) -> Table:
        seen, now_s = self._look(), self._sources.monotonic_s()
        return await self._readers.ask(lambda reader: endpoints_table(reader, asked.query, seen, now_s, asked.unix_s))

    async def _what_if(self, asked: _Asked) -> Table:
        path, catalogue = self._sources.path, self._sources.fleet().catalogue
        return await self._readers.ask(lambda _reader: what_if_table(path, catalogue, asked.query))

    def _budget_rows(self, asked: _Asked) -> Table:
        return budgets_table(self._sources.key_records(), self._sources.spending, asked.unix_s)

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

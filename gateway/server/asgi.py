"""The raw ASGI application: from a request's path to the code that answers it, and from any error to its wire form.

Raw because a framework costs more than all of our own work on a request (docs/adr/0002-raw-asgi.md).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import msgspec

from gateway.admission import Admission
from gateway.engine import Engine
from gateway.errors import ForbiddenError, MethodNotAllowedError, NoEndpointError, NotFoundError
from gateway.reuse import Reuse
from gateway.routing.resolve import resolve
from gateway.server.auth import Access, Caller
from gateway.server.client import AsgiClient
from gateway.server.client_hints import read_hints
from gateway.server.completions import Completions, no_json
from gateway.server.endpoints import list_endpoints
from gateway.server.errors import error_answer, put_error, refusal_headers
from gateway.server.exchange import Answerer, Exchange
from gateway.server.explain import explain_request
from gateway.server.idempotency import IDEMPOTENCY_KEY, Idempotency
from gateway.server.lifecycle import Lifecycle
from gateway.server.live import Live
from gateway.server.models import list_models, model_entry
from gateway.server.openai_request import SMALL_BODY_BYTES, decode_chat
from gateway.server.scope import FIELDS, LOOPBACK, App, Receive, Scope, Send
from gateway.server.standing import Standing, says_json
from gateway.sharing.base import Rates
from providers.errors import MixgateError

SURFACES: Final = ("/v1", "/api/v1")
"""OpenAI's base path and OpenRouter's."""
CHATS: Final = frozenset(f"{surface}/chat/completions" for surface in SURFACES)
ENDPOINTS: Final = "/endpoints"
"""After a Model's name: who answers for it."""
DASHBOARD: Final = "/dashboard"
CALLER: Final = "mixgate.caller"
"""Scope member: whoever sent the request."""

Route = Callable[[Scope, Receive, Send], Awaitable[None]]
Place = tuple[Access, Mapping[str, Route]]
"""Who may come to a path, and what answers there, by method."""
_DENIED: Final[Mapping[Access, str]] = {
    "ask": "An admin token changes keys and nothing else; ask with a client key.",
    "administer": "A client key does not administer; that takes the admin token (gateway.admin_token).",
    "watch": "A client key reads no metrics; that takes the admin token, or one for it alone (gateway.metrics_token).",
}


class Places(Protocol):
    """Further paths."""

    def find(self, path: str) -> Place | None:
        """Who may come there, and what answers; None where there is nothing."""
        ...


class Application(Answerer):
    """Answers every request of a server."""

    def __init__(
        self,
        live: Live,
        lifecycle: Lifecycle,
        engine: Engine,
        admission: Admission,
        places: Places | None = None,
        limiter: Rates | None = None,
        reuse: Reuse | None = None,
        idempotency: Idempotency | None = None,
    ) -> None:
        self._idempotency = idempotency
        self._reuse = reuse
        self._live = live
        self._admission = admission
        self._lifecycle = lifecycle
        self._engine = engine
        self._completions = Completions(live, lifecycle, engine, limiter, reuse)
        self.refusals: dict[str, int] = {}
        """How often was answered with an error before anybody was asked, by its code."""
        self._places = places
        self.dashboard: App | None = None
        """What answers below DASHBOARD, which asks by itself who is there."""
        self._routes: dict[str, Place] = {
            "/livez": ("anyone", {"GET": self._livez}),
            "/readyz": ("anyone", {"GET": self._readyz}),
        }
        for path in CHATS:
            self._routes[path] = ("ask", {"POST": self._chat})
        for surface in SURFACES:
            self._routes[f"{surface}/models"] = ("ask", {"GET": self._models})
            self._routes[f"{surface}/route/explain"] = ("ask", {"POST": self._explain})
        self._model_place: Place = ("ask", {"GET": self._model})

    async def answer(self, exchange: Exchange) -> None:
        """Answer a request of our own server: a chat completion without a detour, all else as any ASGI server's."""
        line = exchange.head.line
        if line.path not in CHATS or line.method != "POST" or IDEMPOTENCY_KEY in exchange.fields:
            await self(exchange.scope(), exchange.receive, exchange.send)
            return
        try:
            standing = self._standing(exchange)
            self._admission.enter(standing.key)
            try:
                await self._completions.answer(exchange, standing)
            finally:
                self._admission.leave(standing.key)
        except MixgateError as error:
            self._note(error)
            waiting = put_error(exchange, error)
            if waiting is not None:
                await waiting

    def _standing(self, exchange: Exchange) -> Standing:
        """Who sends a chat request. What was found out about its head before is gone by where it cannot have changed.

        Raises:
            MixgateError: Nobody who may.
        """
        head, door = exchange.head, self._live.authenticator
        known = head.standing
        standing = known if isinstance(known, Standing) else None
        if standing is not None and standing.door is door and door.is_steady:
            return standing
        scope, proxies = exchange.connection.scope, self._live.proxies
        is_local: bool = scope[LOOPBACK] and (proxies is None or not proxies.has_sent(head.fields, scope["client"]))
        caller = door.admit(head.line.path, head.host, head.fields, peer_is_local=is_local)
        _check_rights(caller, "ask")
        if standing is None or standing.caller is not caller:
            standing = head.standing = Standing(head.fields, caller)
        standing.door = door if door.is_steady else None
        return standing

    def _note(self, error: MixgateError) -> None:
        self.refusals[error.code] = self.refusals.get(error.code, 0) + 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of any ASGI server."""
        proxies = self._live.proxies
        if proxies is not None:
            proxies.settle(scope)
        if self.dashboard is not None and scope["path"].startswith(DASHBOARD):
            await self.dashboard(scope, receive, send)
            return
        try:
            scope[CALLER] = self._live.authenticator.check(scope)
            await self._find(scope)(scope, receive, send)
        except MixgateError as error:
            self._note(error)
            await _send_error(send, error)

    def _find(self, scope: Scope) -> Route:
        path: str = scope["path"]
        place = self._routes.get(path) or self._find_place(path)
        if place is None:
            raise NotFoundError(f"there is nothing at {path[:200]!r}; the API is under /v1")
        access, routes = place
        _check_rights(scope[CALLER], access)
        asked: str = scope["method"]
        route = routes.get("GET" if asked == "HEAD" else asked)
        if route is None:
            raise MethodNotAllowedError(f"{path[:200]!r} takes {' or '.join(routes)}, not {asked}")
        return route

    def _find_place(self, path: str) -> Place | None:
        if any(path.startswith(f"{surface}/models/") for surface in SURFACES):
            return self._model_place
        return None if self._places is None else self._places.find(path)

    async def _livez(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send_json(send, {"status": "alive"})

    async def _readyz(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        ready = not self._lifecycle.draining
        body: dict[str, Any] = {"status": "ready" if ready else "draining"}
        if local := self._live.local_status():
            body["local"] = local
        await send_json(send, body, 200 if ready else 503)

    async def _models(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        fleet = self._live.fleet()
        await send_json(send, list_models(fleet.catalogue, fleet.off))

    async def _model(self, scope: Scope, _receive: Receive, send: Send) -> None:
        name = str(scope["path"]).partition("/models/")[2]
        fleet = self._live.fleet()
        if name.endswith(ENDPOINTS) and fleet.catalogue.find_route(name) is None:
            route, now_s = resolve(name.removesuffix(ENDPOINTS), fleet.catalogue), asyncio.get_running_loop().time()
            await send_json(send, list_endpoints(route, fleet.catalogue, fleet.off, self._engine.health, now_s))
            return
        entry = model_entry(resolve(name, fleet.catalogue), fleet.catalogue, fleet.off)
        if entry is None:
            raise NoEndpointError(f"{name[:100]!r} is configured, but nothing can answer for it now", param="model")
        await send_json(send, entry)

    async def _explain(self, scope: Scope, receive: Receive, send: Send) -> None:
        require_json(scope)
        sent = await AsgiClient(scope, receive, send).body()
        large = len(sent) > SMALL_BODY_BYTES
        request = await self._completions.decode_large(sent) if large else decode_chat(sent)
        hints = read_hints(scope[FIELDS], stream=bool(request.stream))
        fleet = self._live.fleet()
        caller: Caller = scope[CALLER]
        body = explain_request(self._engine, request, fleet, hints=hints, caller=caller.name, key_id=caller.key_id)
        await send_json(send, body)

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller = scope[CALLER]
        key = caller.name if caller.is_key else None
        self._admission.enter(key)
        try:
            if IDEMPOTENCY_KEY in scope[FIELDS] and self._idempotency is not None:
                await self._idempotency.answer(scope, receive, send, self._chat_admitted, caller.name)
            else:
                await self._chat_admitted(scope, receive, send)
        finally:
            self._admission.leave(key)

    async def _chat_admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        standing = Standing(scope[FIELDS], scope[CALLER])
        await self._completions.answer(AsgiClient(scope, receive, send), standing)


def _check_rights(caller: Caller, access: Access) -> None:
    """Refuse whoever may not come there.

    Raises:
        ForbiddenError: The caller may not.
    """
    if access not in caller.rights:
        raise ForbiddenError(_DENIED[access])


def require_json(scope: Scope) -> None:
    """Refuse a body that is not said to be JSON: a web page cannot send such a request to another site unasked.

    Raises:
        InvalidRequestError: It is not.
    """
    if not says_json(scope[FIELDS]):
        raise no_json()


async def send_json(send: Send, body: Any, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Answer with a value as JSON."""
    headers = [(b"content-type", b"application/json"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode(body)})


async def _send_error(send: Send, error: MixgateError) -> None:
    await send({"type": "http.response.start", "status": error.status, "headers": refusal_headers(error)})
    await send({"type": "http.response.body", "body": error_answer(error)})

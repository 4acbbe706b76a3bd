"""The raw ASGI application: from a request's path to the code that answers it, and from any error to its wire form.

Raw because a framework costs more than all of our own work on a request (docs/adr/0002-raw-asgi.md).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import msgspec

from gateway.admission import Admission
from gateway.cost_check import CostCheck
from gateway.engine import Engine
from gateway.errors import (
    CapabilityError,
    ForbiddenError,
    InvalidRequestError,
    MethodNotAllowedError,
    ModelNotFoundError,
    NoEndpointError,
    NotFoundError,
    PromptTooLongError,
)
from gateway.fleet import Fleet
from gateway.keys.limits import Limited, rate_headers
from gateway.keys.words import rate_error
from gateway.learned import USUAL_OUTPUT_TOKENS
from gateway.request_id import REQUEST_ID
from gateway.reuse import Reuse
from gateway.reused import AnyAnswer
from gateway.routing.resolve import resolve
from gateway.server.auth import Access, Authenticator, Caller
from gateway.server.cache_headers import CacheWishes, Headers, cache_headers
from gateway.server.chat import ChatReply
from gateway.server.client_hints import read_hints, read_origin
from gateway.server.endpoints import list_endpoints
from gateway.server.errors import error_answer, error_headers
from gateway.server.exchange import FIELDS, ON_DISCONNECT, SEND_WHOLE, App, Receive, Scope, Send
from gateway.server.explain import explain_request
from gateway.server.forwarded import TrustedProxies
from gateway.server.idempotency import IDEMPOTENCY_KEY, Idempotency
from gateway.server.ids import GenerationIds
from gateway.server.lifecycle import Lifecycle
from gateway.server.metadata import availability, unknown_model
from gateway.server.models import list_models, model_entry
from gateway.server.openai_request import SMALL_BODY_BYTES, check_structure, decode_chat
from gateway.sharing.base import Rates
from providers.errors import MixgateError
from providers.messages import ChatRequest
from providers.tokens import estimate_request

SURFACES: Final = ("/v1", "/api/v1")
"""OpenAI's base path and OpenRouter's."""
DECODING_THREADS_MAX: Final = 2
"""Threads that take large bodies apart, so that small requests need not wait for them."""


class Live:
    """What may change under a running server."""

    __slots__ = ("authenticator", "fleet", "local_status", "proxies")

    def __init__(
        self, authenticator: Authenticator, fleet: Callable[[], Fleet], local_status: Callable[[], Mapping[str, str]]
    ) -> None:
        self.authenticator = authenticator
        self.fleet = fleet
        """Who may be asked now."""
        self.local_status = local_status
        """State of each local model in words, for /readyz."""
        self.proxies: TrustedProxies | None = None
        """Whose forwarding headers are believed, if anybody's."""


NOBODY: Final = (CapabilityError, ModelNotFoundError, NoEndpointError, PromptTooLongError)
"""Nobody could be asked at all."""
ENDPOINTS: Final = "/endpoints"
"""After a Model's name: who answers for it."""
DASHBOARD: Final = "/dashboard"
METADATA_HEADER: Final = b"x-openrouter-metadata"
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


class Application:
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
        self._limiter = limiter
        self._reuse = reuse
        self._cache_wishes = CacheWishes()
        self._live = live
        self._admission = admission
        self._lifecycle = lifecycle
        self._engine = engine
        self._ids = GenerationIds()
        self.refusals: dict[str, int] = {}
        """How often was answered with an error before anybody was asked, by its code."""
        self._costs = CostCheck()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._decoding = ThreadPoolExecutor(DECODING_THREADS_MAX, "decode")
        self._places = places
        self.dashboard: App | None = None
        """What answers below DASHBOARD, which asks by itself who is there."""
        self._routes: dict[str, Place] = {
            "/livez": ("anyone", {"GET": self._livez}),
            "/readyz": ("anyone", {"GET": self._readyz}),
        }
        for surface in SURFACES:
            self._routes[f"{surface}/chat/completions"] = ("ask", {"POST": self._chat})
            self._routes[f"{surface}/models"] = ("ask", {"GET": self._models})
            self._routes[f"{surface}/route/explain"] = ("ask", {"POST": self._explain})
        self._model_place: Place = ("ask", {"GET": self._model})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
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
            self.refusals[error.code] = self.refusals.get(error.code, 0) + 1
            await _send_error(send, error)

    def _find(self, scope: Scope) -> Route:
        path: str = scope["path"]
        place = self._routes.get(path) or self._find_place(path)
        if place is None:
            raise NotFoundError(f"there is nothing at {path[:200]!r}; the API is under /v1")
        access, routes = place
        caller: Caller = scope[CALLER]
        if access not in caller.rights:
            raise ForbiddenError(_DENIED[access])
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
        request = await self._read_chat(receive)
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
        require_json(scope)
        request = await self._read_chat(receive)
        caller: Caller = scope[CALLER]
        if caller.key_id and self._limiter is not None:
            await self._answer_within(self._limiter, scope, request, send, caller)
        else:
            await self._answer_chat(scope, request, send, caller)

    async def _answer_within(
        self, limiter: Rates, scope: Scope, request: ChatRequest, send: Send, caller: Caller
    ) -> None:
        """Answer, if the key may ask now.

        Raises:
            RateLimitError: It may not.
        """
        loop = asyncio.get_running_loop()
        tokens = estimate_request(request) + (request.output_limit_tokens or USUAL_OUTPUT_TOKENS)
        held = await limiter.enter(caller.key_id, tokens, loop.time())
        if isinstance(held, Limited):
            left = await limiter.allowances(caller.key_id, loop.time())
            raise rate_error(held, caller.key_id, rate_headers(left))
        used: int | None = None
        try:
            # A key without such limits is told nothing, and pays nothing for it.
            limited = any(pace.requests is not None or pace.tokens is not None for pace in held.paces)
            rates = rate_headers(await limiter.allowances(caller.key_id, loop.time())) if limited else ()
            used = await self._answer_chat(scope, request, send, caller, rates)
        finally:
            limiter.leave(held, used, loop.time())

    async def _answer_chat(
        self, scope: Scope, request: ChatRequest, send: Send, caller: Caller, rates: Headers = ()
    ) -> int | None:
        """Answer, with `rates` in its head; gives how many tokens it came to, where that is known."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 (we are in it)
        fleet = self._live.fleet()
        fields: Mapping[bytes, bytes] = scope[FIELDS]
        openrouter = scope["path"].startswith("/api/")
        generation_id = self._ids.mint()
        REQUEST_ID.set(generation_id)
        hints = read_hints(fields, stream=bool(request.stream))
        wish = None if self._reuse is None else self._cache_wishes.read(fields, request, fleet.catalogue)
        origin = read_origin(
            fields,
            caller=caller.name,
            key_id=caller.key_id,
            surface="openrouter" if openrouter else "openai",
            generation_id=generation_id,
            user=request.user,
            session=request.session_id or hints.session,
        )
        answer: AnyAnswer
        try:
            if wish is None or self._reuse is None:
                answer = await self._engine.answer(request, fleet, hints=hints, origin=origin, task=task)
            else:
                answer = await self._reuse.answer(request, fleet, wish, hints=hints, origin=origin)
        except NOBODY as error:
            if not openrouter:
                raise
            if isinstance(error, ModelNotFoundError):
                why_nobody = unknown_model(request, fleet.catalogue)
            else:
                decision = self._engine.explain(request, fleet, hints=hints, caller=caller.name, key_id=caller.key_id)
                why_nobody = availability(decision.plan.excluded, requested=decision.names, now_s=decision.now_s)
            await _send_error(send, error, why_nobody)
            return 0
        reply = ChatReply(
            answer,
            send,
            send_whole=scope.get(SEND_WHOLE),
            generation_id=generation_id,
            created_unix_s=int(time.time()),
            openrouter=openrouter,
            wants_metadata=fields.get(METADATA_HEADER) == b"enabled",
            also=None if wish is None and not rates else lambda: (*rates, *cache_headers(answer)),
        )
        await self._run(scope, answer, reply, task)
        if reply.usage is not None and reply.usage.cost_in_nusd is not None:  # the client has its answer by now
            overrides = fleet.catalogue.price_overrides.get(answer.endpoint.id, ())
            self._costs.compare(answer.endpoint, overrides, reply.usage)
        usage = reply.usage
        return None if usage is None else (usage.input_tokens or 0) + (usage.output_tokens or 0)

    async def _read_chat(self, receive: Receive) -> ChatRequest:
        """The chat request in a body.

        Raises:
            MixgateError: It is none, or too large to be looked at.
        """
        message = await receive()
        body: bytes = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        if len(body) <= SMALL_BODY_BYTES:
            return decode_chat(body)
        for _ in check_structure(body):
            await asyncio.sleep(0)  # let others have the loop between the steps of a large body
        return await asyncio.get_running_loop().run_in_executor(self._decoding, decode_chat, body)

    async def _run(self, scope: Scope, answer: AnyAnswer, reply: ChatReply, task: asyncio.Task[Any]) -> None:
        """Let the reply run, unless the client leaves or the drain limit passes first."""
        on_disconnect = scope.get(ON_DISCONNECT)
        stop = _Stop(task)
        if on_disconnect is not None:
            on_disconnect(stop.leave)
        expire = stop.expire
        self._lifecycle.on_deadline(expire)
        try:
            await (reply.stream() if answer.stream else reply.whole())
        except MixgateError as error:
            await reply.fail(error)
        except asyncio.CancelledError:
            if stop.left:
                return
            if not stop.expired or task.uncancel() > 0:
                raise
            await reply.shut_down()
        finally:
            answer.close()
            self._lifecycle.forget(expire)


class _Stop:
    """Cancels a task and remembers why it did."""

    __slots__ = ("_task", "expired", "left")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.left = False
        """The client is gone."""
        self.expired = False
        """The drain limit has passed."""

    def leave(self) -> None:
        self.left = True
        self._task.cancel()

    def expire(self) -> None:
        self.expired = True
        self._task.cancel()


def require_json(scope: Scope) -> None:
    """Refuse a body that is not said to be JSON: a web page cannot send such a request to another site unasked.

    Raises:
        InvalidRequestError: It is not.
    """
    content_type: bytes = scope[FIELDS].get(b"content-type", b"")
    if content_type.partition(b";")[0].strip().lower() != b"application/json":
        raise InvalidRequestError("send the body as JSON, with the header `content-type: application/json`")


async def send_json(send: Send, body: Any, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Answer with a value as JSON."""
    headers = [(b"content-type", b"application/json"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode(body)})


async def _send_error(send: Send, error: MixgateError, why_nobody: dict[str, Any] | None = None) -> None:
    await send({"type": "http.response.start", "status": error.status, "headers": error_headers(error)})
    await send({"type": "http.response.body", "body": error_answer(error, availability=why_nobody)})

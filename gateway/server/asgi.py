"""The raw ASGI application: from a request's path to the code that answers it, and from any error to its wire form.

Raw because a framework costs more than all of our own work on a request (docs/adr/0002-raw-asgi.md).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.attempts import Limits
from gateway.config.catalogue import Catalogue
from gateway.cost_check import CostCheck
from gateway.engine import Answer
from gateway.errors import (
    CapabilityError,
    InvalidRequestError,
    MethodNotAllowedError,
    NoEndpointError,
    NotFoundError,
)
from gateway.routing.plan import Plan, Planner, keeping_parameters, needs
from gateway.routing.resolve import resolve
from gateway.server.auth import Authenticator
from gateway.server.chat import ChatReply
from gateway.server.errors import error_answer, error_headers
from gateway.server.exchange import FIELDS, ON_DISCONNECT, Receive, Scope, Send
from gateway.server.ids import GenerationIds
from gateway.server.lifecycle import Lifecycle
from gateway.server.models import list_models, model_entry
from gateway.server.openai_request import SMALL_BODY_BYTES, check_structure, decode_chat
from gateway.upstream import Upstream
from providers.base import Adaptation, Endpoint
from providers.errors import MixgateError, ProviderError
from providers.messages import ChatRequest

SURFACES: Final = ("/v1", "/api/v1")
"""OpenAI's base path and OpenRouter's."""
EXCLUSIONS_SHOWN_MAX: Final = 8
DECODING_THREADS_MAX: Final = 2
"""Threads that take large bodies apart, so that small requests need not wait for them."""


class Snapshot(Struct, frozen=True):
    """All that a request needs to know of the configuration. A reload makes a new one; running requests keep theirs."""

    catalogue: Catalogue
    upstreams: Mapping[str, Upstream]
    authenticator: Authenticator


class Live:
    """What may change under a running server."""

    __slots__ = ("local_status", "off", "snapshot")

    def __init__(
        self,
        snapshot: Snapshot,
        off: Callable[[], Mapping[str, str]],
        local_status: Callable[[], Mapping[str, str]],
    ) -> None:
        self.snapshot = snapshot
        self.off = off
        """Endpoints that cannot answer now, by id, with the reason."""
        self.local_status = local_status
        """State of each local model in words, for /readyz."""


_Route = Callable[[Scope, Receive, Send], Awaitable[None]]


class Application:
    """Answers every request of a server."""

    def __init__(self, live: Live, lifecycle: Lifecycle, limits: Limits | None = None) -> None:
        self._live = live
        self._lifecycle = lifecycle
        self._limits = limits or Limits()
        self._ids = GenerationIds()
        self._costs = CostCheck()
        self._planner = Planner()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._decoding = ThreadPoolExecutor(DECODING_THREADS_MAX, "decode")
        self._routes: dict[str, tuple[str, _Route]] = {
            "/livez": ("GET", self._livez),
            "/readyz": ("GET", self._readyz),
        }
        for surface in SURFACES:
            self._routes[f"{surface}/chat/completions"] = ("POST", self._chat)
            self._routes[f"{surface}/models"] = ("GET", self._models)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            self._live.snapshot.authenticator.check(scope)
            await self._find(scope)(scope, receive, send)
        except MixgateError as error:
            await _send_error(send, error)

    def _find(self, scope: Scope) -> _Route:
        path: str = scope["path"]
        found = self._routes.get(path)
        if found is None:
            if any(path.startswith(f"{surface}/models/") for surface in SURFACES):
                found = ("GET", self._model)
            else:
                raise NotFoundError(f"there is nothing at {path[:200]!r}; the API is under /v1")
        method, route = found
        asked: str = scope["method"]
        if asked != method and not (asked == "HEAD" and method == "GET"):
            raise MethodNotAllowedError(f"{path[:200]!r} takes {method}, not {asked}")
        return route

    async def _livez(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await _send_json(send, {"status": "alive"})

    async def _readyz(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        ready = not self._lifecycle.draining
        body: dict[str, Any] = {"status": "ready" if ready else "draining"}
        if local := self._live.local_status():
            body["local"] = local
        await _send_json(send, body, 200 if ready else 503)

    async def _models(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await _send_json(send, list_models(self._live.snapshot.catalogue, self._live.off()))

    async def _model(self, scope: Scope, _receive: Receive, send: Send) -> None:
        name = str(scope["path"]).partition("/models/")[2]
        catalogue = self._live.snapshot.catalogue
        entry = model_entry(resolve(name, catalogue), catalogue, self._live.off())
        if entry is None:
            raise NoEndpointError(f"{name[:100]!r} is configured, but nothing can answer for it now", param="model")
        await _send_json(send, entry)

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 (we are in it)
        _require_json(scope)
        request = await self._read_chat(receive)
        snapshot = self._live.snapshot
        answer = Answer(
            request,
            self._plan(request, snapshot),
            snapshot.upstreams,
            limits=self._limits,
            unix_time_s=time.time,
            loop=self._loop,
            task=task,
        )
        reply = ChatReply(
            answer,
            send,
            generation_id=self._ids.mint(),
            created_unix_s=int(time.time()),
            openrouter=scope["path"].startswith("/api/"),
        )
        await self._run(scope, answer, reply, task)
        if reply.usage is not None and reply.usage.cost_in_nusd is not None:  # the client has its answer by now
            overrides = snapshot.catalogue.price_overrides.get(answer.endpoint.id, ())
            self._costs.compare(answer.endpoint, overrides, reply.usage)

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

    async def _run(self, scope: Scope, answer: Answer, reply: ChatReply, task: asyncio.Task[Any]) -> None:
        """Let the reply run, unless the client leaves or the drain limit passes first."""
        on_disconnect = scope.get(ON_DISCONNECT)
        left = _Flag(task)
        expired = _Flag(task)
        if on_disconnect is not None:
            on_disconnect(left.raise_)
        self._lifecycle.on_deadline(expired.raise_)
        try:
            await (reply.stream() if answer.stream else reply.whole())
        except MixgateError as error:
            await reply.fail(error)
        except asyncio.CancelledError:
            if left.raised:
                return
            if not expired.raised or task.uncancel() > 0:
                raise
            await reply.shut_down()
        finally:
            answer.close()
            self._lifecycle.forget(expired.raise_)

    def _plan(self, request: ChatRequest, snapshot: Snapshot) -> Plan:
        """The Plan for a request.

        Raises:
            MixgateError: No such model, nothing on to serve it, or nothing that can do what is asked.
        """
        catalogue = snapshot.catalogue
        route = resolve(request.model, catalogue)
        planned = self._planner.plan(route, needs(request), catalogue, self._live.off())
        if request.provider and request.provider.get("require_parameters") is True:
            planned = keeping_parameters(planned, lambda endpoint: _adaptations(request, snapshot, endpoint))
        if planned.candidates:
            return planned
        reasons = "; ".join(
            f"{exclusion.endpoint}: {exclusion.reason}" for exclusion in planned.excluded[:EXCLUSIONS_SHOWN_MAX]
        )
        if any(exclusion.code not in ("off", "retired") for exclusion in planned.excluded):
            raise CapabilityError(f"no endpoint of {route.name!r} can do what is asked. {reasons}")
        raise NoEndpointError(f"nothing can answer for {route.name!r} now. {reasons or 'It has no endpoint.'}")


def _adaptations(request: ChatRequest, snapshot: Snapshot, endpoint: Endpoint) -> Sequence[Adaptation]:
    """What would become of a request at an Endpoint: its dialect is asked, which is pure."""
    dialect = snapshot.upstreams[endpoint.id].dialect
    try:
        return dialect.encode(request, endpoint, stream=bool(request.stream)).adapted
    except ProviderError as error:
        return (Adaptation(error.param or "the request", "dropped"),)


class _Flag:
    """Cancels a task and remembers that it did."""

    __slots__ = ("_task", "raised")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.raised = False

    def raise_(self) -> None:
        self.raised = True
        self._task.cancel()


def _require_json(scope: Scope) -> None:
    content_type: bytes = scope[FIELDS].get(b"content-type", b"")
    if content_type.partition(b";")[0].strip().lower() != b"application/json":
        raise InvalidRequestError("send the body as JSON, with the header `content-type: application/json`")


async def _send_json(send: Send, body: Any, status: int = 200) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode(body)})


async def _send_error(send: Send, error: MixgateError) -> None:
    await send({"type": "http.response.start", "status": error.status, "headers": error_headers(error)})
    await send({"type": "http.response.body", "body": error_answer(error)})

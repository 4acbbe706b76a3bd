"""Chat completions: from a client that was let in to its answer."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from gateway.cost_check import CostCheck
from gateway.engine import Engine
from gateway.errors import (
    CapabilityError,
    InvalidRequestError,
    ModelNotFoundError,
    NoEndpointError,
    PromptTooLongError,
)
from gateway.fleet import Fleet
from gateway.keys.limits import Limited, rate_headers
from gateway.keys.words import rate_error
from gateway.learned import USUAL_OUTPUT_TOKENS
from gateway.request_id import REQUEST_ID
from gateway.reuse import Reuse
from gateway.reused import AnyAnswer
from gateway.server.cache_headers import CacheWishes
from gateway.server.chat import ChatReply
from gateway.server.client import Client
from gateway.server.errors import put_error
from gateway.server.ids import GenerationIds
from gateway.server.lifecycle import Lifecycle
from gateway.server.live import Live
from gateway.server.metadata import availability, unknown_model
from gateway.server.openai_request import SMALL_BODY_BYTES, check_structure, decode_chat
from gateway.server.standing import Standing
from gateway.sharing.base import Rates
from providers.errors import MixgateError
from providers.messages import ChatRequest
from providers.tokens import estimate_request

DECODING_THREADS_MAX: Final = 2
"""Threads that take large bodies apart, so that small requests need not wait for them."""
NOBODY: Final = (CapabilityError, ModelNotFoundError, NoEndpointError, PromptTooLongError)
"""Nobody could be asked at all."""
OPENROUTER: Final = "/api/"
"""What the paths of OpenRouter's surface begin with."""


class Completions:
    """Answers chat requests. Belongs to one event loop."""

    def __init__(
        self, live: Live, lifecycle: Lifecycle, engine: Engine, limiter: Rates | None, reuse: Reuse | None
    ) -> None:
        self._live = live
        self._engine = engine
        self._limiter = limiter
        self._reuse = reuse
        self._cache_wishes = CacheWishes()
        self._costs = CostCheck()
        self._ids = GenerationIds()
        self._decoding = ThreadPoolExecutor(DECODING_THREADS_MAX, "decode")
        self._running: set[_Stop] = set()
        lifecycle.on_deadline(self._expire)

    def _expire(self) -> None:
        """The drain limit has passed."""
        for stop in tuple(self._running):
            stop.expire()

    async def answer(self, client: Client, standing: Standing) -> None:
        """Answer one.

        Raises:
            MixgateError: With what it is to be answered.
        """
        if not standing.is_json:
            raise no_json()
        body = client.body_at_hand()
        if body is None:
            body = await client.body()
        request = decode_chat(body) if len(body) <= SMALL_BODY_BYTES else await self.decode_large(body)
        try:
            if standing.caller.key_id and self._limiter is not None:
                await self._answer_within(self._limiter, client, standing, request)
            else:
                await self._answer(client, standing, request, ())
        except NOBODY as error:
            if not client.path.startswith(OPENROUTER):
                raise
            waiting = put_error(client, error, self._why_nobody(error, request, standing))
            if waiting is not None:
                await waiting

    async def decode_large(self, body: bytes) -> ChatRequest:
        """As `decode_chat`, while others have the loop.

        Raises:
            MixgateError: It is none, or too large to be looked at.
        """
        for _ in check_structure(body):
            await asyncio.sleep(0)  # let others have the loop between the steps of a large body
        return await asyncio.get_running_loop().run_in_executor(self._decoding, decode_chat, body)

    async def _answer_within(self, limiter: Rates, client: Client, standing: Standing, request: ChatRequest) -> None:
        """Answer, if the key may ask now.

        Raises:
            RateLimitError: It may not.
        """
        loop, key_id = asyncio.get_running_loop(), standing.caller.key_id
        tokens = estimate_request(request) + (request.output_limit_tokens or USUAL_OUTPUT_TOKENS)
        held = await limiter.enter(key_id, tokens, loop.time())
        if isinstance(held, Limited):
            left = await limiter.allowances(key_id, loop.time())
            raise rate_error(held, key_id, rate_headers(left))
        used: int | None = None
        try:
            # A key without such limits is told nothing, and pays nothing for it.
            limited = any(pace.requests is not None or pace.tokens is not None for pace in held.paces)
            rates = rate_headers(await limiter.allowances(key_id, loop.time())) if limited else ()
            used = await self._answer(client, standing, request, rates)
        except NOBODY:
            used = 0
            raise
        finally:
            limiter.leave(held, used, loop.time())

    async def _answer(
        self, client: Client, standing: Standing, request: ChatRequest, rates: Sequence[tuple[bytes, bytes]]
    ) -> int | None:
        """Answer, with `rates` in its head; gives how many tokens it came to, where that is known."""
        fleet = self._live.fleet()
        openrouter = client.path.startswith(OPENROUTER)
        generation_id = self._ids.mint()
        REQUEST_ID.set(generation_id)
        hints, caller, task = standing.hints(stream=bool(request.stream)), standing.caller, client.task
        wish = None if self._reuse is None else self._cache_wishes.read(client.fields, request, fleet.catalogue)
        surface = "openrouter" if openrouter else "openai"
        session = request.session_id or hints.session
        origin = standing.sender.origin(caller.name, caller.key_id, surface, generation_id, request.user, session)
        answer: AnyAnswer
        if wish is None or self._reuse is None:
            answer = await self._engine.answer(request, fleet, hints=hints, origin=origin, task=task)
        else:
            answer = await self._reuse.answer(request, fleet, wish, hints=hints, origin=origin)
        reply = ChatReply(
            answer,
            client,
            generation_id=generation_id,
            created_unix_s=self._ids.minted_unix_s,
            openrouter=openrouter,
            wants_metadata=standing.wants_metadata,
            rates=rates,
        )
        stop = _Stop(task)
        client.on_disconnect(stop.leave)
        self._running.add(stop)
        try:
            if answer.stream:
                await reply.stream()
            else:
                waiting = reply.whole(await answer.next())
                if waiting is not None:
                    await waiting
        except MixgateError as error:
            await reply.fail(error)
        except asyncio.CancelledError:
            if not stop.left:
                if task is None or not stop.expired or task.uncancel() > 0:
                    raise
                await reply.shut_down()
        finally:
            answer.close()
            self._running.discard(stop)
        return self._count(answer, reply, fleet)

    def _count(self, answer: AnyAnswer, reply: ChatReply, fleet: Fleet) -> int | None:
        """How many tokens it came to; the client has its answer by now."""
        usage = reply.usage
        if usage is None:
            return None
        if usage.cost_in_nusd is not None:
            overrides = fleet.catalogue.price_overrides.get(answer.endpoint.id, ())
            self._costs.compare(answer.endpoint, overrides, usage)
        return (usage.input_tokens or 0) + (usage.output_tokens or 0)

    def _why_nobody(self, error: MixgateError, request: ChatRequest, standing: Standing) -> dict[str, Any]:
        """What OpenRouter's clients are told."""
        fleet = self._live.fleet()
        if isinstance(error, ModelNotFoundError):
            return unknown_model(request, fleet.catalogue)
        hints, caller = standing.hints(stream=bool(request.stream)), standing.caller
        decision = self._engine.explain(request, fleet, hints=hints, caller=caller.name, key_id=caller.key_id)
        return availability(decision.plan.excluded, requested=decision.names, now_s=decision.now_s)


class _Stop:
    """Cancels a task and remembers why it did."""

    __slots__ = ("_task", "expired", "left")

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self._task = task
        self.left = False
        """The client is gone."""
        self.expired = False
        """The drain limit has passed."""

    def leave(self) -> None:
        self.left = True
        self._cancel()

    def expire(self) -> None:
        self.expired = True
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


def no_json() -> InvalidRequestError:
    """What is said of a body that is not said to be JSON."""
    return InvalidRequestError("send the body as JSON, with the header `content-type: application/json`")

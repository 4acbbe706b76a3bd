"""Answers given again: one that is kept, or one that is on its way to somebody who asked the same.

Stands before the engine where a client or a Route wants that, and nowhere else. What it hands out is read as an
`Answer` is. Of an answer that is shared the first to ask is the one who is billed; should that one's attempt come to
nothing, another of them asks.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from msgspec import Struct

from gateway.answer import Answer
from gateway.attempts import Hints
from gateway.bill import Origin
from gateway.cache.entry import Kept, is_whole, joined, pack, unpack
from gateway.cache.flight import Flight, LeftError, Listener
from gateway.cache.key import Asked, digest_of
from gateway.cache.savings import Savings
from gateway.cache.store import AnswerStore
from gateway.engine import Engine
from gateway.explain.record import Cached, Ending
from gateway.explain.trace import Trace
from gateway.fleet import Fleet
from gateway.keys.ring import NO_GRANTS
from gateway.reused import AnyAnswer, Followed, Replayed, Told
from gateway.routing.preferences import requested_names, split_suffix
from gateway.routing.resolve import resolve
from providers.errors import MixgateError
from providers.messages import ChatRequest
from providers.tokens import plain_size

TTL_S: Final = 300
"""How long an answer is kept where nobody says otherwise."""
SMALL_BYTES: Final = 64 * 1024
"""The digest of a longer prompt, or of one that is not plain text, is made in a thread."""

AnyFlight: TypeAlias = Flight[Answer]


class CacheWish(Struct, frozen=True, gc=False):
    """That an answer may be given again, and how."""

    ttl_s: int = TTL_S
    """How long this one is kept."""
    afresh: bool = False
    """Whether to ask in any case, and keep the new one in place of what is kept."""


class Question(Struct, frozen=True):
    """One request, and who sends it."""

    request: ChatRequest
    fleet: Fleet
    hints: Hints
    origin: Origin
    wish: CacheWish
    digest: str

    @property
    def tenant(self) -> str:
        """Whose it is: answers are never given to another."""
        return tenant_of(self.origin)

    @property
    def name(self) -> tuple[str, bool, float | None]:
        """What those have in common who may share an answer on its way: it comes as a stream or not, and in time."""
        return self.digest, bool(self.request.stream), self.hints.total_timeout_s


def tenant_of(origin: Origin) -> str:
    """Whose a request is."""
    return f"{origin.caller}/{origin.key_id}"


class Reuse:
    """Gives answers again. Belongs to one event loop.

    Args:
        engine: Who is asked otherwise.
        store: Where answers are kept.
        savings: Where it is counted.
        unix_time_s: The wall clock.
    """

    def __init__(
        self, engine: Engine, store: AnswerStore, savings: Savings, unix_time_s: Callable[[], float] = time.time
    ) -> None:
        self.store = store
        self.savings = savings
        self.hits = 0
        """Answers that were kept, and given again."""
        self.shared = 0
        """Answers that somebody else had asked for."""
        self.misses = 0
        """Requests that might have been answered so, and were not."""
        self._engine = engine
        self._unix_time_s = unix_time_s
        self._flights: dict[tuple[str, bool, float | None], AnyFlight] = {}

    async def answer(
        self, request: ChatRequest, fleet: Fleet, wish: CacheWish, *, hints: Hints, origin: Origin
    ) -> AnyAnswer:
        """As `Engine.answer`, where the answer may be given again.

        Raises:
            MixgateError: As there.
        """
        digest = await self._digest(request, fleet, origin)
        if digest is None:
            return await self._engine.answer(request, fleet, hints=hints, origin=origin)
        question = Question(request, fleet, hints, origin, wish, digest)
        if wish.afresh:
            return await self._lead(question)
        flight = self._flights.get(question.name)
        if flight is None or not flight.joinable:
            kept = await self._find(question)
            if kept is not None:
                self.hits += 1
                return self._replay(kept, question)
        return await self.board(question)

    async def board(self, question: Question) -> Followed:
        """Share the answer that is on its way, or ask for one.

        Raises:
            MixgateError: There is none.
        """
        while (flight := self._flights.get(question.name)) is not None and flight.joinable:
            told = self._told(question, flight.source_id, 0.0)
            listener = flight.listen()
            try:
                await listener.begun()
            except LeftError:
                listener.leave()
            except BaseException as error:
                listener.leave()
                if isinstance(error, MixgateError):
                    error.generation_id = question.origin.generation_id
                    told.tell("failed", error.code, "", None)
                else:
                    told.tell("cancelled", None, "", None)
                raise
            else:
                self.shared += 1
                return self._followed(question, flight, listener, told)
        return await self._lead(question)

    async def _lead(self, question: Question) -> Followed:
        """Ask, for oneself and whoever comes while the answer is on its way."""
        self.misses += 1
        flight: AnyFlight = Flight(question.origin.generation_id)
        self._flights[question.name] = flight
        listener = flight.listen()
        try:
            answer = await self._engine.answer(
                question.request, question.fleet, hints=question.hints, origin=question.origin
            )
        except BaseException as error:
            self._forget(question, flight)
            flight.fail(error if isinstance(error, MixgateError) else LeftError("whoever asked has left"))
            listener.leave()
            raise
        flight.begin(answer, lambda ended: self._end(ended, question))
        return self._followed(question, flight, listener, None)

    def _followed(
        self, question: Question, flight: AnyFlight, listener: Listener[Answer], told: Told | None
    ) -> Followed:
        ttl_s = question.wish.ttl_s
        return Followed(question.request, flight, listener, told, ttl_s, lambda: self.board(question))

    def _end(self, flight: AnyFlight, question: Question) -> None:
        """An answer is over: keep it if it is good enough, before anybody can ask again."""
        self._forget(question, flight)
        answer = flight.source
        if answer is None or not flight.joinable or not _is_keepable(answer, flight, question.request):
            return
        now_unix_s = self._unix_time_s()
        attempt = answer.attempt
        data = pack(
            Kept(
                source_id=flight.source_id,
                made_unix_s=now_unix_s,
                ttl_s=question.wish.ttl_s,
                endpoint=answer.endpoint.id,
                emulated=() if attempt is None else attempt.emulated,
                cost_in_nusd=answer.cost_in_nusd,
                events=joined(flight.events()),
            )
        )
        if data is not None:
            self.store.put(question.tenant, question.digest, data, question.wish.ttl_s, now_unix_s)

    def _forget(self, question: Question, flight: AnyFlight) -> None:
        if self._flights.get(question.name) is flight:
            del self._flights[question.name]

    async def _find(self, question: Question) -> Kept | None:
        """The answer that is kept, if there is one that its Endpoint still stands for."""
        data = await self.store.get(question.tenant, question.digest, self._unix_time_s())
        kept = None if data is None else unpack(data)
        return None if kept is None or kept.endpoint not in question.fleet.catalogue.endpoints else kept

    def _replay(self, kept: Kept, question: Question) -> Replayed:
        age_s = max(0.0, self._unix_time_s() - kept.made_unix_s)
        endpoint = question.fleet.catalogue.endpoints[kept.endpoint]
        return Replayed(question.request, kept, endpoint, self._told(question, kept.source_id, age_s), age_s)

    def _told(self, question: Question, source_id: str, age_s: float) -> Told:
        """What is told at the end of a request that nobody was asked for."""
        engine, origin = self._engine, question.origin
        decision = engine.explain(
            question.request, question.fleet, hints=question.hints, caller=origin.caller, key_id=origin.key_id
        )
        loop = asyncio.get_running_loop()

        def tell(outcome: Ending, code: str | None, model: str, saved_in_nusd: int | None) -> None:
            if outcome == "ok":
                self.savings.add_hit(decision.unix_s, origin.key_id, decision.plan.route, model, saved_in_nusd or 0)
            if engine.sink is not None:
                engine.sink.put(
                    Trace(
                        id=origin.generation_id,
                        unix_s=decision.unix_s,
                        requested=decision.names,
                        surface=origin.surface,
                        caller=origin.caller,
                        ask=decision.ask,
                        table=decision.target.table,
                        observations=decision.observations,
                        draw=decision.draw,
                        now_s=decision.now_s,
                        now_utc=decision.now_utc,
                        catalogue=question.fleet.catalogue.digest,
                        plan=decision.plan,
                        attempts=(),
                        outcome=outcome,
                        code=code,
                        ended_s=loop.time(),
                        cost_in_nusd=0,
                        cached=Cached(source_id, int(age_s), saved_in_nusd),
                        traceparent=origin.traceparent,
                    )
                )

        return Told(decision.plan, tell)

    async def _digest(self, request: ChatRequest, fleet: Fleet, origin: Origin) -> str | None:
        """What the request has in common with all that are the same.

        Raises:
            MixgateError: It names a model that nobody knows.
        """
        catalogue, till = fleet.catalogue, self._engine.till
        names = requested_names(request)
        asked = Asked(
            tenant=tenant_of(origin),
            routes=tuple(resolve(name, catalogue).name for name in names),
            suffix=split_suffix(names[0])[1],
            catalogue=catalogue.digest,
            grants=NO_GRANTS if till is None or not origin.key_id else till.grants(origin.key_id),
            request=request,
        )
        size_bytes = plain_size(request)
        if size_bytes is not None and size_bytes <= SMALL_BYTES:
            return digest_of(asked)
        return await asyncio.to_thread(digest_of, asked)


def _is_keepable(answer: Answer, flight: AnyFlight, request: ChatRequest) -> bool:
    """Whether the next one who asks would want just this answer.

    Not one that is makeshift: put together from two, to a prompt or at a length that is not what was asked, from an
    Endpoint that was only asked because the first model's own were not to be had, or with pieces missing.
    """
    if not answer.complete or answer.skipped_chunks or answer.rescued is not None:
        return False
    if answer.compressed is not None or answer.clamped_tokens is not None:
        return False
    plan, endpoint = answer.plan, answer.endpoint
    own = any(one.stage == 0 and one.endpoint.id == endpoint.id for one in (*plan.candidates, *plan.resting))
    limited = request.output_limit_tokens is not None
    return own and is_whole(flight.events(), request.n or 1, may_be_long=limited)

"""From a request to its Answer: names become Routes, the request becomes numbers, and the decision is asked for.

Everything that the decision depends on is gathered here and passed in, so that it can be recorded and made again.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from gateway.answer import Answer
from gateway.attempts import ATTEMPTS_MAX, NO_HINTS, RETRYING_CLIENT_ATTEMPTS_MAX, Attempt, Hints, Limits
from gateway.bill import Bill, Origin, Tariffs
from gateway.course import Course, End
from gateway.decision import NO_WISHES, Decision, Wishes, losses_of, read_wishes, refusal
from gateway.errors import LedgerUnavailableError
from gateway.explain.record import Ending, Rescued
from gateway.explain.trace import Sink, Trace
from gateway.fleet import Fleet
from gateway.health import Health, HedgeBudget
from gateway.keys.ring import NO_GRANTS, Grants
from gateway.learned import Learned
from gateway.ledger.books import RETRY_AFTER_S, Books
from gateway.overflow import TOO_LONG, Counters, doubtful, shorten
from gateway.payment import Payment, Till, permitted_of, preferences_within
from gateway.routing.ask import NO_PREFERENCES, Ask
from gateway.routing.candidate import Plan
from gateway.routing.decide import decide
from gateway.routing.eligible import OUTPUT_MIN_TOKENS
from gateway.routing.needs import count_images, needs
from gateway.routing.plugins import read_plugins
from gateway.routing.preferences import parameters_of
from gateway.routing.warmth import conversation_key
from gateway.targets import Target, Targets
from gateway.trace_context import Propagator, trace_headers
from gateway.turns import Turns
from gateway.watch import Alarm
from providers.errors import MixgateError
from providers.messages import ChatRequest
from providers.tokens import estimate_request, guess_by_size, most_by_size, output_limit, plain_size

NOWHERE: Final = Origin()


class Engine:
    """Answers requests. One for the life of the process; belongs to one event loop.

    Args:
        health: How the Endpoints are doing.
        unix_time_s: The wall clock.
        draw: At random, from 0 up to 1.
        limits: How long Attempts may take, where a Route does not say.
        sink: Where the record of each request goes.
    """

    def __init__(
        self,
        health: Health,
        *,
        unix_time_s: Callable[[], float],
        draw: Callable[[], float],
        limits: Limits | None = None,
        sink: Sink | None = None,
    ) -> None:
        self.health = health
        self._targets = Targets(limits or Limits())
        self._unix_time_s = unix_time_s
        self._draw = draw
        self.sink = sink
        """Where the record of each request goes, if anywhere."""
        self.till: Till | None = None
        """Where issued keys pay, if there may be any."""
        self.books: Books | None = None
        """The ledger, once it is open."""
        self.propagator: Propagator | None = None
        """What tells providers of traces, if anybody traces."""
        self._tariffs = Tariffs()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alarm: Alarm | None = None
        self._hedges = HedgeBudget()
        self.learned = Learned()
        self._counters = Counters()

    async def answer(
        self,
        request: ChatRequest,
        fleet: Fleet,
        *,
        hints: Hints = NO_HINTS,
        origin: Origin = NOWHERE,
        task: asyncio.Task[Any] | None = None,
    ) -> Answer:
        """Decide, and begin: nothing is sent before the Answer's first `next`.

        Args:
            request: What is asked.
            fleet: Who may be asked.
            hints: The client's own patience.
            origin: Where it comes from, for its record and the ledger.
            task: The one that will read the Answer, where it is known.

        Raises:
            MixgateError: No such model, nothing on to serve it, or nothing that can do what is asked.
        """
        loop = self._loop = self._loop or asyncio.get_running_loop()
        caller = origin.caller
        target = self._targets.find(request, fleet)
        try:
            wishes = read_wishes(request, target, hints)
        except MixgateError as senseless:
            # What would have been decided without these wishes is what there is to say of it.
            without = self._decide(request, target, fleet, loop.time(), NO_WISHES, caller)
            self._refuse(without, origin, senseless)
            raise
        decision = self._decide(request, target, fleet, loop.time(), wishes, caller, self._grants(origin.key_id))
        if self.learned.sessions is not None and (warmer := await self.learned.ask_others(decision)) is not None:
            decision = decision.again(warmer)
        if decision.plan.excluded and any(one.code == TOO_LONG for one in decision.plan.excluded):
            decision = await self._make_fit(decision, fleet)
        if not decision.plan.candidates and not decision.plan.resting:
            error = refusal(decision, fleet)
            self._refuse(decision, origin, error)
            raise error
        payment: Payment | None = None
        try:
            if self.till is not None and origin.key_id:
                payment = await self.till.pay(decision, origin.key_id, origin.generation_id)
                decision = self._within(payment, decision, fleet)
            course = self._course(decision, fleet, origin, hints, loop, task, payment)
        except MixgateError as refused:
            if payment is not None:
                payment.release()
            self._refuse(decision, origin, refused)
            raise
        answer = Answer(decision.request, course, decision.compressed)
        answer.clamped_tokens = decision.clamped_tokens
        return answer

    def explain(
        self,
        request: ChatRequest,
        fleet: Fleet,
        *,
        hints: Hints = NO_HINTS,
        caller: str = "local",
        key_id: str = "",
    ) -> Decision:
        """What would be decided for a request now. Nothing is sent, and nothing counted.

        Raises:
            MixgateError: No such model, or a wish that makes no sense.
        """
        loop = self._loop = self._loop or asyncio.get_running_loop()
        target = self._targets.find(request, fleet)
        wishes = read_wishes(request, target, hints)
        return self._decide(request, target, fleet, loop.time(), wishes, caller, self._grants(key_id))

    def _grants(self, key_id: str) -> Grants:
        return NO_GRANTS if self.till is None else self.till.grants(key_id)

    def _within(self, payment: Payment, decision: Decision, fleet: Fleet) -> Decision:
        """What is decided among those that the caller's budget covers.

        Raises:
            MixgateError: It covers nobody.
        """
        grant = payment.grant
        if grant.output_tokens_max is None:
            return decision
        request, ask = payment.within(decision.request, decision.ask)
        clamped = grant.output_tokens_max if grant.clamped else None
        decision = decision.again(ask).sending(request, decision.compressed, clamped)
        if not decision.plan.candidates and not decision.plan.resting:
            raise refusal(decision, fleet)
        return decision

    def _course(
        self,
        decision: Decision,
        fleet: Fleet,
        origin: Origin,
        hints: Hints,
        loop: asyncio.AbstractEventLoop,
        task: asyncio.Task[Any] | None,
        payment: Payment | None,
    ) -> Course:
        """What the Answer to a request is made by.

        Raises:
            LedgerUnavailableError: What it costs cannot be written down, and might be something.
        """
        if self._alarm is None:
            self._alarm = Alarm(loop)
        # Before anything is counted that only an Answer's end uncounts.
        bill = self._bill(decision, fleet, origin, payment)
        plan, limits, now_s = decision.plan, decision.target.limits, decision.now_s
        total_s = limits.total_timeout_s
        if hints.total_timeout_s is not None:
            total_s = min(total_s, hints.total_timeout_s)
        turns = Turns(
            plan,
            self.health,
            self.health.retries_of(plan.route),
            now_s=now_s,
            total_s=total_s,
            draw=decision.draw,
            attempts_max=RETRYING_CLIENT_ATTEMPTS_MAX if hints.retries else ATTEMPTS_MAX,
        )

        return Course(
            plan=plan,
            turns=turns,
            fleet=fleet,
            health=self.health,
            limits=limits,
            deadline_s=now_s + total_s,
            prompt_tokens=decision.ask.prompt_tokens,
            unix_time_s=self._unix_time_s,
            loop=loop,
            alarm=self._alarm,
            task=task,
            caller=origin.caller,
            hedges=self._hedges,
            bill=bill,
            trace_headers=trace_headers(self.propagator, origin.generation_id, origin.traceparent),
            ended=End(self._note_end, decision, origin, turns, payment),
        )

    def _bill(self, decision: Decision, fleet: Fleet, origin: Origin, payment: Payment | None) -> Bill | None:
        """Where what the request costs is written down.

        Raises:
            LedgerUnavailableError: It cannot be written down, and might cost something.
        """
        books, plan, ask = self.books, decision.plan, decision.ask
        if books is None:
            return None
        if not books.available and any(one.expected_cost_in_pusd != 0 for one in (*plan.candidates, *plan.resting)):
            raise LedgerUnavailableError(
                "what this request costs cannot be written down now, so it is not sent; ask again in a moment",
                retry_after_s=RETRY_AFTER_S,
            )
        return Bill(
            books,
            self._tariffs,
            fleet.catalogue,
            origin,
            plan.route,
            ask.stream,
            ask.prompt_tokens,
            ask.output_tokens,
            ask.images,
            self._unix_time_s,
            payment,
        )

    def _decide(
        self,
        request: ChatRequest,
        target: Target,
        fleet: Fleet,
        now_s: float,
        wishes: Wishes,
        caller: str,
        grants: Grants = NO_GRANTS,
    ) -> Decision:
        table, route = target.table, target.route
        preferences, session = wishes.preferences, wishes.session
        if grants is not NO_GRANTS:
            preferences = preferences_within(preferences, grants)
        output_tokens = output_limit(request)
        size_bytes, count = plain_size(request), len(request.messages)
        room = target.roomy_tokens - (output_tokens or OUTPUT_MIN_TOKENS)
        if size_bytes is not None and most_by_size(size_bytes, count) <= room:
            prompt_tokens = guess_by_size(size_bytes, count)
        else:
            prompt_tokens = estimate_request(request)
        conversation = conversation_key(
            request, caller=caller, model=route, session=session, prompt_tokens=prompt_tokens
        )
        warm = None if conversation is None else self.learned.warmth.find(conversation, now_s)
        needed = needs(request, plain=size_bytes is not None)
        expected = self.learned.usual_output_tokens(route)
        images = 0 if size_bytes is not None else count_images(request)
        ask = Ask(
            needed=needed,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            expected_output_tokens=expected,
            images=images,
            stream=bool(request.stream),
            parameters=parameters_of(request) if preferences.require_parameters else (),
            losses=losses_of(request, table, fleet) if preferences.require_parameters else (),
            preferences=preferences,
            permitted=None if grants is NO_GRANTS else permitted_of(grants, table),
            warm_endpoint=None if warm is None else warm[0],
            warm_tokens=0 if warm is None else min(warm[1], prompt_tokens),
        )
        observations, well = self.health.observe_all(target.ids, now_s)
        draw, unix_s = self._draw(), self._unix_time_s()
        now_utc = datetime.fromtimestamp(unix_s, tz=UTC) if target.timed else None
        plan: Plan | None = None
        if well and preferences is NO_PREFERENCES and warm is None and grants is NO_GRANTS and target.usual is not None:
            plan = target.usual.plan(
                needed, prompt_tokens, output_tokens, expected, images, observations, draw, well=well
            )
        if plan is None:
            plan = decide(table, ask, observations, now_s=now_s, draw=draw, now_utc=now_utc)
        return Decision(
            request, target.names, target, ask, observations, now_s, unix_s, now_utc, draw, plan, session, conversation
        )

    async def _make_fit(self, decision: Decision, fleet: Fleet) -> Decision:
        """Look again at a prompt that seems too long for some: count exactly, or cut where that is wanted."""
        for one in doubtful(decision.plan.excluded):
            exact = await self._counters.count(decision.request, fleet.catalogue.endpoints[one.endpoint].model)
            if exact is not None:
                ask = msgspec.structs.replace(decision.ask, prompt_tokens=exact)
                decision = decision.again(ask)
                break
        if decision.plan.candidates or decision.plan.resting:
            return decision
        wanted = read_plugins(decision.request).compress
        if not (decision.target.routes[0].compress if wanted is None else wanted):
            return decision
        compressed = shorten(decision.request, decision.plan)
        if compressed is None:
            return decision
        ask = msgspec.structs.replace(decision.ask, prompt_tokens=estimate_request(compressed.request))
        decision = decision.again(ask)
        return decision.sending(compressed.request, compressed, decision.clamped_tokens)

    def _note_end(self, answer: Answer, decision: Decision, origin: Origin) -> None:
        """Learn from an answer, and leave its record."""
        attempt, failure, rescued = answer.attempt, answer.failure, answer.rescued
        now_s = decision.now_s if self._loop is None else self._loop.time()
        if answer.complete and attempt is not None and attempt.usage is not None:
            catalogue = self._targets.catalogue
            known = catalogue is not None and decision.plan.route in catalogue.routes
            self.learned.learn(decision, attempt.endpoint, attempt.usage, now_s, route_known=known)
        self._leave(
            decision,
            origin,
            answer.attempts,
            "failed" if failure is not None else "ok" if answer.complete else "cancelled",
            None if failure is None else failure.code,
            None if rescued is None else Rescued(rescued.by, rescued.cut, rescued.continued, rescued.after_chars),
            answer.cost_in_nusd,
            now_s,
        )

    def _refuse(self, decision: Decision, origin: Origin, error: MixgateError) -> None:
        """Leave the record of a request that nobody is asked for; its error says where to find it."""
        error.generation_id = origin.generation_id
        self._leave(decision, origin, (), "failed", error.code)

    def _leave(
        self,
        decision: Decision,
        origin: Origin,
        attempts: Sequence[Attempt],
        outcome: Ending,
        code: str | None,
        rescued: Rescued | None = None,
        cost_in_nusd: int | None = None,
        ended_s: float | None = None,
    ) -> None:
        """Leave the record of a request that is over, just now where no time is given."""
        if self.sink is None:
            return
        catalogue = self._targets.catalogue
        if ended_s is None:
            ended_s = decision.now_s if self._loop is None else self._loop.time()
        self.sink.put(
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
                catalogue="" if catalogue is None else catalogue.digest,
                plan=decision.plan,
                attempts=attempts,
                outcome=outcome,
                code=code,
                ended_s=ended_s,
                rescued=rescued,
                cost_in_nusd=cost_in_nusd,
                traceparent=origin.traceparent,
            )
        )

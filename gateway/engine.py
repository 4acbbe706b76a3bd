"""From a request to its Answer: names become Routes, the request becomes numbers, and the decision is asked for.

Everything that the decision depends on is gathered here and passed in, so that it can be recorded and made again.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.answer import Answer
from gateway.attempts import ATTEMPTS_MAX, NO_HINTS, RETRYING_CLIENT_ATTEMPTS_MAX, Hints, Limits
from gateway.config.catalogue import Catalogue, Route
from gateway.course import Course
from gateway.errors import CapabilityError, NoEndpointError
from gateway.explain.record import Rescued
from gateway.explain.trace import Sink, Trace
from gateway.fleet import Fleet
from gateway.health import Health, HedgeBudget
from gateway.observation import Observation
from gateway.overflow import TOO_LONG, Counters, doubtful, shorten, too_long
from gateway.routing.ask import Ask
from gateway.routing.candidate import Plan
from gateway.routing.compression import Compressed
from gateway.routing.decide import decide
from gateway.routing.needs import count_images, needs
from gateway.routing.parameters import Losses, find_losses
from gateway.routing.plugins import read_plugins
from gateway.routing.preferences import (
    check_user,
    parameters_of,
    read_preferences,
    read_session,
    requested_names,
    split_suffix,
)
from gateway.routing.resolve import resolve
from gateway.routing.table import Table, prepare
from gateway.routing.warmth import Warmth, conversation_key, tokens_warmed
from gateway.turns import Turns
from providers.base import Endpoint
from providers.errors import MixgateError
from providers.messages import ChatRequest, Usage
from providers.tokens import estimate_request

EXCLUSIONS_SHOWN_MAX: Final = 8
OPERATOR_MUST_ACT: Final = frozenset({"off", "retired", "disabled"})
"""Exclusions that no other request could get around."""
TARGETS_MAX: Final = 4096
"""Combinations of names asked for whose Tables are kept."""
USUAL_OUTPUT_TOKENS: Final = 300
"""Of an answer, before a Route has had any."""
USUAL_WEIGHT: Final = 0.05
"""What one more answer counts for in the mean length of a Route's answers."""


class Target(Struct, frozen=True):
    """What a combination of names stands for, worked out once."""

    names: tuple[str, ...]
    routes: tuple[Route, ...]
    suffix: str | None
    table: Table
    ids: tuple[str, ...]
    """Of the Table's Endpoints."""
    limits: Limits


class Decision(Struct, frozen=True):
    """A Plan, and all that it follows from."""

    request: ChatRequest
    """As it is to be sent: with its middle cut out, where that was needed."""
    names: tuple[str, ...]
    target: Target
    ask: Ask
    observations: Mapping[str, Observation]
    now_s: float
    unix_s: float
    draw: float
    plan: Plan
    session: str | None = None
    conversation: bytes | None = None
    """What it is remembered by, where a prompt cache could serve it."""
    compressed: Compressed | None = None


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
        self._limits = limits or Limits()
        self._unix_time_s = unix_time_s
        self._draw = draw
        self.sink = sink
        """Where the record of each request goes, if anywhere."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._catalogue: Catalogue | None = None
        self._off: Mapping[str, str] = {}
        self._targets: dict[str | tuple[str, ...], Target] = {}
        self._usual_output: dict[str, float] = {}
        self._hedges = HedgeBudget()
        self._warmth = Warmth()
        self._counters = Counters()

    async def answer(
        self,
        request: ChatRequest,
        fleet: Fleet,
        *,
        hints: Hints = NO_HINTS,
        caller: str = "local",
        surface: str = "",
        generation_id: str = "",
        task: asyncio.Task[Any] | None = None,
    ) -> Answer:
        """Decide, and begin: nothing is sent before the Answer's first `next`.

        Args:
            request: What is asked.
            fleet: Who may be asked.
            hints: The client's own patience.
            caller: Whose request it is, by name.
            surface: The API by which it came, for its record.
            generation_id: Its name, for its record.
            task: The one that will read the Answer, where it is known.

        Raises:
            MixgateError: No such model, nothing on to serve it, or nothing that can do what is asked.
        """
        loop = self._loop = self._loop or asyncio.get_running_loop()
        decision = self._decide(request, fleet, loop.time(), hints, caller)
        if decision.plan.excluded and any(one.code == TOO_LONG for one in decision.plan.excluded):
            decision = await self._make_fit(decision, fleet)
        plan, limits = decision.plan, decision.target.limits
        if not plan.candidates and not plan.resting:
            raise _refusal(decision, fleet)
        total_s = limits.total_timeout_s
        if hints.total_timeout_s is not None:
            total_s = min(total_s, hints.total_timeout_s)
        budget = self.health.retries_of(plan.route)
        turns = Turns(
            plan,
            self.health,
            budget,
            now_s=decision.now_s,
            total_s=total_s,
            draw=decision.draw,
            attempts_max=RETRYING_CLIENT_ATTEMPTS_MAX if hints.retries else ATTEMPTS_MAX,
        )

        def end(answer: Answer) -> None:
            turns.end()
            self._note_end(answer, decision, caller, surface, generation_id)

        course = Course(
            plan=plan,
            turns=turns,
            fleet=fleet,
            health=self.health,
            limits=limits,
            deadline_s=decision.now_s + total_s,
            prompt_tokens=decision.ask.prompt_tokens,
            unix_time_s=self._unix_time_s,
            loop=loop,
            task=task,
            caller=caller,
            hedges=self._hedges,
            ended=end,
        )
        return Answer(decision.request, course, decision.compressed)

    def explain(
        self, request: ChatRequest, fleet: Fleet, *, hints: Hints = NO_HINTS, caller: str = "local"
    ) -> Decision:
        """What would be decided for a request now. Nothing is sent, and nothing counted.

        Raises:
            MixgateError: No such model, or a wish that makes no sense.
        """
        loop = self._loop = self._loop or asyncio.get_running_loop()
        return self._decide(request, fleet, loop.time(), hints, caller)

    def _decide(self, request: ChatRequest, fleet: Fleet, now_s: float, hints: Hints, caller: str) -> Decision:
        target = self._target(request, fleet)
        route = target.table.route
        check_user(request)
        session = read_session(request, hints.session)
        preferences = read_preferences(request, target.suffix)
        prompt_tokens = estimate_request(request)
        conversation = conversation_key(
            request, caller=caller, model=route, session=session, prompt_tokens=prompt_tokens
        )
        warm = None if conversation is None else self._warmth.find(conversation, now_s)
        ask = Ask(
            needed=needs(request),
            prompt_tokens=prompt_tokens,
            output_tokens=request.output_limit_tokens,
            expected_output_tokens=round(self._usual_output.get(route, USUAL_OUTPUT_TOKENS)),
            images=count_images(request),
            stream=bool(request.stream),
            parameters=parameters_of(request) if preferences.require_parameters else (),
            losses=_losses(request, target.table, fleet) if preferences.require_parameters else (),
            preferences=preferences,
            warm_endpoint=None if warm is None else warm[0],
            warm_tokens=0 if warm is None else min(warm[1], prompt_tokens),
        )
        observe = self.health.observe
        observations = {name: observe(name, now_s) for name in target.ids}
        draw, unix_s = self._draw(), self._unix_time_s()
        plan = decide(target.table, ask, observations, now_s=now_s, draw=draw, now_utc=_utc(unix_s))
        return Decision(
            request, target.names, target, ask, observations, now_s, unix_s, draw, plan, session, conversation
        )

    def _decide_again(self, decision: Decision, ask: Ask) -> Decision:
        """The same with other numbers."""
        plan = decide(
            decision.target.table,
            ask,
            decision.observations,
            now_s=decision.now_s,
            draw=decision.draw,
            now_utc=_utc(decision.unix_s),
        )
        return replace(decision, ask=ask, plan=plan)

    async def _make_fit(self, decision: Decision, fleet: Fleet) -> Decision:
        """Look again at a prompt that seems too long for some: count exactly, or cut where that is wanted."""
        for one in doubtful(decision.plan.excluded):
            exact = await self._counters.count(decision.request, fleet.catalogue.endpoints[one.endpoint].model)
            if exact is not None:
                decision = self._decide_again(decision, replace(decision.ask, prompt_tokens=exact))
                break
        if decision.plan.candidates or decision.plan.resting:
            return decision
        wanted = read_plugins(decision.request).compress
        if not (decision.target.routes[0].compress if wanted is None else wanted):
            return decision
        compressed = shorten(decision.request, decision.plan)
        if compressed is None:
            return decision
        ask = replace(decision.ask, prompt_tokens=estimate_request(compressed.request))
        return replace(self._decide_again(decision, ask), request=compressed.request, compressed=compressed)

    def _target(self, request: ChatRequest, fleet: Fleet) -> Target:
        """The Routes asked for and their Table, kept for as long as nothing that they depend on changes."""
        if fleet.catalogue is not self._catalogue or fleet.off is not self._off:
            self._catalogue, self._off = fleet.catalogue, fleet.off
            self._targets.clear()
        key = request.model if not request.models else (request.model, *request.models)
        target = self._targets.get(key)
        if target is None:
            target = self._find(requested_names(request), fleet)
            if len(self._targets) >= TARGETS_MAX:
                self._targets.clear()
            self._targets[key] = target
        return target

    def _find(self, names: tuple[str, ...], fleet: Fleet) -> Target:
        catalogue = fleet.catalogue
        routes = tuple(resolve(name, catalogue) for name in names)
        base, suffix = split_suffix(names[0])
        if suffix is not None and catalogue.find_route(base) != routes[0]:
            suffix = None  # it is a part of the name after all
        table = prepare(routes, catalogue, fleet.off)
        changes = {
            name: value for name, value in msgspec.structs.asdict(routes[0].timeouts).items() if value is not None
        }
        limits = msgspec.structs.replace(self._limits, **changes) if changes else self._limits
        return Target(names, routes, suffix, table, tuple(row.id for row in table.merged.rows), limits)

    def _note_end(self, answer: Answer, decision: Decision, caller: str, surface: str, generation_id: str) -> None:
        """Learn from an answer, and leave its record."""
        attempts = answer.attempts
        if answer.complete and answer.attempt is not None and answer.attempt.usage is not None:
            self._learn(decision, answer.attempt.endpoint, answer.attempt.usage)
        if self.sink is None:
            return
        failure, rescued = answer.failure, answer.rescued
        self.sink.put(
            Trace(
                id=generation_id,
                unix_s=decision.unix_s,
                requested=decision.names,
                surface=surface,
                caller=caller,
                ask=decision.ask,
                table=decision.target.table,
                observations=decision.observations,
                draw=decision.draw,
                now_s=decision.now_s,
                now_utc=_utc(decision.unix_s),
                catalogue="" if self._catalogue is None else self._catalogue.digest,
                plan=decision.plan,
                attempts=attempts,
                outcome="ok" if answer.complete else "cancelled" if failure is None else "failed",
                code=None if failure is None else failure.code,
                ended_s=decision.now_s if self._loop is None else self._loop.time(),
                rescued=None
                if rescued is None
                else Rescued(rescued.by, rescued.cut, rescued.continued, rescued.after_chars),
            )
        )

    def _learn(self, decision: Decision, endpoint: Endpoint, usage: Usage) -> None:
        """How long answers are here, and whose cache knows this conversation."""
        route = decision.plan.route
        if usage.output_tokens and self._catalogue is not None and route in self._catalogue.routes:
            before = self._usual_output.get(route, USUAL_OUTPUT_TOKENS)
            self._usual_output[route] = before + USUAL_WEIGHT * (usage.output_tokens - before)
        if decision.conversation is not None:
            prompt_tokens = usage.input_tokens or decision.ask.prompt_tokens
            tokens = tokens_warmed(
                endpoint,
                prompt_tokens=prompt_tokens,
                cached_tokens=usage.cached_input_tokens,
                session=decision.session is not None,
            )
            if tokens is not None and self._loop is not None:
                self._warmth.remember(decision.conversation, endpoint.id, tokens, self._loop.time())


def _utc(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, tz=UTC)


def _losses(request: ChatRequest, table: Table, fleet: Fleet) -> Losses:
    """What would not arrive as asked, and where."""
    endpoints = [row.endpoint for row in table.merged.rows if row.id in fleet.upstreams]
    return find_losses(request, endpoints, lambda one: fleet.upstreams[one.id].dialect, emulating=table.emulate)


def _refusal(decision: Decision, fleet: Fleet) -> MixgateError:
    """Why nothing may be asked at all."""
    plan = decision.plan
    error = too_long(plan, decision.target.table, decision.ask.prompt_tokens, fleet.off)
    if error is not None:
        return error
    reasons = "; ".join(f"{one.endpoint}: {one.reason}" for one in plan.excluded[:EXCLUSIONS_SHOWN_MAX])
    if any(one.code not in OPERATOR_MUST_ACT for one in plan.excluded):
        return CapabilityError(f"no endpoint of {plan.route!r} can do what is asked. {reasons}")
    return NoEndpointError(f"nothing can answer for {plan.route!r} now. {reasons or 'It has no endpoint.'}")

"""The answer to one request: Plan -> Attempts -> Events. The only control flow over attempts.

The commit point is the first content event handed to the client of a stream: `Answer.committed`. Before it a retryable
failure moves on and nothing of it is seen; after it the answer is rescued where that can be done exactly, or ends with
an error, never with silence. A whole answer is handed over at its end, so it commits last.
"""

import asyncio
from collections.abc import Awaitable, Sequence

import msgspec

from gateway.attempts import Attempt, Outcome
from gateway.call import Call, pop_failure
from gateway.course import Course
from gateway.delivered import Delivered, is_plain
from gateway.errors import InvalidRequestError
from gateway.health import FailureKind
from gateway.hedging import HELD_EVENTS_MAX, Lead, race, worth_it
from gateway.rescue import Rescue, RescueNote
from gateway.routing.candidate import Plan
from gateway.routing.compression import Compressed
from gateway.turns import Turn
from providers.base import Endpoint
from providers.emulation import Emulation, Repair, emulate
from providers.errors import GarbledError, MixgateError, ProviderError, ServerError
from providers.messages import CONTENT_EVENTS, AnswerFailed, ChatRequest, Event
from providers.schema_validation import BadSchemaError, complaint


class Answer:
    """The answer to one request, on its way through its Plan. Call `next` until it is complete, `close` in any case."""

    __slots__ = (
        "_after_s",
        "_ahead",
        "_attempt",
        "_call",
        "_closed",
        "_course",
        "_cut",
        "_delivered",
        "_emulation",
        "_held",
        "_pause_s",
        "_repair",
        "_rescue",
        "_skipped_chunks",
        "attempts",
        "clamped_tokens",
        "committed",
        "complete",
        "compressed",
        "failure",
        "request",
        "rescued",
        "stream",
    )

    def __init__(self, request: ChatRequest, course: Course, compressed: Compressed | None = None) -> None:
        plan = course.plan
        self.request = request
        self.stream = bool(request.stream)
        self.attempts: list[Attempt] = []
        self.committed = False
        self.complete = False  # whether the events handed over last were the last ones
        self.rescued: RescueNote | None = None
        self.compressed = compressed  # what was cut out of the prompt, if anything
        self.clamped_tokens: int | None = None  # where the caller's budget allows no longer answer
        self._course = course
        self._call: Call | None = None
        self._attempt: Attempt | None = None
        self._ahead: list[Event] | None = None
        self._pause_s = 0.0
        self._after_s: float | None = None  # without content the running Attempt is hedged, if at all
        self._held: list[Event] = []
        self.failure: MixgateError | None = None
        """What it ended with, if not well."""
        self._emulation: Emulation | None = None
        self._repair: Emulation | None = None
        self._rescue: Rescue | None = None
        self._cut: Attempt | None = None
        self._delivered = Delivered() if self.stream and plan.rescue and is_plain(request) else None
        self._skipped_chunks = 0
        self._closed = False

    @property
    def endpoint(self) -> Endpoint:
        """The Endpoint that is answering, or answered last."""
        return self.attempts[-1].endpoint if self._attempt is None else self._attempt.endpoint

    @property
    def attempt(self) -> Attempt | None:
        """The Attempt that answers, or answered last."""
        return self._attempt

    @property
    def plan(self) -> Plan:
        """Whom it may ask."""
        return self._course.plan

    @property
    def skipped_chunks(self) -> int:
        """Unreadable chunks that were passed over in this answer."""
        return self._skipped_chunks + (0 if self._call is None else self._call.skipped_chunks)

    async def next(self) -> Sequence[Event]:
        """The next events of the answer; none when it is complete.

        Raises:
            MixgateError: No candidate could answer, or the answer broke off after it was committed.
        """
        while True:
            if self.failure is not None:
                raise self.failure
            if self.complete:
                return ()
            call = self._call
            if call is None:
                started = self._start()
                if not isinstance(started, Call):
                    await asyncio.sleep(started)
                elif (failed := await self._open(started)) is not None:
                    self._fail(failed.error)
                continue
            events, self._ahead = self._ahead or call.read_now(), None
            if events is None:
                events = call.take(await call.wait())  # as `Call.read`, less a coroutine
            if call.elsewhere is not None:
                events = events + await call.follow()
            if events := self._take(events, call):
                return events

    def _take(self, events: list[Event], call: Call) -> list[Event]:
        """What of these may go to the client now; and what it means if the Attempt ended with them."""
        if call.attempt.pieces >= call.attempt.noted_next:
            self._course.note(call.attempt)
        failed = pop_failure(events)
        if self._rescue is not None:
            self._note_content(events, call)
            events = self._rescue.join(events)
            failed = pop_failure(events) or failed
            if self._rescue.flowing and self.rescued is None:
                self._note_rescue(self._rescue)
        elif not self.committed:
            events = self._hold(events, call, failed)
            failed = pop_failure(events) or failed
        if self._delivered is not None and events:
            self._delivered.add(events)
        if failed is not None:
            self._fail(failed.error)
        elif call.complete:
            self._succeed(call)
        return events

    def close(self) -> None:
        """Stop, wherever it is. Idempotent. A client that left is nobody's failure."""
        if self._closed:
            return
        self._closed = True
        if self._call is not None:
            self._call.close()
        for attempt in self.attempts:
            if attempt.outcome == "running":
                attempt.estimate(self._course.prompt_tokens)
                self._course.settle(attempt, "cancelled", None, committed=self.committed, streamed=self.stream)
        if self._course.ended is not None:
            self._course.ended(self)

    def _hold(self, events: list[Event], call: Call, failed: AnswerFailed | None) -> list[Event]:
        """Keep events back until there is content to commit to (stream) or the answer is complete (whole, emulated)."""
        held = self._held
        if failed is not None:
            held.clear()
            return []
        held += events
        begun = call.stream and self._note_content(events, call)
        if call.complete:
            self._held = []
            return self._settle_held(held)
        if len(held) > HELD_EVENTS_MAX:
            held.clear()
            return [AnswerFailed(GarbledError("the provider sent too many steps of an answer"))]
        if begun and self.stream and self._emulation is None:
            self.committed = True
            self._held = []
            return held
        return []

    def _note_content(self, events: Sequence[Event], call: Call) -> bool:
        """Whether there is content by now. From the first on, the time between two steps is what is limited."""
        attempt = call.attempt
        if attempt.ttft_s is not None:
            return True
        if not any(isinstance(event, CONTENT_EVENTS) for event in events):
            return False
        course = self._course
        attempt.ttft_s = course.loop.time() - attempt.started_s
        held = not self.stream or self._emulation is not None  # then another may still answer all of it
        rescuable = course.turns.others and (held or (self._delivered is not None and self._rescue is None))
        call.arm_idle(course.limits.idle_s(attempt.endpoint, rescuable=rescuable))
        return True

    def _settle_held(self, held: list[Event]) -> list[Event]:
        """All events of a complete answer; nothing where its emulation wants to ask once more."""
        emulation = self._emulation
        if emulation is None:
            self.committed = True
            return held
        try:
            settled = emulation.settle(held, complaint)
            if isinstance(settled, Repair) and not self._course.turns.may_repeat:
                settled = msgspec.structs.replace(emulation, repaired=True).settle(held, complaint)
        except BadSchemaError as error:
            param = "tools" if "tools" in emulation.emulated else "response_format"
            self.failure = InvalidRequestError(str(error), param=param)
            return []
        if isinstance(settled, Repair):
            self._repair = msgspec.structs.replace(emulation, request=settled.request, repaired=True)
            return []
        self.committed = not (settled and isinstance(settled[-1], AnswerFailed))
        return settled

    def _start(self) -> Call | float:
        """The Call of the next Attempt, or how many seconds to wait before this is called again.

        Raises:
            MixgateError: There is none left.
        """
        pause_s, self._pause_s = self._pause_s, 0.0
        if pause_s > 0:
            return pause_s
        course, turns = self._course, self._course.turns
        now_s = course.loop.time()
        turn: Turn | float
        if self._repair is not None:
            turn = turns.repeat(now_s, "repair")
            self._emulation, self._repair = self._repair, None
        else:
            turn = self._next_turn(now_s)
            if not isinstance(turn, Turn):
                return turn
            self._emulation = self._emulate(turn.candidate.endpoint)
        attempt = self._begin(turn, now_s)
        after_s = self._after_s = self._hedge_after_s(turn)
        task = course.task if after_s is None else None  # in a race each Call runs in a task of its own
        call = self._call = course.call(attempt, self._asked(attempt), stream=self.stream, task=task)
        return call

    def _open(self, call: Call) -> Awaitable[AnswerFailed | None]:
        """Open it, with another beside it where it is slow; gives how it failed."""
        limit_s, after_s = self._course.limit_s(call), self._after_s
        return call.open(limit_s) if after_s is None else self._race(call, limit_s, after_s)

    def _emulate(self, endpoint: Endpoint) -> Emulation | None:
        """How this Endpoint is asked for what it cannot do, if it is."""
        request = self.request
        if not self._course.plan.emulate or (request.tools is None and request.response_format is None):
            return None
        return emulate(request, endpoint.capabilities)

    def _begin(self, turn: Turn, now_s: float) -> Attempt:
        endpoint = turn.candidate.endpoint
        attempt = Attempt(len(self.attempts) + 1, endpoint, now_s, turn.why, permit=turn.permit)
        self.attempts.append(attempt)
        self._attempt = attempt
        return attempt

    def _asked(self, attempt: Attempt) -> ChatRequest:
        """What this Attempt asks: the request itself, in words where tools are emulated, or how it goes on."""
        asked = self.request
        if self._emulation is not None:
            attempt.emulated = self._emulation.emulated
            asked = self._emulation.request
        if self._rescue is not None:
            attempt.why = "rescue"
            asked = self._rescue.ask(asked, attempt.endpoint)
        return asked

    def _hedge_after_s(self, turn: Turn) -> float | None:
        """After how long without content a second Endpoint may be asked too; None: not at all."""
        course = self._course
        if not course.plan.hedge or not self.stream or self._emulation is not None or self._rescue is not None:
            return None
        course.hedges.begin(course.loop.time())
        if not course.turns.others or turn.why != "planned":
            return None
        if course.health.of(turn.candidate.endpoint.id).ttft_p95_s() is None:
            return None  # too few answers to know what is slow
        return worth_it(turn.candidate)

    async def _race(self, first: Call, limit_s: float, after_s: float) -> AnswerFailed | None:
        """Open a Call with a second one beside it if it is slow; go on with whichever brings content first."""
        course = self._course

        def second() -> tuple[Call, float] | None:
            now_s = course.loop.time()
            turn = course.turns.hedge(now_s) if course.hedges.take(now_s) else None
            if turn is None:
                return None
            attempt = self._begin(turn, now_s)
            call = course.call(attempt, self.request, stream=True)
            return call, course.limit_s(call)

        def lost(lead: Lead) -> None:
            self._call, self._attempt = lead.call, lead.call.attempt
            if lead.failed is not None:
                self._fail(lead.failed.error)
            self.failure = None
            self._pause_s = 0.0

        ended = await race(first, limit_s, after_s=after_s, second=second, lost=lost)
        for call in ended.dropped:
            course.settle(call.attempt, "cancelled", None, committed=False, streamed=True)
        winner = ended.winner
        self._call, self._attempt = winner.call, winner.call.attempt
        self._ahead = winner.events
        return winner.failed

    def _next_turn(self, now_s: float) -> Turn | float:
        """As `Turns.next`; but a rescue that nobody takes up ends with how the answer was cut."""
        try:
            return self._course.turns.next(now_s)
        except MixgateError as error:
            self.failure = error if self._rescue is None else self._rescue.error
            raise self.failure from None

    def _succeed(self, call: Call) -> None:
        """The running Attempt gave a whole answer."""
        self._skipped_chunks += call.skipped_chunks
        self._call = None
        self.complete = self._repair is None and self.failure is None
        self._settle("ok", None)

    def _fail(self, error: Exception) -> None:
        """Book a failed Attempt, and decide whether another may try."""
        if not isinstance(error, ProviderError):
            error = ServerError("the provider's answer could not be understood")
        course, call = self._course, self._call
        attempt = self._attempt
        assert attempt is not None  # noqa: S101 (it failed)
        course.fleet.upstreams[attempt.endpoint.id].redact(error)
        if call is not None:
            attempt.lagged = call.lagged
            self._skipped_chunks += call.skipped_chunks
            call.close()
            self._call = None
        rescue = self._rescue
        if self.committed and rescue is None and self._can_be_rescued(error):
            assert self._delivered is not None  # noqa: S101 (it can be rescued)
            rescue = self._rescue = Rescue(self._delivered, error)
            self._cut = attempt
        attempt.estimate(course.prompt_tokens)
        self._settle("failed", error, None if rescue is None or attempt.why != "rescue" else rescue.blame(error))
        if rescue is None or rescue.flowing:
            if self.committed:
                self.failure = error
                return
            pause_s = course.turns.failed(error, course.loop.time())
            if pause_s is None:
                self.failure = error
            else:
                self._pause_s = pause_s
        elif attempt.why == "rescue" and rescue.is_refusal(error):
            rescue.refused.add(attempt.endpoint.id)
            course.turns.insist()

    @property
    def cost_in_nusd(self) -> int | None:
        """What all Attempts cost together; None where nobody knows what the answer cost."""
        if self._attempt is None or self._attempt.cost_in_nusd is None:
            return None
        return sum(attempt.cost_in_nusd or 0 for attempt in self.attempts)

    def _can_be_rescued(self, error: ProviderError) -> bool:
        """Whether another may go on: a refusal of what was said is not shopped around, however late it comes."""
        delivered = self._delivered
        return error.retryable and delivered is not None and delivered.can_go_on and self._course.turns.others

    def _note_rescue(self, rescue: Rescue) -> None:
        cut = self._cut
        assert cut is not None  # noqa: S101 (it is gone on with)
        self.rescued = RescueNote(
            rescue.by, cut.endpoint.id, self.endpoint.id, len(rescue.text), cut.code or rescue.error.code
        )

    def _settle(self, outcome: Outcome, error: ProviderError | None, blame: FailureKind | None = None) -> None:
        """The running Attempt is over."""
        attempt = self._attempt
        assert attempt is not None  # noqa: S101 (it runs)
        self._course.settle(attempt, outcome, error, committed=self.committed, streamed=self.stream, blame=blame)

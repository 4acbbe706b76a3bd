"""What one Answer is made by: the Plan, all that is around it, and how an Attempt begins and is settled there."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from gateway.attempts import Attempt, Limits, Outcome
from gateway.bill import Bill, Origin
from gateway.call import Call
from gateway.decision import Decision
from gateway.fleet import Fleet
from gateway.health import FailureKind, Health, HedgeBudget, Permit, Result, kind_of
from gateway.payment import Payment
from gateway.routing.candidate import Plan
from gateway.turns import Turns
from gateway.watch import Alarm, Watch
from providers.errors import ProviderError
from providers.messages import ChatRequest


class End(Struct, frozen=True):
    """What is to be done when an answer is over."""

    note: Callable[[Any, Decision, Origin], None]
    """Called with the Answer, and what it was to."""
    decision: Decision
    origin: Origin
    turns: Turns
    payment: Payment | None

    def __call__(self, answer: object) -> None:
        """It is over."""
        self.turns.end()
        if self.payment is not None:
            self.payment.release()
        self.note(answer, self.decision, self.origin)


class Course(Struct, frozen=True):
    """What one Answer is made by."""

    plan: Plan
    turns: Turns
    fleet: Fleet
    health: Health
    limits: Limits
    deadline_s: float
    prompt_tokens: int
    unix_time_s: Callable[[], float]
    loop: asyncio.AbstractEventLoop
    alarm: Alarm
    task: asyncio.Task[Any] | None
    caller: str
    hedges: HedgeBudget
    bill: Bill | None = None
    """Where what it costs is written down."""
    trace_headers: Callable[[int], Mapping[str, str]] | None = None
    """What an Attempt, by its number, tells its provider of the trace that it belongs to."""
    ended: Callable[[Any], None] | None = None
    """Called once with the Answer, when all is over."""

    def call(
        self, attempt: Attempt, asked: ChatRequest, *, stream: bool, task: asyncio.Task[Any] | None = None
    ) -> Call:
        """Its Call, not yet open; the Attempt is in the books from here on."""
        endpoint = attempt.endpoint
        refused = None
        if self.bill is not None:
            refused = self.bill.begin(attempt)
            if self.bill.payment is not None:
                asked = self.bill.payment.bounded(asked, endpoint.id)
        call = Call(
            attempt,
            self.fleet.upstreams[endpoint.id],
            asked,
            Watch(self.deadline_s, self.alarm, task),
            stream=stream or (self.plan.upcast and endpoint.capabilities.streaming),
            after_finish_s=self.limits.after_finish_timeout_s,
            unix_time_s=self.unix_time_s,
            caller=self.caller,
        )
        call.refused = refused
        if self.trace_headers is not None and not endpoint.local:
            call.headers = self.trace_headers(attempt.number)
        return call

    def limit_s(self, call: Call) -> float:
        """How long its first token, or all of it if it comes whole, may take."""
        endpoint, others = call.attempt.endpoint, self.turns.others
        usual = self.health.of(endpoint.id)
        if not call.stream:
            return self.limits.whole_s(usual.expected_whole_s(), others=others)
        p95_s = None if others else usual.ttft_p95_s()
        return self.limits.first_token_s(endpoint, self.prompt_tokens, p95_s, others=others)

    def note(self, attempt: Attempt) -> None:
        """An Attempt has come further."""
        if self.bill is not None:
            self.bill.note(attempt)

    def settle(
        self,
        attempt: Attempt,
        outcome: Outcome,
        error: ProviderError | None,
        *,
        committed: bool,
        streamed: bool,
        blame: FailureKind | None = None,
    ) -> None:
        """An Attempt is over: note how it went, give its permit back, and tell health.

        `blame` is what the error says of the Endpoint where that is not what it says by itself.
        """
        if attempt.outcome != "running":
            return
        now_s = self.loop.time()
        attempt.outcome = outcome
        if error is not None:
            attempt.code = error.code
        elif outcome == "cancelled" and attempt.code is None:
            attempt.code = "cancelled"
        attempt.duration_s = now_s - attempt.started_s
        if self.bill is not None:
            self.bill.end(attempt, error)
        permit, attempt.permit = attempt.permit, Permit.REFUSED
        if permit is Permit.REFUSED:
            return
        failure: FailureKind | None = "cancelled" if outcome == "cancelled" else None
        if error is not None:
            failure = blame or kind_of(error, committed=committed, local=attempt.endpoint.local)
        usage = attempt.usage
        result = Result(
            failure=failure,
            ttft_s=attempt.ttft_s,
            duration_s=attempt.duration_s,
            output_tokens=None if usage is None else usage.output_tokens,
            retry_after_s=None if error is None else error.retry_after_s,
            prompt_tokens=self.prompt_tokens,
            streamed=streamed,
            committed=committed,
            caller=self.caller,
            lagged=attempt.lagged,
        )
        self.health.of(attempt.endpoint.id).leave(permit, result, now_s)

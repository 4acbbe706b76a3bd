"""What a client reads that is not billed for its answer, or not alone: as an `Answer`, but made elsewhere."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from gateway.answer import Answer
from gateway.attempts import Attempt
from gateway.cache.entry import NOTHING_USED, Kept, unbilled
from gateway.cache.flight import Flight, Listener
from gateway.explain.record import Ending
from gateway.rescue import RescueNote
from gateway.routing.candidate import Plan
from gateway.routing.compression import Compressed
from providers.base import Endpoint
from providers.errors import MixgateError, ProviderError
from providers.messages import ChatRequest, Event, UsageReported

TAKEOVERS_MAX = 1
"""How often somebody whose answer came to nothing asks anew, before the failure is passed on."""


class Tell(Protocol):
    """Takes down how a request ended that nobody was asked for."""

    def __call__(self, outcome: Ending, code: str | None, model: str, saved_in_nusd: int | None) -> None:
        """Called once."""
        ...


class Told(Struct, frozen=True):
    """What is to be said of a request that nobody was asked for."""

    plan: Plan
    """Whom it might have asked."""
    tell: Tell


class Given(Struct, frozen=True, gc=False):
    """How a client came by its answer."""

    again: bool
    """Whether it was made for another request."""
    ttl_s: int
    source_id: str = ""
    """The generation id of that one."""
    age_s: int = 0
    saved_in_nusd: int | None = None
    """What it would have cost; None: not known, or not yet."""


class Replayed:
    """An answer that was kept."""

    __slots__ = ("_kept", "_told", "attempt", "complete", "endpoint", "failure", "given", "plan", "request", "stream")

    attempts: Sequence[Attempt] = ()
    clamped_tokens: int | None = None
    compressed: Compressed | None = None
    cost_in_nusd: int | None = 0
    rescued: RescueNote | None = None
    skipped_chunks = 0

    def __init__(self, request: ChatRequest, kept: Kept, endpoint: Endpoint, told: Told, age_s: float) -> None:
        self._kept = kept
        self._told: Told | None = told
        self.request = request
        self.stream = bool(request.stream)
        self.complete = False
        self.failure: MixgateError | None = None
        self.endpoint = endpoint
        self.plan = told.plan
        self.attempt: Attempt | None = Attempt(
            0, endpoint, 0.0, outcome="ok", emulated=kept.emulated, usage=NOTHING_USED
        )
        self.given = Given(
            again=True, ttl_s=kept.ttl_s, source_id=kept.source_id, age_s=int(age_s), saved_in_nusd=kept.cost_in_nusd
        )

    async def next(self) -> Sequence[Event]:
        """All of it."""
        if self.complete:
            return ()
        self.complete = True
        return (*self._kept.events, UsageReported(NOTHING_USED))

    def close(self) -> None:
        """Take down that it was given again. Idempotent."""
        told, self._told = self._told, None
        if told is not None:
            failure = self.failure
            outcome: Ending = "failed" if failure is not None else "ok" if self.complete else "cancelled"
            code = None if failure is None else failure.code
            told.tell(outcome, code, self.endpoint.model, self._kept.cost_in_nusd)


class Followed:
    """An answer on its way, to whoever asked for it or to somebody who asked the same meanwhile.

    Args:
        request: What this one asked.
        flight: The answer, and who listens to it.
        listener: This one.
        told: What to say of this one; None where the answer was asked for in its name, and is in the books.
        ttl_s: How long it will be kept.
        again: Asks again, or finds another who has.
    """

    __slots__ = (
        "_again",
        "_begun",
        "_closed",
        "_flight",
        "_listener",
        "_takeovers",
        "_told",
        "_ttl_s",
        "complete",
        "failure",
        "request",
        "stream",
    )

    def __init__(
        self,
        request: ChatRequest,
        flight: Flight[Answer],
        listener: Listener[Answer],
        told: Told | None,
        ttl_s: int,
        again: "Callable[[], Awaitable[Followed]]",
    ) -> None:
        self.request = request
        self.stream = bool(request.stream)
        self.complete = False
        self._flight = flight
        self._listener = listener
        self._told = told
        self._ttl_s = ttl_s
        self._again = again
        self._begun = False
        self._takeovers = 0
        self.failure: MixgateError | None = None
        self._closed = False

    @property
    def _answer(self) -> Answer:
        answer = self._flight.source
        assert answer is not None  # noqa: S101 (whoever gets to see this has waited for it)
        return answer

    @property
    def attempts(self) -> Sequence[Attempt]:
        """Those made for this request; where it came to nothing those that were made in its place."""
        return self._answer.attempts if self._told is None or self.failure is not None else ()

    @property
    def attempt(self) -> Attempt | None:
        """The one that answers."""
        attempt = self._answer.attempt
        return attempt if attempt is None or self._told is None else attempt.unbilled(NOTHING_USED)

    @property
    def endpoint(self) -> Endpoint:
        """Who answers."""
        return self._answer.endpoint

    @property
    def plan(self) -> Plan:
        """Whom it may ask."""
        return self._answer.plan

    @property
    def clamped_tokens(self) -> int | None:
        """How long it may be at most, where the key's budget said so."""
        return self._answer.clamped_tokens

    @property
    def compressed(self) -> Compressed | None:
        """What was cut out of the prompt."""
        return self._answer.compressed

    @property
    def rescued(self) -> RescueNote | None:
        """How it went on after it was cut."""
        return self._answer.rescued

    @property
    def skipped_chunks(self) -> int:
        """Unreadable chunks that were passed over."""
        return self._answer.skipped_chunks

    @property
    def cost_in_nusd(self) -> int | None:
        """What it costs whoever reads it here."""
        return self._answer.cost_in_nusd if self._told is None else 0

    @property
    def given(self) -> Given:
        """How the client came by it."""
        if self._told is None:
            return Given(again=False, ttl_s=self._ttl_s)
        return Given(again=True, ttl_s=self._ttl_s, source_id=self._flight.source_id)

    async def next(self) -> Sequence[Event]:
        """The next of it; as `Answer.next`.

        Raises:
            MixgateError: There is none, or no rest of it.
        """
        while True:
            try:
                events = await self._listener.next()
            except MixgateError as error:
                if self._may_take_over(error):
                    await self._take_over()
                    continue
                self.failure = error
                raise
            self._begun = True
            self.complete = self._listener.heard_all
            return events if self._told is None else unbilled(events)

    def close(self) -> None:
        """Read no more of it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._listener.leave()
        if self._told is None:
            return
        failure, answer = self.failure, self._answer
        if failure is not None:
            self._told.tell("failed", failure.code, "", None)
        elif self.complete:
            self._told.tell("ok", None, answer.endpoint.model, answer.cost_in_nusd)
        else:
            self._told.tell("cancelled", None, "", None)

    @property
    def source(self) -> Answer | None:
        """The answer itself, which others may listen to as well."""
        return self._flight.source

    def _may_take_over(self, error: MixgateError) -> bool:
        """Whether it may be asked for anew: another one has failed, and this one's client has seen nothing of it."""
        if self._told is None or self._begun or self._takeovers >= TAKEOVERS_MAX:
            return False
        return isinstance(error, ProviderError) and error.retryable

    async def _take_over(self) -> None:
        self._takeovers += 1
        try:
            other = await self._again()
        except MixgateError as error:
            self.failure = error
            self._told = None  # whoever refused has taken it down
            raise
        self._listener.leave()
        self._flight, self._listener, self._told = other._flight, other._listener, other._told  # noqa: SLF001 (its own kind)


AnyAnswer: TypeAlias = Answer | Followed | Replayed
"""Whatever a client may be given."""


def cut(answer: AnyAnswer, error: MixgateError) -> None:
    """Have it on record that we end an answer here, and with what; to be followed by `close`.

    Whoever was asked is not to blame, so the Attempt counts as cancelled; its code says by what.
    """
    answer.failure = error
    source = answer.source if isinstance(answer, Followed) else answer
    if isinstance(source, Answer) and not source.complete:
        source.failure = error
        for attempt in source.attempts:
            if attempt.outcome == "running":
                attempt.code = error.code

"""What was decided for a request, all that it follows from, and what to say where nobody may be asked."""

from datetime import datetime
from typing import Final

from msgspec import Struct

from gateway.attempts import Hints
from gateway.errors import CapabilityError, NoEndpointError
from gateway.fleet import Fleet
from gateway.observation import Observation
from gateway.overflow import too_long
from gateway.routing.ask import NO_PREFERENCES, Ask, Preferences
from gateway.routing.candidate import Plan
from gateway.routing.compression import Compressed
from gateway.routing.decide import decide
from gateway.routing.parameters import Losses, find_losses
from gateway.routing.preferences import check_user, read_preferences, read_session
from gateway.routing.table import Table
from gateway.targets import Target
from providers.errors import MixgateError
from providers.messages import ChatRequest

EXCLUSIONS_SHOWN_MAX: Final = 8
OPERATOR_MUST_ACT: Final = frozenset({"off", "retired", "disabled"})
"""Exclusions that no other request could get around."""


class Decision(Struct, frozen=True):
    """A Plan, and all that it follows from."""

    request: ChatRequest
    """As it is to be sent: with its middle cut out, where that was needed."""
    names: tuple[str, ...]
    target: Target
    ask: Ask
    observations: dict[str, Observation]
    now_s: float
    unix_s: float
    now_utc: datetime | None
    """The same, where a price depends on the time of day."""
    draw: float
    plan: Plan
    session: str | None = None
    conversation: bytes | None = None
    """What it is remembered by, where a prompt cache could serve it."""
    compressed: Compressed | None = None
    clamped_tokens: int | None = None
    """How long the answer may be, where the caller's budget allows no more."""

    def again(self, ask: Ask) -> "Decision":
        """The same with other numbers."""
        plan = decide(
            self.target.table,
            ask,
            self.observations,
            now_s=self.now_s,
            draw=self.draw,
            now_utc=self.now_utc,
        )
        return self._with(self.request, ask, plan, self.compressed, self.clamped_tokens)

    def sending(self, request: ChatRequest, compressed: Compressed | None, clamped_tokens: int | None) -> "Decision":
        """The same, but something else is sent."""
        return self._with(request, self.ask, self.plan, compressed, clamped_tokens)

    def _with(
        self, request: ChatRequest, ask: Ask, plan: Plan, compressed: Compressed | None, clamped_tokens: int | None
    ) -> "Decision":
        return Decision(
            request,
            self.names,
            self.target,
            ask,
            self.observations,
            self.now_s,
            self.unix_s,
            self.now_utc,
            self.draw,
            plan,
            self.session,
            self.conversation,
            compressed,
            clamped_tokens,
        )


class Wishes(Struct, frozen=True, gc=False):
    """What a client says of routing."""

    preferences: Preferences
    session: str | None


NO_WISHES: Final = Wishes(NO_PREFERENCES, None)


def read_wishes(request: ChatRequest, target: Target, hints: Hints) -> Wishes:
    """What the client says of routing.

    Raises:
        InvalidRequestError: A wish makes no sense.
    """
    check_user(request)
    session = read_session(request, hints.session)
    preferences = read_preferences(request, target.suffix)
    return NO_WISHES if session is None and preferences is NO_PREFERENCES else Wishes(preferences, session)


def losses_of(request: ChatRequest, table: Table, fleet: Fleet) -> Losses:
    """What would not arrive as asked, and where."""
    endpoints = [row.endpoint for row in table.merged.rows if row.id in fleet.upstreams]
    return find_losses(request, endpoints, lambda one: fleet.upstreams[one.id].dialect, emulating=table.emulate)


def refusal(decision: Decision, fleet: Fleet) -> MixgateError:
    """Why nothing may be asked at all."""
    plan = decision.plan
    error = too_long(plan, decision.target.table, decision.ask.prompt_tokens, fleet.off)
    if error is not None:
        return error
    reasons = "; ".join(f"{one.endpoint}: {one.reason}" for one in plan.excluded[:EXCLUSIONS_SHOWN_MAX])
    if any(one.code not in OPERATOR_MUST_ACT for one in plan.excluded):
        return CapabilityError(f"no endpoint of {plan.route!r} can do what is asked. {reasons}")
    return NoEndpointError(f"nothing can answer for {plan.route!r} now. {reasons or 'It has no endpoint.'}")

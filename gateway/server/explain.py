"""`POST /v1/route/explain`: what would be decided for a body now. No provider is asked, nothing is kept."""

from typing import Any, Protocol

import msgspec

from gateway.attempts import NO_HINTS, Hints
from gateway.explain.view import explanation_of
from gateway.fleet import Fleet
from gateway.routing.ask import Ask
from gateway.routing.candidate import Plan
from providers.messages import ChatRequest


class Decided(Protocol):
    """A Plan, and what it follows from."""

    @property
    def names(self) -> tuple[str, ...]:
        """Models, as the client wrote them."""
        ...

    @property
    def ask(self) -> Ask:
        """What the request asks for."""
        ...

    @property
    def plan(self) -> Plan:
        """Whom to ask."""
        ...

    @property
    def now_s(self) -> float:
        """The monotonic clock of the decision."""
        ...


class Explainer(Protocol):
    """Decides without asking anybody: the Engine."""

    def explain(
        self,
        request: ChatRequest,
        fleet: Fleet,
        *,
        hints: Hints = NO_HINTS,
        caller: str = "local",
        key_id: str = "",
    ) -> Decided:
        """What would be decided now."""
        ...


def explain_request(
    engine: Explainer,
    request: ChatRequest,
    fleet: Fleet,
    *,
    hints: Hints = NO_HINTS,
    caller: str = "local",
    key_id: str = "",
) -> dict[str, Any]:
    """The body of the answer: an Explanation, costs as decimal strings in USD.

    Raises:
        MixgateError: No such model, or a wish that makes no sense.
    """
    decided = engine.explain(request, fleet, hints=hints, caller=caller, key_id=key_id)
    body: dict[str, Any] = {"object": "route.explanation"}
    explanation = explanation_of(decided.names, decided.ask, decided.plan, decided.now_s)
    return body | msgspec.structs.asdict(explanation)

"""What answers teach: how long they usually are, and whose cache holds the start of a conversation."""

from typing import Final

from msgspec.structs import replace

from gateway.decision import Decision
from gateway.routing.ask import Ask
from gateway.routing.warmth import Warmth, tokens_warmed
from gateway.sharing.base import Sessions
from providers.base import Endpoint
from providers.messages import Usage

USUAL_OUTPUT_TOKENS: Final = 300
"""Of an answer, before a Route has had any."""
USUAL_WEIGHT: Final = 0.05
"""What one more answer counts for in the mean length of a Route's answers."""


class Learned:
    """Kept for the life of the process; belongs to one event loop."""

    __slots__ = ("_usual_output", "sessions", "warmth")

    def __init__(self) -> None:
        self.sessions: Sessions | None = None
        """Where other gateways remember whose cache holds a conversation, if there are any."""
        self._usual_output: dict[str, float] = {}
        self.warmth = Warmth()

    def usual_output_tokens(self, route: str) -> int:
        """How long answers of a Route usually are."""
        return int(self._usual_output.get(route, USUAL_OUTPUT_TOKENS) + 0.5)

    async def ask_others(self, decision: Decision) -> Ask | None:
        """The same with what other gateways know of the conversation; None where they know no more."""
        if self.sessions is None or decision.conversation is None or decision.ask.warm_endpoint is not None:
            return None
        found = await self.sessions.find(decision.conversation.hex(), decision.unix_s)
        endpoint_id, _, tokens = (found or "").rpartition("|")
        if endpoint_id not in decision.target.ids or not (tokens.isascii() and tokens.isdigit()):
            return None
        warm_tokens = min(int(tokens), decision.ask.prompt_tokens)
        return replace(decision.ask, warm_endpoint=endpoint_id, warm_tokens=warm_tokens)

    def learn(self, decision: Decision, endpoint: Endpoint, usage: Usage, now_s: float, *, route_known: bool) -> None:
        """Take in one more answer.

        Args:
            decision: Of its request.
            endpoint: Who gave it.
            usage: What it used.
            now_s: The loop's clock.
            route_known: Whether its Route is configured, and so one of a bounded number.
        """
        route = decision.plan.route
        if usage.output_tokens and route_known:
            before = self._usual_output.get(route, USUAL_OUTPUT_TOKENS)
            self._usual_output[route] = before + USUAL_WEIGHT * (usage.output_tokens - before)
        if decision.conversation is None:
            return
        tokens = tokens_warmed(
            endpoint,
            prompt_tokens=usage.input_tokens or decision.ask.prompt_tokens,
            cached_tokens=usage.cached_input_tokens,
            session=decision.session is not None,
        )
        if tokens is not None:
            self.warmth.remember(decision.conversation, endpoint.id, tokens, now_s)
            if self.sessions is not None:
                self.sessions.remember(decision.conversation.hex(), f"{endpoint.id}|{tokens}", decision.unix_s)

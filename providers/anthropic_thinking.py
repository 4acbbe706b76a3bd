"""How a wish to have it think is said to Anthropic: a budget in tokens, or an effort where the model sets its own.

https://platform.claude.com/docs/en/build-with-claude/extended-thinking and .../adaptive-thinking. Whatever a model
cannot combine with thinking (a forced tool, text to go on from) weighs more than the thinking.
"""

from typing import Any

from msgspec import Struct

from providers.base import Adaptation
from providers.json_values import members
from providers.messages import ChatRequest

BUDGET_MIN_TOKENS = 1024
"""Anthropic's own lower bound."""
BUDGET_MAX_TOKENS = 128_000
"""More is never asked for by an effort alone."""
SHARES = {"minimal": 0.1, "low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.95, "max": 0.95}
"""Of the output limit, per effort: the shares that OpenRouter documents."""
EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
DEFAULT_EFFORT = "medium"


class ThinkingWish(Struct, frozen=True):
    """What a client asked of thinking."""

    on: bool
    effort: str | None = None
    budget_tokens: int | None = None
    hidden: bool = False
    """Thinking is wanted, its text is not."""


class Thinking(Struct, frozen=True):
    """What to send."""

    thinking: dict[str, Any] | None = None
    effort: str | None = None

    @property
    def on(self) -> bool:
        """Whether the model will think, which fixes its sampling."""
        return self.thinking is not None and self.thinking["type"] != "disabled"


NO_THINKING = Thinking()


def read_wish(request: ChatRequest, adapted: list[Adaptation]) -> ThinkingWish | None:
    """What the client asked, in either spelling; None where it asked nothing."""
    said = members(request.reasoning)
    if not said and request.reasoning_effort is None:
        return None
    effort = said.get("effort", request.reasoning_effort)
    budget = said.get("max_tokens")
    tokens = budget if isinstance(budget, int) and not isinstance(budget, bool) and budget > 0 else None
    if effort == "none" or said.get("enabled") is False:
        return ThinkingWish(on=False)
    if effort is not None and effort not in EFFORTS:
        adapted.append(Adaptation("reasoning_effort", "dropped", "Anthropic knows no such effort"))
        effort = None
    on = effort is not None or tokens is not None or said.get("enabled") is True
    return ThinkingWish(on, effort, tokens, said.get("exclude") is True) if on else None


def by_effort(wish: ThinkingWish, adapted: list[Adaptation]) -> Thinking:
    """For models that decide themselves how much they think."""
    if not wish.on:
        return Thinking({"type": "disabled"})
    if wish.budget_tokens is not None:
        adapted.append(Adaptation("reasoning.max_tokens", "dropped", "this model sets its own budget, by effort"))
    # Newer models show nothing of their thinking unless asked, and who asks for reasoning wants to see it.
    display = "omitted" if wish.hidden else "summarized"
    return Thinking({"type": "adaptive", "display": display}, EFFORTS[wish.effort] if wish.effort else None)


def by_budget(
    wish: ThinkingWish,
    *,
    limit_tokens: int,
    obstacle: str | None,
    adapted: list[Adaptation],
) -> Thinking:
    """For models that think when told to, within a budget that is part of the output limit.

    Args:
        wish: What the client asked.
        limit_tokens: The output limit that will be sent; the budget stays under it.
        obstacle: Why this request cannot be thought about, in words.
        adapted: Gets what becomes of the wish where it is not fulfilled.
    """
    if not wish.on:
        return NO_THINKING  # such models do not think unless they are told to
    if obstacle is None and limit_tokens <= BUDGET_MIN_TOKENS:
        obstacle = f"thinking takes an output limit above {BUDGET_MIN_TOKENS} tokens"
    if obstacle is not None:
        adapted.append(Adaptation("reasoning", "dropped", obstacle))
        return NO_THINKING
    wanted = wish.budget_tokens
    if wanted is None:
        wanted = min(int(limit_tokens * SHARES[wish.effort or DEFAULT_EFFORT]), BUDGET_MAX_TOKENS)
    budget = min(max(wanted, BUDGET_MIN_TOKENS), limit_tokens - 1)
    if wish.budget_tokens is not None and budget != wanted:
        adapted.append(Adaptation("reasoning.max_tokens", "clamped", f"to {budget} tokens"))
    thinking: dict[str, Any] = {"type": "enabled", "budget_tokens": budget}
    if wish.hidden:
        thinking["display"] = "omitted"
    return Thinking(thinking)

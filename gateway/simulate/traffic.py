"""What clients ask in a simulated world: arrivals with bursts, prompts short and long, people who leave."""

from collections.abc import Sequence
from typing import Any, Final

from gateway.simulate.dice import Dice
from gateway.simulate.texts import OUTPUT_TOKENS_MAX, PROMPT_CHARS_MAX
from gateway.simulate.world import Job, JobKind

CALLERS_MAX: Final = 5
LONG_PROMPT_SHARE: Final = 0.06
BURST_SHARE: Final = 0.3
"""Of arrivals: they come in bursts, ten times as densely as the others."""
LEAVING_SHARE: Final = 0.05
DEADLINE_SHARE: Final = 0.1
FORBIDDEN_SHARE: Final = 0.01
WISHES_SHARE: Final = 0.05
"""Of requests with a `provider` object, and again of those with a list of models."""
SPECIAL_SHARE: Final = 0.05
"""Of tool requests, and again of requests for JSON."""
TYPICAL_PROMPT_CHARS: Final = 1200
TYPICAL_OUTPUT_TOKENS: Final = 60


def draw_jobs(dice: Dice, models: Sequence[str], count: int, *, widest_tokens: int, plain: bool) -> tuple[Job, ...]:
    """Requests in the order in which they come.

    Args:
        dice: Where the luck comes from.
        models: What clients ask for; the first most often.
        count: How many requests.
        widest_tokens: The largest context that there is: some prompts nearly fill it, a few do not fit.
        plain: Only text, nobody leaves, no deadlines: for comparing policies.
    """
    mean_gap_s = dice.pick((0.3, 1.0, 2.0, 4.0))
    callers = dice.whole(1, CALLERS_MAX)
    bursting = 0
    at_s = 0.0
    jobs: list[Job] = []
    for number in range(count):
        if bursting == 0 and dice.chance(BURST_SHARE / 8):
            bursting = dice.whole(4, 12)
        bursting = max(0, bursting - 1)
        at_s += dice.waiting(mean_gap_s / (10 if bursting else 1))
        jobs.append(_draw_job(dice, number, at_s, models, callers, widest_tokens, plain=plain))
    return tuple(jobs)


def _draw_job(
    dice: Dice, number: int, at_s: float, models: Sequence[str], callers: int, widest_tokens: int, *, plain: bool
) -> Job:
    kind = _draw_kind(dice)
    leaves = dice.chance(LEAVING_SHARE)
    hurried = dice.chance(DEADLINE_SHARE)
    patience_s, deadline_s = dice.between(0.0, 8.0), dice.between(1.0, 40.0)
    limited = dice.chance(0.4)
    wishes = _draw_wishes(dice) if dice.chance(WISHES_SHARE) else None
    several = dice.chance(WISHES_SHARE)
    return Job(
        number=number,
        at_s=at_s,
        caller=dice.whole(0, callers - 1),
        model=models[0] if dice.chance(0.8) else dice.pick(models),
        prompt_chars=_draw_prompt(dice, widest_tokens),
        output_tokens=min(OUTPUT_TOKENS_MAX, max(1, round(dice.around(TYPICAL_OUTPUT_TOKENS, 0.8)))),
        limit_tokens=max(1, round(dice.around(TYPICAL_OUTPUT_TOKENS * 1.5, 1.0))) if limited else None,
        stream=dice.chance(0.75),
        kind="text" if plain else kind,
        leaves_after_s=patience_s if leaves and not plain else None,
        deadline_s=deadline_s if hurried and not plain else None,
        session=f"session-{dice.whole(0, 9)}" if dice.chance(0.2) and not plain else None,
        models=tuple(models[:2]) if several and not plain else None,
        preferences=None if plain else wishes,
    )


def _draw_wishes(dice: Dice) -> dict[str, Any]:
    """What clients of OpenRouter say of providers."""
    wishes: tuple[dict[str, Any], ...] = (
        {"order": ["p1", "p0"]},
        {"order": ["p0"], "allow_fallbacks": False},
        {"allow_fallbacks": False},
        {"sort": "price"},
        {"sort": "throughput"},
        {"sort": "latency"},
        {"ignore": ["p0"]},
        {"only": ["p0", "p2"]},
        {"max_price": {"prompt": 1, "completion": 2}},
        {"preferred_max_latency": 2},
    )
    return dice.pick(wishes)


def _draw_kind(dice: Dice) -> JobKind:
    drawn = dice.unit()
    if drawn < FORBIDDEN_SHARE:
        return "forbidden"
    if drawn < FORBIDDEN_SHARE + SPECIAL_SHARE:
        return "tools"
    return "json" if drawn < FORBIDDEN_SHARE + 2 * SPECIAL_SHARE else "text"


def _draw_prompt(dice: Dice, widest_tokens: int) -> int:
    """Characters of a prompt."""
    if dice.chance(LONG_PROMPT_SHARE):
        widest_chars = min(PROMPT_CHARS_MAX, widest_tokens * 4)
        return max(1, round(widest_chars * 1.05 * dice.unit() ** 2))
    return max(1, round(dice.around(TYPICAL_PROMPT_CHARS, 1.0)))

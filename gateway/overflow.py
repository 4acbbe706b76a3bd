"""What to do with a prompt that seems too long: count exactly, cut its middle out where that was asked for, or say so.

The estimate of a prompt's length rather errs upwards. Where it alone excludes an Endpoint the exact count decides, if
the model's tokenizer is at hand; only then is anything cut, and only if the client or the Route wants it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from gateway.errors import PromptTooLongError
from gateway.routing.candidate import Plan
from gateway.routing.compression import Compressed, compress
from gateway.routing.exclusion import Exclusion
from gateway.routing.table import Table
from providers.messages import ChatRequest
from providers.mixtral_tokenizer import MixtralTokenizer, Template, load_tokenizer, template_of
from providers.tokens import estimate_request

ESTIMATE_HIGH_TIMES: Final = 1.7
"""No estimate is more above the truth than this."""
ANSWER_MIN_TOKENS: Final = 16
"""Room for an answer that nobody limited."""
TOO_LONG: Final = "context"
"""The code of an Exclusion for its context size."""


class Counters:
    """The exact tokenizers, loaded when first needed: that takes some 60 ms, and most prompts need none."""

    __slots__ = ("_load", "_loaded")

    def __init__(self, load: Callable[[Template], MixtralTokenizer | None] = load_tokenizer) -> None:
        self._load = load
        self._loaded: dict[Template, MixtralTokenizer | None] = {}

    async def count(self, request: ChatRequest, model: str) -> int | None:
        """Exactly how many tokens the prompt is for that model; None where its tokenizer is not known."""
        template = template_of(model)
        if template is None:
            return None
        if template not in self._loaded:
            self._loaded[template] = self._load(template)
        tokenizer = self._loaded[template]
        return None if tokenizer is None else await tokenizer.count_off_loop(request)


def doubtful(excluded: Sequence[Exclusion]) -> list[Exclusion]:
    """Exclusions for the context size that the exact count may lift."""
    return [
        one
        for one in excluded
        if one.code == TOO_LONG
        and one.limit is not None
        and one.wanted is not None
        and one.wanted <= one.limit * ESTIMATE_HIGH_TIMES
    ]


def shorten(request: ChatRequest, plan: Plan) -> Compressed | None:
    """The request cut to the largest context there is; None where size is not in the way, or nothing helps."""
    limits = [one.limit for one in plan.excluded if one.code == TOO_LONG and one.limit is not None]
    if not limits:
        return None
    room = max(limits) - (request.output_limit_tokens or ANSWER_MIN_TOKENS)
    return compress(request, lambda shorter: estimate_request(shorter) <= room)


def too_long(plan: Plan, table: Table, prompt_tokens: int, off: Mapping[str, str]) -> PromptTooLongError | None:
    """The error that says so with the numbers, and what would fit; None where size is not what is in the way."""
    tight = [one for one in plan.excluded if one.code == TOO_LONG and one.limit is not None]
    if not tight:
        return None
    largest = max(tight, key=lambda one: one.limit or 0)
    wanted = max(one.wanted or 0 for one in tight)
    fitting = [row.id for row in table.merged.rows if row.context_tokens >= wanted]
    advice = "shorten it, ask for less, or send plugins: [{id: context-compression}] to have its middle cut out"
    if wanted - prompt_tokens >= (largest.limit or 0):
        advice = "the answer that is asked for is longer than that by itself: ask for less"
    elif fitting:
        advice = f"{', '.join(fitting[:3])} would take it, but cannot do what else is asked"
    elif off:
        advice += "; a larger endpoint may be switched off: `mixgate check` shows them"
    return PromptTooLongError(
        f"the prompt has about {prompt_tokens} tokens and {wanted - prompt_tokens} more are needed for the answer: "
        f"{wanted} together. The largest context that {plan.route!r} has is {largest.limit} tokens "
        f"({largest.endpoint}); {advice}",
        param="messages",
    )

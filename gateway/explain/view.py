"""A decision as it is shown: on the wire of `POST /v1/route/explain`, and in the tables of `mixgate explain`."""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from gateway.explain.record import Option, Record
from gateway.observation import UNOBSERVED, Observation, Standing
from gateway.routing.ask import Ask
from gateway.routing.candidate import Candidate, Plan
from gateway.routing.exclusion import Exclusion
from gateway.routing.table import Table
from providers.base import Endpoint

PICO_PER_USD: Final = 10**12


class Shown(Struct, frozen=True, gc=False):
    """An Endpoint that may be asked, or might be after its rest."""

    endpoint: str
    standing: Standing
    stage: int
    """0: of the first model asked for; each further model and each fallback counts one up."""
    context_tokens: int | None
    """None: not known, or not kept."""
    expected_cost: str | None
    """Of this request, in USD, decimal; None: no price is known."""
    score: float | None
    """What the policy ordered by."""
    in_flight: int
    ttft_s: float | None
    tokens_per_s: float | None
    uptime: float | None
    panic: bool
    back_in_s: float | None
    """How long it still rests."""


class Explanation(Struct, frozen=True, gc=False, kw_only=True):
    """Who may be asked, in which order, who rests, and why the others are not among them."""

    requested: tuple[str, ...]
    route: str
    policy: str
    explicit: bool
    """The order was laid down: a short Retry-After is waited out."""
    needed: tuple[str, ...]
    prompt_tokens: int
    output_tokens: int | None
    expected_output_tokens: int
    would_ask: tuple[str, ...]
    """One after the other, as long as each fails."""
    candidates: tuple[Shown, ...]
    resting: tuple[Shown, ...]
    excluded: tuple[Exclusion, ...]


def explanation_of(requested: Sequence[str], ask: Ask, plan: Plan, now_s: float) -> Explanation:
    """What a Plan says.

    Args:
        requested: Names of models, as the client wrote them.
        ask: What the request asks for.
        plan: What was decided.
        now_s: The monotonic clock of the decision.
    """
    return Explanation(
        requested=tuple(requested),
        route=plan.route,
        policy=plan.policy,
        explicit=plan.explicit,
        needed=ask.needed,
        prompt_tokens=ask.prompt_tokens,
        output_tokens=ask.output_tokens,
        expected_output_tokens=_expected_output(ask),
        would_ask=tuple(one.endpoint.id for one in plan.candidates or plan.resting),
        candidates=tuple(_shown_candidate(one, now_s) for one in plan.candidates),
        resting=tuple(_shown_candidate(one, now_s) for one in plan.resting),
        excluded=plan.excluded,
    )


def explanation_of_record(record: Record, table: Table | None) -> Explanation:
    """What a Record says. Without its Table contexts are missing, and those whom nothing could have made eligible."""
    ask, decision = record.ask, record.decision
    endpoints = {} if table is None else {row.id: row.endpoint for row in table.merged.rows}

    def shown(options: Sequence[Option]) -> tuple[Shown, ...]:
        return tuple(_shown(one, endpoints, record.observations, record.now_s) for one in options)

    return Explanation(
        requested=record.requested,
        route=decision.route,
        policy=decision.policy,
        explicit=decision.explicit,
        needed=ask.needed,
        prompt_tokens=ask.prompt_tokens,
        output_tokens=ask.output_tokens,
        expected_output_tokens=_expected_output(ask),
        would_ask=tuple(one.endpoint for one in decision.candidates or decision.resting),
        candidates=shown(decision.candidates),
        resting=shown(decision.resting),
        excluded=decision.excluded if table is None else table.excluded + decision.excluded,
    )


def usd_from_pico(amount_in_pusd: int) -> str:
    """Pico-USD as decimal USD, exactly, without an exponent or trailing zeros."""
    sign = "-" if amount_in_pusd < 0 else ""
    whole, rest = divmod(abs(amount_in_pusd), PICO_PER_USD)
    return sign + f"{whole}.{rest:012d}".rstrip("0").rstrip(".")


def _shown_candidate(candidate: Candidate, now_s: float) -> Shown:
    option = Option(
        candidate.endpoint.id, candidate.stage, candidate.expected_cost_in_pusd, candidate.score, candidate.panic
    )
    endpoints = {candidate.endpoint.id: candidate.endpoint}
    return _shown(option, endpoints, {candidate.endpoint.id: candidate.observation}, now_s)


def _shown(
    option: Option, endpoints: Mapping[str, Endpoint], observations: Mapping[str, Observation], now_s: float
) -> Shown:
    endpoint, seen = endpoints.get(option.endpoint), observations.get(option.endpoint, UNOBSERVED)
    cost = option.expected_cost_in_pusd
    rests = seen.standing in ("parked", "open", "disabled") and seen.until_s > now_s
    return Shown(
        endpoint=option.endpoint,
        standing=seen.standing,
        stage=option.stage,
        context_tokens=None if endpoint is None else endpoint.context_tokens,
        expected_cost=None if cost is None else usd_from_pico(cost),
        score=option.score,
        in_flight=seen.in_flight,
        ttft_s=seen.ttft_s,
        tokens_per_s=seen.tokens_per_s,
        uptime=seen.uptime,
        panic=option.panic,
        back_in_s=round(seen.until_s - now_s, 3) if rests else None,
    )


def _expected_output(ask: Ask) -> int:
    return (
        ask.expected_output_tokens if ask.output_tokens is None else min(ask.output_tokens, ask.expected_output_tokens)
    )

"""What a request leaves at its end: references to values that are there anyway. The store's thread does the rest."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isfinite
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from gateway.attempts import Attempt
from gateway.explain.record import Cached, Decision, Ending, Option, Record, Rescued, Tokens, Tried, encode
from gateway.explain.static import Statics
from gateway.observation import UNOBSERVED, Observation
from gateway.routing.ask import Ask
from gateway.routing.candidate import Candidate, Plan
from gateway.routing.table import Table
from gateway.state.blocks import Packed
from providers.messages import Usage

SEEN_MAX: Final = 4096
"""Endpoints whose last Observation is kept spelled out."""
_encoder: Final = msgspec.json.Encoder()


class Trace(Struct, frozen=True, kw_only=True, gc=False):
    """One request, when it is over. Whoever makes it does not change any of this any more."""

    id: str
    unix_s: float
    """When it was decided."""
    requested: tuple[str, ...]
    surface: str
    caller: str | None
    ask: Ask
    table: Table
    observations: Mapping[str, Observation]
    """By Endpoint id, as the decision was given them."""
    draw: float
    now_s: float
    """The monotonic clock of the decision."""
    now_utc: datetime | None
    catalogue: str
    """The Catalogue's digest."""
    plan: Plan
    attempts: Sequence[Attempt]
    outcome: Ending
    code: str | None
    ended_s: float
    """The monotonic clock at the end."""
    rescued: Rescued | None = None
    cost_in_nusd: int | None = None
    cached: Cached | None = None
    traceparent: str = ""
    """The header by which the client's own trace goes on here."""


class Sink(Protocol):
    """Where Traces go: the store, or a list in a test."""

    def put(self, record: Trace, /) -> bool:
        """Keep it. Returns at once; False where there is no room."""
        ...


class Packer:
    """Makes of Traces what is stored. For one thread."""

    def __init__(self) -> None:
        self._statics = Statics()
        self._seen: dict[str, tuple[Observation, msgspec.Raw]] = {}

    def __call__(self, trace: Trace) -> Packed:
        """The stored form."""
        static = self._statics.of(trace.table)
        # What is spliced in is JSON of Observations, so the Record is none in name only.
        seen: Any = self._spell(trace)
        return Packed(trace.id, encode(_record(trace, static.digest, seen)), static)

    def _spell(self, trace: Trace) -> dict[str, msgspec.Raw]:
        """The Observations as JSON: those that did not change since the last Trace are not spelled out again."""
        known, find = self._seen, trace.observations.get
        spelled: dict[str, msgspec.Raw] = {}
        if len(known) > SEEN_MAX:
            known.clear()
        for row in trace.table.merged.rows:
            seen = find(row.id, UNOBSERVED)
            if seen is UNOBSERVED:
                continue
            before = known.get(row.id)
            if before is None or before[0] is not seen:
                before = known[row.id] = (seen, msgspec.Raw(_encoder.encode(seen)))
            spelled[row.id] = before[1]
        return spelled


def record_of(trace: Trace, table_digest: str) -> Record:
    """The Record of a Trace."""
    find = trace.observations.get
    seen = {row.id: find(row.id, UNOBSERVED) for row in trace.table.merged.rows}
    return _record(trace, table_digest, {name: one for name, one in seen.items() if one is not UNOBSERVED})


def _record(trace: Trace, table_digest: str, observations: dict[str, Observation]) -> Record:
    now_s = trace.now_s
    # By position: by name it takes three times as long, and this is done for every request.
    return Record(
        trace.id,
        int(trace.unix_s * 1000) / 1000,
        trace.requested,
        trace.surface,
        trace.outcome,
        trace.ask,
        trace.draw,
        now_s,
        table_digest,
        trace.catalogue,
        decision_of(trace.plan, trace.table),
        tuple([_tried(attempt, now_s) for attempt in trace.attempts]),
        observations,
        _ms(trace.ended_s - now_s),
        trace.code,
        trace.caller,
        trace.now_utc,
        trace.rescued,
        trace.cost_in_nusd,
        trace.cached,
    )


def decision_of(plan: Plan, table: Table) -> Decision:
    """A Plan in ids and numbers, without the exclusions that the Table has anyway."""
    return Decision(
        plan.route,
        plan.policy,
        _options(plan.candidates),
        _options(plan.resting),
        plan.excluded[len(table.excluded) :],
        plan.explicit,
        plan.emulate,
        plan.rescue,
        plan.upcast,
        plan.hedge,
    )


def _options(candidates: Sequence[Candidate]) -> tuple[Option, ...]:
    return tuple(
        [
            Option(one.endpoint.id, one.stage, one.expected_cost_in_pusd, _finite(one.score), one.panic)
            for one in candidates
        ]
    )


def _tried(attempt: Attempt, origin_s: float) -> Tried:
    usage, ttft_s = attempt.usage, attempt.ttft_s
    return Tried(
        attempt.number,
        attempt.endpoint.id,
        attempt.outcome,
        attempt.why,
        attempt.code,
        attempt.upstream_status,
        _ms(attempt.started_s - origin_s),
        None if ttft_s is None else _ms(ttft_s),
        _ms(attempt.duration_s),
        None if usage is None else _tokens(usage, estimated=attempt.usage_estimated),
        None if usage is None else usage.cost_in_nusd,
        attempt.followed,
        attempt.emulated,
        tuple([f"{one.param} {one.action}" for one in attempt.adapted]) if attempt.adapted else (),
    )


def _tokens(usage: Usage, *, estimated: bool) -> Tokens:
    return Tokens(
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        estimated,
    )


def _finite(score: float) -> float | None:
    return score if isfinite(score) else None


def _ms(seconds: float) -> int:
    return int(seconds * 1000 + 0.5)

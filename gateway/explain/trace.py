"""What a request leaves at its end: references to values that are there anyway. The store's thread does the rest."""

from collections.abc import Sequence
from datetime import datetime
from math import inf
from typing import Any, Final, Protocol, final

import msgspec
from msgspec import Struct

from gateway.attempts import Attempt
from gateway.explain.record import (
    ESCAPES,
    Cached,
    Decision,
    Ending,
    Record,
    Rescued,
    decision_of_values,
    encode,
    record_of_values,
)
from gateway.explain.static import Known, Statics
from gateway.observation import UNOBSERVED, Observation
from gateway.routing.ask import Ask
from gateway.routing.candidate import Candidate, Plan
from gateway.routing.table import Table
from gateway.state.blocks import Packed, Static
from providers.messages import Usage

_INFINITE: Final = inf
STATIC_TOLD_S: Final = 1800.0
"""How long records refer to a Table without saying again what it is: it is kept for days after that was said last."""
_encode: Final = msgspec.msgpack.Encoder().encode


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
    observations: dict[str, Observation]
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


@final
class Packer:
    """Makes of Traces what is stored. For two threads: the one that ends requests, and the one that writes."""

    def __init__(self) -> None:
        self._statics = Statics()

    def __call__(self, trace: Trace) -> Packed:
        """The stored form, with what it refers to."""
        known = self._statics.of(trace.table)
        packed = Packed(trace.id, _data(trace, known), known.static)
        known.told_unix_s = trace.unix_s
        return packed

    def at_once(self, trace: Trace) -> Packed | None:
        """The stored form alone; None where what it refers to has to be kept, or to be kept alive."""
        known = self._statics.known(trace.table)
        if known is None or not 0.0 <= trace.unix_s - known.told_unix_s < STATIC_TOLD_S:
            return None
        try:
            return Packed(trace.id, _data(trace, known))
        except Exception:  # noqa: BLE001 - no request fails for its record: the thread tries again, and says what it is
            return None

    def forget(self) -> None:
        """What records refer to is to be kept anew."""
        self._statics.forget()


def _data(trace: Trace, known: Known) -> bytes:
    values = _values(trace, known)
    try:
        data = _encode(values)
    except OverflowError:
        # A number beyond 64 bits, whoever it came from: JSON has room for it.
        data = encode(record_of_values(values))
    for byte, escaped in ESCAPES:
        data = data.replace(byte, escaped)
    return data


def record_of(trace: Trace, table_digest: str) -> Record:
    """The Record of a Trace."""
    return record_of_values(_values(trace, Known(trace.table, Static(table_digest, b""))))


def decision_of(plan: Plan, table: Table) -> Decision:
    """A Plan in ids and numbers, without the exclusions that the Table has anyway."""
    return decision_of_values(_decision(plan, len(table.excluded)))


def _values(trace: Trace, known: Known) -> tuple[Any, ...]:
    """Those of its Record, in the order of the fields."""
    now_s, observations, unobserved = trace.now_s, trace.observations, UNOBSERVED
    seen: dict[str, Observation] = {}
    for name in known.ids:
        observation = observations.get(name, unobserved)
        if observation is not unobserved:
            seen[name] = observation
    return (
        trace.id,
        int(trace.unix_s * 1000) / 1000,
        trace.requested,
        trace.surface,
        trace.outcome,
        trace.ask,
        trace.draw,
        now_s,
        known.static.digest,
        trace.catalogue,
        _decision(trace.plan, known.excluded),
        [_tried(attempt, now_s) for attempt in trace.attempts],
        seen,
        _ms(trace.ended_s - now_s),
        trace.code,
        trace.caller,
        trace.now_utc,
        trace.rescued,
        trace.cost_in_nusd,
        trace.cached,
    )


def _decision(plan: Plan, excluded: int) -> tuple[Any, ...]:
    """The values of a Decision, without the first exclusions, which the Table has."""
    return (
        plan.route,
        plan.policy,
        _options(plan.candidates),
        _options(plan.resting),
        plan.excluded[excluded:],
        plan.explicit,
        plan.emulate,
        plan.rescue,
        plan.upcast,
        plan.hedge,
    )


def _options(candidates: Sequence[Candidate]) -> list[tuple[Any, ...]]:
    return [
        (
            one.endpoint.id,
            one.stage,
            one.expected_cost_in_pusd,
            one.score if -_INFINITE < one.score < _INFINITE else None,
            one.panic,
        )
        for one in candidates
    ]


def _tried(attempt: Attempt, origin_s: float) -> tuple[Any, ...]:
    usage, ttft_s = attempt.usage, attempt.ttft_s
    return (
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
        [f"{one.param} {one.action}" for one in attempt.adapted],
    )


def _tokens(usage: Usage, *, estimated: bool) -> tuple[Any, ...]:
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        estimated,
    )


def _ms(seconds: float) -> int:
    return int(seconds * 1000 + 0.5)

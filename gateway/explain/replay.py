"""Deciding once more: from a Record and its Table the same Plan must come, in any process, at any later time. Pure."""

from collections.abc import Iterator

from msgspec.structs import fields, replace

from gateway.explain.record import Decision, Record
from gateway.explain.trace import decision_of
from gateway.routing.candidate import Plan
from gateway.routing.decide import decide
from gateway.routing.table import Table
from providers.json_values import elements


def replay(record: Record, table: Table) -> Plan:
    """The Plan that follows from what the record says of the request and of the Endpoints at that moment."""
    return decide(table, record.ask, record.observations, now_s=record.now_s, draw=record.draw, now_utc=record.now_utc)


def differences(record: Record, table: Table) -> tuple[str, ...]:
    """In what the replay is another decision than the recorded one, in words. None: it is the same."""
    return tuple(_differences(record.decision, decision_of(replay(record, table), table)))


def whole(record: Record, table: Table) -> Record:
    """The Record with the exclusions that its Table has, in the order in which the Plan had them."""
    decision = replace(record.decision, excluded=table.excluded + record.decision.excluded)
    return replace(record, decision=decision)


def _differences(recorded: Decision, replayed: Decision) -> Iterator[str]:
    for field in fields(Decision):
        before, now = getattr(recorded, field.name), getattr(replayed, field.name)
        if before != now:
            yield f"{field.name}: it was {_words(before)}, it is {_words(now)}"


def _words(value: object) -> str:
    parts = elements(value)
    return ", ".join(str(getattr(one, "endpoint", one)) for one in parts) if parts else str(value or "nothing")

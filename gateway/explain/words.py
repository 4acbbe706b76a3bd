"""A decision in words and tables, for people."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from gateway.explain.record import Record, Tried
from gateway.explain.view import Explanation, Shown, explanation_of_record, usd_from_pico
from gateway.routing.exclusion import Exclusion
from gateway.routing.table import Table

GAP: Final = "  "
PICO_PER_NANO: Final = 1000
_WHY: Final = {
    "planned": "its turn",
    "again": "once more",
    "repair": "mend the answer",
    "rescue": "go on with the answer",
    "panic": "nothing else was left",
    "hedge": "the first was slow",
}


class Section(Struct, frozen=True):
    """A table with its title."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sections(explanation: Explanation, attempts: Sequence[Tried] | None = None) -> list[Section]:
    """The tables of a decision.

    Args:
        explanation: What was decided.
        attempts: What came of it; None: nothing was sent.
    """
    fate = {} if attempts is None else {one.endpoint: _fate(one) for one in attempts}
    unasked = "" if attempts is None else "not asked"
    columns = ("place", "endpoint", "standing", "context", "expected USD", "score", "what happened")
    return [
        section
        for section in (
            Section(
                f"Candidates, by policy {explanation.policy}",
                columns,
                tuple(
                    _option(str(place), one, fate.get(one.endpoint, unasked))
                    for place, one in enumerate(explanation.candidates, 1)
                ),
            ),
            Section(
                "Resting, asked only when nobody else is left",
                columns,
                tuple(_option("", one, fate.get(one.endpoint, _rest(one))) for one in explanation.resting),
            ),
            Section(
                "Not considered",
                ("endpoint", "code", "wanted", "limit", "reason"),
                tuple(_exclusion(one) for one in explanation.excluded),
            ),
            Section(
                "Attempts",
                (
                    "no",
                    "endpoint",
                    "why",
                    "outcome",
                    "status",
                    "began",
                    "first token",
                    "took",
                    "tokens",
                    "USD",
                    "notes",
                ),
                tuple(_attempt(one) for one in attempts or ()),
            ),
        )
        if section.rows
    ]


def asked_for(explanation: Explanation) -> str:
    """What the request asked for, in one line."""
    parts = [f"asked for {', '.join(explanation.requested)}", f"route {explanation.route}"]
    parts.append(f"{explanation.prompt_tokens:,} prompt tokens")
    if explanation.output_tokens is not None:
        parts.append(f"at most {explanation.output_tokens:,} back")
    parts.append(f"{explanation.expected_output_tokens:,} expected")
    if explanation.needed:
        parts.append(f"needs {', '.join(explanation.needed)}")
    return "; ".join(parts)


def outcome_of(record: Record) -> str:
    """What came of a request, in one sentence."""
    took = _seconds(record.duration_ms)
    count = len(record.attempts)
    tries = f"{count} attempt{'' if count == 1 else 's'}"
    last = record.attempts[-1].endpoint if record.attempts else "nobody"
    rescued = record.rescued
    if (cached := record.cached) is not None and record.outcome == "ok":
        old = f"{cached.age_s:,} s old" if cached.age_s else "made at that moment"
        cost = cached.saved_in_nusd
        saved = "" if cost is None else f", saving {usd_from_pico(cost * PICO_PER_NANO)} USD"
        return f"given the answer of {cached.source}, {old}{saved} ({took})"
    middle = f", after {rescued.cut} broke off at {rescued.after_chars:,} characters" if rescued is not None else ""
    match record.outcome:
        case "ok":
            return f"answered by {last}{middle} ({tries}, {took})"
        case "cancelled":
            return f"the client left while {last} was asked ({tries}, {took})"
        case "failed":
            return f"failed with {record.code or 'an error'} ({tries}, {took}){middle}"


def headline(record: Record) -> str:
    """Which request it was, in one line."""
    when = datetime.fromtimestamp(record.unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    by = f", caller {record.caller}" if record.caller else ""
    return f"{record.id}: {when}{f', {record.surface}' if record.surface else ''}{by}"


def table_text(record: Record, table: Table | None = None) -> str:
    """All of a Record as aligned plain text.

    Args:
        record: What is stored of a request.
        table: The static side of its decision; without it contexts and some exclusions are missing.
    """
    explanation = explanation_of_record(record, table)
    lines = [headline(record), asked_for(explanation), outcome_of(record), ""]
    for section in sections(explanation, record.attempts):
        lines += _plain(section)
    return "\n".join(lines)


def _plain(section: Section) -> Iterator[str]:
    cells = [section.columns, *section.rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(section.columns))]
    yield section.title
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield (GAP + GAP.join(padded)).rstrip()
    yield ""


def _option(place: str, one: Shown, happened: str) -> tuple[str, ...]:
    standing = f"{one.standing}, panic" if one.panic else one.standing
    return (
        place,
        one.endpoint,
        standing,
        _number(one.context_tokens),
        "?" if one.expected_cost is None else one.expected_cost,
        "" if one.score is None else f"{one.score:.4g}",
        happened,
    )


def _rest(one: Shown) -> str:
    return "" if one.back_in_s is None else f"back in {one.back_in_s:.1f} s"


def _exclusion(one: Exclusion) -> tuple[str, ...]:
    wanted, limit = (_number(figure) if figure is not None else "" for figure in (one.wanted, one.limit))
    return (one.endpoint, one.code, wanted, limit, one.reason)


def _fate(one: Tried) -> str:
    match one.outcome:
        case "ok":
            return "answered"
        case "cancelled":
            return "cancelled"
        case _:
            return f"failed: {one.code or 'error'}"


def _attempt(one: Tried) -> tuple[str, ...]:
    tokens, cost = one.tokens, one.reported_cost_in_nusd
    counted = "" if tokens is None else f"{_number(tokens.input)} in, {_number(tokens.output)} out"
    return (
        str(one.number),
        one.endpoint,
        _WHY[one.why],
        one.outcome if one.code in {None, one.outcome} else f"{one.outcome}: {one.code}",
        "" if one.upstream_status is None else str(one.upstream_status),
        f"+{_seconds(one.started_ms)}",
        "" if one.ttft_ms is None else _seconds(one.ttft_ms),
        _seconds(one.duration_ms),
        f"about {counted}" if tokens is not None and tokens.estimated else counted,
        "" if cost is None else usd_from_pico(cost * PICO_PER_NANO),
        _notes(one),
    )


def _notes(one: Tried) -> str:
    notes = [f"{name} emulated" for name in one.emulated]
    notes += one.adapted
    if one.followed:
        notes.append("answer fetched elsewhere")
    return ", ".join(notes)


def _number(figure: int | None) -> str:
    return "?" if figure is None else f"{figure:,}"


def _seconds(time_ms: int) -> str:
    return f"{time_ms / 1000:.3f} s"

"""An answer as it is kept: its Events without how they were cut into pieces, who gave it, and what it cost. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from providers.emulation import Emulated
from providers.messages import (
    AnswerFailed,
    AnswerStarted,
    ChoiceFinished,
    Event,
    ExtrasDelta,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReported,
)

FORM: Final = 1
"""Counts up whenever entries look different; those of another version are not read."""
NOTHING_USED: Final = Usage(input_tokens=0, output_tokens=0)
"""What an answer that is given again uses."""
WHOLE_REASONS: Final[frozenset[FinishReason]] = frozenset({"stop", "tool_calls", "function_call"})
"""How a choice ends that says all it wanted to say."""

_KINDS: Final[tuple[type[Struct], ...]] = (
    *(AnswerStarted, TextDelta, ReasoningDelta, RefusalDelta),
    *(ToolCallDelta, ExtrasDelta, ChoiceFinished),
)
_PLACES: Final[dict[type[Struct], int]] = {kind: place for place, kind in enumerate(_KINDS)}
_ChoiceEvent = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | ExtrasDelta | ChoiceFinished


class Kept(Struct, frozen=True, gc=False):
    """One answer, to be given again."""

    source_id: str
    """The generation id of the request that it was made for."""
    made_unix_s: float
    ttl_s: int
    endpoint: str
    """The id of the Endpoint that gave it."""
    emulated: tuple[Emulated, ...]
    cost_in_nusd: int | None
    """What it cost then, all Attempts together: what it saves each time. None: nobody knows."""
    events: tuple[Event, ...]
    """Complete, but for the usage: nothing is used when it is given again."""


class _Row(Struct, frozen=True, array_like=True):
    form: int
    source_id: str
    made_unix_s: float
    ttl_s: int
    endpoint: str
    emulated: tuple[Emulated, ...]
    cost_in_nusd: int | None
    events: list[tuple[int, dict[str, Any]]]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Row).decode


def pack(kept: Kept) -> bytes | None:
    """As bytes; None where it holds something that no bytes stand for, and so cannot be kept."""
    events = [(_PLACES[type(event)], _said(event)) for event in kept.events]
    row = _Row(
        *(FORM, kept.source_id, kept.made_unix_s, kept.ttl_s),
        *(kept.endpoint, kept.emulated, kept.cost_in_nusd, events),
    )
    try:
        return _encode(row)
    except (OverflowError, UnicodeEncodeError, TypeError, RecursionError):
        return None


def unpack(data: bytes) -> Kept | None:
    """What `pack` made; None where it is anything else, such as an entry of another version."""
    try:
        row = _decode(data)
        if row.form != FORM or any(place < 0 for place, _ in row.events):
            return None
        events = tuple(msgspec.convert(said, _KINDS[place]) for place, said in row.events)
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError, RecursionError):
        return None
    return Kept(
        *(row.source_id, row.made_unix_s, row.ttl_s, row.endpoint, row.emulated, row.cost_in_nusd),
        events,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # _KINDS are kinds of Event
    )


def joined(events: Iterable[Event]) -> tuple[Event, ...]:
    """The same answer in few pieces: choice by choice, pieces that follow one another made one, without the usage."""
    started: list[Event] = []
    by_choice: dict[int, list[list[_ChoiceEvent]]] = {}
    for event in events:
        if isinstance(event, AnswerStarted):
            started = [event]
        elif not isinstance(event, (UsageReported, AnswerFailed)):
            runs = by_choice.setdefault(event.choice, [])
            if runs and _follows(runs[-1][-1], event):
                runs[-1].append(event)
            else:
                runs.append([event])
    return (*started, *(_one(run) for choice in sorted(by_choice) for run in by_choice[choice]))


def is_whole(events: Sequence[Event], choices: int, *, may_be_long: bool) -> bool:
    """Whether an answer says all that it wanted to say, in as many choices as were asked for.

    Args:
        events: All of it.
        choices: How many were asked for.
        may_be_long: Whether one that ends at a limit of the client's own counts as whole.
    """
    ends = {event.choice: event.reason for event in events if isinstance(event, ChoiceFinished)}
    good = WHOLE_REASONS | {"length"} if may_be_long else WHOLE_REASONS
    return len(ends) == choices and all(reason in good for reason in ends.values())


def unbilled(events: Iterable[Event]) -> list[Event]:
    """The same, where nothing was used for it."""
    return [UsageReported(NOTHING_USED) if isinstance(event, UsageReported) else event for event in events]


def _said(event: Event) -> dict[str, Any]:
    return {name: value for name, value in asdict(event).items() if value is not None}


def _follows(piece: _ChoiceEvent, event: _ChoiceEvent) -> bool:
    """Whether an event goes on with what the one before it began."""
    if isinstance(piece, TextDelta) and isinstance(event, TextDelta):  # nearly all are
        return (piece.logprobs is None) == (event.logprobs is None)
    match piece, event:
        case ReasoningDelta(details=None), ReasoningDelta(details=None):
            return True
        case RefusalDelta(), RefusalDelta():
            return True
        case ToolCallDelta(), ToolCallDelta(id=None, name=None):
            return piece.index == event.index
        case _:
            return False


def _one(run: Sequence[_ChoiceEvent]) -> Event:
    """Pieces that follow one another, as one."""
    first = run[0]
    if len(run) == 1:
        return first
    match first:
        case TextDelta():
            logprobs: list[Any] | None = None
            if first.logprobs is not None:
                logprobs = [entry for one in run if isinstance(one, TextDelta) for entry in one.logprobs or ()]
            return replace(first, text=_text(run), logprobs=logprobs)
        case ToolCallDelta():
            return replace(first, arguments="".join(one.arguments for one in run if isinstance(one, ToolCallDelta)))
        case _:
            return replace(first, text=_text(run))


def _text(run: Sequence[_ChoiceEvent]) -> str:
    return "".join(one.text for one in run if isinstance(one, TextDelta | ReasoningDelta | RefusalDelta))

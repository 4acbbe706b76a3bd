"""What the gateway and the process that writes for it say to one another: one question, one answer, and so on."""

from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from gateway.state.blocks import Packed
from gateway.state.entries import Position, PriceSnapshot

RELAXED: Final = "relaxed"
PRESSED: Final = "pressed"
"""How it shares the machine with others: `gateway.ledger.scribe_process` says more."""


class WriteRows(Struct, frozen=True, tag=True, array_like=True):
    """To the process: write the rows that the journal has between two positions, or the first of them."""

    start: Position
    end: Position
    count_max: int
    prices: list[PriceSnapshot]


class WriteRecords(Struct, frozen=True, tag=True, array_like=True):
    """To the process: write blocks of these."""

    records: list[Packed]
    unix_s: float


class Tidy(Struct, frozen=True, tag=True, array_like=True):
    """To the process: do a little of what has to be done now and then."""

    unix_s: float


class Done(Struct, frozen=True, array_like=True):
    """By the process, once at the start and then after each of the above."""

    error: str | None = None
    """Why not all of it is written; None: it is."""
    size_bytes: int = 0
    """Of blocks."""
    reached: Position = (0, 0)
    """Up to where rows are written."""
    counts: dict[int, int] = {}
    """How many of each file."""
    more: bool = False
    """Whether there may be more to tidy."""


Work: TypeAlias = WriteRows | WriteRecords | Tidy

encode: Final = msgspec.msgpack.Encoder().encode
decode_work: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(Work)
decode_done: Final = msgspec.msgpack.Decoder(Done)

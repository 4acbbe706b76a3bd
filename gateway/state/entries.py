"""Rows of the ledger as the store keeps them, and how it gets them: it asks for them, and says once they are safe."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, TypeAlias

from msgspec import Struct

Row: TypeAlias = Sequence[Any]
"""Values in the order of ENTRY_COLUMNS."""


class Entry(Struct, frozen=True, gc=False):
    """One Attempt, once it is over. Money in nano-USD, times in microseconds of Unix time."""

    attempt_id: str
    unix_us: int
    """When it was sent."""
    key_id: str
    route: str
    model: str
    endpoint: str
    provider: str
    surface: str
    stream: bool
    price_id: str
    prompt_tokens: int
    output_limit: int | None
    reserved_in_nusd: int
    app: str
    referer: str
    user: str
    session: str
    tags: str
    """A JSON array of strings; empty where there are none."""
    ended_unix_us: int
    outcome: str
    code: str | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    usage_source: str
    cost_in_nusd: int | None
    """None: nobody knows, which is not zero."""
    cost_source: str
    ttft_ms: int | None
    duration_ms: int
    upstream_id: str | None


ENTRY_COLUMNS: Final = Entry.__struct_fields__


class PriceSnapshot(Struct, frozen=True, gc=False, array_like=True):
    """An Endpoint's prices as they were when something was billed by them."""

    price_id: str
    """Follows from `endpoint` and `data` alone."""
    endpoint: str
    data: str
    """As JSON."""


Position: TypeAlias = tuple[int, int]
"""In a journal: the number of a file, and how far in."""


class Place(Struct):
    """Rows that are in a journal: those whose last words lie between two positions."""

    start: Position
    """Whoever writes them moves it behind what is written."""
    end: Position
    counts: dict[int, int] = {}
    """How many were written of each file, as whoever writes them says."""


class Batch(Struct, frozen=True):
    """What is written next, in one transaction."""

    rows: Sequence[Row]
    prices: Sequence[PriceSnapshot]
    place: Place | None = None
    """Where more rows are, for whoever reads them there. Only where there are none above."""


class Outbox(Protocol):
    """Where the store gets rows from. The store's thread calls."""

    def batch(self, count_max: int, *, by_place: bool = False) -> AbstractContextManager[Batch]:
        """Rows to be written inside; they stay in the outbox where that fails, and are safe where it does not.

        Args:
            count_max: How many rows at most.
            by_place: Whether whoever writes them can read them in a journal: then they are left there from now on.
        """
        ...

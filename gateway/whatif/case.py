"""One request as it was, ready to be decided and priced once more: its rows, its record, its answer's tokens."""

from datetime import UTC, datetime
from functools import cached_property
from typing import Final

from msgspec import Struct

from gateway.explain.record import Record
from gateway.reports.requests import final_of
from gateway.routing.table import Table
from gateway.state.entries import Entry
from providers.messages import Usage

US_PER_S: Final = 1_000_000
COUNTED: Final = "provider"
"""The `usage_source` of rows whose tokens the provider counted."""


class Answered(Struct, frozen=True, gc=False):
    """The tokens of a request and its answer, as they would be billed elsewhere."""

    usage: Usage
    estimated: bool
    """No provider counted them, or not all of them."""


class Case:
    """One request.

    Args:
        entries: Its Attempts, in their order; at least one.
        record: Its decision record; None: it is not kept, or of another version.
        table: The static side of that decision; None: likewise.
    """

    def __init__(self, entries: tuple[Entry, ...], record: Record | None, table: Table | None) -> None:
        self.entries = entries
        self.record = record if table is not None else None
        self.table = table
        self.final = final_of(entries)

    @cached_property
    def as_was_in_nusd(self) -> int:
        """What it cost, all Attempts together, as far as the ledger knows."""
        return sum(entry.cost_in_nusd or 0 for entry in self.entries)

    @cached_property
    def unknown(self) -> int:
        """Attempts whose cost nobody knows."""
        return sum(entry.cost_in_nusd is None for entry in self.entries)

    @property
    def now_utc(self) -> datetime:
        """When its first Attempt was sent."""
        return datetime.fromtimestamp(self.entries[0].unix_us / US_PER_S, UTC)

    @property
    def images(self) -> int:
        """In the prompt, as far as that is known."""
        return self.record.ask.images if self.record is not None else 0

    @cached_property
    def spliced(self) -> bool:
        """Whether the answer has parts of several Attempts."""
        return self.record is not None and self.record.rescued is not None and self.record.rescued.by == "prefill"

    @cached_property
    def answered(self) -> Answered | None:
        """What any other Endpoint would have had to read and write; None: there was no answer to go by."""
        final = self.final
        if final.outcome == "failed" or final.input_tokens is None or final.output_tokens is None:
            return None
        estimated = final.usage_source != COUNTED
        read, written = final.input_tokens, final.output_tokens
        if self.spliced:
            # The last part was asked for with all that came before it as its prompt.
            read = min((one.input_tokens for one in self.entries if one.input_tokens is not None), default=read)
            written = sum(one.output_tokens or 0 for one in self.entries)
            estimated = True
        return Answered(
            Usage(input_tokens=read, output_tokens=written, reasoning_tokens=final.reasoning_tokens), estimated
        )

    def at(self, endpoint_id: str) -> tuple[Entry, ...]:
        """Its Attempts on one Endpoint."""
        return tuple(entry for entry in self.entries if entry.endpoint == endpoint_id)

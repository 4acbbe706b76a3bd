"""What the store's thread asks of whoever writes for it: the file's Writer, or another process that has the file."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from gateway.observation import MinuteRow
from gateway.state.blocks import Packed
from gateway.state.entries import Batch
from gateway.state.errands import Errands
from gateway.state.writer import EndpointEvent


class Writing(Protocol):
    """As `Writer`, which says what each of these does. They raise sqlite3.Error or StoreError."""

    @property
    def reads_journal(self) -> bool:
        """Whether it takes a place instead of rows."""
        ...

    def run(self, errands: Errands) -> None:
        """Do what somebody waits for."""
        ...

    def write_ledger(self, batch: Batch) -> None:
        """Add rows to the ledger; when this returns they are safe.

        Raises:
            ScribeError: Those of its place are not, and it takes no places any more.
        """
        ...

    def write_records(self, records: Sequence[Packed], now_unix_s: float) -> None:
        """Add records."""
        ...

    def write_minutes(self, rows: Iterable[MinuteRow]) -> None:
        """Add to the minutes of Endpoints."""
        ...

    def write_events(self, events: Iterable[EndpointEvent]) -> None:
        """Keep changes of standing."""
        ...

    def close(self) -> None:
        """Write what is left and end."""
        ...

    def abandon(self) -> None:
        """End after a failure."""
        ...

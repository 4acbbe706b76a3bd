"""Minutes and events on their way to the file: few, so they are kept while it cannot be written, within bounds."""

import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final

from msgspec.structs import replace

from gateway.observation import MinuteRow
from gateway.state.histogram import add_histograms
from gateway.state.schema import COUNT_COLUMNS, HISTOGRAM_COLUMN
from gateway.state.writer import EndpointEvent

MINUTES_MAX: Final = 20_000
"""Rows of Endpoints and minutes that wait to be written; more are dropped."""
EVENTS_MAX: Final = 10_000
"""Changes of standing that wait to be written; more are dropped."""


class Pending:
    """What waits. Any thread may add, one takes out; what it fails to write is there again."""

    def __init__(self) -> None:
        self._minutes: dict[tuple[str, int], MinuteRow] = {}
        self._events: list[EndpointEvent] = []
        self._lock = threading.Lock()
        self.dropped = 0
        """Rows and events for which there was no room."""

    def add_minutes(self, rows: Iterable[MinuteRow]) -> None:
        """Add to what waits."""
        with self._lock:
            for row in rows:
                key = (row.endpoint_id, row.minute)
                before = self._minutes.get(key)
                if before is None and len(self._minutes) >= MINUTES_MAX:
                    self.dropped += 1
                    continue
                self._minutes[key] = row if before is None else add_rows(before, row)

    def add_event(self, event: EndpointEvent) -> None:
        """Let an event wait."""
        with self._lock:
            if len(self._events) >= EVENTS_MAX:
                self.dropped += 1
            else:
                self._events.append(event)

    @contextmanager
    def minutes(self) -> Generator[list[MinuteRow]]:
        """The rows, to be written inside; they are back where that fails."""
        with self._lock:
            taken, self._minutes = self._minutes, {}
        rows = list(taken.values())
        try:
            yield rows
        except BaseException:
            self.add_minutes(rows)
            raise

    @contextmanager
    def events(self) -> Generator[list[EndpointEvent]]:
        """The events, to be written inside; they are back where that fails."""
        with self._lock:
            taken, self._events = self._events, []
        try:
            yield taken
        except BaseException:
            with self._lock:
                self._events = [*taken, *self._events][:EVENTS_MAX]
            raise


def add_rows(left: MinuteRow, right: MinuteRow) -> MinuteRow:
    """What two rows of one Endpoint and minute are together."""
    changes: dict[str, Any] = {name: getattr(left, name) + getattr(right, name) for name in COUNT_COLUMNS}
    changes[HISTOGRAM_COLUMN] = add_histograms(left.ttft_hist, right.ttft_hist)
    return replace(left, **changes)

"""Reads what the dashboard shows: what became of requests, when Endpoints changed, and all that other readers read."""

from typing import Final

from msgspec import Struct

from gateway.state.schema import MIGRATIONS
from gateway.state.series_reader import SeriesReader
from gateway.state.span_reader import SpanReader
from gateway.state.writer import EndpointEvent

MINUTES_PER_DAY: Final = 1440


class Outcome(Struct, frozen=True, gc=False):
    """Requests of one kind."""

    what: str
    """`cost`: by what they cost. `retry`, `failover`, `rescue`: answered after an Attempt that failed."""
    bucket: int
    """Of costs: see `gateway.state.request_rows`."""
    requests: int
    cost_in_nusd: int
    """Of all of it; of the others, what the Attempts cost that failed."""


class FiguresReader(SeriesReader, SpanReader):
    """Look-ups of the dashboard, besides those in the ledger."""

    def is_current(self) -> bool:
        """Whether the file has all that this version looks for.

        Raises:
            StoreError: It cannot be read.
        """
        version: int = self._rows("SELECT user_version FROM pragma_user_version")[0][0]
        return version >= len(MIGRATIONS)

    def outcomes(self, first_hour: int, end_hour: int) -> tuple[Outcome, ...]:
        """What requests came to that began in these hours.

        Raises:
            StoreError: The store cannot be read.
        """
        rows = self._rows(
            "SELECT what, bucket, sum(requests), sum(cost_in_nusd) FROM request_hour WHERE "
            "what IN ('cost', 'retry', 'failover', 'rescue') AND hour >= ? AND hour < ? GROUP BY 1, 2 ORDER BY 1, 2",
            (first_hour, end_hour),
        )
        return tuple(Outcome(*row) for row in rows)

    def answers_again(self, first_hour: int, end_hour: int) -> tuple[int, int]:
        """How many answers were given again in these hours, and what they would have cost, in nano-USD.

        Raises:
            StoreError: The store cannot be read.
        """
        rows = self._rows(
            "SELECT coalesce(sum(hits), 0), coalesce(sum(saved_in_nusd), 0) FROM cache_hour "
            "WHERE hour >= ? AND hour < ?",
            (first_hour, end_hour),
        )
        return rows[0][0], rows[0][1]

    def newest_events(self, endpoint: str | None, since_unix_s: float, count: int) -> tuple[EndpointEvent, ...]:
        """Changes of standing of one Endpoint (None: every one) since then, newest first.

        Raises:
            StoreError: The store cannot be read.
        """
        of = "" if endpoint is None else "AND endpoint_id = ?"
        rows = self._rows(
            f"SELECT unix_s, endpoint_id, standing, cause FROM endpoint_event WHERE unix_s >= ? {of} "  # noqa: S608
            "ORDER BY event DESC LIMIT ?",
            (since_unix_s, *(() if endpoint is None else (endpoint,)), count),
        )
        return tuple(EndpointEvent(*row) for row in rows)

    def last_events(self) -> dict[str, EndpointEvent]:
        """The last change of standing of each Endpoint.

        Raises:
            StoreError: The store cannot be read.
        """
        # By the index over Endpoints, one step for each of them.
        rows = self._rows(
            "WITH RECURSIVE one(id) AS (SELECT min(endpoint_id) FROM endpoint_event UNION ALL "
            "SELECT (SELECT min(endpoint_id) FROM endpoint_event WHERE endpoint_id > one.id) FROM one "
            "WHERE one.id IS NOT NULL) "
            "SELECT unix_s, endpoint_id, standing, cause FROM one JOIN endpoint_event ON event = "
            "(SELECT event FROM endpoint_event WHERE endpoint_id = one.id ORDER BY unix_s DESC, event DESC LIMIT 1)"
        )
        return {row[1]: EndpointEvent(*row) for row in rows}

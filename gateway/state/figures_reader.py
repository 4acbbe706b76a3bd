"""Reads what the dashboard draws: what became of requests, and Endpoints by day and minute; and all below it."""

from typing import Final

from msgspec import Struct

from gateway.observation import TTFT_BUCKETS, TTFT_HISTOGRAM_BYTES
from gateway.state.schema import MIGRATIONS, SPANS
from gateway.state.series_reader import SeriesReader
from gateway.state.writer import EndpointEvent

DAYS_ROWS_MAX: Final = 50_000
"""Rows of Endpoints and days."""
HISTOGRAMS_MAX: Final = 50_000
"""Histograms that one look-up adds up, the newest."""
MINUTES_PER_DAY: Final = 1440
_FAILED: Final = "fail_connect + fail_server + fail_timeout + fail_mid"


class EndpointSpan(Struct, frozen=True, gc=False):
    """What became of an Endpoint's Attempts in some time."""

    endpoint: str
    span: int
    """Which one: days or minutes since 1970; 0 where there is but one."""
    ok: int
    failed: int
    rate_limited: int

    @property
    def uptime(self) -> float | None:
        """Share of good ones among those that count, 0 to 1; None without any."""
        total = self.ok + self.failed
        return self.ok / total if total else None


class Outcome(Struct, frozen=True, gc=False):
    """Requests of one kind."""

    what: str
    """`cost`: by what they cost. `retry`, `failover`, `rescue`: answered after an Attempt that failed."""
    bucket: int
    """Of costs: see `gateway.state.request_rows`."""
    requests: int
    cost_in_nusd: int
    """Of all of it; of the others, what the Attempts cost that failed."""


class FiguresReader(SeriesReader):
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

    def endpoint_spans(
        self, from_minute: int, until_minute: int, width: int, *, endpoint: str | None = None
    ) -> tuple[EndpointSpan, ...]:
        """What became of Attempts by Endpoint and span, oldest first; spans without any are not there.

        Args:
            from_minute: Minutes since 1970.
            until_minute: The first that is not wanted.
            width: Of a span, in minutes; 0: all is one span.
            endpoint: This one alone.

        Raises:
            StoreError: The store cannot be read.
        """
        of = "" if endpoint is None else "AND endpoint_id = ?3"
        span = f"minute / {width}" if width else "0"
        each = " UNION ALL ".join(
            f"SELECT endpoint_id, {span} AS span, sum(ok) AS ok, sum({_FAILED}) AS failed, "  # noqa: S608 # our names
            f"sum(rate_limited) AS rate_limited FROM {table} WHERE minute >= ?1 AND minute < ?2 {of} GROUP BY 1, 2"
            for table in SPANS
        )
        rows = self._rows(
            f"SELECT endpoint_id, span, sum(ok), sum(failed), sum(rate_limited) FROM ({each}) "  # noqa: S608
            f"GROUP BY 1, 2 ORDER BY span DESC, endpoint_id LIMIT {DAYS_ROWS_MAX}",
            (from_minute, until_minute, *(() if endpoint is None else (endpoint,))),
        )
        return tuple(EndpointSpan(*row) for row in reversed(rows))

    def histograms(
        self, from_minute: int, until_minute: int, width: int, *, endpoint: str | None = None
    ) -> dict[tuple[str, int], list[int]]:
        """Times to the first token by Endpoint and span: histograms, added up. Arguments as for `endpoint_spans`.

        Raises:
            StoreError: The store cannot be read.
        """
        of = "" if endpoint is None else "AND endpoint_id = ?4"
        span = f"minute / {width}" if width else "0"
        each = " UNION ALL ".join(
            f"SELECT endpoint_id, {span} AS span, minute, hex(ttft_hist) AS hist FROM {table} "  # noqa: S608 # our names
            f"WHERE minute >= ?1 AND minute < ?2 {of} AND length(ttft_hist) = ?3"
            for table in SPANS
        )
        newest = f"SELECT * FROM ({each}) ORDER BY minute DESC LIMIT {HISTOGRAMS_MAX}"  # noqa: S608 # our names
        rows = self._rows(
            f"SELECT endpoint_id, span, group_concat(hist, '') FROM ({newest}) GROUP BY 1, 2",  # noqa: S608
            (from_minute, until_minute, TTFT_HISTOGRAM_BYTES, *(() if endpoint is None else (endpoint,))),
        )
        return {(row[0], row[1]): _added(bytes.fromhex(row[2])) for row in rows}

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


def _added(data: bytes) -> list[int]:
    """Histograms, one behind the other, as one. Each is a single number, so that all its counts are added at once."""
    # A count would run over into the next one from four billion on: more than Endpoints answer in a year.
    total = 0
    for start in range(0, len(data), TTFT_HISTOGRAM_BYTES):
        total += int.from_bytes(data[start : start + TTFT_HISTOGRAM_BYTES], "little")
    lanes: list[int] = []
    for _ in range(TTFT_BUCKETS):
        total, lane = total >> 32, total & 0xFFFF_FFFF
        lanes.append(lane)
    return lanes

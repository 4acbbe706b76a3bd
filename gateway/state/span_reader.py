"""Reads what became of Endpoints' Attempts by day, hour and minute.

Rows lie by Endpoint and time, and hold a histogram of a hundred bytes each: whoever adds them up by one pass over an
index of times, and sorts what comes, spends most of the time on going to and fro. Here each Endpoint and span is added
up by itself, where it lies.
"""

from typing import Final

import msgspec
from msgspec import Struct

from gateway.observation import TTFT_BUCKETS, TTFT_HISTOGRAM_BYTES
from gateway.state.bulk_reader import BulkReader
from gateway.state.schema import SPANS

DAYS_ROWS_MAX: Final = 50_000
"""Rows of Endpoints and spans, the newest."""
HISTOGRAMS_MAX: Final = 100_000
"""Histograms that one look-up adds up: of each Endpoint the newest."""
_FAILED: Final = "fail_connect + fail_server + fail_timeout + fail_mid"
_sums: Final = msgspec.json.Decoder(tuple[int, int, int])


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


class SpanReader(BulkReader):
    """Look-ups of what became of Endpoints' Attempts."""

    def endpoint_spans(
        self, from_minute: int, until_minute: int, width: int, *, endpoint: str | None = None
    ) -> tuple[EndpointSpan, ...]:
        """What became of Attempts by span and Endpoint, oldest first; spans without any are not there.

        Args:
            from_minute: Minutes since 1970.
            until_minute: The first that is not wanted.
            width: Of a span, in minutes; 0: all is one span.
            endpoint: This one alone.

        Raises:
            StoreError: The store cannot be read.
        """
        asked = (from_minute, until_minute, width, endpoint)
        what = f"CASE WHEN count(*) THEN json_array(sum(ok), sum({_FAILED}), sum(rate_limited)) END"
        with self.one_moment():
            rows = [row for table in SPANS for row in self._each(table, what, f"FROM {table} WHERE {_WITHIN}", asked)]
        added: dict[tuple[int, str], tuple[int, int, int]] = {}
        for name, span, text in rows:
            ok, failed, limited = _sums.decode(text)
            before = added.get((span, name), (0, 0, 0))
            added[span, name] = (before[0] + ok, before[1] + failed, before[2] + limited)
        newest = sorted(added, key=_newest_first)[:DAYS_ROWS_MAX]
        return tuple(EndpointSpan(name, span, *added[span, name]) for span, name in sorted(newest))

    def histograms(
        self, from_minute: int, until_minute: int, width: int, *, endpoint: str | None = None
    ) -> dict[tuple[str, int], list[int]]:
        """Times to the first token by Endpoint and span: histograms, added up. Arguments as for `endpoint_spans`.

        Raises:
            StoreError: The store cannot be read.
        """
        asked = (from_minute, until_minute, width, endpoint)
        rows: list[tuple[str, int, str]] = []
        with self.one_moment():
            for table in SPANS:
                newest = HISTOGRAMS_MAX // (self._count(table) if endpoint is None else 1)
                source = (
                    f"FROM (SELECT hex(ttft_hist) AS hist FROM {table} WHERE {_WITHIN} "  # noqa: S608 # our names
                    f"AND length(ttft_hist) = {TTFT_HISTOGRAM_BYTES} ORDER BY minute DESC LIMIT {max(1, newest)})"
                )
                rows += self._each(table, "group_concat(hist, '')", source, asked)
        added: dict[tuple[str, int], bytes] = {}
        for name, span, text in rows:
            added[name, span] = added.get((name, span), b"") + bytes.fromhex(text)
        return {place: _added(data) for place, data in added.items()}

    def _count(self, table: str) -> int:
        """How many Endpoints have rows; at least one."""
        found: int = self._rows(f"{_ids(table)} SELECT count(id) FROM one")[0][0]  # noqa: S608 # our names
        return max(1, found)

    def _each(
        self, table: str, what: str, source: str, asked: tuple[int, int, int, str | None]
    ) -> list[tuple[str, int, str]]:
        """Endpoint, span, and something about it where there is something, newest first."""
        from_minute, until_minute, width, endpoint = asked
        least, most = self._rows(f"SELECT (SELECT min(minute) FROM {table}), (SELECT max(minute) FROM {table})")[0]  # noqa: S608 # our names
        if least is None:
            return []
        # Only as far as there are rows: a span costs a step in the index, with or without rows.
        first, end = max(from_minute, least), min(until_minute, most + 1)
        if first >= end:
            return []
        wide = width or end  # one span then, which is the whole
        spans = (first // wide, (end - 1) // wide) if width else (0, 0)
        return self._rows(
            f"{_ids(table)}, n(at) AS (SELECT ?4 UNION ALL SELECT at - 1 FROM n WHERE at > ?3), "  # noqa: S608 # ours
            f"found(id, at, it) AS MATERIALIZED (SELECT id, at, (SELECT {what} {source}) FROM n CROSS JOIN one "
            "WHERE id IS NOT NULL AND (?6 IS NULL OR id = ?6)) "
            f"SELECT id, at, it FROM found WHERE it IS NOT NULL LIMIT {DAYS_ROWS_MAX}",
            (first, end, *spans, wide, endpoint),
        )


_WITHIN: Final = "endpoint_id = id AND minute >= max(?1, at * ?5) AND minute < min(?2, (at + 1) * ?5)"
"""The span `at` of the Endpoint `id`, inside the time that is asked for."""


def _newest_first(place: tuple[int, str]) -> tuple[int, str]:
    return -place[0], place[1]


def _ids(table: str) -> str:
    """All Endpoints that have rows, each by one step in the table's index; and one that is null."""
    following = f"SELECT min(endpoint_id) FROM {table} WHERE endpoint_id > one.id"  # noqa: S608 # our names
    return (
        f"WITH RECURSIVE one(id) AS (SELECT min(endpoint_id) FROM {table} UNION ALL "  # noqa: S608 # our names
        f"SELECT ({following}) FROM one WHERE one.id IS NOT NULL)"
    )


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

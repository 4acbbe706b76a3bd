"""Adds up histograms of times to the first token, in SQL too: percentiles of minutes must never be averaged."""

import sqlite3
from array import array
from typing import Any, Final

from gateway.observation import TTFT_BUCKETS, TTFT_HISTOGRAM_BYTES

_COUNT_MAX: Final = (1 << 32) - 1


def add_histograms(left: bytes, right: bytes) -> bytes:
    """The histogram of both. One that is empty, or of another length than ours, adds nothing."""
    if len(left) != TTFT_HISTOGRAM_BYTES:
        return right if len(right) == TTFT_HISTOGRAM_BYTES else b""
    if len(right) != TTFT_HISTOGRAM_BYTES:
        return left
    pairs = zip(read_histogram(left), read_histogram(right), strict=True)
    return b"".join(min(one + other, _COUNT_MAX).to_bytes(4, "little") for one, other in pairs)


def read_histogram(data: bytes) -> tuple[int, ...]:
    """How often each bucket was hit; all zero where nothing was timed."""
    if len(data) != TTFT_HISTOGRAM_BYTES:
        return (0,) * TTFT_BUCKETS
    return tuple(int.from_bytes(data[start : start + 4], "little") for start in range(0, TTFT_HISTOGRAM_BYTES, 4))


class _Sum:
    """The SQL aggregate `sum_histograms`."""

    def __init__(self) -> None:
        self._total = array("Q", bytes(8 * TTFT_BUCKETS))
        self._any = False

    def step(self, data: bytes, /) -> None:
        if len(data) == TTFT_HISTOGRAM_BYTES:
            self._any = True
            for bucket, count in enumerate(read_histogram(data)):
                self._total[bucket] += count

    def finalize(self) -> bytes:
        return b"".join(min(count, _COUNT_MAX).to_bytes(4, "little") for count in self._total) if self._any else b""


def install(connection: sqlite3.Connection) -> None:
    """Make `sum_histograms` known to a connection."""
    # typeshed believes that aggregates are of integers only.
    aggregate: Any = _Sum
    connection.create_aggregate("sum_histograms", 1, aggregate)

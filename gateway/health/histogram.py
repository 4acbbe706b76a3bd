"""Histograms of 32 buckets, half an octave each: small, and mergeable by adding them up. Pure."""

import struct
from collections.abc import Iterable, Sequence
from math import ceil, log2
from typing import Final

from gateway.observation import TTFT_BUCKET_S, TTFT_BUCKETS

BUCKETS: Final = TTFT_BUCKETS
PER_OCTAVE: Final = 2
TTFT_FLOOR_S: Final = TTFT_BUCKET_S
"""Where the first bucket of a histogram of times ends. The last one begins at about 330 s."""
PACE_FLOOR: Final = 0.1
"""Where the first bucket of a histogram of tokens per second ends. The last one begins at about 3,300."""
_PACKED: Final = struct.Struct(f"<{BUCKETS}I")
_COUNT_MAX: Final = (1 << 32) - 1


def bucket_of(value: float, floor: float) -> int:
    """Which bucket a value belongs to. The first and the last take what lies beyond them."""
    if value <= floor:
        return 0
    place = ceil(PER_OCTAVE * log2(value / floor))
    return place if place < BUCKETS else BUCKETS - 1


def merge(histograms: Iterable[Sequence[int]]) -> list[int]:
    """All of them as one."""
    total = [0] * BUCKETS
    for counts in histograms:
        total = [a + b for a, b in zip(total, counts, strict=True)]
    return total


def quantiles(counts: Sequence[int], shares: Sequence[float], floor: float) -> tuple[float, ...] | None:
    """The values below which those shares lie, interpolated inside their bucket; None where nothing was counted.

    Args:
        counts: A histogram.
        shares: Between 0 and 1, ascending.
        floor: Where its first bucket ends.
    """
    total = sum(counts)
    if not total:
        return None
    found: list[float] = []
    place, below = 0, 0
    for share in shares:
        rank = share * total
        while place < BUCKETS - 1 and below + counts[place] < rank:
            below += counts[place]
            place += 1
        inside = (rank - below) / counts[place] if counts[place] else 0.0
        found.append(floor * 2 ** ((place - 1 + min(max(inside, 0.0), 1.0)) / PER_OCTAVE))
    return tuple(found)


def pack(counts: Sequence[int]) -> bytes:
    """As 32 little-endian 32-bit numbers; nothing where nothing was counted."""
    if not any(counts):
        return b""
    return _PACKED.pack(*(min(count, _COUNT_MAX) for count in counts))


def unpack(data: bytes) -> list[int]:
    """What `pack` made. A value of any other length, so of another version, is an empty histogram."""
    return list(_PACKED.unpack(data)) if len(data) == _PACKED.size else [0] * BUCKETS

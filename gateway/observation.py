"""How an Endpoint is doing, as one frozen value: health makes it, routing decides by it, a record keeps it."""

from math import ceil, log2
from typing import Final, Literal

from msgspec import Struct

Standing = Literal["healthy", "degraded", "probing", "parked", "open", "disabled"]
"""healthy: ask. degraded: ask after every healthy one. probing: half-open, and its one permit is free.
parked: it asked us to stay away until `until_s`. open: it failed too often, nobody asks it before `until_s`.
disabled: our key, credit or model name is no good there; the operator must act; looked at again at `until_s`."""


class Quantiles(Struct, frozen=True, gc=False):
    """Of one figure over the last five minutes."""

    p50: float
    p75: float
    p90: float
    p99: float


class Observation(Struct, frozen=True, gc=False, omit_defaults=True):
    """How an Endpoint is doing at one moment. What nobody measured yet is None, and counts as good."""

    standing: Standing = "healthy"
    until_s: float = 0.0
    """Monotonic clock: when a parked, open or disabled Endpoint may be asked again."""
    outage: bool = False
    """At least half of at least three Attempts of the last 30 s failed."""
    weight: float = 1.0
    """Share of its usual traffic it should get, 0 to 1: slow start after a recovery, room under its learnt cap."""
    in_flight: int = 0
    """Attempts on their way; a local worker's waiting requests too."""
    cap: int | None = None
    """The most Attempts at the same time that it was seen to bear (after a 429), or its slots and queue."""
    ttft_s: float | None = None
    """Exponentially weighted mean of the time to the first token; of a local model that must be loaded first, more."""
    tokens_per_s: float | None = None
    """Exponentially weighted mean of how fast it answers, once it does."""
    uptime: float | None = None
    """Share of good answers over the last five minutes (or 30, where those have too few), 0 to 1."""
    latency: Quantiles | None = None
    """Time to the first token, in seconds: p99 is the slow tail."""
    throughput: Quantiles | None = None
    """Tokens per second: p99 is the slow tail, so the smallest of the four."""


UNOBSERVED: Final = Observation()


TTFT_BUCKETS: Final = 32
"""Of a histogram of times to the first token; each is the square root of two wider than the one before."""
TTFT_BUCKET_S: Final = 0.01
"""Where the first bucket ends. The last one begins at about 330 s and has no end."""
TTFT_HISTOGRAM_BYTES: Final = 4 * TTFT_BUCKETS
"""How a histogram is kept: one unsigned number of 32 bits per bucket, little end first."""


class MinuteRow(Struct, frozen=True, gc=False, kw_only=True):
    """What one Endpoint did in one minute of the wall clock. Rows of the same minute add up."""

    endpoint_id: str
    minute: int
    """Unix time in whole minutes."""
    ok: int = 0
    fail_connect: int = 0
    fail_server: int = 0
    """Errors of the provider, and of our key, credit or model name there."""
    fail_timeout: int = 0
    """No first token in time, or silence after it."""
    fail_mid: int = 0
    """Cut after the first token."""
    rate_limited: int = 0
    """429: counted apart, it is in no uptime."""
    client_err: int = 0
    cancelled: int = 0
    geo: int = 0
    """403: not for this caller or region, in no uptime."""
    probe_ok: int = 0
    probe_fail: int = 0
    ttft_hist: bytes = b""
    """TTFT_HISTOGRAM_BYTES, or empty where no first token was timed."""
    tok_in: int = 0
    tok_out: int = 0
    cost_nano: int = 0
    """Nano-USD."""

    @property
    def failed(self) -> int:
        """What counts against the Endpoint's uptime."""
        return self.fail_connect + self.fail_server + self.fail_timeout + self.fail_mid


def ttft_bucket(ttft_s: float) -> int:
    """Which bucket of a MinuteRow's histogram a time to the first token falls into, 0 to TTFT_BUCKETS - 1."""
    if ttft_s <= TTFT_BUCKET_S:
        return 0
    return min(TTFT_BUCKETS - 1, ceil(2 * log2(ttft_s / TTFT_BUCKET_S)))


def ttft_bucket_end_s(bucket: int) -> float:
    """The longest time that falls into a bucket. The last bucket has no end: this is where it begins to be one."""
    return float(TTFT_BUCKET_S * 2 ** (bucket / 2))

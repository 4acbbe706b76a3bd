"""How an Endpoint is doing, as one frozen value: health makes it, routing decides by it, a record keeps it."""

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


class Observation(Struct, frozen=True, gc=False):
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
    """Exponentially weighted mean of the time to the first token."""
    tokens_per_s: float | None = None
    """Exponentially weighted mean of how fast it answers, once it does."""
    uptime: float | None = None
    """Share of good answers over the last five minutes (or 30, where those have too few), 0 to 1."""
    latency: Quantiles | None = None
    """Time to the first token, in seconds: p99 is the slow tail."""
    throughput: Quantiles | None = None
    """Tokens per second: p99 is the slow tail, so the smallest of the four."""


UNOBSERVED: Final = Observation()

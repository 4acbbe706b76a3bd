"""What is measured: names, kinds, labels and meanings. Every label's values are names of the configuration or our own.

Nothing that a client writes is ever a label. Amounts are USD, from integers of nano-USD; times are seconds.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from msgspec import Struct

Kind = Literal["counter", "gauge", "histogram", "info"]
NANO_PER_USD: Final = 10**9
MS_PER_S: Final = 1000
OTHER: Final = "other"
"""Stands for whatever would be one value too many of a label."""
TTFT_BOUNDS_MS: Final = (50, 100, 200, 350, 500, 750, 1000, 1500, 2500, 5000, 10_000, 20_000, 60_000, 120_000)
DURATION_BOUNDS_MS: Final = (100, 250, 500, 1000, 2000, 4000, 8000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000)


class Family(Struct, frozen=True):
    """One metric."""

    name: str
    """Without `mixgate_`, and for counters without `_total`."""
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    bounds_ms: tuple[int, ...] = ()
    """Of a histogram's buckets; the last one has none."""

    @property
    def full_name(self) -> str:
        """As it is queried by; a histogram's also ends in `_bucket`, `_sum` and `_count`."""
        endings = {"counter": "_total", "info": "_info"}
        return f"mixgate_{self.name}{endings.get(self.kind, '')}"


class Spread(Struct, frozen=True, gc=False):
    """A histogram's state."""

    counts: tuple[int, ...]
    """By bucket, not added up; one more than there are bounds."""
    sum_ms: int


Labels = tuple[str, ...]
Value = int | float | Spread
Sample = tuple[Labels, Value]
Reading = Mapping[str, Sequence[Sample]]
"""All figures at one moment, by the name of their family."""


class Told(Struct, frozen=True, gc=False):
    """The figures of one process."""

    process: str
    """Its place among several, as in `w1`; empty for one that is alone."""
    pid: int
    reading: Reading


# ---- requests

REQUESTS: Final = Family(
    "requests",
    "counter",
    ("route", "surface", "outcome"),
    "Requests that were routed, when they were over. outcome: ok, failed, cancelled (the client left)",
)
REQUEST_DURATION: Final = Family(
    "request_duration_seconds",
    "histogram",
    ("route",),
    "From the decision to the end of the answer",
    DURATION_BOUNDS_MS,
)
FAILOVERS: Final = Family(
    "failovers", "counter", ("route",), "Requests answered by another endpoint than the first that was asked"
)
RESCUES: Final = Family(
    "rescues",
    "counter",
    ("route", "by"),
    "Answers that broke off and went on elsewhere. by: prefill (from the text so far), again (asked anew)",
)
CACHE_HITS: Final = Family("cache_hits", "counter", ("route",), "Requests answered with an answer that was kept")
CACHE_SAVED: Final = Family(
    "cache_saved_usd", "counter", ("route",), "USD that those answers cost when they were given first"
)
EXTRA_ATTEMPTS: Final = Family(
    "extra_attempts",
    "counter",
    ("route", "why"),
    "Attempts that were not simply next in turn. why: again, repair, rescue, panic, hedge",
)
REFUSALS: Final = Family(
    "refusals", "counter", ("code",), "Requests answered with an error before anybody was asked, by the error's code"
)
REQUESTS_SHED: Final = Family(
    "requests_shed", "counter", (), "Requests refused because too many were on their way, of all or of one key"
)
REQUESTS_IN_FLIGHT: Final = Family("requests_in_flight", "gauge", (), "Requests being answered")
REQUESTS_IN_FLIGHT_MAX: Final = Family("requests_in_flight_max", "gauge", (), "gateway.in_flight_max")

# ---- attempts: what the ledger has, to the nano-USD

ATTEMPTS: Final = Family(
    "attempts",
    "counter",
    ("endpoint", "outcome", "code"),
    "Attempts that are settled in the ledger. code: why it is not ok",
)
TOKENS: Final = Family(
    "tokens",
    "counter",
    ("endpoint", "kind"),
    "Tokens as billed. kind: input, output; cached and cache_write are part of input, reasoning of output",
)
COST: Final = Family(
    "cost_usd",
    "counter",
    ("endpoint", "source"),
    "USD, as in the ledger. source: provider (its own figure), price (its tokens), estimate (our tokens)",
)
UNPRICED: Final = Family(
    "unpriced_attempts", "counter", ("endpoint",), "Attempts whose cost nobody knows, as there is no price"
)
TTFT: Final = Family(
    "ttft_seconds", "histogram", ("endpoint",), "From an Attempt's start to its first content", TTFT_BOUNDS_MS
)
ATTEMPT_DURATION: Final = Family(
    "attempt_duration_seconds", "histogram", ("endpoint",), "From an Attempt's start to its end", DURATION_BOUNDS_MS
)

# ---- endpoints

ENDPOINT_STANDING: Final = Family(
    "endpoint_standing",
    "gauge",
    ("endpoint", "standing"),
    "1 for how the endpoint stands, 0 for the others: healthy, degraded, probing, parked, open, disabled, off",
)
ENDPOINT_IN_FLIGHT: Final = Family("endpoint_in_flight", "gauge", ("endpoint",), "Attempts on their way")
ENDPOINT_UPTIME: Final = Family(
    "endpoint_uptime_ratio", "gauge", ("endpoint",), "Share of good answers of the last minutes, where there were some"
)
LOCAL_RUNNING: Final = Family("local_running", "gauge", ("model",), "Requests that have a slot of a local model")
LOCAL_WAITING: Final = Family("local_waiting", "gauge", ("model",), "Requests that wait for a slot of a local model")
LOCAL_SLOTS: Final = Family("local_slots", "gauge", ("model",), "Slots of a local model")

# ---- money

KEY_BUDGET: Final = Family(
    "key_budget_usd", "gauge", ("key", "window"), "Budget of an issued client key, by its public id"
)
KEY_BUDGET_LEFT: Final = Family(
    "key_budget_left_usd", "gauge", ("key", "window"), "What is left of it, reservations included"
)
LEASES_EXPIRED: Final = Family("leases_expired", "counter", (), "Reservations that nobody gave back in time")
OVERDRAWN: Final = Family(
    "overdrawn_usd", "counter", (), "By how much answers cost more than their prices come to at the most"
)

# ---- books

LEDGER_IN_FLIGHT: Final = Family("ledger_in_flight", "gauge", (), "Attempts that are begun and not settled")
LEDGER_BEHIND: Final = Family("ledger_behind", "gauge", (), "1 while the store does not have everything yet")
LEDGER_AVAILABLE: Final = Family(
    "ledger_available", "gauge", (), "0 while nothing can be written down, and what costs money is refused"
)
LEDGER_UNJOURNALED: Final = Family(
    "ledger_unjournaled_attempts", "counter", (), "Attempts whose beginning the journal could not take"
)
LEDGER_REPEATED: Final = Family(
    "ledger_repeated_settlements", "counter", (), "Settlements of what was settled before; they change nothing"
)
FLEET_SENT: Final = Family("fleet_rows_sent", "counter", (), "Rows of the ledger that the fleet's Postgres has taken")
FLEET_WAITING: Final = Family("fleet_rows_waiting", "gauge", (), "Rows that have still to be sent there")
FLEET_REFUSED: Final = Family(
    "fleet_rows_refused", "counter", (), "Rows that it did not take, which is a fault of ours"
)
FLEET_REACHABLE: Final = Family("fleet_reachable", "gauge", (), "0 while nothing can be sent there")
STORE_WRITABLE: Final = Family("store_writable", "gauge", (), "0 while mixgate.db cannot be written")
RECORDS_DROPPED: Final = Family("records_dropped", "counter", (), "Decision records that were not kept")
TELEMETRY_DROPPED: Final = Family(
    "telemetry_dropped", "counter", (), "Requests whose traces were not exported: too many waited, or nobody took them"
)
BUILD: Final = Family("build", "info", ("version", "python"), "What runs")

FAMILIES: Final = tuple(value for value in tuple(globals().values()) if isinstance(value, Family))

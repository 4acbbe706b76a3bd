"""What a request asks of routing: numbers and wishes, never its text. A record keeps it, so it can be replayed."""

from typing import Final, Literal

from msgspec import Struct

Sort = Literal["price", "throughput", "latency", "exacto"]


class PriceLimit(Struct, frozen=True, gc=False, omit_defaults=True):
    """The most an Endpoint may charge (`provider.max_price`), in pico-USD per token, per request and per image."""

    input_in_pusd: int | None = None
    output_in_pusd: int | None = None
    request_in_pusd: int | None = None
    image_in_pusd: int | None = None


class Cutoffs(Struct, frozen=True, gc=False, omit_defaults=True):
    """Wished-for figures at quantiles; None: no wish. Whoever misses one goes behind whoever meets all."""

    p50: float | None = None
    p75: float | None = None
    p90: float | None = None
    p99: float | None = None


class Preferences(Struct, frozen=True, gc=False, omit_defaults=True):
    """OpenRouter's `provider` object, and what a name's suffix says. Slugs match our provider names."""

    order: tuple[str, ...] = ()
    allow_fallbacks: bool = True
    require_parameters: bool = False
    data_collection: Literal["allow", "deny"] = "allow"
    zdr: bool = False
    distillable: bool = False
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    quantizations: tuple[str, ...] = ()
    sort: Sort | None = None
    across_models: bool = False
    """`sort.partition: none`: sort over all `models`, not within each."""
    free_only: bool = False
    """`:free`: nothing that costs."""
    min_throughput: Cutoffs | None = None
    max_latency: Cutoffs | None = None
    max_price: PriceLimit | None = None


NO_PREFERENCES: Final = Preferences()


class Ask(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What a request asks of routing."""

    needed: tuple[str, ...] = ()
    """Capabilities without which it cannot be served, by their field names in `Capabilities`."""
    prompt_tokens: int = 0
    """An estimate that rather errs upwards, or the exact count."""
    output_tokens: int | None = None
    """The most that the client wants back; None: no limit asked."""
    expected_output_tokens: int = 300
    """What an answer on this Route usually has, for expected costs; never more than `output_tokens`."""
    images: int = 0
    stream: bool = False
    parameters: tuple[str, ...] = ()
    """Members of the request that an Endpoint may or may not support, filled where a preference asks for them."""
    losses: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Endpoint ids with the members that their dialect would drop or clamp, filled where all of them are required."""
    preferences: Preferences = NO_PREFERENCES
    warm_endpoint: str | None = None
    """The Endpoint whose prompt cache holds the start of this conversation."""
    warm_tokens: int = 0
    """How many tokens that start has."""
    permitted: tuple[str, ...] | None = None
    """Routes, Models, providers and Endpoints that the caller's key may use; None: all."""
    budget_in_nusd: int | None = None
    """What the caller may still spend, in nano-USD; None: unlimited."""

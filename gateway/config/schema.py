"""The shape of providers.yaml, as pydantic judges it. `gateway.config.catalogue` is what the rest of the gateway sees.

Values arrive as `gateway.config.source` read them: numbers are int or Decimal, dates are text. An empty value counts as
not written, except that a key nobody knows is refused whatever it holds.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self, cast, get_type_hints

from pydantic import Field, create_model, model_validator

from gateway.config.alerts import ALERT_TARGETS_MAX, AlertSection
from gateway.config.fields import (
    CACHE_TTL_MAX_S,
    DRAIN_MAX_S,
    IN_FLIGHT_MAX,
    SLOTS_MAX,
    THREADS_MAX,
    WORKERS_MAX,
    AbsolutePath,
    AsOf,
    BaseUrl,
    ClockTime,
    Day,
    DialectName,
    GgufFile,
    Host,
    Name,
    Network,
    Parameter,
    ProviderName,
    ProxyUrl,
    Reference,
    Seconds,
    Text,
    TokenLimit,
    TokenPrice,
    UnitPrice,
    Weight,
    refuse,
)
from gateway.config.operations import LogSection, TelemetrySection
from gateway.config.section import Section
from gateway.config.stores import PostgresSection, RedisSection
from providers.base import Capabilities
from providers.quirks import Quirks

Policy = Literal["balanced", "ordered", "price", "latency", "throughput", "weighted", "least_busy", "score"]
DEFAULT_POLICY: Policy = "balanced"
ORDERED: Policy = "ordered"
LocalPlace = Literal["last", "first", "by_policy"]
"""Where local Endpoints stand among those of their Route: behind all others, before them, or where the policy puts
them as it would any other."""
Quantization = Literal[
    "int4", "int8", "fp4", "mxfp4", "nvfp4", "fp6", "fp8", "mxfp8", "fp16", "bf16", "fp32", "unknown"
]
"""As OpenRouter spells them."""


class _NamesOrFlags(Section):
    """A mapping of flags; a list of names means yes to each."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, data: object) -> object:
        if not isinstance(data, list):
            return data
        names = cast("list[object]", data)
        return dict.fromkeys(map(str, names), True)


def _answers(name: str, struct: type, base: type[Section], doc: str) -> type[Section]:
    """A Section with the optional fields of a Struct, so that the two cannot drift apart."""
    hints = get_type_hints(struct)
    fields: dict[str, Any] = {field: (hint | None, None) for field, hint in hints.items()}
    return create_model(name, __base__=base, __doc__=doc, **fields)


if TYPE_CHECKING:

    class QuirksSection(Section):
        """The fields of Quirks."""

    class CapabilitiesSection(Section):
        """The fields of Capabilities."""

else:
    QuirksSection = _answers("QuirksSection", Quirks, Section, "How this server differs from the dialect it speaks.")
    CapabilitiesSection = _answers(
        "CapabilitiesSection",
        Capabilities,
        _NamesOrFlags,
        "What the Endpoint is known to do; unknown counts as no. A list of names means yes to each.",
    )


class PricesSection(Section):
    """What an Endpoint charges. A key left out is unknown, which is not zero."""

    input: TokenPrice | None = Field(default=None, description="USD per million prompt tokens")
    output: TokenPrice | None = Field(default=None, description="USD per million completion tokens")
    cache_read: TokenPrice | None = Field(default=None, description="USD per million prompt tokens read from a cache")
    cache_write: TokenPrice | None = Field(default=None, description="USD per million prompt tokens written to a cache")
    request: UnitPrice | None = Field(default=None, description="USD per request")
    image: UnitPrice | None = Field(default=None, description="USD per image")


PRICE_KEYS = tuple(PricesSection.model_fields)


class PriceOverrideSection(PricesSection):
    """Prices that hold instead, when every condition here does."""

    min_prompt_tokens: TokenLimit | None = Field(default=None, description="Holds from this many prompt tokens on")
    utc_start: ClockTime | None = Field(default=None, description="Holds from this time of day on, HH:MM in UTC")
    utc_end: ClockTime | None = Field(default=None, description="Holds up to this time of day, HH:MM in UTC")
    from_: Day | None = Field(default=None, alias="from", description="Holds from this day on")
    until: Day | None = Field(default=None, description="Holds up to and including this day")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        written = set(self.model_fields_set)
        if not written & set(PRICE_KEYS):
            refuse("this override names no price", "give at least one of " + ", ".join(PRICE_KEYS))
        if not written - set(PRICE_KEYS):
            refuse("this override has no condition", "say when it holds: min_prompt_tokens, utc_start, from, ...")
        if ("utc_start" in written) != ("utc_end" in written):
            refuse("utc_start and utc_end go together", "give both, or neither")
        if self.from_ and self.until and self.until < self.from_:
            refuse("`until` is before `from`", "exchange the two dates")
        return self


class PriceSection(PricesSection):
    """What an Endpoint charges, and when it charges otherwise."""

    overrides: list[PriceOverrideSection] = Field(
        default=[], description="Other prices under conditions; the last that holds wins"
    )


class ClaimSection(Section):
    """What another source says of a figure. Kept beside it, never averaged."""

    field: Name = Field(description="The figure, as in this file: context_tokens, price.input, capabilities.tools")
    value: Any = Field(description="What that source says")
    source: Text = Field(description="Who says so")
    as_of: AsOf | None = Field(default=None, description="When they said so")


class ModelSection(Section):
    """One model at this provider: an Endpoint. Facts left out come from the shipped catalogue where it has them."""

    serves: Name | None = Field(default=None, description="The public Model it stands for; the id itself if left out")
    context_tokens: TokenLimit | None = Field(
        default=None, description="Prompt and answer together; for a local model of one slot"
    )
    max_output_tokens: TokenLimit | None = Field(default=None, description="The longest answer")
    price: PriceSection | None = Field(default=None, description="USD; left out means unknown")
    capabilities: CapabilitiesSection | None = Field(default=None, description="What it is known to do")
    quantization: Quantization | None = Field(default=None, description="How its weights are stored")
    parameters: list[Parameter] | None = Field(
        default=None, description="Members of a request that it honours; left out means that nobody knows"
    )
    distillable: bool | None = Field(default=None, description="Whether its text may be trained on")
    state: Literal["live", "unverified", "retired"] | None = Field(
        default=None, description="retired is listed, never routed to"
    )
    ends_on: Day | None = Field(default=None, description="The last day it is served")
    source: Text | None = Field(default=None, description="Where these figures are from")
    as_of: AsOf | None = Field(default=None, description="When they were read there")
    claims: list[ClaimSection] = Field(default=[], description="What other sources say")
    description: Text | None = Field(default=None, description="For people; shown by /v1/models")
    file: GgufFile | None = Field(
        default=None, description="Local only: `bundled`, a pulled file's name, or an absolute path"
    )
    slots: int | None = Field(
        default=None, ge=1, le=SLOTS_MAX, description="Local only: requests answered at the same time"
    )
    threads: int | None = Field(
        default=None, ge=1, le=THREADS_MAX, description="Local only: threads of the CPU that compute"
    )
    load: Literal["boot", "lazy"] | None = Field(
        default=None, description="Local only: load at the start or at the first request"
    )


LOCAL_ONLY = ("file", "slots", "threads", "load")
CLAIMABLE = (
    *(key for key in ModelSection.model_fields if key not in {*LOCAL_ONLY, "claims", "source", "as_of"}),
    *(f"price.{key}" for key in PRICE_KEYS),
    *(f"capabilities.{key}" for key in CapabilitiesSection.model_fields),
)
"""What a claim may be about."""


class DataPolicySection(Section):
    """What becomes of what is sent to this provider. Left out is unknown: not asked where a client wants to be sure."""

    collects: bool | None = Field(default=None, description="Whether it may train on it or sell it")
    retains: bool | None = Field(default=None, description="Whether it keeps it once the answer is complete")


class ProviderSection(Section):
    """A vendor's account and key, or a server of one's own."""

    dialect: DialectName = Field(description="How it talks")
    base_url: BaseUrl | None = Field(default=None, description="Up to and without /chat/completions")
    api_key: Reference | None = Field(
        default=None, description="The provider key: env:NAME or file:/path, never the key itself"
    )
    transport: Literal["http", "aiohttp"] | None = Field(
        default=None, description="aiohttp where a forward proxy is in the way"
    )
    proxy: ProxyUrl | None = Field(
        default=None, description="Forward proxy; env:NAME or file:/path if its URL has a password"
    )
    region: Name | None = Field(default=None, description="For dialects with regions")
    profile: Name | None = Field(default=None, description="For dialects with credential profiles")
    data_policy: DataPolicySection | None = Field(default=None, description="What becomes of what is sent to it")
    quirks: QuirksSection | None = Field(default=None, description="How it differs from its dialect")
    models: Mapping[Name, ModelSection] = Field(default={}, description="By the id that the provider knows")


class ScoreSection(Section):
    """How much each figure counts under `policy: score`. A key left out counts nothing."""

    cost: Weight | None = Field(default=None, description="Expected cost of the request")
    ttft: Weight | None = Field(default=None, description="Time to the first token")
    throughput: Weight | None = Field(default=None, description="Tokens per second")
    uptime: Weight | None = Field(default=None, description="Share of good answers lately")
    queue: Weight | None = Field(default=None, description="Requests on their way, against what it bears")

    @model_validator(mode="after")
    def _counts(self) -> Self:
        if not any(self.written().values()):
            refuse("no figure counts anything here", "give at least one of them a weight above 0")
        return self


class TimeoutsSection(Section):
    """Limits of this Route in the place of the usual ones, in seconds."""

    first_token_timeout_s: Seconds | None = Field(
        default=None, description="A stream's first content, while another Endpoint is left to ask"
    )
    last_first_token_timeout_s: Seconds | None = Field(default=None, description="The same, when nobody else is left")
    idle_timeout_s: Seconds | None = Field(default=None, description="Silence in the middle of a stream")
    whole_timeout_s: Seconds | None = Field(default=None, description="One answer that is not a stream")
    total_timeout_s: Seconds | None = Field(default=None, description="A request with all its Attempts")

    @model_validator(mode="after")
    def _within(self) -> Self:
        total = self.total_timeout_s
        for name, value in self.written().items():
            if total is not None and value > total:
                refuse(
                    f"{name} {value:g} s is longer than total_timeout_s {total:g} s and would never be reached",
                    "make it shorter, or total_timeout_s longer",
                )
        return self


class OverflowSection(Section):
    """What is done for a prompt that is too long for every Endpoint."""

    compress: bool = Field(
        default=False, description="Cut the middle out of it until it fits; clients are told. Else it is refused"
    )


class CacheSection(Section):
    """Answers of this Route are given again to whoever asks exactly the same with the same client key."""

    ttl_s: int = Field(ge=1, le=CACHE_TTL_MAX_S, description="For how long, in seconds")


class RouteSection(Section):
    """A public Model, the Endpoints that may answer for it, and in what order they are asked."""

    aliases: list[Name] = Field(default=[], description="Other names for it")
    policy: Policy = Field(default=DEFAULT_POLICY, description="How its Endpoints are ordered")
    weights: Mapping[Name, Weight] | None = Field(
        default=None,
        description="`policy: weighted` alone: by Endpoint, its share of the requests. Left out or 0: after the others",
    )
    score: ScoreSection | None = Field(
        default=None, description="`policy: score` alone: what counts how much; left out: all the same"
    )
    local: LocalPlace | None = Field(
        default=None,
        description="Where local Endpoints stand: last (the default, but under `ordered`), first, or by_policy",
    )
    endpoints: list[Name] | None = Field(
        default=None, min_length=1, description="provider/model-id; left out means all that serve it"
    )
    fallback: list[Name] = Field(default=[], description="Routes or Endpoints tried after its own")
    upcast: bool = Field(
        default=False, description="Run whole answers as streams upstream, for first-token and stall limits"
    )  # a default
    emulate: bool = Field(
        default=True, description="Ask in words for tools and JSON where an endpoint has neither, and judge the reply"
    )
    rescue: bool = Field(
        default=True, description="Go on at another Endpoint with a plain text that was cut in the middle"
    )
    hedge: bool = Field(
        default=False, description="Ask a second Endpoint when the first is slow to begin. Both may bill"
    )
    overflow: OverflowSection | None = Field(default=None, description="Prompts that are too long for everybody")
    cache: CacheSection | None = Field(default=None, description="Whether answers are given again; left out: no")
    timeouts: TimeoutsSection | None = Field(default=None, description="Limits of this Route, in seconds")


class TlsSection(Section):
    """Serve https from this pair of files."""

    cert: AbsolutePath = Field(description="Certificate chain, PEM")
    key: AbsolutePath = Field(description="Private key, PEM")


class GatewaySection(Section):
    """How the gateway itself is reached. Each key is also an environment variable, MIXGATE_<KEY>, and a flag."""

    host: Host = Field(default="127.0.0.1", description="Address to listen on; anything but loopback needs client keys")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 lets the system choose")
    client_keys: list[Reference] = Field(default=[], description="Keys that clients must show: env:NAME or file:/path")
    admin_token: Reference | None = Field(
        default=None, description="Token that manages client keys over HTTP: env:NAME or file:/path"
    )
    metrics_token: Reference | None = Field(
        default=None, description="Token that reads /metrics and nothing else: env:NAME or file:/path"
    )
    viewer_token: Reference | None = Field(
        default=None, description="Token to look at the dashboard, but not at who asked: env:NAME or file:/path"
    )
    tls: TlsSection | None = Field(default=None, description="Serve https")
    log: LogSection | None = Field(default=None, description="What the log is like")
    telemetry: TelemetrySection | None = Field(default=None, description="Traces and metrics by OpenTelemetry")
    postgres: PostgresSection | None = Field(default=None, description="A ledger and keys that gateways share")
    redis: RedisSection | None = Field(default=None, description="Budgets, rates and more that gateways share")
    alerts: list[AlertSection] = Field(
        default=[], max_length=ALERT_TARGETS_MAX, description="Who is told of budgets, outages and unusual spending"
    )
    trusted_proxies: list[Network] = Field(
        default=[], description="Reverse proxies whose forwarding headers are believed"
    )
    hosts: list[Host] = Field(default=[], description="More names that clients may reach the gateway by")
    drain_s: int = Field(
        default=120, ge=0, le=DRAIN_MAX_S, description="Seconds that running answers get after SIGTERM"
    )
    workers: int = Field(
        default=1, ge=1, le=WORKERS_MAX, description="Processes that answer; about as many as there are CPU cores"
    )
    in_flight_max: int = Field(
        default=1000, ge=1, le=IN_FLIGHT_MAX, description="Requests answered at the same time; one more is refused"
    )
    in_flight_per_key_max: int = Field(
        default=50, ge=1, le=IN_FLIGHT_MAX, description="Requests of one client key answered at the same time"
    )


class ConfigFile(Section):
    """providers.yaml: the one file that a user of Mixgate edits."""

    gateway: GatewaySection = Field(default_factory=GatewaySection, description="How the gateway itself is reached")
    providers: Mapping[ProviderName, ProviderSection] = Field(description="Who answers")
    routes: Mapping[Name, RouteSection] = Field(
        default={}, description="The public Models, where the default is not wanted"
    )

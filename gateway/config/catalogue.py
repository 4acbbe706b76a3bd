"""What the gateway may route to, as frozen values: the outcome of reading providers.yaml."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from gateway.config.alerts import AlertTarget
from gateway.config.complaints import near
from gateway.config.operations import LogSettings, Telemetry
from gateway.config.schema import DEFAULT_POLICY, ORDERED, LocalPlace, Policy
from gateway.config.secrets import Secret
from gateway.config.stores import PostgresSettings, RedisSettings
from gateway.errors import ConfigProblem
from providers.base import UNKNOWN_DATA_POLICY, DataPolicy, Endpoint, PriceOverride

DEMO_MODEL = "demo"
BUNDLED_FILE = "bundled"
NAME_SUFFIXES = (":nitro", ":floor", ":free", ":exacto", ":online")
"""Suffixes that clients of OpenRouter add to a name; looked up without them when the whole name fits nothing."""


class Tls(Struct, frozen=True):
    """The pair of PEM files that https is served from."""

    cert: Path
    key: Path


class GatewaySettings(Struct, frozen=True, kw_only=True):
    """How the gateway itself is reached."""

    host: str = "127.0.0.1"
    port: int = 8080
    client_keys: tuple[Secret, ...] = ()
    admin_token: Secret | None = None
    """What changes issued client keys over HTTP."""
    metrics_token: Secret | None = None
    """What reads the metrics, and nothing else."""
    viewer_token: Secret | None = None
    """What lets people look at the dashboard, but not at who asked."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks (CIDR) whose forwarding headers are believed."""
    hosts: tuple[str, ...] = ()
    """Names besides loopback's and `host` that a Host header may carry."""
    tls: Tls | None = None
    log: LogSettings = LogSettings()
    telemetry: Telemetry | None = None
    postgres: PostgresSettings | None = None
    """Where a fleet has its ledger."""
    redis: RedisSettings | None = None
    """Where it has what changes fast."""
    alerts: tuple[AlertTarget, ...] = ()
    """Who is told of budgets, outages and unusual spending."""
    drain_s: int = 120
    workers: int = 1
    """Processes that answer. Each has limits of its own for what it has in flight."""
    in_flight_max: int = 1000
    """Requests answered at the same time."""
    in_flight_per_key_max: int = 50
    """Of these, by one client key."""


class ProviderEntry(Struct, frozen=True, kw_only=True):
    """A vendor's account, or a server of one's own, and whether it is on."""

    name: str
    dialect: str
    base_url: str
    """Without a trailing slash; empty for the local worker."""
    api_key: Secret | None = None
    transport: Literal["http", "aiohttp", "litellm"] = "http"
    proxy: Secret | None = None
    """The forward proxy's URL. A Secret because it may hold a password."""
    region: str | None = None
    profile: str | None = None
    aws: bool = False
    """Reached with AWS credentials, unless `api_key` is a Bedrock API key."""
    local: bool = False
    on: bool = True
    off_reason: str | None = None
    fix: str | None = None
    variables: tuple[str, ...] = ()
    """Environment variables that its keys are read from."""
    data: DataPolicy = UNKNOWN_DATA_POLICY


class LocalModel(Struct, frozen=True, kw_only=True):
    """A GGUF that the worker on this machine may serve."""

    name: str
    """The id in providers.yaml; `local:<name>` is its URL."""
    endpoint: str
    file: str
    """`bundled`, a file name in the models folder, or an absolute path."""
    slots: int
    context_tokens: int
    """Of one slot."""
    threads: int | None = None
    """`None` lets the worker decide."""
    load: Literal["boot", "lazy"]
    description: str | None = None


class ScoreWeights(Struct, frozen=True, gc=False):
    """How much each figure counts under `policy: score`; at least one is above 0."""

    cost: float = 1.0
    ttft: float = 1.0
    throughput: float = 1.0
    uptime: float = 1.0
    queue: float = 1.0


class Timeouts(Struct, frozen=True, gc=False):
    """A Route's own limits in seconds; None: the usual one (gateway/attempts.py)."""

    first_token_timeout_s: float | None = None
    last_first_token_timeout_s: float | None = None
    idle_timeout_s: float | None = None
    whole_timeout_s: float | None = None
    total_timeout_s: float | None = None


EVEN_SCORE: Final = ScoreWeights()
USUAL_TIMEOUTS: Final = Timeouts()


class Route(Struct, frozen=True, kw_only=True):
    """A public Model, the Endpoints that may answer for it, and the policy that orders them."""

    name: str
    endpoints: tuple[str, ...]
    """Endpoint ids in file order; local ones where `local` says."""
    aliases: tuple[str, ...] = ()
    policy: Policy = DEFAULT_POLICY
    weights: Mapping[str, float] = {}
    """Under `weighted`: Endpoint id to its share of the requests; 0: after the others. Every Endpoint has one."""
    score: ScoreWeights = EVEN_SCORE
    """Under `score`."""
    local: LocalPlace = "last"
    """Where local Endpoints stand among those of this Route."""
    fallback: tuple[str, ...] = ()
    """Route names and Endpoint ids, tried after the Route's own."""
    upcast: bool = False
    emulate: bool = True
    """Whether tools and JSON are emulated where an Endpoint lacks them."""
    rescue: bool = True
    """Whether an answer that was cut may go on at another Endpoint."""
    hedge: bool = False
    """Whether a second Endpoint may be asked when the first is slow to begin."""
    compress: bool = False
    """Whether the middle is cut out of prompts that are too long for every Endpoint."""
    cache_ttl_s: int | None = None
    """For how long an answer may be given again; None: not at all, unless a client asks for it."""
    timeouts: Timeouts = USUAL_TIMEOUTS
    implicit: bool = False
    """Nobody wrote it: a served Model, or an Endpoint asked for by its id."""


class Catalogue(Struct, frozen=True, kw_only=True):
    """All that a providers.yaml says, checked and cross-referenced."""

    gateway: GatewaySettings
    providers: Mapping[str, ProviderEntry]
    endpoints: Mapping[str, Endpoint]
    routes: Mapping[str, Route]
    """Explicit ones and those of served Models without one, by name."""
    aliases: Mapping[str, str]
    """Alias to Route name."""
    local_models: tuple[LocalModel, ...]
    price_overrides: Mapping[str, tuple[PriceOverride, ...]]
    """By Endpoint id."""
    warnings: tuple[ConfigProblem, ...]
    """What is allowed but probably not meant."""
    path: Path
    digest: str
    """SHA-256 of the file, in hexadecimal."""
    watched: tuple[Path, ...]
    """Files beside `path` whose change changes the Catalogue: keys kept in files, and refreshed facts."""

    def find_route(self, name: str) -> Route | None:
        """The Route that a requested name means.

        Looked up exactly: Route, alias, served Model, Endpoint id; if none fits, once more without its suffix.
        """
        route = self._find_exactly(name)
        if route is None:
            for suffix in NAME_SUFFIXES:
                if name.endswith(suffix):
                    return self._find_exactly(name.removesuffix(suffix))
        return route

    def near_names(self, name: str) -> tuple[str, ...]:
        """Up to three names that could have been meant."""
        return near(name, (*self.routes, *self.aliases, *self.endpoints))

    def is_on(self, endpoint: Endpoint) -> bool:
        """Whether it may be routed to: its provider is on and it is not retired."""
        return endpoint.state != "retired" and self.providers[endpoint.provider].on

    def _find_exactly(self, name: str) -> Route | None:
        # A served Model without a Route of its own has an implicit one under its name, so three look-ups do.
        route = self.routes.get(self.aliases.get(name, name))
        if route is None and name in self.endpoints:
            return Route(name=name, endpoints=(name,), policy=ORDERED, local="by_policy", implicit=True)
        return route

"""What a simulated world consists of: how Endpoints really behave, and what clients ask of them."""

from typing import Any, Literal

from msgspec import Struct

from gateway.config.catalogue import Catalogue
from providers.base import Endpoint, Price

TroubleKind = Literal["down", "errors", "overload", "silent", "slow", "brownout", "unauthorised", "gone", "cuts"]
"""down: refuses connections. errors: 500. overload: 503, half of the time. silent: takes the request, says nothing.
slow: five times slower. brownout: a third of its capacity. unauthorised: 401. gone: 404. cuts: hangs up in the middle.
"""

Fault = Literal[
    "refused",
    "reset",
    "http500",
    "http502",
    "http503",
    "http529",
    "http401",
    "http404",
    "page",
    "empty",
    "error_inside",
    "silent",
    "cut",
    "stall",
    "error_midway",
    "garbled",
    "twice_garbled",
]
"""What may become of one Attempt instead of a good answer. garbled: one bad chunk, which harms nobody."""

RetryAfter = Literal["none", "seconds", "milliseconds", "date", "garbage", "past", "absurd"]
"""How an Endpoint that is full says when to come back."""

JobKind = Literal["text", "json", "tools", "forbidden"]
"""forbidden: every provider refuses what it says."""


class Trouble(Struct, frozen=True, gc=False):
    """A time in which an Endpoint behaves worse, in seconds since the start of the run."""

    kind: TroubleKind
    start_s: float
    end_s: float


class Behaviour(Struct, frozen=True, kw_only=True):
    """How an Endpoint really is, whatever its row in the configuration says."""

    ttft_s: float = 0.3
    """Median time to the first token."""
    spread: float = 0.3
    """How much times vary: the standard deviation of their logarithm."""
    tokens_per_s: float = 80.0
    slow_share: float = 0.0
    """How often the first token takes `slow_ttft_s` instead."""
    slow_ttft_s: float = 0.0
    concurrency: int | None = None
    """More at the same time get a 429."""
    requests_per_min: int | None = None
    """More in any minute get a 429."""
    retry_after: RetryAfter = "none"
    faults: tuple[tuple[Fault, float], ...] = ()
    """What may go wrong at any time, and how often, 0 to 1 in all."""
    troubles: tuple[Trouble, ...] = ()
    refuses_prefill: bool = False
    """It answers 400 to a last assistant message, whatever its row says."""
    variant: int = 0
    """Which text its model writes. Endpoints of one variant write the same."""
    says_done: bool = True
    price: Price | None = None
    """What it really charges; None: what its row says, and nothing where that says nothing."""
    context_tokens: int | None = None
    """What really fits; None: what its row says."""


class Job(Struct, frozen=True, kw_only=True):
    """One request of a client."""

    number: int
    at_s: float
    """When it comes, in seconds since the start of the run."""
    caller: int
    model: str
    prompt_chars: int
    output_tokens: int
    """What the answer has where nothing limits it."""
    limit_tokens: int | None = None
    """The most that the client wants back."""
    stream: bool = True
    kind: JobKind = "text"
    leaves_after_s: float | None = None
    """When the client hangs up, in seconds after it came."""
    deadline_s: float | None = None
    """How long the client says that it will wait."""
    session: str | None = None
    models: tuple[str, ...] | None = None
    """OpenRouter's list of models to fall back to."""
    preferences: dict[str, Any] | None = None
    """OpenRouter's `provider` object."""


class World(Struct, frozen=True, kw_only=True):
    """All there is in one run."""

    seed: int
    catalogue: Catalogue
    behaviours: dict[str, Behaviour]
    """By Endpoint id."""
    jobs: tuple[Job, ...]
    """In the order in which they come."""

    def endpoints(self) -> list[Endpoint]:
        """Those that take part, in the order of the configuration."""
        return [self.catalogue.endpoints[name] for name in self.behaviours]


def true_price(endpoint: Endpoint, behaviour: Behaviour) -> Price:
    """What an Endpoint really charges."""
    return behaviour.price or endpoint.price or FREE


FREE = Price(input_in_pusd=0, output_in_pusd=0)

"""What a decision consists of: Candidates in order, Endpoints that rest, and why the others are not among them."""

from msgspec import Struct

from gateway.observation import Observation
from gateway.routing.exclusion import Exclusion
from providers.base import Endpoint


class Candidate(Struct, frozen=True, gc=False):
    """An Endpoint that may serve a request, with the numbers that the policy used."""

    endpoint: Endpoint
    observation: Observation
    stage: int = 0
    """0: of the first model asked for, by its Route's own list. Each further model and each fallback counts one up."""
    expected_cost_in_pusd: int | None = None
    """Of this request; None: no price is known."""
    score: float = 0.0
    """What the policy ordered by, in its own unit; explained by `Plan.policy`."""
    panic: bool = False
    """It is down as far as we know, and asked only because nothing else is left."""


class Plan(Struct, frozen=True, gc=False):
    """Whom to ask, in order."""

    route: str
    policy: str
    candidates: tuple[Candidate, ...]
    """To try one after the other: healthy ones of every stage, then degraded ones."""
    resting: tuple[Candidate, ...] = ()
    """Eligible but parked or open: asked only when there is no Candidate left; soonest back first."""
    excluded: tuple[Exclusion, ...] = ()
    explicit: bool = False
    """The order was laid down (`ordered`, `provider.order`, `models`): a short Retry-After is waited out."""
    emulate: bool = True
    """Whether what an Endpoint lacks of tools and JSON is asked for in words and read out of its text."""
    rescue: bool = True
    """Whether an answer that was cut may go on at another Endpoint."""
    upcast: bool = False
    """Whether a whole answer is run as a stream upstream."""
    hedge: bool = False
    """Whether a second Endpoint may be asked when the first is slow to begin."""

"""What one try of one Endpoint is, how many there may be, and how long each may take. Pure."""

from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from gateway.config.catalogue import Timeouts
from gateway.health.kinds import Permit
from providers.base import Adaptation, Endpoint
from providers.emulation import Emulated
from providers.messages import Usage

ATTEMPTS_MAX: Final = 6
"""Of one request, on all Endpoints together; a last-resort local Candidate gets its Attempt besides."""
ATTEMPTS_PER_ENDPOINT_MAX: Final = 2
RETRYING_CLIENT_ATTEMPTS_MAX: Final = 2
"""Where the client itself has come back already, as its SDK says: two layers of retries multiply."""
FIRST_TOKEN_TIMEOUT_S: Final = 10.0
"""While another candidate is left."""
LAST_FIRST_TOKEN_TIMEOUT_S: Final = 120.0
"""The most when there is nobody else to ask."""
LAST_FIRST_TOKEN_MIN_S: Final = 30.0
REASONING_FIRST_TOKEN_TIMEOUT_S: Final = 120.0
PROMPT_TOKENS_PER_S: Final = 10_000
"""A prompt of this many tokens earns its Endpoint one second more before the first token."""
LOCAL_PROMPT_TOKENS_PER_S: Final = 20
"""The same on this machine's own processor, for the slowest that still makes sense."""
LOCAL_FIRST_TOKEN_MIN_S: Final = 30.0
LOCAL_FIRST_TOKEN_MAX_S: Final = 600.0
USUAL_TIMES: Final = 3
"""An Attempt may take this many times as long as is usual there."""
IDLE_TIMEOUT_S: Final = 30.0
RESCUE_IDLE_TIMEOUT_S: Final = 10.0
"""Between two tokens, where another Endpoint could go on with the answer."""
REASONING_IDLE_TIMEOUT_S: Final = 90.0
WHOLE_TIMEOUT_S: Final = 600.0
WHOLE_TIMEOUT_MIN_S: Final = 60.0
TOTAL_TIMEOUT_S: Final = 600.0
AFTER_FINISH_TIMEOUT_S: Final = 5.0
"""How long the usage and the end mark may take behind the last finish reason. It is complete without them."""

NOTED_PIECES: Final = 256
"""How often it is noted how far an answer is: what a crash leaves to be estimated."""
CHARS_PER_TOKEN: Final = 4
"""Of text, where a provider sends several tokens at once."""

Outcome = Literal["running", "ok", "failed", "cancelled"]
Why = Literal["planned", "again", "repair", "rescue", "panic", "hedge"]
"""planned: its turn came. again: the same Endpoint once more. repair: an emulated answer that was no good.
rescue: goes on with an answer that was cut. panic: down as far as we know, but nothing else is left.
hedge: asked because the first was slow to begin."""


class Attempt(Struct):
    """One try of one Endpoint."""

    number: int
    endpoint: Endpoint
    started_s: float
    why: Why = "planned"
    outcome: Outcome = "running"
    code: str | None = None
    upstream_status: int | None = None
    duration_s: float = 0.0
    ttft_s: float | None = None
    """Until the first content."""
    followed: bool = False
    """Whether the answer was fetched from a URL that the provider gave."""
    emulated: tuple[Emulated, ...] = ()
    adapted: tuple[Adaptation, ...] = ()
    usage: Usage | None = None
    """What its provider counted last, or our estimate where it did not come to that."""
    permit: Permit = Permit.REFUSED
    """What it owes health; REFUSED once it is given back."""
    lagged: bool = False
    """Whether a limit fired so late that it may be our own fault."""
    cost_in_nusd: int | None = None
    """What it cost, once it is over; None: nobody knows."""
    cost_source: str | None = None
    """By whose word (gateway.ledger.entry.CostSource)."""
    usage_estimated: bool = False
    """Whether `usage` is our own estimate, because the provider hung up before it counted."""
    sent: bool = False
    """Whether anything of it may have reached anybody."""
    counted: bool = False
    """Whether `usage` is the provider's last word, of all of the answer."""
    pieces: int = 0
    """Steps with content that its provider sent: most send one for each token."""
    chars: int = 0
    """Characters in them."""
    noted_next: int = NOTED_PIECES
    """After so many pieces how far it is, is noted in the journal again."""
    upstream_id: str | None = None
    """The provider's own name for the answer."""

    def unbilled(self, usage: Usage) -> "Attempt":
        """The same, for a client that gets its answer and does not pay for it."""
        return Attempt(
            self.number,
            self.endpoint,
            self.started_s,
            self.why,
            self.outcome,
            self.code,
            self.upstream_status,
            self.duration_s,
            self.ttft_s,
            self.followed,
            self.emulated,
            self.adapted,
            usage,
        )

    def estimate(self, prompt_tokens: int) -> None:
        """Count what it has used, when nobody lets it come to its end."""
        if not self.counted and self.pieces:
            said = self.usage or Usage(input_tokens=prompt_tokens)
            output_tokens = max(said.output_tokens or 0, self.output_seen)
            self.usage = replace(said, output_tokens=output_tokens, cost_in_nusd=None)
            self.usage_estimated = True

    @property
    def output_seen(self) -> int:
        """About how many tokens its provider sent."""
        return max(self.pieces, self.chars // CHARS_PER_TOKEN)


class Hints(Struct, frozen=True, gc=False):
    """What a client says about its own patience."""

    total_timeout_s: float | None = None
    retries: int = 0
    """How often it has asked the same before."""
    session: str | None = None
    """Which conversation this belongs to, where a header says so."""


NO_HINTS: Final = Hints()


class Limits(Struct, frozen=True):
    """How long an Attempt may take, in seconds. A Route may have its own."""

    first_token_timeout_s: float = FIRST_TOKEN_TIMEOUT_S
    last_first_token_timeout_s: float = LAST_FIRST_TOKEN_TIMEOUT_S
    idle_timeout_s: float = IDLE_TIMEOUT_S
    rescue_idle_timeout_s: float = RESCUE_IDLE_TIMEOUT_S
    after_finish_timeout_s: float = AFTER_FINISH_TIMEOUT_S
    whole_timeout_s: float = WHOLE_TIMEOUT_S
    total_timeout_s: float = TOTAL_TIMEOUT_S

    def under(self, own: Timeouts) -> "Limits":
        """The same with a Route's own limits, where it has any."""
        return Limits(
            _first(own.first_token_timeout_s, self.first_token_timeout_s),
            _first(own.last_first_token_timeout_s, self.last_first_token_timeout_s),
            _first(own.idle_timeout_s, self.idle_timeout_s),
            self.rescue_idle_timeout_s,
            self.after_finish_timeout_s,
            _first(own.whole_timeout_s, self.whole_timeout_s),
            _first(own.total_timeout_s, self.total_timeout_s),
        )

    def first_token_s(
        self, endpoint: Endpoint, prompt_tokens: int, usual_p95_s: float | None, *, others: bool
    ) -> float:
        """How long the first token of a stream may take.

        Args:
            endpoint: Who is asked.
            prompt_tokens: How long the prompt is; reading it takes time.
            usual_p95_s: What 19 of 20 of its answers take to begin; None: not known.
            others: Whether somebody else can be asked after it.
        """
        if endpoint.local:
            reading_s = prompt_tokens / LOCAL_PROMPT_TOKENS_PER_S
            return min(max(LOCAL_FIRST_TOKEN_MIN_S, reading_s), LOCAL_FIRST_TOKEN_MAX_S, self.total_timeout_s)
        if not others:
            usual_s = USUAL_TIMES * usual_p95_s if usual_p95_s is not None else self.last_first_token_timeout_s
            return min(max(usual_s, LAST_FIRST_TOKEN_MIN_S), self.last_first_token_timeout_s)
        if endpoint.capabilities.reasoning:
            return max(self.first_token_timeout_s, REASONING_FIRST_TOKEN_TIMEOUT_S)
        return self.first_token_timeout_s + prompt_tokens / PROMPT_TOKENS_PER_S

    def idle_s(self, endpoint: Endpoint, *, rescuable: bool) -> float:
        """How long the next token may take."""
        if endpoint.capabilities.reasoning:
            return max(self.idle_timeout_s, REASONING_IDLE_TIMEOUT_S)
        return min(self.idle_timeout_s, self.rescue_idle_timeout_s) if rescuable else self.idle_timeout_s

    def whole_s(self, usual_s: float | None, *, others: bool) -> float:
        """How long a whole answer may take, where one usually takes `usual_s`.

        Where nobody knows that, whoever else is left gets half of the time.
        """
        if usual_s is None:
            return min(self.whole_timeout_s, self.total_timeout_s / 2) if others else self.whole_timeout_s
        return min(max(USUAL_TIMES * usual_s, WHOLE_TIMEOUT_MIN_S), self.whole_timeout_s)


def _first(own_s: float | None, usual_s: float) -> float:
    return usual_s if own_s is None else own_s

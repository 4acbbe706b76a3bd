"""What can become of an Attempt, as health counts it: the kinds of failure, the permit, the result."""

from enum import IntEnum
from typing import Final, Literal

from msgspec import Struct

from gateway.errors import UnaffordableError
from providers.errors import (
    BadRequestError,
    ConnectError,
    ContentPolicyError,
    ContextLengthError,
    CredentialsError,
    FirstTokenTimeoutError,
    MixgateError,
    OverloadedError,
    ProviderError,
    RateLimitedError,
    RegionError,
    ResetError,
    ServerError,
    StalledError,
    TruncatedError,
    UnknownModelError,
    UnsupportedError,
)

FailureKind = Literal[
    "connect",
    "overload",
    "rate_limit",
    "server",
    "timeout",
    "stall",
    "midstream",
    "auth",
    "context",
    "unsupported",
    "client",
    "geo",
    "cancelled",
    "full",
    "gateway",
]

COUNTED: Final[frozenset[FailureKind]] = frozenset({"connect", "overload", "server", "timeout", "stall", "midstream"})
"""The Endpoint's own failures: the breaker and the success ratio count them, and nothing else."""

_KINDS: Final[dict[type[MixgateError], FailureKind]] = {
    ProviderError: "server",
    ConnectError: "connect",
    ResetError: "server",
    OverloadedError: "overload",
    RateLimitedError: "rate_limit",
    ServerError: "server",
    FirstTokenTimeoutError: "timeout",
    StalledError: "stall",
    TruncatedError: "server",
    CredentialsError: "auth",
    UnknownModelError: "auth",
    RegionError: "geo",
    ContextLengthError: "context",
    UnsupportedError: "unsupported",
    ContentPolicyError: "client",
    BadRequestError: "client",
    UnaffordableError: "gateway",
    MixgateError: "gateway",
}
"""By the class of the error, or the nearest of its parents. The same words hold for all that a provider can do to us:
a stream that ended before anything came of it is a broken answer, the same behind the first content is `midstream`."""


QUEUE_CODES: Final = frozenset({"local_queue_full", "local_queue_deadline"})
"""Of a local worker that is well but has no place for this caller: others may have one, so nothing follows from it."""


def kind_of(error: MixgateError, *, committed: bool, local: bool = False) -> FailureKind:
    """What an error says of the Endpoint.

    Args:
        error: What the Attempt ended with. What is no ProviderError is `gateway`: our own doing.
        committed: Whether content had been delivered. The Endpoint's own failures are `midstream` from then on.
        local: Whether it was our own worker that said so.
    """
    kind: FailureKind = "gateway"
    for parent in type(error).__mro__:
        known = _KINDS.get(parent)
        if known is not None:
            kind = known
            break
    if local and isinstance(error, ProviderError) and error.upstream_code in QUEUE_CODES:
        return "full"
    return "midstream" if committed and kind in COUNTED else kind


class Permit(IntEnum):
    """Whether an Endpoint may be asked, and on what footing."""

    REFUSED = 0
    """Open, parked, disabled, at its learnt cap, or half-open with the permit taken."""
    NORMAL = 1
    PROBE = 2
    """The one permit of a half-open or formerly disabled Endpoint: its result decides."""
    PANIC = 3
    """Given although it is open, because no Endpoint of the Route is any better."""


class Result(Struct, frozen=True, gc=False):
    """What became of an Attempt."""

    failure: FailureKind | None = None
    """None is a success."""
    ttft_s: float | None = None
    """From sending to the first content. None where nothing came, or the answer came whole."""
    duration_s: float = 0.0
    output_tokens: int | None = None
    retry_after_s: float | None = None
    """What the provider asked for, already read (providers/retry_after.py). None where it said nothing readable."""
    prompt_tokens: int = 0
    streamed: bool = True
    committed: bool = False
    caller: str = ""
    """Who asked: one name for each client key, or empty. Only told apart, never shown."""
    lagged: bool = False
    """A timeout that may be ours: our own loop was over 250 ms late when it fired. Not held against the Endpoint."""

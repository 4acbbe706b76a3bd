"""What follows from a failed Attempt: the same Endpoint once more, another one, or the end. Pure."""

from typing import Final

from providers.base import Endpoint
from providers.errors import (
    ConnectError,
    ContextLengthError,
    GarbledError,
    OverloadedError,
    ProviderError,
    RateLimitedError,
    ResetError,
    ServerError,
    TruncatedError,
)

PAUSE_MIN_S: Final = 0.1
PAUSE_MAX_S: Final = 0.4
"""Before a hiccup's second try, at random in between."""
WAITED_OUT_MAX_S: Final = 3.0
"""A Retry-After up to this is waited out on the spot where somebody laid down the order."""
ALONE_WAIT_MAX_S: Final = 10.0
"""And up to this where there is nobody else to ask."""
HICCUPS: Final = frozenset({500, 502})
"""Statuses after which the same server often answers the next moment."""


def pause_before_again(error: ProviderError, *, explicit: bool, alone: bool, draw: float) -> float | None:
    """How long to wait, in seconds, before the same Endpoint is asked once more; None: do not ask it.

    Args:
        error: How it failed.
        explicit: Whether the order of Endpoints was laid down, so that the first is worth a short wait.
        alone: Whether there is nobody else to ask.
        draw: At random, 0 to 1.
    """
    wait_s = error.retry_after_s
    if isinstance(error, RateLimitedError):
        patience_s = ALONE_WAIT_MAX_S if alone else WAITED_OUT_MAX_S if explicit else -1.0
        return wait_s if wait_s is not None and wait_s <= patience_s else None
    jitter_s = PAUSE_MIN_S + draw * (PAUSE_MAX_S - PAUSE_MIN_S)
    if isinstance(error, ResetError) or (type(error) is ServerError and error.upstream_status in HICCUPS):
        return jitter_s
    if alone and isinstance(error, OverloadedError | ConnectError | ServerError | TruncatedError):
        pause_s = max(jitter_s, wait_s or 0.0)
        return pause_s if pause_s <= ALONE_WAIT_MAX_S and not isinstance(error, GarbledError) else None
    return None


def may_do_better(error: ProviderError, failed: Endpoint, other: Endpoint) -> bool:
    """Whether another Endpoint could answer what this one could not."""
    if not isinstance(error, ContextLengthError) or failed.context_tokens is None or other.context_tokens is None:
        return True
    return other.context_tokens > failed.context_tokens

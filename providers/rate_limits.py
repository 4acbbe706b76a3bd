"""What a provider says in its headers of how much more we may ask: requests and tokens left, and until when. Pure.

Spellings seen: OpenAI's and Groq's `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, Mistral's
`x-ratelimit-{limit,remaining}-{req,tokens}-minute`, Anthropic's `anthropic-ratelimit-{requests,tokens}-...` with dates,
MindStudio's and OpenRouter's bare `x-ratelimit-{limit,remaining,reset}`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from msgspec import Struct

from providers.retry_after import reset_in_s

MINUTE_S: Final = 60.0
COUNT_MAX: Final = 10**15


class Allowance(Struct, frozen=True, gc=False):
    """What is left of one kind. None: the provider did not say."""

    limit: int | None = None
    remaining: int | None = None
    reset_in_s: float | None = None

    @property
    def exhausted(self) -> bool:
        """Whether the next one is sure to be refused."""
        return self.remaining == 0


class RateLimits(Struct, frozen=True, gc=False):
    """What one answer's headers say."""

    requests: Allowance = Allowance()
    tokens: Allowance = Allowance()


_REQUESTS: Final = (
    ("x-ratelimit-{}-requests", None),
    ("x-ratelimit-{}-req-minute", MINUTE_S),
    ("anthropic-ratelimit-requests-{}", None),
    ("x-ratelimit-{}", None),
)
_TOKENS: Final = (
    ("x-ratelimit-{}-tokens", None),
    ("x-ratelimit-{}-tokens-minute", MINUTE_S),
    ("anthropic-ratelimit-tokens-{}", None),
)


def read_rate_limits(headers: Mapping[str, str], now_unix_s: float) -> RateLimits:
    """What an answer's headers say of the limits; empty where they say nothing readable.

    Args:
        headers: Names in lower case.
        now_unix_s: The wall clock, in Unix seconds.
    """
    return RateLimits(_allowance(_REQUESTS, headers, now_unix_s), _allowance(_TOKENS, headers, now_unix_s))


def _allowance(
    spellings: tuple[tuple[str, float | None], ...], headers: Mapping[str, str], now_unix_s: float
) -> Allowance:
    for pattern, window_s in spellings:
        limit = _count(headers.get(pattern.format("limit")))
        remaining = _count(headers.get(pattern.format("remaining")))
        if limit is None and remaining is None:
            continue
        reset = headers.get(pattern.format("reset"))
        wait_s = window_s if reset is None else _wait(reset, now_unix_s)
        return Allowance(limit, remaining, wait_s)
    return Allowance()


def _count(text: str | None) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 15:
        return None
    return min(int(text), COUNT_MAX)


def _wait(text: str, now_unix_s: float) -> float | None:
    """Seconds until a reset that is a number, a duration, or (Anthropic) an RFC 3339 date."""
    if "T" in text:
        try:
            return max(0.0, datetime.fromisoformat(text).timestamp() - now_unix_s)
        except (ValueError, OverflowError):
            return None
    return reset_in_s(text, now_unix_s)

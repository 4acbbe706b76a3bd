"""Why a standing changed, in words, where no Attempt changed it."""

from typing import Final

from gateway.observation import Standing

WHY_LATER: Final[dict[Standing, str]] = {
    "healthy": "nothing speaks against it any more",
    "degraded": "at least one in twenty requests failed within a minute, or free looks at it do",
    "probing": "its time is over: one request tries it",
    "parked": "rate limited",
    "open": "it failed before",
    "disabled": "the request that tried it did not show that it takes our key again",
}
"""Why a standing that came with time alone is what it is."""

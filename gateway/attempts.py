"""What one try of one Endpoint is, and how long it may take."""

from typing import Final, Literal

from msgspec import Struct

from providers.base import Adaptation, Endpoint
from providers.emulation import Emulated

ATTEMPTS_MAX: Final = 6
FIRST_TOKEN_TIMEOUT_S: Final = 10.0
"""While another candidate is left."""
LAST_FIRST_TOKEN_TIMEOUT_S: Final = 120.0
"""When there is nobody else to ask."""
IDLE_TIMEOUT_S: Final = 30.0
WHOLE_TIMEOUT_S: Final = 600.0
TOTAL_TIMEOUT_S: Final = 600.0
AFTER_FINISH_TIMEOUT_S: Final = 5.0
"""How long the usage and the end mark may take behind the last finish reason. It is complete without them."""

Outcome = Literal["running", "ok", "failed", "cancelled"]


class Attempt(Struct):
    """One try of one Endpoint."""

    number: int
    endpoint: Endpoint
    started_s: float
    outcome: Outcome = "running"
    code: str | None = None
    upstream_status: int | None = None
    duration_s: float = 0.0
    followed: bool = False
    """Whether the answer was fetched from a URL that the provider gave."""
    emulated: tuple[Emulated, ...] = ()
    adapted: tuple[Adaptation, ...] = ()


class Limits(Struct, frozen=True):
    """How long an Attempt may take, in seconds."""

    first_token_timeout_s: float = FIRST_TOKEN_TIMEOUT_S
    last_first_token_timeout_s: float = LAST_FIRST_TOKEN_TIMEOUT_S
    idle_timeout_s: float = IDLE_TIMEOUT_S
    after_finish_timeout_s: float = AFTER_FINISH_TIMEOUT_S
    whole_timeout_s: float = WHOLE_TIMEOUT_S
    total_timeout_s: float = TOTAL_TIMEOUT_S

"""How to reach one Endpoint: the dialect it speaks, the transport that carries it, and what carries its key."""

from collections.abc import Callable, Mapping
from typing import Final

from providers.base import Dialect, Signer, Transport, WireRequest
from providers.errors import ProviderError
from providers.rate_limits import RateLimits, read_rate_limits

CONNECT_TIMEOUT_S: Final = 5.0
KEY_MIN_CHARS: Final = 8
"""Shorter header values are no keys: `none`, `EMPTY`."""
MASK: Final = "***"
LIMITS_LOOK_S: Final = 1.0
"""How often an Endpoint's rate-limit headers are read."""


class Upstream:
    """How to reach one Endpoint: its dialect, its transport, and what carries its key."""

    __slots__ = (
        "_given",
        "_look_at_s",
        "_merged",
        "connect_timeout_s",
        "dialect",
        "headers",
        "rate_limits",
        "signer",
        "transport",
    )

    def __init__(
        self,
        dialect: Dialect,
        transport: Transport,
        headers: Mapping[str, str],
        *,
        signer: Signer | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self.dialect = dialect
        self.transport = transport
        self.headers = headers
        self.signer = signer
        self.connect_timeout_s = connect_timeout_s
        self._given: Mapping[str, str] = {}
        self._merged: Mapping[str, str] = headers
        self._look_at_s = 0.0
        self.rate_limits = RateLimits()
        """What the provider said last of how much more may be asked."""

    def note_limits(self, headers: Mapping[str, str], now_s: float, unix_time_s: Callable[[], float]) -> None:
        """Read what an answer's headers say of the limits. Once a second is often enough, and costs nothing then."""
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + LIMITS_LOOK_S
            self.rate_limits = read_rate_limits(headers, unix_time_s())

    def authorize(self, wire: WireRequest) -> WireRequest:
        """The request with the headers that carry the key.

        Most dialects send the same headers every time; their merger is kept, and the transport keeps its bytes.
        """
        if not self.headers:
            return wire
        if wire.headers is not self._given:
            self._merged = {**wire.headers, **self.headers}
            self._given = wire.headers
        return wire.under(self._merged)

    def redact(self, error: ProviderError) -> None:
        """Take our key out of what a provider said: some repeat in an error all that they were sent."""
        for value in self.headers.values():
            key = value.rpartition(" ")[2]
            if len(key) >= KEY_MIN_CHARS:
                error.message = error.message.replace(key, MASK)
                error.args = (error.message,)
                error.param = error.param and error.param.replace(key, MASK)
                error.upstream_code = error.upstream_code and error.upstream_code.replace(key, MASK)

"""What may change under a running server."""

from collections.abc import Callable, Mapping

from gateway.fleet import Fleet
from gateway.server.auth import Authenticator
from gateway.server.forwarded import TrustedProxies


class Live:
    """Who may come, and who may be asked, now."""

    __slots__ = ("authenticator", "fleet", "local_status", "proxies")

    def __init__(
        self, authenticator: Authenticator, fleet: Callable[[], Fleet], local_status: Callable[[], Mapping[str, str]]
    ) -> None:
        self.authenticator = authenticator
        self.fleet = fleet
        """Who may be asked now."""
        self.local_status = local_status
        """State of each local model in words, for /readyz."""
        self.proxies: TrustedProxies | None = None
        """Whose forwarding headers are believed, if anybody's."""

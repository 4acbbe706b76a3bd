"""What may change under a running server."""

import time
from collections.abc import Callable, Mapping

from gateway.fleet import Fleet
from gateway.server.auth import Authenticator
from gateway.server.forwarded import TrustedProxies


class Live:
    """Who may come, and who may be asked, now.

    Args:
        authenticator: Who may come.
        look: Looks who may be asked.
        look_every_s: How old what it found may be.
        local_status: State of each local model in words, for /readyz.
    """

    __slots__ = ("_fleet", "_look", "_look_every_s", "_until_s", "authenticator", "local_status", "proxies")

    def __init__(
        self,
        authenticator: Authenticator,
        look: Callable[[], Fleet],
        look_every_s: float,
        local_status: Callable[[], Mapping[str, str]],
    ) -> None:
        self.authenticator = authenticator
        self.local_status = local_status
        self.proxies: TrustedProxies | None = None
        """Whose forwarding headers are believed, if anybody's."""
        self._look = look
        self._look_every_s = look_every_s
        self._fleet: Fleet | None = None
        self._until_s = 0.0

    def fleet(self) -> Fleet:
        """Who may be asked now."""
        now_s, fleet = time.monotonic(), self._fleet
        if fleet is None or now_s >= self._until_s:
            self._until_s = now_s + self._look_every_s
            fleet = self._fleet = self._look()
        return fleet

    def look_again(self) -> None:
        """What was found may not hold any more."""
        self._fleet = None

"""How to reach one Endpoint: the dialect it speaks, the transport that carries it, and what carries its key."""

from collections.abc import Mapping
from typing import Final

from providers.base import Dialect, Signer, Transport, WireRequest

CONNECT_TIMEOUT_S: Final = 5.0


class Upstream:
    """How to reach one Endpoint: its dialect, its transport, and what carries its key."""

    __slots__ = ("_given", "_merged", "connect_timeout_s", "dialect", "headers", "signer", "transport")

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

    def authorize(self, wire: WireRequest) -> WireRequest:
        """The request with the headers that carry the key.

        Most dialects send the same headers every time; their merger is kept, and the transport keeps its bytes.
        """
        if not self.headers:
            return wire
        if wire.headers is not self._given:
            self._merged = {**wire.headers, **self.headers}
            self._given = wire.headers
        return WireRequest(
            url=wire.url,
            body=wire.body,
            headers=self._merged,
            method=wire.method,
            stream=wire.stream,
            adapted=wire.adapted,
        )

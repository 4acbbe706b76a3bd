"""What a reverse proxy says of a request, believed from the configured ones alone: who the client is, and by https.

`X-Forwarded-For` is read from its end: each trusted proxy has added the address that it saw, so the first one from
there that is no trusted proxy is the client. What stands before it anybody may have written. `X-Forwarded-Host` and
`Forwarded` are not read.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from gateway.server.scope import FIELDS, LOOPBACK, Scope

ADDRESSES_MAX: Final = 32
"""Addresses in `X-Forwarded-For` that are looked at, from the end."""
KNOWN_MAX: Final = 4096
"""Addresses of which is remembered whether they are trusted."""
_FOR: Final = b"x-forwarded-for"
_PROTO: Final = b"x-forwarded-proto"
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class TrustedProxies:
    """The proxies of the configuration.

    Args:
        networks: Addresses and networks (CIDR), judged already.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)
        self._trusts = lru_cache(KNOWN_MAX)(self._look)

    def settle(self, scope: Scope) -> None:
        """Put the client and the scheme that a trusted proxy names into the scope of its request."""
        fields = scope[FIELDS]
        peer = scope["client"]
        if peer is None or not self.has_sent(fields, peer):
            return
        # Whoever comes through a proxy is not a program of this machine, whatever the proxy says.
        scope[LOOPBACK] = False
        if _FOR in fields:
            # The headers may come several times; only all of them together are the way it came.
            said = b",".join([value for name, value in scope["headers"] if name == _FOR])
            scope["client"] = (self._client(said, peer[0]), 0)
        # A proxy that sets it sets the only one; of several the last is the nearest one's.
        proto = fields.get(_PROTO, b"").rpartition(b",")[2].strip().lower()
        if proto in {b"http", b"https"}:
            scope["scheme"] = proto.decode()

    def has_sent(self, fields: Mapping[bytes, bytes], peer: tuple[str, int] | None) -> bool:
        """Whether a request comes from one of them, on behalf of somebody else."""
        return (_FOR in fields or _PROTO in fields) and peer is not None and self._trusts(peer[0])

    def _client(self, said: bytes, peer: str) -> str:
        """The client's address, as far as it is vouched for."""
        client = peer
        for part in reversed(said.decode("latin-1").split(",")[-ADDRESSES_MAX:]):
            address = _read(part)
            if address is None:
                break
            client = str(address)
            if not self._trusts(client):
                break
        return client

    def _look(self, text: str) -> bool:
        address = _read(text)
        return address is not None and any(address in network for network in self._networks)


def _read(text: str) -> _Address | None:
    """An address as proxies write it, with or without a port."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address

"""Who may call: client keys, or this machine alone when there are none.

With client keys, every path but the health ones needs one. Without, only a program on this machine may call, and only
in a way that neither a web page (DNS rebinding, cross-site requests) nor a reverse proxy on the same machine can
imitate.
"""

import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct

from gateway.errors import AuthenticationError, ConfigError, ConfigProblem, ForbiddenError
from gateway.server.exchange import FIELDS, HOST, LOOPBACK

OPEN_PATHS: Final = frozenset({"/livez", "/readyz"})
"""Answered to anyone: they say nothing but whether the process is well."""
LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
KEY_MAX_BYTES = 512
KEY_ID_HEX_DIGITS = 12

_FORWARDED_PREFIX = b"x-forwarded-"
_BEARER = b"bearer "
_WILDCARDS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - recognised, not bound


class Caller(Struct, frozen=True):
    """Whoever sent a request, as far as the rest of the gateway may know."""

    name: str
    """`local` without keys, `key:<id>` with one, `anyone` on a health path. Fit for logs."""
    is_key: bool = False
    """Whether it is one of several that are told apart by their keys."""


ANYONE: Final = Caller("anyone")
LOCAL: Final = Caller("local")


class _KnownKey(Struct, frozen=True):
    digest: bytes
    caller: Caller


_NO_KEY: Final = _KnownKey(bytes(32), ANYONE)


def key_id(key: str) -> str:
    """A short public name for a client key: the start of its SHA-256, which says nothing about the key."""
    return sha256(key.encode()).hexdigest()[:KEY_ID_HEX_DIGITS]


def is_loopback_bind(host: str) -> bool:
    """Whether listening on `host` is reachable from this machine only. A name other than localhost counts as not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def require_keys_for(bind_host: str, *, has_keys: bool) -> None:
    """Refuse to be an open relay.

    Raises:
        ConfigError: Others could reach the gateway and there is no client key.
    """
    if has_keys or is_loopback_bind(bind_host):
        return
    raise ConfigError(
        (
            ConfigProblem(
                "gateway.host",
                f"Listening on {bind_host} lets other machines call, and there are no client keys.",
                "set gateway.client_keys: [env:MIXGATE_CLIENT_KEY], or listen on 127.0.0.1",
            ),
        )
    )


class Authenticator:
    """Says who a request comes from, or refuses it. Denies by default.

    Args:
        client_keys: The keys given to applications, in clear.
        hosts: Further names under which clients reach the gateway (a Host header names one).
        bind_host: The name or address it listens on.

    Raises:
        ConfigError: No keys for an address others can reach, or an empty key.
    """

    def __init__(self, client_keys: Iterable[str], *, hosts: Iterable[str] = (), bind_host: str = "127.0.0.1") -> None:
        keys = tuple(client_keys)
        if any(not key.strip() for key in keys):
            raise ConfigError(
                (ConfigProblem("gateway.client_keys", "A client key is empty.", "give it a value, or take it out"),)
            )
        require_keys_for(bind_host, has_keys=bool(keys))
        digests = {sha256(key.encode()).digest(): key for key in keys}
        callers = {digest: Caller(f"key:{key_id(key)}", is_key=True) for digest, key in digests.items()}
        self._keys = {digest: _KnownKey(digest, caller) for digest, caller in callers.items()}
        self._hosts = LOOPBACK_HOSTS | {_host_name(host) for host in (*hosts, bind_host) if host not in _WILDCARDS}
        # An address in the Host header cannot have been rebound: no name was looked up. So it needs no listing where
        # the gateway is reachable by address anyway.
        self._any_address = not is_loopback_bind(bind_host)

    def check(self, scope: Mapping[str, Any]) -> Caller:
        """Say who sent the request of this ASGI scope.

        Raises:
            AuthenticationError: No client key, or not a good one.
            ForbiddenError: The Host is not ours, or only this machine may call and this is something else.
        """
        if scope["path"] in OPEN_PATHS:
            return ANYONE
        host: str = scope[HOST]
        if host not in self._hosts and not (self._any_address and _is_address(host)):
            raise ForbiddenError(
                f"The Host {host!r} is not one of this gateway's; if it should be, add it to gateway.hosts."
            )
        fields: Mapping[bytes, bytes] = scope[FIELDS]
        if self._keys:
            return self._check_key(fields)
        _check_local(host, fields, peer_is_local=scope[LOOPBACK])
        return LOCAL

    def _check_key(self, fields: Mapping[bytes, bytes]) -> Caller:
        credential = _read_credential(fields)
        digest = sha256(credential).digest()
        # The same steps for a known and an unknown key: the table is asked by digest, which an attacker cannot steer
        # towards a known one, and the comparison takes as long whatever it finds.
        known = self._keys.get(digest, _NO_KEY)
        if hmac.compare_digest(known.digest, digest):
            return known.caller
        raise AuthenticationError("The client key is not known here. Ask the gateway's operator for one.")


def _read_credential(fields: Mapping[bytes, bytes]) -> bytes:
    """The client key of a request, from `Authorization: Bearer` or `x-api-key`."""
    authorization = fields.get(b"authorization")
    api_key = fields.get(b"x-api-key")
    if authorization is None:
        credential = api_key
    elif authorization[:7].lower() == _BEARER:
        credential = authorization[7:].strip()
        if api_key is not None and api_key != credential:
            raise AuthenticationError("Authorization and x-api-key name different client keys; send one of them.")
    else:
        raise AuthenticationError("Authorization must be `Bearer <client key>`.")
    if not credential:
        raise AuthenticationError("A client key is needed: send `Authorization: Bearer <client key>`.")
    if len(credential) > KEY_MAX_BYTES:
        raise AuthenticationError("The client key is not known here. Ask the gateway's operator for one.")
    return credential


def _check_local(host: str, fields: Mapping[bytes, bytes], *, peer_is_local: bool) -> None:
    """Without keys: let only a program on this machine call, that talks to us directly and is no web page."""
    if not peer_is_local:
        raise ForbiddenError("No client keys are configured, so only this machine may call.")
    if host not in LOOPBACK_HOSTS:
        raise ForbiddenError("No client keys are configured, so only http://localhost or http://127.0.0.1 is served.")
    if b"forwarded" in fields or _FORWARDED_PREFIX in b"\n".join(fields):
        raise ForbiddenError("No client keys are configured, so requests through a proxy are refused. Set client_keys.")
    origin = fields.get(b"origin")
    if origin is None:
        if fields.get(b"sec-fetch-site") == b"cross-site":
            raise ForbiddenError("No client keys are configured, so a web page of another site may not call.")
    elif not _is_local_origin(origin):
        raise ForbiddenError("No client keys are configured, so a web page of another site may not call.")


def _is_local_origin(origin: bytes) -> bool:
    """Whether a web page's Origin is this machine."""
    scheme, separator, rest = origin.decode("latin-1").lower().partition("://")
    return bool(separator) and scheme in {"http", "https"} and _host_name(rest) in LOOPBACK_HOSTS


def _host_name(host: str) -> str:
    """A configured or received host, as `scope[HOST]` has it: lower case, no port, IPv6 in brackets."""
    host = host.strip().lower().rstrip(".")
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    if host.count(":") > 1:
        return f"[{host}]"
    return host.partition(":")[0]


def _is_address(host: str) -> bool:
    """Whether a Host is an IP address and not a name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True

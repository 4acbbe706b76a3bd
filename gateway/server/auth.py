"""Who may call: client keys, or this machine alone when there are none.

With client keys, every path but the health ones needs one. Without, only a program on this machine may call, and only
in a way that neither a web page (DNS rebinding, cross-site requests) nor a reverse proxy on the same machine can
imitate.

Client keys are those of the configuration and those issued here. Neither may administer: that takes a token of its own,
which in turn asks no model anything.
"""

import hmac
import ipaddress
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any, Final, Literal

from msgspec import Struct

from gateway.errors import AuthenticationError, ConfigError, ConfigProblem, ForbiddenError
from gateway.keys.changes import US_PER_S
from gateway.keys.credential import is_key
from gateway.keys.ring import KeyRing
from gateway.server.scope import FIELDS, HOST, LOOPBACK

OPEN_PATHS: Final = frozenset({"/livez", "/readyz"})
"""Answered to anyone: they say nothing but whether the process is well."""
LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
KEY_MAX_BYTES = 512
KEY_ID_HEX_DIGITS = 12

_FORWARDED_PREFIX = b"x-forwarded-"
_BEARER = b"bearer "
_NO: Final = "The client key is not known here. Ask the gateway's operator for one."
_WILDCARDS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - recognised, not bound


Access = Literal["anyone", "ask", "administer", "watch"]
"""What a path takes: nothing, the right to ask models, the right to change keys, the right to read metrics."""
PersonToken = tuple[bytes, Literal["admin", "viewer"]]
"""The digest of a token by which people sign in, and what it lets see."""
_ANYONE: Final[frozenset[Access]] = frozenset({"anyone"})
_ASK: Final[frozenset[Access]] = frozenset({"anyone", "ask"})
_WATCH: Final[frozenset[Access]] = frozenset({"anyone", "watch"})
_ADMINISTER: Final[frozenset[Access]] = frozenset({"anyone", "administer", "watch"})
_ALL: Final = _ASK | _ADMINISTER


class Caller(Struct, frozen=True):
    """Whoever sent a request, as far as the rest of the gateway may know."""

    name: str
    """`local` without keys, `key:<id>` with one, `admin`, `anyone` on a health path. Fit for logs."""
    is_key: bool = False
    """Whether it is one of several that are told apart by their keys."""
    key_id: str = ""
    """The public id of an issued key, whose limits and budget hold; empty for all others."""
    rights: frozenset[Access] = _ANYONE


ANYONE: Final = Caller("anyone")
LOCAL: Final = Caller("local", rights=_ALL)
_LOCAL_CLIENT: Final = Caller("local", rights=_ASK | _WATCH)
"""This machine, where administration takes a token."""
_ADMIN: Final = Caller("admin", rights=_ADMINISTER)
_WATCHER: Final = Caller("metrics", rights=_WATCH)


class _KnownKey(Struct, frozen=True):
    digest: bytes
    caller: Caller
    local_only: bool = False


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
                "issue one with `mixgate keys create`, set gateway.client_keys: [env:MIXGATE_CLIENT_KEY], or listen on "
                "127.0.0.1",
            ),
        )
    )


class Authenticator:
    """Says who a request comes from, or refuses it. Denies by default.

    Args:
        client_keys: The keys given to applications, in clear.
        hosts: Further names under which clients reach the gateway (a Host header names one).
        bind_host: The name or address it listens on.
        ring: Issued client keys.
        admin_token: What changes keys, from anywhere.
        local_admin_token: What does so from this machine: known to whoever may read MIXGATE_HOME.
        metrics_token: What reads metrics and does nothing else, from anywhere.
        unix_time_s: The wall clock, for keys that expire.

    Raises:
        ConfigError: No keys for an address others can reach, an empty key, or a client key that is the admin token.
    """

    def __init__(
        self,
        client_keys: Iterable[str],
        *,
        hosts: Iterable[str] = (),
        bind_host: str = "127.0.0.1",
        ring: KeyRing | None = None,
        admin_token: str | None = None,
        local_admin_token: str | None = None,
        metrics_token: str | None = None,
        unix_time_s: Callable[[], float] = time.time,
    ) -> None:
        keys = tuple(client_keys)
        _judge(keys, admin_token)
        self._ring = KeyRing(b"") if ring is None else ring
        self._unix_time_s = unix_time_s
        require_keys_for(bind_host, has_keys=bool(keys) or self._ring.has_keys)
        self._has_keys = bool(keys)
        self._local = LOCAL if admin_token is None else _LOCAL_CLIENT
        known = [_KnownKey(_digest(key), Caller(f"key:{key_id(key)}", is_key=True, rights=_ASK)) for key in keys]
        # The admin tokens come last: no client key takes their place.
        known += [_KnownKey(_digest(metrics_token), _WATCHER)] if metrics_token else []
        known += [_KnownKey(_digest(local_admin_token), _ADMIN, local_only=True)] if local_admin_token else []
        known += [_KnownKey(_digest(admin_token), _ADMIN)] if admin_token else []
        self._known = {one.digest: one for one in known}
        self._tokens: tuple[PersonToken, ...] = ((_digest(admin_token), "admin"),) if admin_token else ()
        self._local_tokens: tuple[PersonToken, ...] = (
            ((_digest(local_admin_token), "admin"),) if local_admin_token else ()
        )
        self._issued: dict[str, Caller] = {}
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
        path: str = scope["path"]
        host: str = scope[HOST]
        fields: dict[bytes, bytes] = scope[FIELDS]
        return self.admit(path, host, fields, peer_is_local=scope[LOOPBACK])

    def admit(self, path: str, host: str, fields: dict[bytes, bytes], *, peer_is_local: bool) -> Caller:
        """The same by its parts."""
        if path in OPEN_PATHS:
            return ANYONE
        self._check_host(host)
        if self._has_keys or self._ring.has_keys:
            return self._check_key(host, fields, peer_is_local=peer_is_local)
        _check_local(host, fields, peer_is_local=peer_is_local)
        return self._local if self._local is LOCAL else self._check_admin(fields)

    @property
    def is_steady(self) -> bool:
        """Whether it will say of a request what it said of one with the same head: issued keys come, change and end."""
        return not self._ring.has_keys

    def check_host(self, scope: Mapping[str, Any]) -> str:
        """The Host by which we were reached.

        Raises:
            ForbiddenError: It is not one of ours.
        """
        host: str = scope[HOST]
        self._check_host(host)
        return host

    def _check_host(self, host: str) -> None:
        if host not in self._hosts and not (self._any_address and _is_address(host)):
            raise ForbiddenError(
                f"The Host {host!r} is not one of this gateway's; if it should be, add it to gateway.hosts."
            )

    def is_open_to(self, scope: Mapping[str, Any]) -> bool:
        """Whether whoever sent this may see everything without a token: this machine, where there are none.

        Raises:
            ForbiddenError: Only this machine may come here, and this is something else.
        """
        if self._has_keys or self._ring.has_keys:
            return False
        _check_local(scope[HOST], scope[FIELDS], peer_is_local=scope[LOOPBACK])
        return self._local is LOCAL

    def let_view(self, token: str) -> None:
        """Let people look at the dashboard with this token, but not at who asked."""
        viewer: PersonToken = (_digest(token), "viewer")
        self._tokens = (*self._tokens, viewer)

    def tokens_for(self, scope: Mapping[str, Any]) -> tuple[PersonToken, ...]:
        """Digests of the tokens by which people may sign in from there, and what each lets see."""
        try:
            _check_local(scope[HOST], scope[FIELDS], peer_is_local=scope[LOOPBACK])
        except ForbiddenError:
            return self._tokens
        return self._tokens + self._local_tokens

    def digest(self, token: str) -> bytes:
        """A token as `tokens_for` has it."""
        return _digest(token)

    def _check_key(self, host: str, fields: Mapping[bytes, bytes], *, peer_is_local: bool) -> Caller:
        credential = _read_credential(fields)
        unix_us = int(self._unix_time_s() * US_PER_S)
        record = self._ring.find(credential, unix_us) if self._ring.has_keys else None
        if record is not None:
            caller = self._issued.get(record.id)
            if caller is None:
                caller = Caller(f"key:{record.id}", is_key=True, key_id=record.id, rights=_ASK)
                self._issued[record.id] = caller
            return caller
        known = self._find(credential)
        if known is None:
            why = self._ring.why_refused(credential, unix_us)
            raise AuthenticationError(
                f"This client key is {why}. Ask the gateway's operator for another." if why else _NO
            )
        if known.local_only:
            _check_local(host, fields, peer_is_local=peer_is_local)
        return known.caller

    def _check_admin(self, fields: Mapping[bytes, bytes]) -> Caller:
        """Where nobody has a client key, but administration takes a token: whether this is it."""
        authorization = fields.get(b"authorization", b"")
        if authorization[:7].lower() == _BEARER:
            known = self._find(authorization[7:].strip())
            if known is not None:
                return known.caller
        return self._local

    def _find(self, credential: bytes) -> _KnownKey | None:
        digest = sha256(credential).digest()
        # The same steps for a known and an unknown key: the table is asked by digest, which an attacker cannot steer
        # towards a known one, and the comparison takes as long whatever it finds.
        known = self._known.get(digest, _NO_KEY)
        return known if hmac.compare_digest(known.digest, digest) else None


def _judge(keys: tuple[str, ...], admin_token: str | None) -> None:
    """Refuse keys that are none, and tokens that are keys.

    Raises:
        ConfigError: What is wrong.
    """
    if any(not key.strip() for key in keys):
        raise ConfigError(
            (ConfigProblem("gateway.client_keys", "A client key is empty.", "give it a value, or take it out"),)
        )
    if admin_token is not None and (admin_token in keys or is_key(admin_token) or not admin_token.strip()):
        said = "The admin token is empty, or a client key, which must not administer."
        raise ConfigError((ConfigProblem("gateway.admin_token", said, "give it a value of its own"),))


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


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
        raise AuthenticationError(_NO)
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

"""Who may see what: sign-in, cookies, and what keeps another site's page from asking in a visitor's name."""

import ipaddress
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from msgspec import Struct

from gateway.dashboard.errors import SignInFailedError, SignInRequiredError, TooManySignInsError
from gateway.dashboard.roles import Role
from gateway.dashboard.sessions import SESSION_S, Moment, OwnSessions, Session, Sessions, is_same
from gateway.dashboard.sources import Door, Scope, Tries
from gateway.errors import ForbiddenError

FIELDS: Final = "mixgate.fields"
"""Scope member: the headers as a dict of lower-case name to value, both bytes."""
HOST: Final = "mixgate.host"
"""Scope member: the Host header's name, lower case, without port."""
LOOPBACK: Final = "mixgate.loopback"
"""Scope member: whether the peer is this machine."""
CSRF_HEADER: Final = b"x-mixgate-csrf"
SECURE_COOKIE: Final = "__Host-mixgate"
LOCAL_COOKIE: Final = "mixgate_local"
"""Over plain http on this machine, where not every browser takes a cookie that is for https alone."""
TOKEN_MAX_CHARS: Final = 512
"""A token; what is longer is none."""
COOKIE_MAX_CHARS: Final = 128
"""A session's cookie; what is longer is none."""
_LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_OWN_PAGES: Final = frozenset({b"same-origin", b"none"})
"""`none`: somebody typed the address."""


class Visitor(Struct, frozen=True):
    """Whoever is let in."""

    role: Role
    session: Session | None = None
    """None: this machine, of which no token is asked."""


class Standing(Struct, frozen=True):
    """How somebody stands who need not be signed in."""

    visitor: Visitor | None
    how: str
    """`open`, `token` or `refused`."""
    why: str | None = None


_NOBODY_CAN: Final = (
    "No token is configured for signing in from here. Set gateway.admin_token or gateway.viewer_token, as env:NAME or "
    "file:/path."
)
_PLAIN_HTTP: Final = (
    "This page came over plain http, so a token would cross the network in clear. Use https: set gateway.tls, or put a "
    "proxy in front that ends TLS, name it in gateway.trusted_proxies and let it send X-Forwarded-Proto."
)


class Gate:
    """Lets people in. Belongs to the event loop.

    Args:
        door: The rules of now.
        monotonic_s: A clock that never goes back.
        unix_s: The wall clock.
        tries: Counts how often each address tries to sign in.
        sessions: Where sign-ins are kept; None: here.
    """

    def __init__(
        self,
        door: Callable[[], Door],
        monotonic_s: Callable[[], float],
        unix_s: Callable[[], float],
        tries: Tries,
        sessions: Sessions | None = None,
    ) -> None:
        self._door = door
        self._now_s = monotonic_s
        self._unix_s = unix_s
        self._sessions: Sessions = OwnSessions() if sessions is None else sessions
        self._tries = tries

    def check_host(self, scope: Scope) -> None:
        """Refuse a name that is not ours: whoever made it lead here may not read the answer.

        Raises:
            ForbiddenError: It is none of ours.
        """
        self._door().check_host(scope)

    async def admit(self, scope: Scope) -> Visitor:
        """Who asks.

        Raises:
            SignInRequiredError: Nobody who is signed in.
            ForbiddenError: Another site's page, or somebody who cannot sign in from there.
        """
        _check_own_page(scope)
        standing = await self._standing(scope)
        if standing.visitor is None:
            if standing.how == "refused":
                raise ForbiddenError(standing.why or _NOBODY_CAN)
            raise SignInRequiredError("Sign in with the admin token or the viewer token.")
        return standing.visitor

    async def session(self, scope: Scope) -> dict[str, Any]:
        """What the page is told of who looks at it.

        Raises:
            ForbiddenError: Another site's page asks.
        """
        _check_own_page(scope)
        try:
            return self._shown(await self._standing(scope))
        except ForbiddenError as error:
            return self._shown(Standing(None, "refused", error.message))

    async def sign_in(self, scope: Scope, token: str) -> tuple[dict[str, Any], bytes]:
        """Exchange a token for a session. Gives what the page is told, and a Set-Cookie.

        Raises:
            ForbiddenError: Another site's page, or plain http from elsewhere.
            TooManySignInsError: That address tries too often.
            SignInFailedError: The token is not good.
        """
        self.check_change(scope)
        if not self._is_private(scope):
            raise ForbiddenError(_PLAIN_HTTP)
        moment = self._moment()
        wait_s = await self._tries.count(_group(_address(scope)), moment.now_s)
        if wait_s is not None:
            raise TooManySignInsError("Too many tries from this address; wait a minute.", retry_after_s=wait_s)
        digest, role = self._judge(scope, token)
        if role is None:
            raise SignInFailedError("This token is not known here.")
        before = self._cookie(scope)
        if before is not None:
            await self._sessions.end(before)
        name, session = await self._sessions.begin(role, digest, moment)
        return self._shown(Standing(Visitor(role, session), "token")), self._set_cookie(scope, name, int(SESSION_S))

    async def sign_out(self, scope: Scope) -> bytes:
        """End a session. Gives a Set-Cookie.

        Raises:
            ForbiddenError: Another site's page, or a page without the session's CSRF token.
            SignInRequiredError: Nobody is signed in.
        """
        self.check_change(scope)
        visitor = await self.admit(scope)
        sent: bytes = scope[FIELDS].get(CSRF_HEADER, b"")
        if visitor.session is not None and not is_same(sent.decode("latin-1"), visitor.session.csrf):
            raise ForbiddenError("The CSRF token is missing or not this session's: send x-mixgate-csrf.")
        cookie = self._cookie(scope)
        if cookie is not None:
            await self._sessions.end(cookie)
        return self._set_cookie(scope, "", 0)

    def check_change(self, scope: Scope) -> None:
        """Refuse a change that no page of ours asks for: a browser says from where it comes.

        Raises:
            ForbiddenError: It comes from elsewhere, or does not say.
        """
        fields: Mapping[bytes, bytes] = scope[FIELDS]
        _check_own_page(scope)
        origin = fields.get(b"origin")
        if origin is not None:
            own = b"%b://%b" % (b"https" if self._is_https(scope) else b"http", fields.get(b"host", b"").lower())
            if origin.lower() != own:
                raise ForbiddenError("This change was asked for by another site's page.")
        elif fields.get(b"sec-fetch-site") != b"same-origin":
            raise ForbiddenError("A change must say where it comes from: send Origin.")

    async def _standing(self, scope: Scope) -> Standing:
        door = self._door()
        if door.is_open_to(scope):
            return Standing(Visitor("admin"), "open")
        tokens = door.tokens_for(scope)
        if not tokens:
            return Standing(None, "refused", _NOBODY_CAN)
        if not self._is_private(scope):
            return Standing(None, "refused", _PLAIN_HTTP)
        cookie = self._cookie(scope)
        session = None if cookie is None else await self._sessions.find(cookie, self._moment())
        if cookie is None or session is None:
            return Standing(None, "token")
        if (session.credential, session.role) not in tokens:
            await self._sessions.end(cookie)  # the token was taken back, or is good elsewhere only
            return Standing(None, "token")
        return Standing(Visitor(session.role, session), "token")

    def _judge(self, scope: Scope, token: str) -> tuple[bytes, Role | None]:
        """Compares with every token in turn, whichever it is."""
        door = self._door()
        digest = door.digest(token[:TOKEN_MAX_CHARS])
        found: Role | None = None
        for known, role in door.tokens_for(scope):
            if is_same(known.hex(), digest.hex()):
                found = role
        return digest, found

    def _shown(self, standing: Standing) -> dict[str, Any]:
        visitor = standing.visitor
        session = None if visitor is None else visitor.session
        return {
            "signed_in": visitor is not None,
            "role": None if visitor is None else visitor.role,
            "csrf": None if session is None else session.csrf,
            "sign_in": standing.how,
            "why": standing.why,
            "expires_at": None if session is None else self._ends(session),
        }

    def _ends(self, session: Session) -> str:
        now = self._moment()
        end = datetime.fromtimestamp(now.unix_s, UTC) + timedelta(seconds=self._sessions.left_s(session, now))
        return end.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _moment(self) -> Moment:
        return Moment(self._now_s(), self._unix_s())

    def _is_private(self, scope: Scope) -> bool:
        """Whether nobody between the browser and us can listen."""
        if self._is_https(scope):
            return True
        fields: Mapping[bytes, bytes] = scope[FIELDS]
        forwarded = b"forwarded" in fields or any(name.startswith(b"x-forwarded-") for name in fields)
        return bool(scope[LOOPBACK]) and scope[HOST] in _LOOPBACK_HOSTS and not forwarded

    def _is_https(self, scope: Scope) -> bool:
        """By the connection, or by what a trusted proxy says of the one that ends there."""
        return bool(scope["scheme"] == "https")

    def _cookie(self, scope: Scope) -> str | None:
        """Of several cookies of the name none counts: one of them is not ours."""
        wanted = SECURE_COOKIE if self._is_https(scope) else LOCAL_COOKIE
        fields: Mapping[bytes, bytes] = scope[FIELDS]
        pairs = (part.strip().partition("=") for part in fields.get(b"cookie", b"").decode("latin-1").split(";"))
        values = [value for name, _, value in pairs if name == wanted]
        return values[0][:COOKIE_MAX_CHARS] if len(values) == 1 else None

    def _set_cookie(self, scope: Scope, value: str, age_s: int) -> bytes:
        if self._is_https(scope):
            said = f"{SECURE_COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={age_s}"
        else:
            said = f"{LOCAL_COOKIE}={value}; Path=/dashboard; HttpOnly; SameSite=Strict; Max-Age={age_s}"
        return said.encode("ascii")


def _check_own_page(scope: Scope) -> None:
    """Refuse what another site's page asks for in the name of whoever looks at it.

    Raises:
        ForbiddenError: It does.
    """
    site = scope[FIELDS].get(b"sec-fetch-site")
    if site is not None and site not in _OWN_PAGES:
        raise ForbiddenError("This was asked for by another site's page.")


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return "" if client is None else str(client[0])


def _group(address: str) -> str:
    """Addresses that one person may have many of count as one: of IPv6 whoever has one has 2**64."""
    try:
        peer = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    peer = getattr(peer, "ipv4_mapped", None) or peer  # as a socket for both kinds names one of IPv4
    if peer.version == 6:
        return str(ipaddress.ip_network((int(peer) >> 64 << 64, 64)).network_address)
    return str(peer)

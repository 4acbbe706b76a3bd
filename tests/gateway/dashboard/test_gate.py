"""Who is let in to the dashboard, and what another site's page cannot do in a visitor's name."""

from hashlib import sha256

import pytest

from gateway.dashboard.errors import SignInFailedError, SignInRequiredError, TooManySignInsError
from gateway.dashboard.gate import CSRF_HEADER, FIELDS, HOST, LOCAL_COOKIE, LOOPBACK, SECURE_COOKIE, Gate
from gateway.dashboard.sessions import IDLE_S, PEERS_MAX, SESSION_S, SESSIONS_MAX, TRIES_MAX, Sessions, Tries
from gateway.errors import ForbiddenError

ADMIN, VIEWER = "an-admin-token", "a-viewer-token"


class Door:
    """A gateway's own rules, as plain values."""

    def __init__(self, *, is_open=False, tokens=((ADMIN, "admin"), (VIEWER, "viewer"))) -> None:
        self.is_open = is_open
        self.tokens = tokens

    def check_host(self, scope):
        if scope[HOST] not in {"localhost", "gate.example"}:
            raise ForbiddenError("not ours")
        return scope[HOST]

    def is_open_to(self, _scope):
        return self.is_open

    def tokens_for(self, _scope):
        return tuple((self.digest(token), role) for token, role in self.tokens)

    def digest(self, token):
        return sha256(token.encode()).digest()


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


def scope(scheme="https", host="gate.example", peer="192.0.2.7", *, loopback=False, **headers):
    fields = {b"host": host.encode()} | {
        name.replace("_", "-").encode(): said.encode() for name, said in headers.items()
    }
    return {"scheme": scheme, "client": (peer, 1), HOST: host, LOOPBACK: loopback, FIELDS: fields}


def asked(**more):
    """A change that a page of ours asks for."""
    return scope(**({"origin": "https://gate.example", "sec_fetch_site": "same-origin"} | more))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def door():
    return Door()


@pytest.fixture
def gate(door, clock):
    return Gate(lambda: door, clock, lambda: 1_700_000_000.0)


def cookie_of(set_cookie):
    return set_cookie.decode().partition(";")[0]


def signed_in(gate, token=ADMIN, **more):
    """What the page is told, and the Cookie header from then on."""
    shown, set_cookie = gate.sign_in(asked(**more), token)
    return shown, cookie_of(set_cookie)


def test_a_token_becomes_a_session_of_its_role(gate):
    for token, role in ((ADMIN, "admin"), (VIEWER, "viewer")):
        shown, cookie = signed_in(gate, token)
        assert (shown["signed_in"], shown["role"], shown["sign_in"]) == (True, role, "token")
        assert gate.admit(scope(cookie=cookie)).role == role
        assert shown["expires_at"] == "2023-11-15T06:13:20Z"


def test_the_cookie_is_out_of_reach_of_scripts_of_other_sites_and_of_plain_http(gate):
    said = gate.sign_in(asked(), ADMIN)[1].decode()
    assert said.startswith(f"{SECURE_COOKIE}=")
    assert SECURE_COOKIE.startswith("__Host-")
    for attribute in ("; Path=/;", "; Secure", "; HttpOnly", "; SameSite=Strict", "; Max-Age=28800"):
        assert attribute in said
    assert "Domain" not in said


def test_over_plain_http_a_token_is_taken_from_this_machine_alone(gate):
    plain = {"scheme": "http", "origin": "http://localhost", "host": "localhost"}
    shown, cookie = signed_in(gate, loopback=True, **plain)
    assert shown["signed_in"]
    assert cookie.startswith(f"{LOCAL_COOKIE}=")
    elsewhere = scope("http", origin="http://gate.example")
    with pytest.raises(ForbiddenError, match="plain http"):
        gate.sign_in(elsewhere, ADMIN)
    assert "plain http" in gate.session(elsewhere)["why"]
    assert gate.session(elsewhere)["sign_in"] == "refused"


@pytest.mark.parametrize(
    "more", [{"x_forwarded_for": "203.0.113.9"}, {"forwarded": "for=203.0.113.9"}, {"host": "gate.example"}]
)
def test_what_a_proxy_on_this_machine_sends_is_not_from_this_machine(gate, more):
    told = {"host": "localhost", "origin": "http://localhost"} | more
    told["origin"] = f"http://{told['host']}"
    with pytest.raises(ForbiddenError, match="plain http"):
        gate.sign_in(scope("http", loopback=True, **told), ADMIN)


def test_nobody_who_is_not_signed_in_is_let_in(gate):
    for cookie in ("", f"{SECURE_COOKIE}=", f"{SECURE_COOKIE}=made-up", "other=1"):
        with pytest.raises(SignInRequiredError):
            gate.admit(scope(cookie=cookie))


def test_a_wrong_token_is_refused_and_makes_no_session(gate):
    for token in ("", "wrong", ADMIN[:-1], ADMIN + "x", VIEWER.upper()):
        with pytest.raises(SignInFailedError):
            gate.sign_in(asked(peer=f"192.0.2.{len(token)}"), token)
    assert len(gate._sessions) == 0


def test_a_session_that_somebody_brought_along_is_never_taken_up(gate):
    planted = f"{SECURE_COOKIE}=planted-by-somebody"
    _, cookie = signed_in(gate, cookie=planted)
    assert cookie != planted
    with pytest.raises(SignInRequiredError):
        gate.admit(scope(cookie=planted))


def test_signing_in_anew_ends_the_session_before(gate):
    _, first = signed_in(gate)
    _, second = signed_in(gate, cookie=first)
    assert gate.admit(scope(cookie=second)).role == "admin"
    with pytest.raises(SignInRequiredError):
        gate.admit(scope(cookie=first))


def test_of_two_cookies_of_the_name_none_counts(gate):
    _, cookie = signed_in(gate)
    with pytest.raises(SignInRequiredError):
        gate.admit(scope(cookie=f"{cookie}; {SECURE_COOKIE}=planted"))


def test_a_session_ends_after_eight_hours_and_after_half_an_hour_without_a_request(gate, clock):
    _, cookie = signed_in(gate)
    clock.now_s += IDLE_S - 1
    assert gate.admit(scope(cookie=cookie))
    clock.now_s += IDLE_S
    with pytest.raises(SignInRequiredError):
        gate.admit(scope(cookie=cookie))
    _, cookie = signed_in(gate)
    for _ in range(int(SESSION_S / (IDLE_S - 1))):
        clock.now_s += IDLE_S - 1
        gate.admit(scope(cookie=cookie))
    clock.now_s += IDLE_S - 1
    with pytest.raises(SignInRequiredError):
        gate.admit(scope(cookie=cookie))


def test_a_token_that_was_taken_back_lets_nobody_in_any_more(gate, door):
    _, admin = signed_in(gate)
    _, viewer = signed_in(gate, VIEWER)
    door.tokens = ((VIEWER, "viewer"),)
    assert gate.admit(scope(cookie=viewer)).role == "viewer"
    with pytest.raises(SignInRequiredError):
        gate.admit(scope(cookie=admin))


def test_signing_out_takes_the_sessions_own_token_and_ends_it(gate):
    shown, cookie = signed_in(gate)
    for wrong in ({}, {"x_mixgate_csrf": ""}, {"x_mixgate_csrf": "made-up"}):
        with pytest.raises(ForbiddenError, match="CSRF"):
            gate.sign_out(asked(cookie=cookie, **wrong))
    other, _ = signed_in(gate)
    with pytest.raises(ForbiddenError, match="CSRF"):
        gate.sign_out(asked(cookie=cookie, x_mixgate_csrf=other["csrf"]))
    gone = gate.sign_out(asked(cookie=cookie, x_mixgate_csrf=shown["csrf"])).decode()
    assert "Max-Age=0" in gone
    with pytest.raises(SignInRequiredError):
        gate.admit(scope(cookie=cookie))
    assert CSRF_HEADER == b"x-mixgate-csrf"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "https://gate.example.evil.example"},
        {"origin": "http://gate.example"},
        {"origin": "https://gate.example:444"},
        {"origin": "null"},
        {"origin": "https://gate.example", "sec_fetch_site": "cross-site"},
        {"origin": "https://gate.example", "sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
        {},
    ],
)
def test_another_sites_page_can_neither_sign_in_nor_out(gate, headers):
    shown, cookie = signed_in(gate)
    with pytest.raises(ForbiddenError):
        gate.sign_in(scope(**headers), ADMIN)
    with pytest.raises(ForbiddenError):
        gate.sign_out(scope(cookie=cookie, x_mixgate_csrf=shown["csrf"], **headers))
    assert gate.admit(scope(cookie=cookie))


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_sites_page_reads_nothing_in_a_visitors_name(gate, door, site):
    _, cookie = signed_in(gate)
    with pytest.raises(ForbiddenError):
        gate.admit(scope(cookie=cookie, sec_fetch_site=site))
    door.is_open = True
    with pytest.raises(ForbiddenError):
        gate.admit(scope(sec_fetch_site=site))
    assert gate.admit(scope(sec_fetch_site="none")).role == "admin"


def test_where_there_is_no_token_nobody_can_sign_in(gate, door):
    door.tokens = ()
    said = gate.session(scope())
    assert (said["signed_in"], said["sign_in"]) == (False, "refused")
    assert "gateway.admin_token" in said["why"]
    with pytest.raises(ForbiddenError):
        gate.admit(scope())


def test_an_address_may_try_five_times_a_minute(gate, clock):
    for _ in range(TRIES_MAX):
        with pytest.raises(SignInFailedError):
            gate.sign_in(asked(), "wrong")
    with pytest.raises(TooManySignInsError) as refused:
        gate.sign_in(asked(), ADMIN)
    assert refused.value.retry_after_s == pytest.approx(60)
    assert gate.sign_in(asked(peer="192.0.2.8"), ADMIN)
    clock.now_s += 60
    assert gate.sign_in(asked(), ADMIN)


def test_all_addresses_of_one_ipv6_network_are_one():
    gate = Gate(Door, Clock(), lambda: 0.0)
    for number in range(TRIES_MAX):
        with pytest.raises(SignInFailedError):
            gate.sign_in(asked(peer=f"2001:db8::{number + 1}"), "wrong")
    with pytest.raises(TooManySignInsError):
        gate.sign_in(asked(peer="2001:db8::ffff"), ADMIN)
    assert gate.sign_in(asked(peer="2001:db8:0:1::1"), ADMIN)


def test_sessions_and_addresses_are_bounded():
    sessions = Sessions()
    names = [sessions.begin("admin", b"", 0.0)[0] for _ in range(SESSIONS_MAX + 1)]
    assert len(sessions) == SESSIONS_MAX
    assert sessions.find(names[0], 0.0) is None
    assert sessions.find(names[-1], 0.0) is not None
    assert len(set(names)) == len(names)
    tries = Tries()
    for number in range(PEERS_MAX + 10):
        assert tries.wait_s(str(number), 0.0) is None
    assert len(tries._by_peer) == PEERS_MAX


def test_what_is_kept_of_a_session_opens_nothing():
    sessions = Sessions()
    name, session = sessions.begin("admin", b"d", 0.0)
    assert name not in repr(sessions.__dict__)
    assert session.csrf != name

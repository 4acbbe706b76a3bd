"""Who is let in to the dashboard, and what another site's page cannot do in a visitor's name."""

from hashlib import sha256

import pytest

from gateway.dashboard.errors import SignInFailedError, SignInRequiredError, TooManySignInsError
from gateway.dashboard.gate import CSRF_HEADER, FIELDS, HOST, LOCAL_COOKIE, LOOPBACK, SECURE_COOKIE, Gate
from gateway.dashboard.sessions import (
    IDLE_S,
    SESSION_S,
    SESSIONS_MAX,
    Moment,
    OwnSessions,
    SharedSessions,
)
from gateway.errors import ForbiddenError
from gateway.sharing.base import TRIES_MAX
from gateway.sharing.tries import TRIERS_MAX, OwnTries

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
    return Gate(lambda: door, clock, lambda: 1_700_000_000.0, OwnTries())


def cookie_of(set_cookie):
    return set_cookie.decode().partition(";")[0]


async def signed_in(gate, token=ADMIN, **more):
    """What the page is told, and the Cookie header from then on."""
    shown, set_cookie = await gate.sign_in(asked(**more), token)
    return shown, cookie_of(set_cookie)


async def test_a_token_becomes_a_session_of_its_role(gate):
    for token, role in ((ADMIN, "admin"), (VIEWER, "viewer")):
        shown, cookie = await signed_in(gate, token)
        assert (shown["signed_in"], shown["role"], shown["sign_in"]) == (True, role, "token")
        assert (await gate.admit(scope(cookie=cookie))).role == role
        assert shown["expires_at"] == "2023-11-15T06:13:20Z"


async def test_the_cookie_is_out_of_reach_of_scripts_of_other_sites_and_of_plain_http(gate):
    said = (await gate.sign_in(asked(), ADMIN))[1].decode()
    assert said.startswith(f"{SECURE_COOKIE}=")
    assert SECURE_COOKIE.startswith("__Host-")
    for attribute in ("; Path=/;", "; Secure", "; HttpOnly", "; SameSite=Strict", "; Max-Age=28800"):
        assert attribute in said
    assert "Domain" not in said


async def test_over_plain_http_a_token_is_taken_from_this_machine_alone(gate):
    plain = {"scheme": "http", "origin": "http://localhost", "host": "localhost"}
    shown, cookie = await signed_in(gate, loopback=True, **plain)
    assert shown["signed_in"]
    assert cookie.startswith(f"{LOCAL_COOKIE}=")
    elsewhere = scope("http", origin="http://gate.example")
    with pytest.raises(ForbiddenError, match="plain http"):
        await gate.sign_in(elsewhere, ADMIN)
    assert "plain http" in (await gate.session(elsewhere))["why"]
    assert (await gate.session(elsewhere))["sign_in"] == "refused"


@pytest.mark.parametrize(
    "more", [{"x_forwarded_for": "203.0.113.9"}, {"forwarded": "for=203.0.113.9"}, {"host": "gate.example"}]
)
async def test_what_a_proxy_on_this_machine_sends_is_not_from_this_machine(gate, more):
    told = {"host": "localhost", "origin": "http://localhost"} | more
    told["origin"] = f"http://{told['host']}"
    with pytest.raises(ForbiddenError, match="plain http"):
        await gate.sign_in(scope("http", loopback=True, **told), ADMIN)


async def test_nobody_who_is_not_signed_in_is_let_in(gate):
    for cookie in ("", f"{SECURE_COOKIE}=", f"{SECURE_COOKIE}=made-up", "other=1"):
        with pytest.raises(SignInRequiredError):
            await gate.admit(scope(cookie=cookie))


async def test_a_wrong_token_is_refused_and_makes_no_session(gate):
    for token in ("", "wrong", ADMIN[:-1], ADMIN + "x", VIEWER.upper()):
        with pytest.raises(SignInFailedError):
            await gate.sign_in(asked(peer=f"192.0.2.{len(token)}"), token)
    assert len(gate._sessions) == 0


async def test_a_session_that_somebody_brought_along_is_never_taken_up(gate):
    planted = f"{SECURE_COOKIE}=planted-by-somebody"
    _, cookie = await signed_in(gate, cookie=planted)
    assert cookie != planted
    with pytest.raises(SignInRequiredError):
        await gate.admit(scope(cookie=planted))


async def test_signing_in_anew_ends_the_session_before(gate):
    _, first = await signed_in(gate)
    _, second = await signed_in(gate, cookie=first)
    assert (await gate.admit(scope(cookie=second))).role == "admin"
    with pytest.raises(SignInRequiredError):
        await gate.admit(scope(cookie=first))


async def test_of_two_cookies_of_the_name_none_counts(gate):
    _, cookie = await signed_in(gate)
    with pytest.raises(SignInRequiredError):
        await gate.admit(scope(cookie=f"{cookie}; {SECURE_COOKIE}=planted"))


async def test_a_session_ends_after_eight_hours_and_after_half_an_hour_without_a_request(gate, clock):
    _, cookie = await signed_in(gate)
    clock.now_s += IDLE_S - 1
    assert await gate.admit(scope(cookie=cookie))
    clock.now_s += IDLE_S
    with pytest.raises(SignInRequiredError):
        await gate.admit(scope(cookie=cookie))
    _, cookie = await signed_in(gate)
    for _ in range(int(SESSION_S / (IDLE_S - 1))):
        clock.now_s += IDLE_S - 1
        await gate.admit(scope(cookie=cookie))
    clock.now_s += IDLE_S - 1
    with pytest.raises(SignInRequiredError):
        await gate.admit(scope(cookie=cookie))


async def test_a_token_that_was_taken_back_lets_nobody_in_any_more(gate, door):
    _, admin = await signed_in(gate)
    _, viewer = await signed_in(gate, VIEWER)
    door.tokens = ((VIEWER, "viewer"),)
    assert (await gate.admit(scope(cookie=viewer))).role == "viewer"
    with pytest.raises(SignInRequiredError):
        await gate.admit(scope(cookie=admin))


async def test_signing_out_takes_the_sessions_own_token_and_ends_it(gate):
    shown, cookie = await signed_in(gate)
    for wrong in ({}, {"x_mixgate_csrf": ""}, {"x_mixgate_csrf": "made-up"}):
        with pytest.raises(ForbiddenError, match="CSRF"):
            await gate.sign_out(asked(cookie=cookie, **wrong))
    other, _ = await signed_in(gate)
    with pytest.raises(ForbiddenError, match="CSRF"):
        await gate.sign_out(asked(cookie=cookie, x_mixgate_csrf=other["csrf"]))
    gone = (await gate.sign_out(asked(cookie=cookie, x_mixgate_csrf=shown["csrf"]))).decode()
    assert "Max-Age=0" in gone
    with pytest.raises(SignInRequiredError):
        await gate.admit(scope(cookie=cookie))
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
async def test_another_sites_page_can_neither_sign_in_nor_out(gate, headers):
    shown, cookie = await signed_in(gate)
    with pytest.raises(ForbiddenError):
        await gate.sign_in(scope(**headers), ADMIN)
    with pytest.raises(ForbiddenError):
        await gate.sign_out(scope(cookie=cookie, x_mixgate_csrf=shown["csrf"], **headers))
    assert await gate.admit(scope(cookie=cookie))


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_another_sites_page_reads_nothing_in_a_visitors_name(gate, door, site):
    _, cookie = await signed_in(gate)
    with pytest.raises(ForbiddenError):
        await gate.admit(scope(cookie=cookie, sec_fetch_site=site))
    door.is_open = True
    with pytest.raises(ForbiddenError):
        await gate.admit(scope(sec_fetch_site=site))
    assert (await gate.admit(scope(sec_fetch_site="none"))).role == "admin"


async def test_where_there_is_no_token_nobody_can_sign_in(gate, door):
    door.tokens = ()
    said = await gate.session(scope())
    assert (said["signed_in"], said["sign_in"]) == (False, "refused")
    assert "gateway.admin_token" in said["why"]
    with pytest.raises(ForbiddenError):
        await gate.admit(scope())


async def test_an_address_may_try_five_times_a_minute(gate, clock):
    for _ in range(TRIES_MAX):
        with pytest.raises(SignInFailedError):
            await gate.sign_in(asked(), "wrong")
    with pytest.raises(TooManySignInsError) as refused:
        await gate.sign_in(asked(), ADMIN)
    assert refused.value.retry_after_s == pytest.approx(60)
    assert await gate.sign_in(asked(peer="192.0.2.8"), ADMIN)
    clock.now_s += 60
    assert await gate.sign_in(asked(), ADMIN)


async def test_all_addresses_of_one_ipv6_network_are_one():
    gate = Gate(Door, Clock(), lambda: 0.0, OwnTries())
    for number in range(TRIES_MAX):
        with pytest.raises(SignInFailedError):
            await gate.sign_in(asked(peer=f"2001:db8::{number + 1}"), "wrong")
    with pytest.raises(TooManySignInsError):
        await gate.sign_in(asked(peer="2001:db8::ffff"), ADMIN)
    assert await gate.sign_in(asked(peer="2001:db8:0:1::1"), ADMIN)


async def test_sessions_and_addresses_are_bounded():
    sessions, now = OwnSessions(), Moment(0.0, 0.0)
    names = [(await sessions.begin("admin", b"", now))[0] for _ in range(SESSIONS_MAX + 1)]
    assert len(sessions) == SESSIONS_MAX
    assert await sessions.find(names[0], now) is None
    assert await sessions.find(names[-1], now) is not None
    assert len(set(names)) == len(names)
    tries = OwnTries()
    for number in range(TRIERS_MAX + 10):
        assert await tries.count(str(number), 0.0) is None
    assert len(tries) == TRIERS_MAX


async def test_what_is_kept_of_a_session_opens_nothing():
    sessions = OwnSessions()
    name, session = await sessions.begin("admin", b"d", Moment(0.0, 0.0))
    assert name not in repr(sessions.__dict__)
    assert session.csrf != name


class Shelf:
    """What processes share, as a dict."""

    def __init__(self) -> None:
        self.kept = {}

    async def get(self, tenant, digest, unix_s):
        data, until_s = self.kept.get((tenant, digest), (None, 0.0))
        return data if unix_s < until_s else None

    def put(self, tenant, digest, data, ttl_s, unix_s):
        self.kept[tenant, digest] = (data, unix_s + ttl_s)

    def drop(self, tenant, digest):
        self.kept.pop((tenant, digest), None)


async def test_processes_that_share_a_shelf_share_who_is_signed_in(door):
    clock, shelf = Clock(), Shelf()
    one, other = (Gate(lambda: door, Clock(), clock, OwnTries(), SharedSessions(shelf, b"seal")) for _ in range(2))
    shown, cookie = await signed_in(one)
    assert (await other.admit(scope(cookie=cookie))).role == "admin"
    for _ in range(3):  # whoever is seen by one is seen by all
        clock.now_s += IDLE_S - 1
        assert await other.admit(scope(cookie=cookie))
    assert await one.admit(scope(cookie=cookie))
    await other.sign_out(asked(cookie=cookie, x_mixgate_csrf=shown["csrf"]))
    with pytest.raises(SignInRequiredError):
        await one.admit(scope(cookie=cookie))
    _, cookie = await signed_in(one)
    clock.now_s += IDLE_S
    with pytest.raises(SignInRequiredError):
        await other.admit(scope(cookie=cookie))
    _, cookie = await signed_in(one)
    for _ in range(int(SESSION_S / (IDLE_S - 1))):
        clock.now_s += IDLE_S - 1
        await other.admit(scope(cookie=cookie))
    clock.now_s += IDLE_S - 1
    with pytest.raises(SignInRequiredError):
        await one.admit(scope(cookie=cookie))


async def test_whoever_can_write_on_the_shelf_cannot_make_or_change_a_session(door):
    clock, shelf = Clock(), Shelf()
    gate = Gate(lambda: door, Clock(), clock, OwnTries(), SharedSessions(shelf, b"seal"))
    _, viewer = await signed_in(gate, VIEWER)
    assert len(shelf.kept) == 2
    (place, (data, until_s)), (seen_place, seen) = shelf.kept.items()
    assert viewer.partition("=")[2].encode() not in data
    for forged in (data.replace(b"viewer", b"admin_"), b"", data[:40], bytes(32) + data[32:]):
        shelf.kept[place] = (forged, until_s)
        with pytest.raises(SignInRequiredError):
            await gate.admit(scope(cookie=viewer))
    elsewhere = Gate(lambda: door, Clock(), clock, OwnTries(), SharedSessions(shelf, b"another seal"))
    shelf.kept[place] = (data, until_s)
    with pytest.raises(SignInRequiredError):
        await elsewhere.admit(scope(cookie=viewer))
    _, admin = await signed_in(gate, peer="192.0.2.9")
    moved, moved_seen = [kept for name, kept in shelf.kept.items() if name not in {place, seen_place}]
    shelf.kept[place] = moved  # an admin's in the place of a viewer's
    with pytest.raises(SignInRequiredError):
        await gate.admit(scope(cookie=viewer))
    shelf.kept[place], shelf.kept[seen_place] = (data, until_s), moved_seen  # somebody else was seen
    with pytest.raises(SignInRequiredError):
        await gate.admit(scope(cookie=viewer))
    shelf.kept[seen_place] = seen
    assert (await gate.admit(scope(cookie=viewer))).role == "viewer"
    assert (await gate.admit(scope(cookie=admin))).role == "admin"


async def test_processes_that_share_their_count_give_an_address_no_more_tries_than_one(door):
    clock, tries = Clock(), OwnTries()
    gates = [Gate(lambda: door, clock, lambda: 0.0, tries) for _ in range(3)]
    for number in range(TRIES_MAX):
        with pytest.raises(SignInFailedError):
            await gates[number % 3].sign_in(asked(), "wrong")
    for gate in gates:
        with pytest.raises(TooManySignInsError):
            await gate.sign_in(asked(), ADMIN)


async def test_whoever_comes_by_ipv4_has_tries_of_its_own_where_one_socket_is_for_both_kinds(gate):
    for _ in range(TRIES_MAX):
        with pytest.raises(SignInFailedError):
            await gate.sign_in(asked(peer="::ffff:192.0.2.1"), "wrong")
    with pytest.raises(TooManySignInsError):
        await gate.sign_in(asked(peer="192.0.2.1"), "wrong")
    await gate.sign_in(asked(peer="::ffff:192.0.2.2"), ADMIN)

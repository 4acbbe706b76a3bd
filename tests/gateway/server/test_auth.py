"""Who may call, with keys and without."""

import pytest

from gateway.errors import AuthenticationError, ConfigError, ForbiddenError
from gateway.keys.credential import mint
from gateway.keys.key import KeyRecord
from gateway.keys.ring import KeyRing
from gateway.server.auth import Authenticator, is_loopback_bind, key_id
from gateway.server.scope import FIELDS, HOST, LOOPBACK

ANYWHERE = "0.0.0.0"  # noqa: S104 - a value of tests, bound by none
KEY = "mk-0123456789abcdef"


def scope(host="localhost", path="/v1/models", *, loopback=True, **headers):
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return {"path": path, HOST: host, LOOPBACK: loopback, FIELDS: fields}


@pytest.fixture
def keyed():
    return Authenticator([KEY, "other-key"], hosts=["gate.example", "Gate2.example:8080"])


@pytest.fixture
def keyless():
    return Authenticator([])


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer   {KEY} "},
        {"x_api_key": KEY},
        {"x_api_key": KEY, "authorization": f"Bearer {KEY}"},
    ],
)
def test_a_known_key_names_its_caller(keyed, headers):
    caller = keyed.check(scope(loopback=False, **headers))
    assert caller.name == f"key:{key_id(KEY)}"
    assert KEY not in repr(caller)


def test_each_key_has_its_own_caller(keyed):
    one = keyed.check(scope(authorization=f"Bearer {KEY}"))
    two = keyed.check(scope(authorization="Bearer other-key"))
    assert one != two


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY.upper()}"},
        {"authorization": f"Bearer {KEY}\x00"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": KEY},
        {"authorization": "Bearer " + "x" * 8000},
        {"x_api_key": "wrong"},
        {"x_api_key": ""},
        {"x_api_key": "wrong", "authorization": f"Bearer {KEY}"},
        {"x_api_key": KEY, "authorization": "Bearer wrong"},
        {"x_api_key": KEY, "authorization": f"Basic {KEY}"},
        {"cookie": f"key={KEY}"},
    ],
)
@pytest.mark.parametrize("loopback", [True, False])
def test_anything_but_a_known_key_is_refused(keyed, headers, loopback):
    with pytest.raises(AuthenticationError) as caught:
        keyed.check(scope(loopback=loopback, **headers))
    assert KEY not in caught.value.message


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_health_paths_are_open_to_anyone_under_any_host(keyed, keyless, path):
    for authenticator in (keyed, keyless):
        assert authenticator.check(scope("10.1.2.3", path, loopback=False)).name == "anyone"


@pytest.mark.parametrize("path", ["/livez/", "/livez/../v1/models", "//livez", "/LIVEZ", "/", ""])
def test_only_the_exact_health_paths_are_open(keyed, path):
    with pytest.raises(AuthenticationError):
        keyed.check(scope(path=path))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "gate.example", "gate2.example"])
def test_our_hosts_are_served(keyed, host):
    assert keyed.check(scope(host, authorization=f"Bearer {KEY}"))


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1", "[::2]", "gate.example.evil", ANYWHERE]
)
def test_other_hosts_are_refused_even_with_a_key(keyed, host):
    with pytest.raises(ForbiddenError, match=r"gateway\.hosts"):
        keyed.check(scope(host, authorization=f"Bearer {KEY}"))


def test_an_address_needs_no_listing_where_the_gateway_is_reachable_by_address():
    wide = Authenticator([KEY], bind_host=ANYWHERE)
    assert wide.check(scope("10.0.0.1", authorization=f"Bearer {KEY}"))
    assert wide.check(scope("[fd00::1]", authorization=f"Bearer {KEY}"))
    with pytest.raises(ForbiddenError):
        wide.check(scope("evil.example", authorization=f"Bearer {KEY}"))


def test_the_name_it_listens_on_is_a_host_of_ours():
    named = Authenticator([KEY], bind_host="gate.internal")
    assert named.check(scope("gate.internal", authorization=f"Bearer {KEY}"))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_without_keys_a_program_on_this_machine_may_call(keyless, host):
    assert keyless.check(scope(host, authorization="Bearer anything")).name == "local"


@pytest.mark.parametrize(
    "call",
    [
        scope(loopback=False),
        scope("gate.example"),
        scope("rebound.example"),
        scope(ANYWHERE),
        scope(forwarded="for=1.2.3.4"),
        scope(x_forwarded_for="1.2.3.4"),
        scope(x_forwarded_host="a"),
        scope(x_forwarded_proto="https"),
        scope(origin="https://evil.example"),
        scope(origin="null"),
        scope(origin="http://localhost.evil.example"),
        scope(origin="http://evil.example", sec_fetch_site="same-origin"),
        scope(sec_fetch_site="cross-site"),
    ],
)
def test_without_keys_nobody_else_may_call(call):
    with pytest.raises(ForbiddenError):
        Authenticator([], hosts=["gate.example"]).check(call)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8080"])
def test_without_keys_a_page_of_this_machine_may_call(keyless, origin):
    assert keyless.check(scope(origin=origin, sec_fetch_site="same-site"))


@pytest.mark.parametrize("host", [ANYWHERE, "::", "10.0.0.1", "gate.example", "fd00::1"])
def test_listening_for_others_without_keys_is_refused_with_words(host):
    with pytest.raises(ConfigError) as caught:
        Authenticator([], bind_host=host)
    assert "client_keys" in caught.value.message
    assert not is_loopback_bind(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.5"])
def test_listening_on_loopback_needs_no_keys(host):
    assert is_loopback_bind(host)
    Authenticator([], bind_host=host)


@pytest.mark.parametrize("key", ["", "   "])
def test_an_empty_key_is_refused(key):
    with pytest.raises(ConfigError):
        Authenticator([KEY, key])


async def test_the_edge_gives_the_authenticator_what_it_needs(listen, keyed):
    async def app(received, receive, send):
        await receive()
        caller = keyed.check(received)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": caller.name.encode()})

    request = b"GET /v1/models HTTP/1.1\r\nHost: localhost:80\r\nAUTHORIZATION: Bearer %b\r\n\r\n" % KEY.encode()
    said = await listen(app).converse(request, until=1)
    assert said.data.endswith(f"key:{key_id(KEY)}".encode())


def test_an_admin_token_is_no_client_key():
    with pytest.raises(ConfigError, match="admin token"):
        Authenticator([KEY], admin_token=KEY)
    with pytest.raises(ConfigError, match="admin token"):
        Authenticator([KEY], admin_token=" ")
    with pytest.raises(ConfigError, match="admin token"):
        Authenticator([KEY], admin_token=mint(bytes(40)).text.reveal())


def test_an_issued_key_is_a_key_for_an_address_others_can_reach():
    ring = KeyRing(b"pepper", [KeyRecord(id="a", name="a", digest=b"d" * 32, created_us=1, updated_us=1)])
    Authenticator([], bind_host=ANYWHERE, ring=ring)
    with pytest.raises(ConfigError, match="no client keys"):
        Authenticator([], bind_host=ANYWHERE, ring=KeyRing(b"pepper"))


def test_an_admin_tokens_caller_may_only_administer():
    doors = Authenticator([KEY], admin_token="admin-token", local_admin_token="home-token")
    assert doors.check(scope(authorization="Bearer admin-token")).rights == {"anyone", "administer", "watch"}
    assert doors.check(scope(authorization="Bearer home-token")).rights == {"anyone", "administer", "watch"}
    with pytest.raises(ForbiddenError):
        doors.check(scope(loopback=False, authorization="Bearer home-token"))
    assert doors.check(scope(authorization=f"Bearer {KEY}")).rights == {"anyone", "ask"}

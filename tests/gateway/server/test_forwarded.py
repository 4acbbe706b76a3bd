"""Whose word about a client is believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.server.forwarded import TrustedProxies
from gateway.server.scope import FIELDS, LOOPBACK

PROXIES = TrustedProxies(["10.0.0.0/8", "127.0.0.1", "fd00::/8"])


def settled(peer, *headers, proxies=PROXIES):
    """Client, scheme and whether it is this machine, as they come out."""
    named = [(name, value.encode("latin-1")) for name, value in headers]
    scope = {"client": (peer, 4711), "scheme": "http", LOOPBACK: peer == "127.0.0.1"}
    scope |= {"headers": named, FIELDS: dict(named)}
    proxies.settle(scope)
    return scope["client"][0], scope["scheme"], scope[LOOPBACK]


def came(*said):
    return [(b"x-forwarded-for", one) for one in said]


HTTPS = (b"x-forwarded-proto", "https")


@pytest.mark.parametrize(
    ("peer", "said", "client"),
    [
        ("10.1.1.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.1.1.1", ["evil, 198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        ("10.1.1.1", ["203.0.113.9, 10.2.2.2"], "203.0.113.9"),
        ("10.1.1.1", ["203.0.113.9", "10.2.2.2"], "203.0.113.9"),
        ("10.1.1.1", ["203.0.113.9, 127.0.0.1"], "203.0.113.9"),
        ("10.1.1.1", ["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        ("10.1.1.1", ["203.0.113.9:5123"], "203.0.113.9"),
        ("10.1.1.1", ["[2001:db8::1]:5123"], "2001:db8::1"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
        ("::ffff:10.1.1.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("10.1.1.1", ["nonsense"], "10.1.1.1"),
        ("10.1.1.1", [""], "10.1.1.1"),
        ("10.1.1.1", ["203.0.113.9, unknown, 10.2.2.2"], "10.2.2.2"),
    ],
)
def test_the_client_is_the_first_that_no_trusted_proxy_is(peer, said, client):
    assert settled(peer, *came(*said), HTTPS) == (client, "https", False)


@pytest.mark.parametrize("peer", ["203.0.113.9", "192.168.1.1", "2001:db8::1"])
def test_nobody_else_is_believed(peer):
    assert settled(peer, *came("127.0.0.1"), HTTPS) == (peer, "http", False)


@pytest.mark.parametrize(
    ("said", "scheme"),
    [("https", "https"), ("HTTPS", "https"), ("https, http", "http"), ("gopher", "http"), ("", "http")],
)
def test_the_scheme_is_the_nearest_proxys_word(said, scheme):
    assert settled("10.1.1.1", (b"x-forwarded-proto", said))[1] == scheme


def test_whoever_comes_through_a_proxy_is_not_this_machine():
    assert settled("127.0.0.1", *came("127.0.0.1")) == ("127.0.0.1", "http", False)
    assert settled("127.0.0.1", HTTPS)[2] is False
    assert settled("127.0.0.1")[2] is True


@given(st.text(alphabet="0123456789.:[], abcdef%", max_size=200))
def test_no_text_breaks_it(said):
    client, _, local = settled("10.1.1.1", *came(said))
    assert client
    assert not local

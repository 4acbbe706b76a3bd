"""Which URLs of a provider's are followed: its own origin and those that are configured, and nothing that looks so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import Endpoint
from providers.elsewhere import may_follow
from providers.quirks import Quirks

ENDPOINT = Endpoint(
    id="p/up",
    provider="p",
    model="m",
    upstream_model="up",
    base_url="https://api.vendor.test/v2",
    quirks=Quirks(answer_origins=["https://bucket.test", "http://127.0.0.1:9000/x"]),
)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.vendor.test/left/1?signature=a%2Fb",
        "HTTPS://API.VENDOR.TEST/left",
        "https://api.vendor.test:443/left",
        "https://bucket.test/a/b",
        "http://127.0.0.1:9000/anything",
    ],
)
def test_configured_origins_are_followed(url):
    assert may_follow(url, ENDPOINT)


TARGETS = [
    "127.0.0.1",
    "169.254.169.254",
    "localhost",
    "[::1]",
    "10.0.0.1",
    "0x7f000001",
    "metadata.internal",
    "evil.test",
]
SHAPES = [
    "http://{0}/",
    "https://{0}/",
    "https://{0}:443/",
    "https://api.vendor.test@{0}/",
    "https://{0}#@api.vendor.test/",
    "https://{0}?@api.vendor.test/",
    "https://{0}\\@api.vendor.test/",
    "https://api.vendor.test\\@{0}/",
    "https://user:pass@api.vendor.test/{0}",
    "//{0}/",
    "/{0}",
    "{0}",
    "file://{0}/etc/passwd",
    "gopher://{0}/",
    "javascript:{0}",
    "https://api.vendor.test.{0}/",
    "https://api.vendor.test%2e{0}/",
    "https://api.vendor.test%00{0}/",
    "https:\\\\{0}/",
    "https:///{0}/",
    " https://{0}/",
    "https://{0} /",
    "https://{0}\r\nhost: api.vendor.test/",
    "https://bucket.test:8443/{0}",
    "http://bucket.test/{0}",
    "http://api.vendor.test/{0}",
    "https://sub.bucket.test/{0}",
    "https://api.vendor.test/ HTTP/1.1\r\nx: {0}",
    "https://api.vendor.test/\t{0}",
    "https://api.vendor.test\uff0f{0}/",
    "https://api\u3002vendor.test/{0}",
    "https://api.vendor.test:99999/{0}",
    "https://api.vendor.test:x/{0}",
    "http://127.0.0.1:9001/{0}",
    "http://127.0.0.1/{0}",
    "http://127.1:9000/{0}",
    "https://{0}/.api.vendor.test",
    "https://{0}:443:api.vendor.test/",
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_else_is(shape, target):
    assert not may_follow(shape.format(target), ENDPOINT)


def test_a_url_over_every_bound_is_not():
    assert not may_follow("https://bucket.test/" + "a" * 10_000, ENDPOINT)


def test_there_is_no_place_but_its_own_unless_one_is_configured():
    closed = Endpoint(id="p/up", provider="p", model="m", upstream_model="up", base_url="https://api.vendor.test/v2")
    assert may_follow("https://api.vendor.test/1", closed)
    assert not may_follow("https://bucket.test/1", closed)


@given(st.text(max_size=60))
def test_any_text_is_judged_without_failing(text):
    assert not may_follow(text, ENDPOINT)
    may_follow("https://bucket.test/" + text, ENDPOINT)

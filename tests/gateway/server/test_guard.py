"""The judge of request heads, byte by byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import RefusalError
from gateway.server import guard
from gateway.server.guard import check_partial_head, is_loopback, read_head, read_host, without_upgrade
from gateway.server.limits import HEAD_MAX_BYTES, HEADER_LINE_MAX_BYTES, HEADERS_MAX_COUNT, REQUEST_LINE_MAX_BYTES
from gateway.server.refusals import refusal_response


def head(*headers, line=b"POST /v1/chat/completions HTTP/1.1"):
    return b"\r\n".join((line, b"Host: localhost:8080", *headers)) + b"\r\n\r\n"


def refused(data):
    with pytest.raises(RefusalError) as caught:
        read_head(data)
    return caught.value


def test_a_usual_head_is_taken_apart():
    judged = read_head(head(b"Content-Type:  application/json ", b"X-A:\t1", b"Content-Length: 12"))
    assert judged.line.method == "POST"
    assert judged.line.path == "/v1/chat/completions"
    assert judged.headers == [
        (b"host", b"localhost:8080"),
        (b"content-type", b"application/json"),
        (b"x-a", b"1"),
        (b"content-length", b"12"),
    ]
    assert judged.fields[b"content-type"] == b"application/json"
    assert (judged.host, judged.content_length, judged.keep_alive) == ("localhost", 12, True)
    assert not judged.expects_continue
    assert not judged.upgrades


def test_path_and_query_are_separated_and_the_path_decoded():
    line = read_head(head(line=b"GET /v1/models/a%2Fb%C3%A9?x=1&y=%20 HTTP/1.1")).line
    assert (line.path, line.raw_path, line.query) == ("/v1/models/a/bé", b"/v1/models/a%2Fb%C3%A9", b"x=1&y=%20")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET / HTTP/1.0", 505),
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/1.2", 505),
        (b"PRI * HTTP/2.0", 505),
        (b"GET /", 400),
        (b"GET", 400),
        (b"", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b" GET / HTTP/1.1", 400),
        (b"GET\t/ HTTP/1.1", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/1.11", 400),
        (b"GET / RTSP/1.0", 400),
        (b"GET @google.com HTTP/1.1", 400),
        (b"GET http://evil/ HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"CONNECT evil:443 HTTP/1.1", 501),
        (b"CONNECT / HTTP/1.1", 501),
        (b"TRACE / HTTP/1.1", 501),
        (b"get / HTTP/1.1", 501),
        (b"GET /a\x00b HTTP/1.1", 400),
        (b"GET /a%00b HTTP/1.1", 400),
        (b"GET /a\x7f HTTP/1.1", 400),
        (b"GET /\xc3\xa9 HTTP/1.1", 400),
        (b"GET /a#b HTTP/1.1", 400),
        (b"GET /a\\b HTTP/1.1", 400),
    ],
)
def test_a_request_line_of_any_other_form_is_refused(line, status):
    assert refused(head(line=line)).status == status


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"a b",
        b"evil/",
        b"evil/?",
        b"user@evil",
        b"a,b",
        b"evil:",
        b"evil:x",
        b"evil:99999",
        b"[::1",
        b"::1",
        b"a\x80",
        b"a:80:80",
    ],
)
def test_a_host_that_is_no_host_is_refused(value):
    assert refused(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % value).code == "malformed_http"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"localhost", "localhost"),
        (b"LocalHost:8080", "localhost"),
        (b"127.0.0.1:1", "127.0.0.1"),
        (b"[::1]:8080", "[::1]"),
        (b"example.com.", "example.com"),
        (b"my_service:80", "my_service"),
    ],
)
def test_a_host_is_read_without_port_in_lower_case(value, name):
    assert read_host(value) == name


def test_a_missing_host_is_refused():
    assert "Host" in refused(b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n").message


@pytest.mark.parametrize("name", [name for name in guard.SINGLE_HEADERS if name != b"host"])
def test_a_second_header_of_a_kind_that_comes_once_is_refused(name):
    assert refused(head(name + b": 1", name.title() + b": 1")).code == "malformed_http"


def test_a_second_host_is_refused_even_when_equal():
    assert "host" in refused(head(b"Host: localhost:8080")).message


def test_other_headers_may_repeat():
    assert read_head(head(b"Accept: a", b"Accept: b")).fields[b"accept"] == b"b"


@pytest.mark.parametrize(
    "line",
    [b"X_Y: 1", b"Content_Length: 3", b"no colon", b" X: 1", b"\tX: 1", b": 1", b""],
)
def test_a_header_line_that_two_readers_could_read_differently_is_refused(line):
    assert refused(head(b"Accept: a", line, b"B: c")).code == "malformed_http"


@pytest.mark.parametrize("value", [b"", b"+1", b"-1", b"1 1", b"5, 5", b"0x5", b"1_0", b"1.0", b"9" * 19, "٣".encode()])
def test_a_content_length_that_is_no_plain_number_is_refused(value):
    assert refused(head(b"Content-Length: " + value)).code == "malformed_http"


@pytest.mark.parametrize(
    "value", [b"identity", b"identity, chunked", b"chunked, chunked", b"xchunked", b"chunked;q=1", b"gzip", b""]
)
def test_any_transfer_coding_but_chunked_is_refused(value):
    assert refused(head(b"Transfer-Encoding: " + value)).status == 501


def test_chunked_is_read_in_any_case():
    assert read_head(head(b"Transfer-Encoding: Chunked")).content_length == -1


def test_content_length_and_transfer_encoding_exclude_each_other():
    assert refused(head(b"Content-Length: 1", b"Transfer-Encoding: chunked")).code == "malformed_http"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
    ],
)
def test_a_lone_cr_or_lf_is_refused(data):
    assert "CR LF" in refused(data).message


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (head(line=b"GET /" + b"a" * REQUEST_LINE_MAX_BYTES + b" HTTP/1.1"), 414),
        (head(b"X: " + b"a" * HEADER_LINE_MAX_BYTES), 431),
        (head(*(b"X%d: 1" % n for n in range(HEADERS_MAX_COUNT))), 431),
        (head(*(b"X%d: %b" % (n, b"a" * 7000) for n in range(5))), 431),
    ],
)
def test_a_head_over_its_bounds_is_refused(data, status):
    assert refused(data).status == status


def test_a_head_at_its_bounds_is_read():
    headers = [b"X%d: 1" % n for n in range(HEADERS_MAX_COUNT - 1)]
    assert len(read_head(head(*headers)).headers) == HEADERS_MAX_COUNT


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /" + b"a" * REQUEST_LINE_MAX_BYTES, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * HEAD_MAX_BYTES, 431),
        (b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 100, 431),
    ],
)
def test_a_hopeless_beginning_is_refused_before_its_end_is_seen(data, status):
    with pytest.raises(RefusalError) as caught:
        check_partial_head(data)
    assert caught.value.status == status


def test_a_hopeful_beginning_is_waited_for():
    whole = head(b"Content-Length: 5")
    for length in range(len(whole)):
        check_partial_head(whole[:length])


@pytest.mark.parametrize(
    ("headers", "keep_alive", "upgrades"),
    [
        ((), True, False),
        ((b"Connection: keep-alive",), True, False),
        ((b"Connection: close",), False, False),
        ((b"Connection: Keep-Alive, CLOSE",), False, False),
        ((b"Connection: close", b"Connection: keep-alive"), False, False),
        ((b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA"), True, True),
        ((b"Upgrade: websocket",), True, True),
    ],
)
def test_the_connection_header_is_understood(headers, keep_alive, upgrades):
    judged = read_head(head(*headers))
    assert (judged.keep_alive, judged.upgrades) == (keep_alive, upgrades)


def test_upgrade_headers_can_be_taken_out():
    asked = head(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA", b"Content-Length: 2")
    assert without_upgrade(asked) == head(b"Content-Length: 2")


def test_an_unknown_expectation_is_refused():
    assert read_head(head(b"Expect: 100-Continue")).expects_continue
    assert refused(head(b"Expect: tea")).status == 417


def test_secrets_are_not_kept_in_the_cache_of_header_lines():
    read_head(
        head(b"Authorization: Bearer s3cret-one", b"X-Api-Key: s3cret-two", b"Cookie: s3cret-three", b"X-Seen: yes")
    )
    assert b"X-Seen: yes" in guard._known_headers
    assert not [line for line in guard._known_headers if b"s3cret" in line]


def test_the_cache_of_header_lines_is_bounded():
    for number in range(3 * guard.HEADER_CACHE_SIZE):
        read_head(head(b"X-Unique: %d" % number))
    assert len(guard._known_headers) <= guard.HEADER_CACHE_SIZE


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data):
    for sample in (
        data + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n",
        b"GET /" + data + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ):
        refusal = None
        try:
            judged = read_head(sample)
        except RefusalError as error:
            refusal = error
        if refusal is not None:
            assert refusal_response(refusal).startswith(b"HTTP/1.1 %d " % refusal.status)
        else:
            assert judged.content_length >= -1
            assert judged.line.raw_path.startswith(b"/")
            assert judged.host


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_loopback_addresses_are_known(address, expected):
    assert is_loopback(address) is expected

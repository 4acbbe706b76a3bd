"""What a connection makes of the bytes of answers, however they are cut. No sockets: bytes in, calls out."""

import asyncio
import itertools
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import GarbledError
from providers.http_connection import HEAD_MAX_BYTES, Connection, HttpResponse, Pool

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Wire:
    """Stands for the socket."""

    def __init__(self) -> None:
        self.aborted = False

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


async def ask(pieces: list[bytes], *, stream: bool = False) -> tuple[HttpResponse, Wire, Pool]:
    """What one exchange gives where the answer comes in these pieces."""
    pool, wire = Pool(), Wire()
    connection = Connection(pool, asyncio.get_running_loop())
    connection.connection_made(wire)  # type: ignore[arg-type]  # as much of a transport as is used
    begun = connection.begin(b"", stream=stream)
    for piece in pieces:
        connection.data_received(piece)
    await begun
    return connection.answered(), wire, pool


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Into pieces at these places."""
    ends = sorted({0, len(data), *(place % len(data) for place in places)})
    return [data[start:stop] for start, stop in itertools.pairwise(ends)]


def judged(data: bytes) -> dict[str, str]:
    """The headers of the last head in `data`, as the parser itself tells them."""
    found: dict[str, str] = {}

    class Listener:
        def on_message_begin(self) -> None:
            found.clear()

        def on_header(self, name: bytes, value: bytes) -> None:
            # It leaves the white space behind a value, which is no part of it (RFC 9110 section 5.5).
            found[name.decode("latin-1").lower()] = value.decode("latin-1").rstrip(" \t")

    httptools.HttpResponseParser(Listener()).feed_data(data)
    return found


NAMES = st.sampled_from(["Server", "x-request-id", "X-Request-Id", "Date", "x-encoding", "CF-Ray", "retry-after"])
VALUES = st.text(st.sampled_from("abc 1:;,=\t\x80é"), max_size=12)
HEADERS = st.lists(st.tuples(NAMES, VALUES, st.sampled_from(["", " ", "\t ", "  "])), max_size=8)


@given(
    HEADERS,
    st.sampled_from([b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", b"\r\n"]),
    st.lists(st.integers(0)),
)
def test_headers_are_what_the_parser_says_they_are(headers: Any, before: bytes, places: list[int]) -> None:
    lines = "".join(f"{name}:{space}{value}{space}\r\n" for name, value, space in headers)
    data = before + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + lines.encode("latin-1") + b"\r\n{}"
    response, _, _ = asyncio.run(ask(cut(data, places)))
    assert response.body == b"{}"
    assert dict(response.headers) == judged(data)


@pytest.mark.parametrize(
    "spelling", [b"content-encoding: gzip", b"CONTENT-ENCODING:br", b"Content-Encoding:  deflate "]
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_compressed_answer_is_refused_however_it_says_so(spelling: bytes, stream: bool) -> None:
    with pytest.raises(GarbledError, match="compressed"):
        await ask([OK.replace(b"content-length", spelling + b"\r\ncontent-length")], stream=stream)


@pytest.mark.parametrize("header", [b"content-encoding: identity", b"content-encoding:", b"x: content-encoding: gzip"])
async def test_an_answer_that_is_not_compressed_is_taken(header: bytes) -> None:
    response, _, _ = await ask([OK.replace(b"content-length", header + b"\r\ncontent-length")])
    assert response.body == b"{}"


@pytest.mark.parametrize("surplus", [b"H", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nx:", OK])
async def test_a_connection_with_bytes_behind_its_answer_serves_no_more(surplus: bytes) -> None:
    response, wire, pool = await ask([OK + surplus])
    assert response.body == b"{}"
    assert wire.aborted
    assert not pool.idle


async def test_empty_lines_behind_an_answer_are_nothing() -> None:
    _, wire, pool = await ask([OK + b"\r\n"])
    assert not wire.aborted
    assert pool.idle


async def test_a_head_just_within_the_bound_is_read_and_one_byte_more_is_not() -> None:
    fixed = len(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: ")
    for size, fits in ((HEAD_MAX_BYTES - fixed, True), (HEAD_MAX_BYTES - fixed + 1, False)):
        data = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: " + b"a" * size + b"\r\n\r\n{}"
        if fits:
            response, _, _ = await ask([data])
            assert len(response.headers["x"]) == size
        else:
            with pytest.raises(GarbledError, match="too large a head"):
                await ask([data])


async def test_trailers_are_no_headers() -> None:
    data = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nretry-after: 9\r\n\r\n"
    response, _, _ = await ask([data])
    assert dict(response.headers) == {"transfer-encoding": "chunked"}

"""A head that is known again means what it would mean if it had been judged anew."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import RefusalError
from gateway.server.guard import read_head
from gateway.server.repeated_head import HEAD_REMEMBERED_MAX_BYTES, MISSES_MAX, HeadReader

LINES = st.lists(
    st.sampled_from(
        [
            b"Host: localhost:8080",
            b"host:127.0.0.1",
            b"Content-Type: application/json",
            b"Authorization: Bearer one",
            b"authorization: Bearer two",
            b"X-Content-Length: 3",
            b"X-A: content-length: 5",
            b"x-a:",
            b"Connection: keep-alive",
            b"Connection: close",
            b"Connection: upgrade",
            b"Upgrade: websocket",
            b"Expect: 100-continue",
            b"Transfer-Encoding: chunked",
            b"Content_Length: 1",
            b" folded: 1",
        ]
    ),
    max_size=5,
)
LENGTHS = st.sampled_from(
    [
        b"Content-Length: 1",
        b"Content-Length: 22",
        b"content-length:333",
        b"CONTENT-LENGTH:\t4 ",
        b"Content-Length: 0",
        b"Content-Length: 007",
        b"Content-Length: +1",
        b"Content-Length: 1_0",
        b"Content-Length: 1 0",
        b"Content-Length: 1\r",
        b"Content-Length:",
        b"Content-Length : 1",
        b"Content-Length: \xd9\xa1",
        b"Content-Length: " + b"9" * 18,
        b"Content-Length: " + b"9" * 19,
        b"",
    ]
)


def raw(before, length, after, line=b"POST /v1/chat/completions HTTP/1.1"):
    return b"\r\n".join((line, *before, *((length,) if length else ()), *after)) + b"\r\n\r\n"


def said(head):
    """All that a head says."""
    line = head.line
    return (
        (line.method, line.path, line.raw_path, line.query),
        (head.headers, head.fields, head.host, head.content_length),
        (head.keep_alive, head.expects_continue, head.upgrades),
    )


def anew(data):
    """What judging in full says."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return None
    try:
        return said(read_head(data[:end])), end
    except RefusalError as error:
        return repr(error)


def known(reader, data):
    """What a reader says that may know the head, and remembers it as the connection does."""
    try:
        found = reader.read(data)
    except RefusalError as error:
        return repr(error)
    if found is None:
        return None
    if not found.repeated:
        reader.remember(data[: found.end], found.head)
    return said(found.head.with_length(found.content_length)), found.end


@given(LINES, LINES, st.lists(LENGTHS, min_size=2, max_size=6), st.binary(max_size=20))
def test_heads_that_differ_in_their_length_are_read_as_if_each_were_the_first(before, after, lengths, body):
    reader = HeadReader()
    for length in lengths:
        data = raw((b"Host: a", *before), length, after) + body
        assert known(reader, data) == anew(data)


@given(LINES, LENGTHS, LINES, st.data())
def test_a_head_changed_anywhere_is_read_as_if_it_were_the_first(before, length, after, data):
    """Bytes are put in, taken out and exchanged; most of the results are heads no client sends."""
    reader = HeadReader()
    first = raw((b"Host: a", *before), length, after)
    known(reader, first)
    start = data.draw(st.integers(0, len(first)))
    stop = data.draw(st.integers(start, min(len(first), start + 3)))
    piece = data.draw(
        st.sampled_from([b"", b"0", b"9", b" ", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b":", b"\0", b"_", b"x"])
    )
    changed = first[:start] + piece + first[stop:] + b"body"
    assert known(reader, changed) == anew(changed)


@settings(max_examples=20)
@given(st.integers(0, 400))
def test_part_of_a_known_head_is_no_head(size):
    reader = HeadReader()
    first = raw((b"Host: a",), b"Content-Length: 12", (b"X-A: " + b"b" * 300,))
    known(reader, first)
    assert known(reader, first[: min(size, len(first) - 1)]) is None


def test_only_a_head_that_differs_in_its_length_is_known_again():
    reader = HeadReader()
    assert reader.read(raw((b"Host: a",), b"Content-Length: 12", ())) is not None
    for length, repeated in ((b"12", False), (b"12", True), (b"345", True), (b"+3", None), (b"345", False)):
        data = raw((b"Host: a",), b"Content-Length: " + length, ())
        if repeated is None:
            with pytest.raises(RefusalError):
                reader.read(data)
            continue
        found = reader.read(data)
        head = found.head.with_length(found.content_length)
        assert (found.repeated, head.content_length, head.fields[b"content-length"]) == (repeated, int(length), length)
        assert (b"content-length", length) in head.headers
        reader.remember(data[: found.end], found.head)


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (b"Content-Length: 0", b"x: 1"),
        (b"", b"x: 1"),
        (b"Transfer-Encoding: chunked", b"x: 1"),
        (b"Content-Length: 1", b"Expect: 100-continue"),
        (b"Content-Length: 1", b"Upgrade: h2c"),
        (b"Content-Length: 1", b"X: " + b"y" * HEAD_REMEMBERED_MAX_BYTES),
        (b"Content-Length: 1 ", b"x: 1"),
    ],
)
def test_an_unusual_head_is_judged_every_time(length, header):
    reader = HeadReader()
    data = raw((b"Host: a",), length, (header,))
    for _ in range(3):
        found = reader.read(data)
        assert not found.repeated
        reader.remember(data[: found.end], found.head)


def test_what_a_request_does_to_its_headers_is_not_remembered():
    reader = HeadReader()
    data = raw((b"Host: a",), b"Content-Length: 1", ())
    for _ in range(3):
        found = reader.read(data)
        head = found.head.with_length(1)
        assert head.fields == {b"host": b"a", b"content-length": b"1"}
        reader.remember(data[: found.end], found.head)
        head.fields.clear()
        head.headers.clear()


def test_a_client_whose_heads_differ_every_time_is_not_remembered_for_ever():
    reader = HeadReader()
    for number in range(MISSES_MAX + 1):
        data = raw((b"Host: a",), b"Content-Length: 1", (b"x-id: %d" % number,))
        found = reader.read(data)
        reader.remember(data[: found.end], found.head)
    assert reader.read(data).repeated is False

"""Answers sent in one call, and requests whose head came before on the same connection."""

import asyncio
import itertools
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.server.answer_head import header_block
from gateway.server.scope import FIELDS, SEND_WHOLE

BLOCK = [(b"content-type", b"application/json"), (b"x-generation-id", b"gen-1")]
DATE = re.compile(rb"date: [^\r]*\r\n")


def ask(method=b"POST", length=5, *headers):
    body = b"h" * length
    lines = (method + b" /p HTTP/1.1", b"Host: localhost", b"Content-Length: %d" % length, *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def two_messages(_scope, receive, send):
    message = await receive()
    await send({"type": "http.response.start", "status": 201, "headers": BLOCK})
    await send({"type": "http.response.body", "body": b"%d" % len(message["body"])})


async def one_call(scope, receive, _send):
    message = await receive()
    await scope[SEND_WHOLE](201, header_block(BLOCK[:1]) + header_block(BLOCK[1:]), b"%d" % len(message["body"]))


@pytest.mark.parametrize(
    "pieces",
    [
        (ask(),),
        (ask(), ask(length=12)),
        (ask() + ask(length=7) + ask(),),
        (ask(b"POST", 5, b"Connection: close"),),
        (ask(b"HEAD", 0),),
        (ask(b"POST", 70_000),),
    ],
)
async def test_one_call_says_what_two_messages_say(listen, pieces):
    count = sum(piece.count(b"HTTP/1.1") for piece in pieces)
    until = None if pieces[0].startswith(b"HEAD") else count
    said = [await listen(app).converse(*pieces, until=until) for app in (two_messages, one_call)]
    assert said[0].statuses == [201] * count
    assert DATE.sub(b"", said[0].data) == DATE.sub(b"", said[1].data)
    assert said[0].closed == said[1].closed


async def test_an_answer_in_one_call_ends_the_connection_of_a_draining_server(listen):
    edge = listen(one_call)
    edge.state.lifecycle.draining = True
    said = await edge.converse(ask())
    assert said.statuses == [201]
    assert b"connection: close" in said.data
    assert said.closed


async def test_a_large_answer_in_one_call_waits_for_a_client_that_reads_slowly(listen):
    begun = []

    async def app(scope, receive, _send):
        await receive()
        begun.append(1)
        await scope[SEND_WHOLE](200, b"", bytes(4 << 20))

    edge = listen(app)
    reader, writer = await edge.connect()
    writer.write(ask() * 3)
    await asyncio.sleep(0.3)
    assert len(begun) <= 2  # the next one may begin, and waits with its answer
    for _ in range(3):
        await reader.readuntil(b"\r\n\r\n")
        assert len(await reader.readexactly(4 << 20)) == 4 << 20
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_is_not_sent_in_one_call(listen, status):
    async def app(scope, receive, _send):
        await receive()
        await scope[SEND_WHOLE](status, b"", b"")

    assert (await listen(app).converse(ask(), until=1)).statuses == [500]


async def test_an_answer_is_sent_once(listen):
    failures = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await scope[SEND_WHOLE](200, b"", b"second")
        except RuntimeError as error:
            failures.append(str(error))
        await send({"type": "http.response.body", "body": b"first"})
        try:
            await scope[SEND_WHOLE](200, b"", b"third")
        except RuntimeError as error:
            failures.append(str(error))

    said = await listen(app).converse(ask())
    assert said.data.endswith(b"\r\n\r\nfirst")
    assert failures == ["a whole answer is out of turn"] * 2


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"x", b"a\n"),
        (b"x", b"\0"),
        (b"x\r\ny", b"a"),
        (b"connection", b"close"),
        (b"content-length", b"1"),
        (b"date", b"now"),
        (b"transfer-encoding", b"chunked"),
    ],
)
def test_a_header_that_would_change_the_answer_is_refused(header):
    with pytest.raises(RuntimeError):
        header_block([header])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    requests=st.lists(
        st.tuples(st.sampled_from([0, 1, 5, 300]), st.sampled_from([(), (b"X-A: 1",), (b"Authorization: Bearer a",)])),
        min_size=1,
        max_size=6,
    ),
    cuts=st.lists(st.integers(0, 3000), max_size=4),
)
async def test_requests_on_one_connection_mean_what_they_mean_on_many(listen, requests, cuts):
    seen = []

    async def app(scope, receive, send):
        message = await receive()
        seen.append((scope["headers"], scope[FIELDS], message["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    texts = [ask(b"POST", length, *headers) for length, headers in requests]
    apart, together = listen(app), listen(app)
    for text in texts:
        assert (await apart.converse(text, until=1)).statuses == [200]
    whole = b"".join(texts)
    places = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    pieces = [whole[start:stop] for start, stop in itertools.pairwise(places)]
    assert (await together.converse(*pieces, until=len(texts))).statuses == [200] * len(texts)
    assert seen[: len(texts)] == seen[len(texts) :]

"""Never two answers to one request: hand-made attacks, and thousands of mutated requests judged by a second parser."""

import asyncio
import os
import random

import h11
import pytest

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
HOST = b"Host: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def length(number):
    return b"Content-Length: %d\r\n" % number


def post(headers, body=b"", line=b"POST /first HTTP/1.1\r\n"):
    return line + headers + b"\r\n" + body


ATTACKS = {
    "TE and CL, CL first": post(HOST + length(5) + CHUNKED, b"0\r\n\r\n" + SMUGGLED),
    "TE and CL, TE first": post(HOST + CHUNKED + length(5), b"0\r\n\r\n" + SMUGGLED),
    "CL and TE, body by CL": post(HOST + length(len(SMUGGLED) + 5) + CHUNKED, b"0\r\n\r\n" + SMUGGLED),
    "two CL that differ": post(HOST + length(0) + length(len(SMUGGLED)), SMUGGLED),
    "two CL that agree": post(HOST + length(0) + length(0), SMUGGLED),
    "CL list": post(HOST + b"Content-Length: 0, 0\r\n", SMUGGLED),
    "CL list that differs": post(HOST + b"Content-Length: 5, 0\r\n", SMUGGLED),
    "CL with plus": post(HOST + b"Content-Length: +0\r\n", SMUGGLED),
    "CL with minus": post(HOST + b"Content-Length: -0\r\n", SMUGGLED),
    "CL in hex": post(HOST + b"Content-Length: 0x0\r\n", SMUGGLED),
    "CL with underscore": post(HOST + b"Content-Length: 0_0\r\n", SMUGGLED),
    "CL empty": post(HOST + b"Content-Length:\r\n", SMUGGLED),
    "CL huge": post(HOST + b"Content-Length: 18446744073709551616\r\n", SMUGGLED),
    "CL with space before colon": post(HOST + b"Content-Length : 0\r\n", SMUGGLED),
    "CL with tab before colon": post(HOST + b"Content-Length\t: 0\r\n", SMUGGLED),
    "CL after obs-fold": post(HOST + b"X: a\r\n Content-Length: 0\r\n", SMUGGLED),
    "CL folded": post(HOST + b"Content-Length:\r\n 0\r\n", SMUGGLED),
    "CL by underscore name": post(HOST + b"Content_Length: 0\r\n", SMUGGLED),
    "CL behind NUL": post(HOST + b"X: a\x00Content-Length: 0\r\n", SMUGGLED),
    "CL behind bare CR": post(HOST + b"X: a\rContent-Length: 0\r\n", SMUGGLED),
    "CL behind bare LF": post(HOST + b"X: a\nContent-Length: 0\r\n", SMUGGLED),
    "TE identity then chunked": post(HOST + b"Transfer-Encoding: identity, chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "TE chunked then identity": post(HOST + b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n" + SMUGGLED),
    "TE twice": post(HOST + CHUNKED + CHUNKED, b"0\r\n\r\n" + SMUGGLED),
    "TE twice, one hidden": post(HOST + CHUNKED + b"Transfer-Encoding: x\r\n", b"0\r\n\r\n" + SMUGGLED),
    "TE xchunked": post(HOST + b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "TE with vertical tab": post(HOST + b"Transfer-Encoding:\x0bchunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "TE quoted": post(HOST + b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n" + SMUGGLED),
    "TE with space before colon": post(HOST + b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "TE by underscore name": post(HOST + b"Transfer_Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "TE folded": post(HOST + b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "TE in HTTP/1.0": post(HOST + CHUNKED, b"0\r\n\r\n" + SMUGGLED, line=b"POST /first HTTP/1.0\r\n"),
    "chunk with LF only": post(HOST + CHUNKED, b"0\n\n" + SMUGGLED),
    "chunk size in 0x": post(HOST + CHUNKED, b"0x0\r\n\r\n" + SMUGGLED),
    "chunk size negative": post(HOST + CHUNKED, b"-1\r\n\r\n" + SMUGGLED),
    "chunk size with space": post(HOST + CHUNKED, b"0 \r\n\r\n" + SMUGGLED),
    "chunk size overflowing": post(HOST + CHUNKED, b"10000000000000000\r\n\r\n" + SMUGGLED),
    "chunk size empty": post(HOST + CHUNKED, b"\r\n\r\n" + SMUGGLED),
    "chunk data too long": post(HOST + CHUNKED, b"1\r\nab\r\n0\r\n\r\n" + SMUGGLED),
    "chunk data with LF only": post(HOST + CHUNKED, b"1\r\na\n0\r\n\r\n" + SMUGGLED),
    "chunk extension with LF": post(HOST + CHUNKED, b"1;a\nb\r\na\r\n0\r\n\r\n" + SMUGGLED),
    "trailer CL": post(HOST + CHUNKED, b"1\r\na\r\n0\r\nContent-Length: 3\r\n\r\n" + SMUGGLED),
    "trailer TE": post(HOST + CHUNKED, b"1\r\na\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n" + SMUGGLED),
    "trailer with LF": post(HOST + CHUNKED, b"1\r\na\r\n0\r\nX: a\n\r\n" + SMUGGLED),
    "bare LF head": b"POST /first HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n" + SMUGGLED,
    "bare LF in one header": b"POST /first HTTP/1.1\r\nHost: localhost\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    "no Host": post(length(0), SMUGGLED),
    "two Hosts": post(HOST + HOST + length(0), SMUGGLED),
    "two Hosts that differ": post(HOST + b"Host: evil\r\n" + length(0), SMUGGLED),
    "Host with a path": post(b"Host: evil/?\r\n" + length(0), SMUGGLED),
    "Host with user": post(b"Host: a@evil\r\n" + length(0), SMUGGLED),
    "target without slash": post(HOST + length(0), SMUGGLED, line=b"GET @google.com HTTP/1.1\r\n"),
    "absolute target": post(HOST + length(0), SMUGGLED, line=b"GET http://evil/ HTTP/1.1\r\n"),
    "HTTP/0.9": b"GET /first\r\n" + SMUGGLED,
    "HTTP/0.9 with empty line": b"GET /first\r\n\r\n" + SMUGGLED,
    "HTTP/1.0": post(HOST + length(0), SMUGGLED, line=b"POST /first HTTP/1.0\r\n"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
    "two spaces": post(HOST + length(0), SMUGGLED, line=b"POST  /first HTTP/1.1\r\n"),
    "a space behind": post(HOST + length(0), SMUGGLED, line=b"POST /first HTTP/1.1 \r\n"),
    "space before the method": post(HOST + length(0), SMUGGLED, line=b" POST /first HTTP/1.1\r\n"),
    "first header with a space before": post(b" " + HOST + length(0), SMUGGLED),
    "CONNECT": post(HOST, SMUGGLED, line=b"CONNECT evil:443 HTTP/1.1\r\n"),
    "70 KiB header": post(HOST + b"X: " + b"a" * 70_000 + b"\r\n" + length(0), SMUGGLED),
    "5,000 headers": post(HOST + b"X: a\r\n" * 5000 + length(0), SMUGGLED),
    "Expect of something else": post(HOST + length(0) + b"Expect: 200-ok\r\n", SMUGGLED),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_ambiguous_request_gets_one_refusal_and_the_end_of_the_connection(listen, name):
    edge = listen()
    said = await edge.converse(ATTACKS[name], quiet_s=3)
    assert len(said.statuses) == 1
    assert 400 <= said.statuses[0] < 500 or said.statuses[0] in (501, 505)
    assert said.closed
    assert said.error["source"] == "gateway"
    assert [target for _, target, _ in edge.seen if target == b"/smuggled"] == []


@pytest.mark.parametrize("name", ATTACKS)
async def test_splitting_the_bytes_changes_nothing(listen, name):
    edge = listen()
    data = ATTACKS[name]
    middle = data.find(b"\r\n\r\n") + 3
    said = await edge.converse(data[:middle], data[middle:], quiet_s=3, pause_s=0.002)
    assert (len(said.statuses), said.closed) == (1, True)
    assert [target for _, target, _ in edge.seen if target == b"/smuggled"] == []


@pytest.mark.parametrize(
    "data",
    [
        post(HOST + length(len(SMUGGLED)), SMUGGLED),
        post(HOST + CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
        post(HOST + length(len(SMUGGLED)) + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n", SMUGGLED),
        post(HOST + length(len(SMUGGLED)) + b"Upgrade: websocket\r\nConnection: upgrade\r\n", SMUGGLED),
        post(
            HOST + CHUNKED + b"Upgrade: h2c\r\nConnection: Upgrade\r\n",
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
        ),
    ],
)
async def test_a_request_inside_a_body_stays_a_body(listen, data):
    edge = listen()
    said = await edge.converse(data, until=1)
    assert said.statuses == [200]
    assert edge.seen == [("POST", b"/first", SMUGGLED)]


async def test_what_follows_a_chunked_request_in_the_same_bytes_is_not_answered(listen):
    edge = listen()
    said = await edge.converse(post(HOST + CHUNKED, b"1\r\na\r\n0\r\n\r\n") + SMUGGLED)
    assert (said.statuses, said.closed) == ([200], True)
    assert edge.seen == [("POST", b"/first", b"a")]


async def test_a_chunked_request_may_be_followed_by_another_once_answered(listen):
    edge = listen()
    reader, writer = await edge.connect()
    for _ in range(3):
        writer.write(post(HOST + CHUNKED, b"1\r\na\r\n0\r\n\r\n"))
        assert b"ok /first" in await asyncio.wait_for(reader.readuntil(b"ok /first"), 10)
    writer.close()


# ---- mutations

SEEDS = (
    post(HOST + length(len(SMUGGLED)), SMUGGLED),
    post(HOST + CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
    post(HOST + length(3), b"abc") + b"GET /second?x=1 HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
    post(HOST + CHUNKED + b"Expect: 100-continue\r\n", b"3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n"),
    post(HOST + length(2) + b"Connection: keep-alive\r\nContent-Type: application/json\r\n", b"{}"),
)
SPICES = (
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\x00", b" ", b"\t", b"\x0b", b":", b",",
    b";", b"_", b"0", b"1", b"\xff", b"\x7f",
    b"HTTP/1.0", b"chunked", b"Content-Length: 1\r\n", CHUNKED, HOST, b"0\r\n\r\n", SMUGGLED,
)  # fmt: skip


def mutate(rng, data):
    """One request, or what is left of it, after one to three small changes."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                data = data[:at] + data[at + 1 :]
            case 1:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 2:
                data = data[:at] + rng.choice(SPICES) + data[at:]
            case 3:
                lines = data.split(b"\r\n")
                lines.insert(rng.randrange(len(lines)), rng.choice(lines))
                data = b"\r\n".join(lines)
            case 4:
                lines = data.split(b"\r\n")
                one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
                lines[one], lines[two] = lines[two], lines[one]
                data = b"\r\n".join(lines)
            case _:
                data = data[:at] + data[at + rng.randrange(12) :]
    return data


def read_by_another(data):
    """The whole requests that h11 finds, and whether it gave up on the rest."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    found = []
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append((request.method.decode(), request.target, body))
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return found, True
                connection.start_next_cycle()
            else:
                return found, event is h11.PAUSED
    except h11.RemoteProtocolError:
        return found, True


async def judge_mutants(listen, numbers, *, at_once):
    gate = asyncio.Semaphore(at_once)

    async def one(number):
        rng = random.Random(number)
        data = mutate(rng, rng.choice(SEEDS))
        async with gate:
            edge = free.pop()
            edge.seen.clear()
            said = await edge.converse(data, quiet_s=0.1)
            judge(number, data, said, list(edge.seen))
            free.append(edge)

    free = [listen(head_s=30, body_s=30) for _ in range(at_once)]
    for start in range(0, len(numbers), 1000):
        await asyncio.gather(*(one(number) for number in numbers[start : start + 1000]))


def judge(number, data, said, seen):
    """What must hold of every mutant."""
    context = (number, data, said, seen)
    assert 500 not in said.statuses, context
    answered = said.statuses.count(200)
    refused = len(said.statuses) - answered
    assert refused <= 1, context
    assert answered <= len(seen), context
    if refused:
        assert said.closed, context
        assert said.statuses[-1] != 200, context
    seen = [(method, target.removesuffix(b"?"), body) for method, target, body in seen]
    others, gave_up = read_by_another(data)
    for ours, theirs in zip(seen, others, strict=False):
        method, target, body = theirs
        assert ours == (method, target.removesuffix(b"?"), body), context
    assert len(seen) <= len(others) or gave_up, context


async def test_mutated_requests_are_never_read_in_two_ways(listen):
    await judge_mutants(listen, range(400), at_once=8)


@pytest.mark.full
@pytest.mark.skipif(not os.environ.get("MIXGATE_TEST_FULL"), reason="the full count takes minutes: MIXGATE_TEST_FULL=1")
async def test_a_hundred_thousand_mutated_requests_are_never_read_in_two_ways(listen):
    await judge_mutants(listen, range(1000, 101_000), at_once=48)

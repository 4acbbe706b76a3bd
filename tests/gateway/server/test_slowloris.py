"""Clients that take their time: cut at the limits, while everybody else is served."""

import asyncio
import os
import time

import pytest

GET = b"GET /quick HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY_HEAD = b"POST /p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
CHUNKED_HEAD = b"POST /p HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


async def hold(edge, first, drip, every_s, limit_s):
    """Keep one connection as long as it lasts. Returns how long that was, and what the server said."""
    loop = asyncio.get_running_loop()
    reader, writer = await edge.connect()
    began_s = loop.time()
    reading = asyncio.ensure_future(reader.read())
    if first:
        writer.write(first)
    while not reading.done() and loop.time() - began_s < limit_s:
        await asyncio.wait([reading], timeout=every_s)
        if drip and not reading.done():
            writer.write(drip)
    took_s = loop.time() - began_s
    said = reading.result() if reading.done() and not reading.exception() else b""
    reading.cancel()
    writer.close()
    return took_s, said


async def hold_and_serve(edge, holders, *, head_s, body_s, slack_s):
    """Hold many connections of every kind, and go on asking quick questions meanwhile."""
    kinds = (
        (b"", b"", head_s),
        (b"GET / HT", b"", head_s),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b"a", head_s),
        (BODY_HEAD, b"", body_s),
        (BODY_HEAD, b"x", body_s),
        (CHUNKED_HEAD, b"1\r\nx\r\n", body_s),
    )
    held = [
        (kind, asyncio.ensure_future(hold(edge, kind[0], kind[1], kind[2] / 8, kind[2] + slack_s)))
        for number in range(holders)
        for kind in (kinds[number % len(kinds)],)
    ]
    slowest_s, served = 0.0, 0
    while not all(task.done() for _, task in held):
        began_s = time.monotonic()
        said = await edge.converse(GET, until=1)
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        assert said.statuses == [200]
        served += 1
        await asyncio.sleep(0.02)
    return [(kind, *task.result()) for kind, task in held], served, slowest_s


def judge(results, slack_s):
    for (first, _, limit_s), took_s, said in results:
        assert limit_s * 0.95 <= took_s < limit_s + slack_s
        if first:
            assert said.startswith(b"HTTP/1.1 408 "), (first, said)
            assert b'"code":"request_timeout"' in said
        else:
            assert said == b""


async def test_held_connections_are_cut_while_others_are_served(listen):
    edge = listen(head_s=0.6, body_s=1.2, sweep_s=0.05)
    results, served, _ = await hold_and_serve(edge, 50, head_s=0.6, body_s=1.2, slack_s=8)
    judge(results, 8)
    assert served >= 5
    assert edge.state.bodies_bytes == 0


@pytest.mark.full
@pytest.mark.skipif(not os.environ.get("MIXGATE_TEST_FULL"), reason="holds for 30 s: MIXGATE_TEST_FULL=1")
async def test_a_thousand_held_connections_are_cut_at_ten_and_thirty_seconds(listen):
    edge = listen()
    results, served, slowest_s = await hold_and_serve(edge, 1000, head_s=10, body_s=30, slack_s=3)
    judge(results, 3)
    assert served >= 100
    assert slowest_s < 2


async def test_an_idle_connection_is_closed_without_a_word(listen):
    edge = listen(idle_s=0.3, sweep_s=0.05)
    said = await edge.converse(GET, quiet_s=8)
    assert (said.statuses, said.closed) == ([200], True)
    assert said.data.endswith(b"ok /quick")


async def test_the_time_for_a_later_head_runs_from_its_first_byte(listen):
    edge = listen(head_s=0.4, idle_s=30, sweep_s=0.05)
    reader, writer = await edge.connect()
    writer.write(GET)
    await asyncio.wait_for(reader.readuntil(b"ok /quick"), 10)
    await asyncio.sleep(0.8)  # longer than a head may take: an idle connection may
    writer.write(b"GET / H")
    assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_a_slow_but_steady_body_earns_its_time(listen):
    edge = listen(body_s=0.5, body_bytes_per_s=1000, sweep_s=0.05)
    reader, writer = await edge.connect()
    writer.write(b"POST /p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\r\n")
    for _ in range(8):
        writer.write(b"x" * 500)
        await asyncio.sleep(0.15)
    assert b"ok /p" in await asyncio.wait_for(reader.readuntil(b"ok /p"), 10)
    writer.close()


async def test_an_application_that_takes_its_time_is_not_the_clients_fault(listen):
    async def app(_scope, receive, send):
        await asyncio.sleep(0.7)
        body = (await receive())["body"]
        await asyncio.sleep(0.7)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % len(body)})

    edge = listen(app, head_s=0.2, body_s=0.5, idle_s=0.2, unread_max_bytes=1000, sweep_s=0.05)
    body = b"x" * 3_000_000
    said = await edge.converse(b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body, until=1)
    assert said.data.endswith(b"3000000")

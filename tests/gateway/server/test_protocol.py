"""One connection as a client sees it: bodies, bounds, pipelining, disconnects, slow readers, failing applications."""

import asyncio
import json
import socket
import struct

import pytest
from openai import OpenAI

from gateway.request_id import REQUEST_ID
from gateway.server.scope import ON_DISCONNECT

GET = b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(body, *headers):
    lines = (b"POST /p HTTP/1.1", b"Host: localhost", b"Content-Length: %d" % len(body), *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*chunks, tail=b"0\r\n\r\n", headers=b""):
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"POST /c HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n" + headers + b"\r\n" + body + tail


async def eventually(condition, limit_s=10.0):
    loop = asyncio.get_running_loop()
    end_s = loop.time() + limit_s
    while not condition():
        assert loop.time() < end_s, "it never came true"
        await asyncio.sleep(0.01)


async def test_an_answer_has_a_length_a_date_and_no_server_header(listen):
    said = await listen().converse(GET % b"a", until=1)
    head, _, body = said.data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
    assert b"content-length: 5" in head
    assert b"server:" not in head
    assert b"connection:" not in head
    assert body == b"ok /a"


@pytest.mark.parametrize("pause_s", [0.0, 0.001])
async def test_a_request_may_come_byte_by_byte(listen, pause_s):
    edge = listen()
    for request in (post(b"hello"), chunked(b"hello", b" world")):
        pieces = [request[index : index + 1] for index in range(len(request))]
        said = await edge.converse(*pieces, until=1, pause_s=pause_s)
        assert said.statuses == [200]
    assert [body for _, _, body in edge.seen] == [b"hello", b"hello world"]


async def test_a_large_body_arrives_whole(listen):
    edge = listen()
    body = bytes(range(256)) * 4096 * 4
    assert (await edge.converse(post(body), until=1)).statuses == [200]
    assert (await edge.converse(chunked(body[:1_000_000], body[1_000_000:]), until=1)).statuses == [200]
    assert [got for _, _, got in edge.seen] == [body, body]
    assert edge.state.bodies_bytes == 0


async def test_requests_on_one_connection_are_answered_in_order(listen):
    edge = listen()
    said = await edge.converse(*(GET % b"%d" % number for number in range(20)), until=20)
    assert said.statuses == [200] * 20
    assert [target for _, target, _ in edge.seen] == [b"/%d" % number for number in range(20)]
    assert not said.closed


async def test_pipelined_requests_are_answered_one_after_the_other(listen):
    running, most, order = 0, 0, []

    async def app(scope, receive, send):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await receive()
        await asyncio.sleep(0.002)
        order.append(scope["path"])
        running -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    said = await listen(app).converse(b"".join(GET % b"%d" % number for number in range(50)), until=50)
    assert said.statuses == [200] * 50
    assert order == [f"/{number}" for number in range(50)]
    assert most == 1


async def test_what_is_logged_of_a_request_never_has_the_id_of_the_one_before(listen):
    ids = []

    async def app(scope, _receive, send):
        ids.append(REQUEST_ID.get())
        REQUEST_ID.set(scope["path"])
        if len(ids) == 1:
            raise RuntimeError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    edge = listen(app)
    await edge.converse(GET % b"0", until=1)
    assert (await edge.converse(*(GET % b"%d" % number for number in (1, 2)), until=2)).statuses == [200] * 2
    assert ids == [""] * 3


async def test_what_is_kept_of_pipelined_requests_is_bounded(listen):
    release = asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    edge = listen(app, pipeline_max_bytes=4096)
    reader, writer = await edge.connect()
    count = 100_000
    flood = asyncio.ensure_future(_flood(writer, GET % b"x", count))
    await eventually(lambda: edge.state.connections and next(iter(edge.state.connections)).flow.read_paused)
    kept = len(next(iter(edge.state.connections))._pending)
    assert kept < 4096 + 300_000  # one read of the loop at most on top
    edge.loop.call_soon_threadsafe(release.set)
    got = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert got.startswith(b"HTTP/1.1 200")
    flood.cancel()
    writer.close()


async def _flood(writer, request, count):
    for _ in range(count // 100):
        writer.write(request * 100)
        await writer.drain()


async def test_a_body_announced_too_large_is_refused_at_once(listen):
    edge = listen(body_max_bytes=1000)
    said = await edge.converse(b"POST /p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n")
    assert said.statuses == [413]
    assert said.closed
    assert said.error == {
        "message": "The request body is over 1000 bytes.",
        "type": "invalid_request_error",
        "param": None,
        "code": "payload_too_large",
        "source": "gateway",
    }
    assert edge.seen == []


async def test_a_client_that_sends_all_of_a_too_large_body_still_reads_the_refusal(listen):
    edge = listen()
    body = b"x" * (21 * 1024 * 1024)
    said = await edge.converse(post(body), quiet_s=5)
    assert said.statuses == [413]
    assert said.closed


async def test_a_chunked_body_that_grows_too_large_is_refused(listen):
    edge = listen(body_max_bytes=1000)
    said = await edge.converse(chunked(b"x" * 600, b"y" * 401, tail=b""))
    assert (said.statuses, said.closed, said.error["code"]) == ([413], True, "payload_too_large")
    assert edge.seen == []


async def test_endless_chunk_framing_is_refused(listen):
    edge = listen(body_max_bytes=1000)
    said = await edge.converse(chunked(tail=b"1;" + b"a" * 200_000), quiet_s=3)
    assert (said.statuses, said.closed) == ([413], True)


async def test_all_bodies_together_are_bounded(listen):
    edge = listen(bodies_max_bytes=100_000)
    partial = b"POST /p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n"
    said = await edge.converse(partial, b"x" * 500_000, pause_s=0.05)
    assert (said.statuses, said.error["code"]) == ([503], "gateway_overloaded")
    await eventually(lambda: edge.state.bodies_bytes == 0)


async def test_too_many_connections_are_told_so(listen):
    edge = listen(connections_max=2)
    held = [await edge.connect() for _ in range(2)]
    await eventually(lambda: len(edge.state.connections) == 2)
    said = await edge.converse(quiet_s=3)
    assert (said.statuses, said.closed) == ([503], True)
    assert b"retry-after: 1\r\n" in said.data
    for _, writer in held:
        writer.close()


async def test_expect_100_continue_is_answered_when_the_application_wants_the_body(listen):
    edge = listen()
    request = post(b"hello", b"Expect: 100-continue")
    reader, writer = await edge.connect()
    writer.write(request[:-5])
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hello")
    assert (await asyncio.wait_for(reader.readuntil(b"ok /p"), 10)).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_an_application_that_refuses_early_never_invites_the_body(listen):
    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    said = await listen(app).converse(post(b"hello", b"Expect: 100-continue")[:-5])
    assert b"100 Continue" not in said.data
    assert (said.statuses, said.closed) == ([401], True)
    assert b"connection: close\r\n" in said.data


async def test_upgrades_are_ignored_and_the_body_is_not_lost(listen):
    edge = listen()
    said = await edge.converse(
        post(b"hello", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQA"),
        until=1,
    )
    assert said.statuses == [200]
    assert edge.seen == [("POST", b"/p", b"hello")]


async def test_a_client_may_ask_for_the_end_of_the_connection(listen):
    said = await listen().converse(b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET % b"b")
    assert (said.statuses, said.closed) == ([200], True)
    assert b"connection: close\r\n" in said.data


async def test_head_is_answered_without_a_body(listen):
    said = await listen().converse(b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n", quiet_s=0.3)
    assert said.statuses == [200]
    assert b"content-length: 5\r\n" in said.data
    assert said.data.endswith(b"\r\n\r\n")


async def test_a_stream_leaves_piece_by_piece_and_ends_properly(listen):
    step = asyncio.Event()

    async def app(_scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await step.wait()
        await send({"type": "http.response.body", "body": b"data: 2\n\n", "more_body": False})

    edge = listen(app)
    reader, writer = await edge.connect()
    writer.write(GET % b"s")
    first = await asyncio.wait_for(reader.readuntil(b"9\r\ndata: 1\n\n\r\n"), 10)
    assert b"transfer-encoding: chunked\r\n" in first
    edge.loop.call_soon_threadsafe(step.set)
    assert await asyncio.wait_for(reader.readexactly(19), 10) == b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"
    writer.close()


async def test_the_disconnect_hook_fires_and_a_waiting_receive_returns(listen):
    events = []

    async def app(scope, receive, _send):
        scope[ON_DISCONNECT](lambda: events.append("hook"))
        events.append((await receive())["type"])
        events.append((await receive())["type"])

    edge = listen(app)
    _, writer = await edge.connect()
    writer.write(post(b"hello"))
    await eventually(lambda: events == ["http.request"])
    writer.close()
    await eventually(lambda: len(events) == 3)
    assert events == ["http.request", "hook", "http.disconnect"]


async def test_the_disconnect_hook_fires_on_a_reset_in_the_middle_of_a_stream(listen):
    events = []
    gone = asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        scope[ON_DISCONNECT](lambda: (events.append("hook"), gone.set()))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await gone.wait()
        await send({"type": "http.response.body", "body": b"y", "more_body": True})
        events.append("sent into the void")

    edge = listen(app)
    reader, writer = await edge.connect()
    writer.write(GET % b"a")
    await reader.readuntil(b"x")
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await eventually(lambda: len(events) == 2)
    assert events == ["hook", "sent into the void"]


async def test_a_hook_is_not_called_for_a_complete_answer(listen):
    events = []

    async def app(scope, receive, send):
        await receive()
        scope[ON_DISCONNECT](lambda: events.append("hook"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    edge = listen(app)
    await edge.converse(GET % b"a", until=1)
    await eventually(lambda: not edge.state.connections)
    assert events == []


async def test_a_slow_reader_holds_the_application_back_and_is_cut_when_it_stops(listen):
    sent, ended = [], []

    async def app(scope, receive, send):
        await receive()
        scope[ON_DISCONNECT](lambda: ended.append(True))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not ended:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            sent.append(65536)

    edge = listen(app, write_stall_s=0.4, sweep_s=0.05)
    _, writer = await edge.connect()
    writer.transport.pause_reading()
    writer.write(GET % b"a")
    await eventually(lambda: bool(ended))
    assert sum(sent) < 32 * 1024 * 1024
    writer.transport.abort()


async def test_a_reader_that_is_only_slow_is_not_cut(listen):
    body = b"x" * 8_000_000

    async def app(_scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": body})

    edge = listen(app, write_stall_s=0.6, linger_s=0.2, sweep_s=0.05)
    reader, writer = await edge.connect()
    writer.write(GET % b"a")
    got = 0
    while data := await asyncio.wait_for(reader.read(300_000), 10):
        got += len(data)
        await asyncio.sleep(0.02)
    assert got > len(body)
    writer.close()


@pytest.mark.parametrize("fault", ["raises", "says nothing", "returns early", "bad header", "wrong length"])
async def test_a_failing_application_is_an_error_and_never_a_success(listen, fault, caplog):
    async def app(_scope, receive, send):
        await receive()
        if fault == "raises":
            raise KeyError("secret detail")
        if fault == "says nothing":
            return
        headers = {"bad header": [(b"x", b"a\r\nset-cookie: b")], "wrong length": [(b"content-length", b"3")]}
        await send({"type": "http.response.start", "status": 200, "headers": headers.get(fault, [])})
        await send({"type": "http.response.body", "body": b"part", "more_body": fault == "returns early"})

    said = await listen(app).converse(GET % b"a", quiet_s=3)
    assert said.closed
    assert b"set-cookie" not in said.data
    if fault == "returns early":
        assert b"part" in said.data
        assert not said.data.endswith(b"0\r\n\r\n")
    else:
        assert said.statuses == [500]
        assert said.error["code"] == "internal_error"
        assert b"secret detail" not in said.data
    assert caplog.records


async def test_an_error_of_ours_ends_the_connection_and_drops_what_follows(listen):
    edge = listen()
    said = await edge.converse(b"GET /a HTTP/1.0\r\nHost: a\r\n\r\n" + GET % b"b")
    assert (said.statuses, said.closed) == ([505], True)
    assert edge.seen == []


async def test_an_exchange_leaves_no_garbage_behind(listen):
    edge = listen()
    await edge.converse(*(post(b"x" * 100) for _ in range(5)), until=5)
    await eventually(lambda: not edge.state.connections)
    assert not edge.state.tasks
    assert edge.state.bodies_bytes == 0


async def test_the_openai_client_reads_a_refusal_of_this_layer(listen):
    edge = listen(body_max_bytes=100)
    client = OpenAI(base_url=f"http://127.0.0.1:{edge.port}/v1", api_key="k", max_retries=0)

    def ask():
        try:
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x" * 200}])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at below
            return error
        return None

    error = await asyncio.to_thread(ask)
    client.close()
    assert error.status_code == 413
    assert error.code == "payload_too_large"
    assert json.loads(error.response.text)["error"]["source"] == "gateway"

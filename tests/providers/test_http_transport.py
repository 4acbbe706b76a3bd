import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from providers.base import WireRequest
from providers.errors import ConnectError, GarbledError, ProviderError, TruncatedError
from providers.http_connection import BODY_MAX_BYTES
from providers.http_transport import HEADS_MAX, HttpTransport

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[str]:
    """A raw TCP server: full control over every byte and over when the connection ends."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}/v1/chat"
    finally:
        listening.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return head, await reader.readexactly(length)


def answers(*parts: bytes, close: bool = False, times: int = 100) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(times):
            await read_request(reader)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            if close:
                return

    return serve


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


async def fetch(transport: HttpTransport, url: str, *, stream: bool = False, body: bytes = b"{}") -> tuple[int, bytes]:
    response = await transport.send(WireRequest(url=url, body=body, stream=stream), connect_timeout_s=2)
    if not stream:
        assert response.body is not None
        return response.status, response.body
    parts = []
    while data := await response.read():
        parts.append(data)
    return response.status, b"".join(parts)


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    made = HttpTransport()
    yield made
    await made.aclose()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "wire",
    [
        OK,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
async def test_a_body_is_the_same_however_its_bytes_are_split(transport, wire, stream):
    for size in (1, 2, 3, 7, 64, len(wire)):
        parts = [wire[at : at + size] for at in range(0, len(wire), size)]
        async with server(answers(*parts)) as url:
            assert await fetch(transport, url, stream=stream) == (200, b"{}")


async def test_a_complete_answer_gives_its_connection_back(transport):
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answers(OK)(reader, writer)

    async with server(serve) as url:
        for _ in range(5):
            assert await fetch(transport, url) == (200, b"{}")
        assert await fetch(transport, url, stream=True) == (200, b"{}")
    assert connections == 1


async def test_a_body_that_ends_with_its_connection_is_complete(transport):
    async with server(answers(b"HTTP/1.1 200 OK\r\n\r\n{", b"}", close=True)) as url:
        assert await fetch(transport, url) == (200, b"{}")
        assert await fetch(transport, url, stream=True) == (200, b"{}")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 200",
    ],
)
async def test_a_cut_answer_is_truncated_never_complete(transport, wire, stream):
    async with server(answers(wire, close=True)) as url:
        with pytest.raises(TruncatedError):
            await fetch(transport, url, stream=stream)


async def test_bytes_before_a_cut_are_delivered_before_the_error(transport):
    wire = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"
    async with server(answers(wire, close=True)) as url:
        response = await transport.send(WireRequest(url=url, body=b"", stream=True), connect_timeout_s=2)
        assert await response.read() == b"abc"
        with pytest.raises(TruncatedError):
            await response.read()


async def test_a_reset_of_a_reused_connection_is_sent_once_more(transport):
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await read_request(reader)
        served += 1
        writer.write(OK)
        await writer.drain()
        await reader.read(1)  # the next request's first byte: hang up without a word

    async with server(serve) as url:
        assert await fetch(transport, url) == (200, b"{}")
        assert await fetch(transport, url) == (200, b"{}")
    assert served == 2


async def test_a_reset_of_a_fresh_connection_is_a_connect_error(transport):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)

    async with server(serve) as url:
        with pytest.raises(ConnectError):
            await fetch(transport, url)


async def test_nothing_listening_is_a_connect_error(transport):
    async with server(answers(OK)) as url:
        pass
    with pytest.raises(ConnectError):
        await fetch(transport, url)


@pytest.mark.parametrize(
    "wire",
    [
        b"<html>hello</html>" * 10,
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 40_000 + b"\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(9000)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_not_the_http_we_know_is_garbled(transport, wire):
    async with server(answers(wire, close=True)) as url:
        with pytest.raises(GarbledError):
            await fetch(transport, url)


async def test_an_endless_body_is_cut_at_the_limit(transport):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        sent = 0
        while sent < BODY_MAX_BYTES * 4:
            writer.write(b"x" * 1_000_000)
            await writer.drain()
            sent += 1_000_000

    async with server(serve) as url:
        with pytest.raises(GarbledError, match="size limit"):
            await fetch(transport, url)


async def test_bytes_after_an_answer_never_reach_the_next_one(transport):
    async with server(answers(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")) as url:
        for _ in range(3):
            with contextlib.suppress(ProviderError):  # refusing the connection is fine, too
                assert await fetch(transport, url) == (200, b"{}")


async def test_a_cancelled_exchange_drops_its_connection(transport):
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()
        gone.set()

    async with server(serve) as url:
        task = asyncio.create_task(fetch(transport, url))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(gone.wait(), 5)


async def test_an_unread_stream_makes_the_provider_wait(transport):
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with server(serve) as url:
        response = await transport.send(WireRequest(url=url, body=b"", stream=True), connect_timeout_s=2)
        await asyncio.sleep(0.3)
        before = sent
        await asyncio.sleep(0.2)
        assert sent == before  # socket buffers and our bound are full
        assert await response.read()
        response.close()


async def test_an_understood_answer_keeps_its_connection_when_the_rest_comes_soon(transport):
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ndone\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.write(b"0\r\n\r\n")

    async with server(serve) as url:
        for _ in range(3):
            response = await transport.send(WireRequest(url=url, body=b"", stream=True), connect_timeout_s=2)
            assert await response.read() == b"done"
            response.close(ended=True)
            await asyncio.sleep(0.15)
    assert connections == 1


def test_a_line_break_in_a_header_is_refused():
    async def send() -> None:
        await HttpTransport().send(
            WireRequest(url="http://127.0.0.1:9/", body=b"", headers={"x": "a\r\nevil: 1"}), connect_timeout_s=1
        )

    with pytest.raises(ValueError, match="line break"):
        asyncio.run(send())


async def test_a_connection_whose_last_burst_stopped_the_reading_serves_again():
    body = b"a" * 2_000_000
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    async with server(answers(answer)) as url:
        transport = HttpTransport()
        for _ in range(5):
            async with asyncio.timeout(10):
                response = await transport.send(WireRequest(url=url, body=b"{}", stream=True), connect_timeout_s=5)
                read = 0
                while data := await response.read():
                    read += len(data)
                    await asyncio.sleep(0.02)  # more than is let in unread comes meanwhile
                assert read == len(body)
        await transport.aclose()


@pytest.mark.parametrize(
    "lead", [b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: "]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_header_that_never_ends_is_cut_off(lead, stream):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(lead)
        while True:
            writer.write(b"a" * 4096)
            await writer.drain()

    async with server(serve) as url:
        transport = HttpTransport()

        async def read() -> None:
            response = await transport.send(WireRequest(url=url, body=b"{}", stream=stream), connect_timeout_s=5)
            while await response.read():
                pass

        with pytest.raises(GarbledError):
            await asyncio.wait_for(read(), 10)
        await transport.aclose()


async def test_requests_of_many_senders_to_one_url_each_have_their_own_headers(transport):
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            heads.append(head)
            writer.write(OK)

    async with server(serve) as url:
        senders = [{"x-sender": str(number)} for number in range(HEADS_MAX + 3)]
        for sender in (*senders, *senders[:2], {"x-sender": "new"}, *senders[:2]):
            response = await transport.send(WireRequest(url=url, body=b"{}", headers=sender), connect_timeout_s=2)
            assert response.status == 200
            assert f"x-sender: {sender['x-sender']}\r\n".encode() in heads[-1]
            assert heads[-1].count(b"x-sender") == 1

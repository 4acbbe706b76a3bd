"""The gateway's side of a worker's socket: frames are passed on one in a turn of the event loop."""

import asyncio

import msgspec
import pytest

from local_backend.client import WorkerLink, fingerprint
from local_backend.errors import WorkerCrashedError
from local_backend.frames import Kind, Refusal, WorkerSpec, encode_frame

SPEC = WorkerSpec(name="demo", path="x", demo_path="x", slots=8, context_tokens=256, queue=1)
GONE = WorkerCrashedError("gone", retry_after_s=1.0)


class Wire:
    """The transport: keeps what is written."""

    def __init__(self):
        self.written = []
        self.closed = False

    def write(self, data):
        self.written.append(data)

    def close(self):
        self.closed = True


async def asked(count):
    """A link with so many requests under way, and the tasks that wait for their answers' heads."""
    link = WorkerLink(SPEC)
    link.connection_made(Wire())
    tasks = [asyncio.create_task(link.send(b"{}", whole=False, waited_s=0.0)) for _ in range(count)]
    await asyncio.sleep(0)
    return link, tasks


async def test_other_work_of_the_loop_comes_between_two_streams_frames():
    link, tasks = await asked(8)
    link.data_received(b"".join(encode_frame(Kind.LINES, number, b'{"t":"text"}\n') for number in range(1, 9)))
    heads_after_turns = []
    for _ in range(9):
        heads_after_turns.append(sum(exchange.response is not None for exchange in link._exchanges.values()))
        await asyncio.sleep(0)
    assert heads_after_turns == [1, 2, 3, 4, 5, 6, 7, 8, 8]
    assert [await (await task).read() for task in tasks] == [b'{"t":"text"}\n'] * 8


async def test_frames_that_come_meanwhile_wait_their_turn():
    link, tasks = await asked(2)
    link.data_received(encode_frame(Kind.LINES, 1, b"a") + encode_frame(Kind.LINES, 2, b"b"))
    link.data_received(encode_frame(Kind.LINES, 1, b"c") + encode_frame(Kind.LAST, 1, b"d"))
    first, second = [await task for task in tasks]
    await asyncio.sleep(0.01)
    assert (await first.read(), await first.read(), await second.read()) == (b"acd", b"", b"b")


async def test_what_was_said_before_the_end_is_heard_before_the_error():
    link, tasks = await asked(3)
    link.data_received(b"".join(encode_frame(Kind.LINES, number, b'{"t":"text"}\n') for number in (1, 2, 3)))
    link.connection_lost(None)
    link.fail(GONE)
    for task in tasks:
        lines = (await (await task).read()).splitlines()
        assert [msgspec.json.decode(line)["t"] for line in lines] == ["text", "error"]


async def test_nonsense_hangs_up():
    link, tasks = await asked(1)
    wire = link._transport
    link.data_received(b"\xff" * 64)
    assert wire.closed
    link.fail(GONE)
    assert (await tasks[0]).status == GONE.status


async def test_nonsense_among_the_last_words_does_not_hide_that_the_worker_is_gone():
    link, tasks = await asked(1)
    link.data_received(encode_frame(Kind.LINES, 1, b"a") + encode_frame(Kind.READY, 0, b"no JSON"))
    link.connection_lost(None)
    assert link.lost.done()
    assert link.verdict.result() is None
    link.fail(GONE)
    assert (await (await tasks[0]).read()).startswith(b"a")


@pytest.mark.parametrize("payload", [b"no JSON", b'{"status": "many"}', b""])
async def test_a_refusal_that_cannot_be_read_does_not_leave_its_request_without_an_answer(payload):
    link, tasks = await asked(2)
    wire, answered = link._transport, []
    link.answered = answered.append
    link.data_received(encode_frame(Kind.HEAD_ERROR, 1, payload))
    assert wire.closed
    link.connection_lost(None)
    assert link.busy == 2
    assert link.fail(GONE) == [fingerprint(b"{}")] * 2
    async with asyncio.timeout(1):
        assert [(await task).status for task in tasks] == [GONE.status] * 2
    assert answered == []


async def test_figures_that_cannot_be_read_do_not_leave_who_asked_for_them_waiting():
    link, _ = await asked(0)
    task = asyncio.create_task(link.stats())
    await asyncio.sleep(0)
    link.data_received(encode_frame(Kind.STATS, 1, b"no JSON"))
    link.connection_lost(None)
    link.fail(GONE)
    with pytest.raises(WorkerCrashedError):
        async with asyncio.timeout(1):
            await task


async def test_a_refusal_that_can_be_read_ends_its_request_alone():
    link, tasks = await asked(2)
    refusal = Refusal(status=503, code="local_queue_full", message="full", retry_after_s=2.5)
    link.data_received(encode_frame(Kind.HEAD_ERROR, 1, msgspec.json.encode(refusal)))
    response = await tasks[0]
    assert (response.status, response.headers["retry-after"], link.busy) == (503, "3", 1)
    assert not tasks[1].done()
    tasks[1].cancel()

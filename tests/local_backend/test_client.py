"""The gateway's side of a worker's socket: frames are passed on one in a turn of the event loop."""

import asyncio

import msgspec

from local_backend.client import WorkerLink
from local_backend.errors import WorkerCrashedError
from local_backend.frames import Kind, WorkerSpec, encode_frame

SPEC = WorkerSpec(name="demo", path="x", demo_path="x", slots=8, context_tokens=256, queue=1)


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
    link.fail(WorkerCrashedError("gone", retry_after_s=1.0))
    for task in tasks:
        lines = (await (await task).read()).splitlines()
        assert [msgspec.json.decode(line)["t"] for line in lines] == ["text", "error"]


async def test_nonsense_hangs_up():
    link, tasks = await asked(1)
    wire = link._transport
    link.data_received(b"\xff" * 64)
    assert wire.closed
    link.fail(WorkerCrashedError("gone", retry_after_s=1.0))
    assert (await tasks[0]).status == WorkerCrashedError("gone", retry_after_s=1.0).status


async def test_nonsense_among_the_last_words_does_not_hide_that_the_worker_is_gone():
    link, tasks = await asked(1)
    link.data_received(encode_frame(Kind.LINES, 1, b"a") + encode_frame(Kind.READY, 0, b"no JSON"))
    link.connection_lost(None)
    assert link.lost.done()
    assert link.verdict.result() is None
    link.fail(WorkerCrashedError("gone", retry_after_s=1.0))
    assert (await (await tasks[0]).read()).startswith(b"a")

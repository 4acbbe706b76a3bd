"""What a model that keeps crashing says to who asks for it. Workers die at once here, and the clock stands still."""

import asyncio
from types import SimpleNamespace

import pytest

from local_backend import backend as backend_module
from local_backend import restarts, supervisor
from local_backend.backend import LocalBackend, LocalModelSpec
from local_backend.client import WorkerLink
from local_backend.errors import NotReadyError, WorkerCrashedError
from local_backend.frames import Refusal, WorkerFacts, WorkerSpec
from local_backend.restarts import CIRCUIT_CRASHES, CIRCUIT_OPEN_S
from local_backend.supervisor import REFUSAL_STANDS_S, Supervisor

SPEC = WorkerSpec(name="demo", path="x", demo_path="x", slots=8, context_tokens=256, queue=1)
REFUSAL = Refusal(status=503, code="local_not_ready", message="no model")


@pytest.fixture
def clock(monkeypatch):
    """The supervisor's; the event loop has its own."""
    clock = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


@pytest.fixture
def lives(monkeypatch):
    """How each worker ends, which it does at once: None is a crash. Grows with every start."""
    lives = SimpleNamespace(end=None, count=0)

    async def live_once(_):
        lives.count += 1
        return lives.end

    monkeypatch.setattr(Supervisor, "_live_once", live_once)
    monkeypatch.setattr(restarts, "BACK_OFFS_S", (0.0,))
    return lives


async def refused_with(demo, kind):
    """The error that a request gets."""
    with pytest.raises(kind) as caught:
        await demo.send(b"{}", whole=True, deadline_s=None)
    return caught.value


async def test_who_asks_a_model_that_keeps_crashing_is_told_when_it_starts_again(clock, lives):
    demo = Supervisor(SPEC)
    for passed_s, left_s in ((0.0, CIRCUIT_OPEN_S), (20.0, CIRCUIT_OPEN_S - 20.0), (CIRCUIT_OPEN_S - 0.1, 1.0)):
        clock.now_s = 1000.0 + passed_s
        error = await refused_with(demo, WorkerCrashedError)
        assert error.retry_after_s == pytest.approx(left_s)
        assert (demo.state, demo.can_serve, lives.count) == ("crashed", True, CIRCUIT_CRASHES)
    await demo.stop()


async def test_a_model_whose_circuit_is_open_is_not_shown_as_one_that_cannot_serve(lives, clock, tmp_path, monkeypatch):
    monkeypatch.setattr(backend_module, "missing_package", lambda: None)
    backend = LocalBackend([LocalModelSpec(name="demo", file="bundled")], tmp_path)
    await backend.start()
    with pytest.raises(WorkerCrashedError):
        await backend.wait_ready("demo")
    status = backend.models()[0]
    assert (status.state, status.can_serve, lives.count) == ("crashed", True, CIRCUIT_CRASHES)
    assert f"next start in {CIRCUIT_OPEN_S:.0f} s" in status.reason
    await backend.aclose()


async def test_a_model_that_was_refused_is_no_use_to_anybody_until_its_file_is_looked_at_again(clock, lives):
    lives.end = REFUSAL
    demo = Supervisor(SPEC)
    error = await refused_with(demo, NotReadyError)
    assert error.retry_after_s == pytest.approx(REFUSAL_STANDS_S)
    clock.now_s += REFUSAL_STANDS_S - 0.1
    assert (demo.state, demo.can_serve) == ("refused", False)
    await refused_with(demo, NotReadyError)
    assert lives.count == 1
    clock.now_s += 0.1
    assert demo.can_serve
    await refused_with(demo, NotReadyError)
    assert lives.count == 2
    await demo.stop()


FACTS = WorkerFacts(
    pid=1,
    size_bytes=1,
    context_tokens=256,
    slots=8,
    threads=1,
    vocabulary_tokens=9,
    load_s=0.1,
    big=False,
    description="",
)


class SlowToGo:
    """A worker's process that has hung up and is not gone yet."""

    pid = 1
    stderr = None
    returncode = None

    def __init__(self):
        self.gone = asyncio.Event()

    async def wait(self):
        await self.gone.wait()
        self.returncode = -11

    def kill(self):
        self.gone.set()


@pytest.fixture
def workers(monkeypatch):
    """Processes and links, as they are made; all models load at once."""
    made = []

    async def spawn(demo):
        demo._process = SlowToGo()
        link = WorkerLink(demo.spec)
        link.verdict.set_result(FACTS)
        made.append((demo._process, link))
        return link

    monkeypatch.setattr(Supervisor, "_spawn", spawn)
    monkeypatch.setattr(supervisor, "EXIT_WORDS_WAIT_S", 60.0)
    monkeypatch.setattr(supervisor, "STOP_WAIT_S", 0.0)
    monkeypatch.setattr(restarts, "BACK_OFFS_S", (0.0,))
    return made


async def test_who_asks_while_a_dead_worker_is_buried_waits_for_the_next_one(workers):
    demo = Supervisor(SPEC)
    await demo.wait_ready(1.0)
    (process, link), asked = workers[0], []
    link.connection_lost(None)
    for _ in range(5):
        await asyncio.sleep(0)
        asked.append(asyncio.create_task(demo.wait_ready(5.0)))
    await asyncio.sleep(0)
    assert (demo.state, [task.done() for task in asked]) == ("starting", [False] * 5)
    process.gone.set()
    async with asyncio.timeout(5.0):
        assert {await task for task in asked[1:]} == {workers[1][1]}
    await demo.stop()


async def test_what_was_running_ends_although_the_gateway_stops_while_its_worker_is_buried(workers):
    demo = Supervisor(SPEC)
    link = await demo.wait_ready(1.0)
    link._transport = SimpleNamespace(write=lambda _: None, close=lambda: None)
    running = asyncio.create_task(link.send(b"{}", whole=False, waited_s=0.0))
    await asyncio.sleep(0)
    link.connection_lost(None)
    await asyncio.sleep(0)
    await demo.stop()
    async with asyncio.timeout(5.0):
        assert (await running).status == WorkerCrashedError("gone").status

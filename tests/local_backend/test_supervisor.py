"""What a model that keeps crashing says to who asks for it. Workers die at once here, and the clock stands still."""

from types import SimpleNamespace

import pytest

from local_backend import backend as backend_module
from local_backend import restarts, supervisor
from local_backend.backend import LocalBackend, LocalModelSpec
from local_backend.errors import NotReadyError, WorkerCrashedError
from local_backend.frames import Refusal, WorkerSpec
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

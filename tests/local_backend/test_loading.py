"""What happens before a model answers: files judged, memory counted, one big model at a time."""

import asyncio
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from local_backend import backend as backend_module
from local_backend.backend import LocalBackend, LocalModelSpec, file_size
from local_backend.demo_model import DEMO_FILE
from local_backend.errors import NotReadyError
from local_backend.frames import WorkerSpec
from local_backend.loading import _lock, load, physical_cores
from tests.local_backend.conftest import Asker, read_all


@pytest.fixture
def models(tmp_path):
    """A models folder with two copies of the bundled model."""
    if not DEMO_FILE.exists():
        pytest.skip("the bundled model is not in this tree")
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("one.gguf", "two.gguf"):
        shutil.copy(DEMO_FILE, folder / name)
    return folder


async def refused(backend, name):
    response = await backend.send(Asker(backend, name).request("Hi"), connect_timeout_s=1)
    answer = await read_all(response)
    return answer.status, answer.error["code"], backend.models()[0].reason


def test_a_context_that_does_not_fit_into_memory_is_refused_with_numbers(models):
    spec = WorkerSpec(
        name="one", path=str(models / "one.gguf"), demo_path="", slots=100_000_000, context_tokens=32768, queue=16
    )
    started = time.perf_counter()
    with pytest.raises(NotReadyError, match="GB of memory"):
        load(spec)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("cut", [0, 7, 5000, 200_000])
@pytest.mark.usefixtures("engine")
async def test_a_damaged_file_is_refused_in_words(models, tmp_path, cut):
    damaged = models / "one.gguf"
    with damaged.open("r+b") as file:
        file.truncate(cut)
    backend = LocalBackend([LocalModelSpec(name="one", file="one.gguf", load="boot")], tmp_path)
    await backend.start()
    status, code, reason = await refused(backend, "one")
    assert (status, code) == (503, "local_not_ready")
    assert backend.models()[0].state == "refused"
    assert len(reason) > 20
    await backend.aclose()


@pytest.mark.usefixtures("engine")
async def test_of_two_big_models_the_idle_one_makes_room(models, tmp_path, monkeypatch):
    monkeypatch.setattr(backend_module, "BIG_MIN_BYTES", 1_000_000)
    specs = [
        LocalModelSpec(name=name, file=f"{name}.gguf", load="boot", context_tokens=1024) for name in ("one", "two")
    ]
    backend = LocalBackend(specs, tmp_path)
    await backend.start()
    one, two = Asker(backend, "one"), Asker(backend, "two")
    await backend.wait_ready("one")
    assert [status.state for status in backend.models()] == ["ready", "off"]
    assert (await two.ask("Hello", temperature=0)).status == 200
    assert [status.state for status in backend.models()] == ["off", "ready"]
    response = await two.open("Hello", json_schema={"type": "array", "minItems": 900, "items": {"type": "string"}})
    answer = await one.ask("Hello")
    assert (answer.status, answer.error["code"]) == (503, "local_not_ready")
    assert answer.headers["retry-after"]
    response.close()
    assert (await one.ask("Hello", temperature=0)).status == 200
    await backend.aclose()


def test_a_big_model_waits_for_nobody_who_holds_the_lock(tmp_path):
    path = tmp_path / "big-model.lock"
    held = os.open(path, os.O_CREAT | os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(NotReadyError, match="one at a time"):
        _lock(str(path))
    os.close(held)
    _lock(str(path))


def test_cores_are_counted():
    assert 1 <= physical_cores() <= (os.cpu_count() or 1)


async def test_the_worker_runs_behind_the_gateway_and_leaves_no_core_dumps(run):
    async with run() as demo:
        await demo.backend.wait_ready("demo")
        pid = demo.backend.worker_pid("demo")
        limits = subprocess.run(["cat", f"/proc/{pid}/limits"], capture_output=True, text=True, check=True).stdout  # noqa: ASYNC221
        assert os.getpriority(os.PRIO_PROCESS, pid) >= 5
    core = next(line for line in limits.splitlines() if "core file" in line)
    assert core.split()[4:6] == ["0", "0"]


def test_a_worker_without_a_gateway_ends_by_itself():
    ours, theirs = socket.socketpair()
    not_its_parent = "1"
    command = [sys.executable, "-m", "local_backend.worker", str(theirs.fileno()), not_its_parent]
    with ours, theirs:
        assert subprocess.run(command, pass_fds=(theirs.fileno(),), timeout=20, check=False).returncode == 0


@pytest.mark.usefixtures("engine")
async def test_a_file_pulled_while_the_gateway_runs_is_taken_up(models, tmp_path, monkeypatch):
    monkeypatch.setattr(backend_module, "FILE_WATCH_S", 0.01)
    backend = LocalBackend([LocalModelSpec(name="late", file="late.gguf", load="boot")], tmp_path)
    await backend.start()
    assert backend.models()[0].state == "off"
    (models / "one.gguf").rename(models / "late.gguf")
    for _ in range(500):
        if backend.models()[0].state != "off":
            break
        await asyncio.sleep(0.01)
    assert (await Asker(backend, "late").ask("Hello", temperature=0)).status == 200
    await backend.aclose()


def test_the_size_of_a_split_model_is_that_of_all_its_parts(tmp_path):
    for part in (1, 2, 3):
        (tmp_path / f"m[x]-0000{part}-of-00003.gguf").write_bytes(b"x" * part)
    assert file_size(tmp_path / "m[x]-00001-of-00003.gguf") == 6
    assert file_size(tmp_path / "m[x]-00003-of-00003.gguf") == 3
    assert file_size(tmp_path / "nothing.gguf") is None


@pytest.mark.usefixtures("engine")
async def test_a_home_that_cannot_be_written_is_no_reason_not_to_answer(tmp_path):
    (tmp_path / "file").write_text("in the way")
    backend = LocalBackend([LocalModelSpec(name="demo", file="bundled", load="boot")], tmp_path / "file" / "home")
    await backend.start()
    assert (await Asker(backend, "demo").ask("Hello", temperature=0)).status == 200
    await backend.aclose()

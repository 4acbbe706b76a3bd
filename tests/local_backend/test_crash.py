"""A worker that dies takes nothing with it: its streams end with an error, and the next request is served."""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from local_backend.errors import LocalError


async def read_lines(response):
    """All lines, and when the last one came."""
    data = b""
    while piece := await response.read():
        data += piece
    return [json.loads(line) for line in data.splitlines()], time.perf_counter()


async def turned(condition, limit_s=5.0):
    """Whether a condition comes true in time."""
    for _ in range(int(limit_s / 0.01)):
        if condition():
            return True
        await asyncio.sleep(0.01)
    return False


def is_gone(pid):
    """Whether a process ended, collected by its parent or not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def environment_of(pid):
    return Path(f"/proc/{pid}/environ").read_bytes()


async def streams(demo, count, endless):
    responses = await asyncio.gather(*(demo.open(f"Fill {number}", **endless) for number in range(count)))
    assert {response.status for response in responses} == {200}
    return responses


async def test_a_segfault_during_eight_streams_ends_each_with_an_error_and_the_next_request_is_served(run, endless):
    async with run(slots=8) as demo:
        await demo.backend.wait_ready("demo")
        readers = [asyncio.create_task(read_lines(response)) for response in await streams(demo, 8, endless)]
        killed_at = time.perf_counter()
        os.kill(demo.backend.worker_pid("demo"), signal.SIGSEGV)
        for lines, ended_at in await asyncio.gather(*readers):
            assert lines[-1]["t"] == "error"
            assert (lines[-1]["status"], lines[-1]["code"]) == (503, "local_worker_crashed")
            assert "segmentation fault" in lines[-1]["message"]
            assert ended_at - killed_at < 1.0
        assert (await demo.ask("Hello", temperature=0)).status == 200
        assert time.perf_counter() - killed_at < 5.0
        assert demo.backend.models()[0].state == "ready"


async def test_a_whole_answer_and_a_waiting_one_become_a_503_with_a_time_to_come_back(run, endless):
    async with run(slots=1) as demo:
        await demo.backend.wait_ready("demo")
        tasks = [asyncio.create_task(demo.ask("Fill", **endless, stream=False)) for _ in range(3)]
        await demo.settled(lambda stats: (stats.running, stats.waiting) == (1, 2))
        os.kill(demo.backend.worker_pid("demo"), signal.SIGKILL)
        for answer in await asyncio.gather(*tasks):
            assert (answer.status, answer.error["code"]) == (503, "local_worker_crashed")
            assert "memory" in answer.error["message"]
            assert int(answer.headers["retry-after"]) >= 1


async def test_a_request_that_ran_at_two_crashes_is_not_tried_again_but_others_are(run, endless):
    async with run(slots=4) as demo:
        await demo.backend.wait_ready("demo")
        for _ in range(2):
            response = await demo.open("poison", **endless)
            os.kill(demo.backend.worker_pid("demo"), signal.SIGSEGV)
            await read_lines(response)
        refused = await demo.ask("poison", **endless)
        assert (refused.status, refused.error["code"]) == (400, "invalid_request")
        assert "crashed" in refused.error["message"]
        assert (await demo.ask("Hello")).status == 200


async def test_three_crashes_in_a_minute_open_the_circuit_and_say_why(run, endless):
    async with run() as demo:
        for number in range(3):
            await demo.backend.wait_ready("demo")
            response = await demo.open(f"poison {number}", **endless)
            os.kill(demo.backend.worker_pid("demo"), signal.SIGILL)
            await read_lines(response)
        assert await turned(lambda: demo.backend.models()[0].state == "crashed")
        started = time.perf_counter()
        answer = await demo.ask("Hello")
        assert (answer.status, answer.error["code"]) == (503, "local_worker_crashed")
        assert 1 <= int(answer.headers["retry-after"]) <= 31
        assert time.perf_counter() - started < 1
        assert "another processor" in demo.backend.models()[0].reason
        with pytest.raises(LocalError):
            await demo.backend.wait_ready("demo")


async def test_a_worker_that_is_only_stopped_and_told_to_go_is_not_left_behind(run):
    async with run() as demo:
        await demo.backend.wait_ready("demo")
        pid = demo.backend.worker_pid("demo")
        os.kill(pid, signal.SIGTERM)  # for the gateway to decide, not the worker
        assert (await demo.ask("Hello")).status == 200
        assert demo.backend.worker_pid("demo") == pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_closing_ends_running_answers_with_an_error(run, endless):
    async with run() as demo:
        await demo.backend.wait_ready("demo")
        reader = asyncio.create_task(read_lines((await streams(demo, 1, endless))[0]))
        await demo.backend.aclose()
        lines, _ = await reader
        assert lines[-1]["t"] == "error"


async def test_the_worker_dies_with_a_gateway_that_is_killed(run, tmp_path):
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from local_backend.backend import LocalBackend, LocalModelSpec\n"
        "async def main():\n"
        "    backend = LocalBackend([LocalModelSpec(name='demo', file='bundled', load='boot')], Path(sys.argv[1]))\n"
        "    await backend.start()\n"
        "    await backend.wait_ready('demo')\n"
        "    print(backend.worker_pid('demo'), flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    pid = int(await gateway.stdout.readline())
    gateway.kill()
    await gateway.wait()
    assert await turned(lambda: is_gone(pid))


async def test_the_worker_knows_nothing_of_the_gateways_keys(run, monkeypatch):
    monkeypatch.setenv("SOME_PROVIDER_API_KEY", "sk-secret")
    async with run() as demo:
        await demo.backend.wait_ready("demo")
        content = environment_of(demo.backend.worker_pid("demo"))
    assert b"sk-secret" not in content
    assert b"GGML_NO_BACKTRACE=1" in content
    assert b"OMP_WAIT_POLICY=passive" in content

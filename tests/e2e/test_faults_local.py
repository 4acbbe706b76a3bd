"""The model on this machine is killed, hangs or is full: somebody else answers, or a 503 says when to come back."""

import asyncio
import contextlib
import os
import signal
import time
from contextlib import asynccontextmanager

import pytest

from gateway import attempts
from gateway.health.breaker import FAILURES_MAX
from local_backend import restarts
from local_backend.errors import WorkerCrashedError
from local_backend.restarts import CIRCUIT_OPEN_S
from local_backend.supervisor import Supervisor
from tests.fakes.duo import PREFILLING
from tests.fakes.engine import needs_engine
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.listener import FULL, listen
from tests.fakes.scripted import STORY, TEXT, chunk, scripted, streams, tells

pytestmark = needs_engine
ASK = chat("Tell me a story.", stream=True, max_tokens=300, temperature=1, stream_options={"include_usage": True})
ASK["model"] = "demo"
LOCAL = """
providers:
  local:
    dialect: local
    models:
      tiny:
        file: bundled
        serves: demo
        slots: {slots}
        load: boot
        context_tokens: 2048
        capabilities: [system, prefill]
"""
REMOTE = """
  remote:
    dialect: openai
    base_url: {url}
    models:
      up:
        context_tokens: 32768
        price: {{input: 1, output: 2}}
        capabilities: [{capabilities}]
routes:
  demo: {{policy: ordered, endpoints: [local/tiny], fallback: [remote/up]}}
"""
BACK_S = 10.0


@asynccontextmanager
async def local_gateway(folder, remote=None, *, slots=1):
    config = LOCAL.format(slots=slots)
    if remote is not None:
        config += REMOTE.format(url=remote.base_url, capabilities=", ".join(PREFILLING))
    async with running_gateway(config, folder) as running:
        await running.gateway._local.wait_ready("tiny")
        yield running


def worker(running):
    return running.gateway._local.worker_pid("tiny")


def kill(pid):
    """Kill it if it is there; whether it was."""
    with contextlib.suppress(ProcessLookupError):
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            return True
    return False


async def back_within(running, limit_s):
    """Until the local model answers again."""
    until_s = time.monotonic() + limit_s
    while True:
        told = await listen(running.client, {**ASK, "max_tokens": 5})
        if told.complete and told.chunks[0]["provider"] == "local":
            return
        assert time.monotonic() < until_s, told.body
        await asyncio.sleep(0.2)


async def test_a_worker_that_is_killed_is_stood_in_for_and_comes_back(tmp_path):
    async with scripted(tells()) as remote, local_gateway(tmp_path, remote) as running:
        os.kill(worker(running), signal.SIGKILL)
        told = await listen(running.client, ASK)
        assert told.complete, told.body or told.payloads[-2:]
        if told.chunks[0]["provider"] == "remote":
            assert told.text == TEXT
        await back_within(running, BACK_S)


async def test_without_anybody_else_a_killed_worker_is_a_503_with_a_time(tmp_path):
    async with local_gateway(tmp_path) as running:
        for _ in range(3):
            kill(worker(running))
            told = await listen(running.client, {**ASK, "max_tokens": 5})
            if told.body:
                assert told.status == 503
                assert 1 <= int(told.headers["retry-after"]) <= 60
            else:
                assert told.complete  # it was loaded again in time
            await asyncio.sleep(0.3)


async def test_while_a_model_that_kept_crashing_rests_it_stays_in_the_plan_and_its_503_has_a_time(
    tmp_path, monkeypatch
):
    async def crashes_at_once(_):
        return None

    monkeypatch.setattr(Supervisor, "_live_once", crashes_at_once)
    monkeypatch.setattr(restarts, "BACK_OFFS_S", (0.0,))
    async with running_gateway(LOCAL.format(slots=1), tmp_path) as running:
        with pytest.raises(WorkerCrashedError):
            await running.gateway._local.wait_ready("tiny")
        assert running.gateway._local.models()[0].state == "crashed"
        for _ in range(FAILURES_MAX + 2):  # so that its Breaker opens meanwhile
            decided = (await running.client.post("/v1/route/explain", json=ASK)).json()
            assert (decided["would_ask"], decided["excluded"]) == (["local/tiny"], [])
            told = await listen(running.client, ASK)
            assert told.status == 503, told.body
            assert 1 <= int(told.headers["retry-after"]) <= CIRCUIT_OPEN_S
            assert told.headers["x-should-retry"] == "true"


async def test_an_answer_whose_worker_is_killed_goes_on_elsewhere_or_says_that_it_broke_off(tmp_path):
    more = [chunk({"content": " And more."}), chunk({}, "stop"), b"data: [DONE]\n\n"]
    async with scripted(streams(*more)) as remote, local_gateway(tmp_path, remote) as running:
        pid = worker(running)
        telling = asyncio.ensure_future(listen(running.client, {**ASK, "max_tokens": 1500}))
        await asyncio.sleep(0.15)
        os.kill(pid, signal.SIGKILL)
        told = await telling
        assert told.complete, told.payloads[-3:]
        if remote.calls:  # else it was through before the blow
            said = remote.calls[0].body["messages"][-1]
            assert told.text.endswith(" And more.")
            if said["role"] == "assistant":
                assert told.text == said["content"] + " And more."
                assert told.notes["rescued"]["cut"] == "local/tiny"


async def test_a_worker_that_hangs_is_left_and_is_back_once_it_moves_again(tmp_path, monkeypatch):
    limit_s = 30.0 if FULL else 1.0
    monkeypatch.setattr(attempts, "LOCAL_FIRST_TOKEN_MIN_S", limit_s)
    async with scripted(tells()) as remote, local_gateway(tmp_path, remote) as running:
        pid = worker(running)
        os.kill(pid, signal.SIGSTOP)
        try:
            told = await listen(running.client, ASK)
            assert told.complete
            assert told.text == TEXT
            assert told.usage["completion_tokens"] == len(STORY)
            assert limit_s - 0.05 <= told.elapsed_s <= limit_s + 3.0
        finally:
            os.kill(pid, signal.SIGCONT)
        await back_within(running, BACK_S)


async def test_what_the_queue_does_not_take_goes_elsewhere(tmp_path):
    count = 60
    async with scripted(tells()) as remote, local_gateway(tmp_path, remote) as running:
        answers = await asyncio.gather(*(listen(running.client, ASK) for _ in range(count)))
        assert all(told.complete for told in answers), [told.body for told in answers if told.body][:1]
        at_home = [told for told in answers if told.chunks[0]["provider"] == "local"]
        away = [told for told in answers if told.chunks[0]["provider"] == "remote"]
        assert {told.text for told in away} == {TEXT}
        assert len(at_home) >= 17  # one slot and sixteen places in the queue
        assert len(away) >= count - 2 * 17
        assert len(at_home) + len(away) == count


async def test_without_anybody_else_a_full_queue_is_a_503_with_a_time(tmp_path):
    count = 60
    async with local_gateway(tmp_path) as running:
        answers = await asyncio.gather(*(listen(running.client, ASK) for _ in range(count)))
        refused = [told for told in answers if told.body]
        assert sum(told.complete for told in answers) >= 17
        assert refused
        for told in refused:
            assert told.status == 503, told.body
            assert 1 <= int(told.headers["retry-after"]) <= 60
            assert told.headers["x-should-retry"] == "true"
        assert (await listen(running.client, {**ASK, "max_tokens": 3})).complete


async def test_many_crashes_in_a_row_leave_the_model_off_for_a_while_and_others_answer(tmp_path):
    async with scripted(tells()) as remote, local_gateway(tmp_path, remote) as running:
        until_s = time.monotonic() + 15
        crashes = 0
        while crashes < 3 and time.monotonic() < until_s:
            if running.gateway._local.models()[0].state == "ready":
                crashes += kill(worker(running))
            told = await listen(running.client, {**ASK, "max_tokens": 5})
            assert told.complete, told.body or told.payloads[-2:]
        told = await listen(running.client, ASK)
        assert told.complete
        assert told.text == TEXT

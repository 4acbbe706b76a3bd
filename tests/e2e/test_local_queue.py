"""The queue of the model on this machine, seen from outside: callers take turns, policies see how full it is, and a
worker that loads, runs out of memory or talks nonsense is stood in for."""

import asyncio
import json
import os
import signal
import time
from contextlib import asynccontextmanager

import pytest

from gateway import attempts
from local_backend import supervisor
from local_backend.backend import QUEUE_MAX
from tests.fakes.engine import needs_engine
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.listener import FULL, listen
from tests.fakes.scripted import TEXT, scripted, tells

pytestmark = needs_engine
KEYS = {"NOISY": "client-key-of-somebody-noisy", "QUIET": "client-key-of-somebody-quiet"}
LOCAL = """
providers:
  local:
    dialect: local
    models:
      tiny:
        file: bundled
        serves: demo
        slots: 1
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
        capabilities: [system, prefill]
routes:
  demo: {{policy: {policy}, local: by_policy, endpoints: [local/tiny, remote/up]}}
"""
LONG = {**chat("Tell me a story.", stream=True, max_tokens=1500, temperature=1), "model": "demo"}
SHORT = {**LONG, "max_tokens": 5}
BACK_S = 10.0


@asynccontextmanager
async def local_gateway(folder, remote=None, *, policy="ordered", keys=False, ready=True):
    config = "gateway: {client_keys: [env:NOISY, env:QUIET]}\n" * keys + LOCAL
    if remote is not None:
        config += REMOTE.format(url=remote.base_url, policy=policy)
    async with running_gateway(config, folder, KEYS) as running:
        if ready:
            await running.gateway._local.wait_ready("tiny")
        yield running


def by(who):
    return {"authorization": f"Bearer {KEYS[who]}"}


def status_of(running):
    return running.gateway._local.models()[0]


def seen_of(running):
    running.gateway._fleet_now()
    return running.gateway.health.observe("local/tiny", asyncio.get_running_loop().time())


async def until(check, limit_s=10.0):
    until_s = time.monotonic() + limit_s
    while not check():
        assert time.monotonic() < until_s
        await asyncio.sleep(0.005)


async def back_within(running, limit_s):
    until_s = time.monotonic() + limit_s
    while True:
        told = await listen(running.client, SHORT)
        if told.complete and told.chunks[0]["provider"] == "local":
            return
        assert time.monotonic() < until_s, told.body
        await asyncio.sleep(0.2)


async def test_a_noisy_key_fills_the_queue_and_another_is_served_all_the_same(tmp_path):
    async with local_gateway(tmp_path, keys=True) as running:
        noise = [asyncio.ensure_future(listen(running.client, LONG, **by("NOISY"))) for _ in range(40)]
        await until(lambda: status_of(running).waiting == QUEUE_MAX)
        for _ in range(3):
            told = await listen(running.client, SHORT, **by("QUIET"))
            assert told.complete, told.body
        assert sum(not one.done() for one in noise) >= QUEUE_MAX // 2  # they came before, and still wait
        answers = await asyncio.gather(*noise)
        assert sum(told.complete for told in answers) >= QUEUE_MAX // 2
        refused = [told for told in answers if told.body]
        assert refused
        for told in refused:
            assert (told.status, told.error["provider_code"]) == (503, "local_queue_full"), told.body
            assert 1 <= int(told.headers["retry-after"]) <= 60
            assert told.headers["x-should-retry"] == "true"
        assert seen_of(running).standing == "healthy"  # it did nothing wrong


async def test_what_the_worker_is_told_of_a_caller_is_not_its_key(tmp_path, monkeypatch):
    told = []
    real = supervisor.Supervisor.send

    async def send(self, body, **members):
        told.append((members["caller"], body))
        return await real(self, body, **members)

    monkeypatch.setattr(supervisor.Supervisor, "send", send)
    async with local_gateway(tmp_path, keys=True) as running:
        for who in KEYS:
            assert (await listen(running.client, SHORT, **by(who))).complete
    names = {name for name, _ in told}
    assert len(names) == 2
    for name, body in told:
        assert not any(key in name or key.encode() in body for key in KEYS.values())
        assert name.encode() not in body


async def test_policies_see_how_full_the_local_queue_is(tmp_path):
    async with scripted(tells()) as remote, local_gateway(tmp_path, remote, policy="least_busy") as running:
        assert (seen_of(running).in_flight, seen_of(running).cap) == (0, 1 + QUEUE_MAX)
        # Asked from elsewhere than by way of this gateway's attempts: only the worker itself knows of it.
        body = json.dumps({"messages": LONG["messages"], "max_tokens": 1500}).encode()
        link = await running.gateway._local._supervisor("tiny").wait_ready(0)
        pid = running.gateway._local.worker_pid("tiny")
        os.kill(pid, signal.SIGSTOP)
        try:
            others = [asyncio.ensure_future(link.send(body, whole=True, waited_s=0.0)) for _ in range(9)]
            await until(lambda: status_of(running).running + status_of(running).waiting == 9)
            await until(lambda: seen_of(running).in_flight == 9)
            told = await listen(running.client, SHORT)
            assert told.chunks[0]["provider"] == "remote"
        finally:
            os.kill(pid, signal.SIGCONT)
        assert {answer.status for answer in await asyncio.gather(*others)} == {200}
        await until(lambda: seen_of(running).in_flight == 0)


async def test_policies_see_that_a_model_must_be_loaded_first(tmp_path):
    async with scripted(tells()) as remote:
        async with local_gateway(tmp_path, remote, policy="latency", ready=False) as running:
            assert seen_of(running).ttft_s == status_of(running).start_s > 0.1
            await running.gateway._local.wait_ready("tiny")
            await until(lambda: seen_of(running).ttft_s is None)


async def stopped_while_loading(running):
    """The worker's process, held while it loads."""
    local = running.gateway._local
    await until(lambda: local.worker_pid("tiny") is not None)
    pid = local.worker_pid("tiny")
    os.kill(pid, signal.SIGSTOP)
    return pid


@pytest.mark.parametrize("spill", [True, False])
async def test_while_it_loads_somebody_else_answers_or_a_503_says_when_to_come_back(tmp_path, monkeypatch, spill):
    limit_s = 30.0 if FULL else 1.0
    monkeypatch.setattr(supervisor, "BOOT_WAIT_MAX_S", limit_s)
    async with scripted(tells()) as remote:
        async with local_gateway(tmp_path, remote if spill else None, ready=False) as running:
            pid = await stopped_while_loading(running)
            if status_of(running).state == "ready":
                os.kill(pid, signal.SIGCONT)
                pytest.skip("it was loaded before it could be held")
            try:
                told = await listen(running.client, SHORT)
                assert told.elapsed_s <= 2 * limit_s + 15.0
                if spill:
                    assert told.text == TEXT
                else:
                    assert (told.status, told.error["provider_code"]) == (503, "local_not_ready")
                    assert 1 <= int(told.headers["retry-after"]) <= 60
            finally:
                os.kill(pid, signal.SIGCONT)
            await back_within(running, BACK_S + (10.0 if spill else 0.0))


@pytest.mark.parametrize("how", [signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV], ids=lambda one: one.name)
@pytest.mark.parametrize("spill", [True, False])
async def test_a_worker_that_runs_out_of_memory_or_faults_is_stood_in_for_and_comes_back(tmp_path, how, spill):
    """What an allocation that failed, a file that shrank and a bug in native code look like from outside."""
    async with scripted(tells()) as remote, local_gateway(tmp_path, remote if spill else None) as running:
        os.kill(running.gateway._local.worker_pid("tiny"), how)
        told = await listen(running.client, SHORT)
        if told.body:
            assert not spill
            assert told.status == 503
            assert 1 <= int(told.headers["retry-after"]) <= 60
        else:
            assert told.complete
        await back_within(running, BACK_S)


async def test_a_worker_that_talks_nonsense_is_left_and_started_again(tmp_path):
    async with scripted(tells()) as remote, local_gateway(tmp_path, remote) as running:
        link = await running.gateway._local._supervisor("tiny").wait_ready(0)
        before = running.gateway._local.worker_pid("tiny")
        asking = asyncio.ensure_future(listen(running.client, LONG))
        await until(lambda: link.busy > 0)
        link.data_received(b"\xff" * 64)
        told = await asking
        assert told.complete or told.error is not None
        await back_within(running, BACK_S)
        assert running.gateway._local.worker_pid("tiny") != before


async def test_a_worker_that_hangs_with_nobody_else_to_ask_is_an_error_in_time(tmp_path, monkeypatch):
    limit_s = 30.0 if FULL else 1.0
    monkeypatch.setattr(attempts, "LOCAL_FIRST_TOKEN_MIN_S", limit_s)
    async with local_gateway(tmp_path) as running:
        pid = running.gateway._local.worker_pid("tiny")
        os.kill(pid, signal.SIGSTOP)
        try:
            told = await listen(running.client, SHORT)
            assert told.status == 504
            assert told.headers["x-should-retry"] == "true"
            assert told.elapsed_s <= 2 * limit_s + 10.0
        finally:
            os.kill(pid, signal.SIGCONT)
        await back_within(running, BACK_S)


async def test_a_slot_that_is_smaller_than_configured_is_decided_by_as_it_is(tmp_path):
    """The demonstration model bears less than this configuration says."""
    async with scripted(tells()) as remote:
        config = LOCAL.replace("2048", "40000")
        config += REMOTE.format(url=remote.base_url, policy="ordered").replace("32768", "200000")
        async with running_gateway(config, tmp_path) as running:
            await running.gateway._local.wait_ready("tiny")
            bears = status_of(running).context_tokens
            assert bears < 36_000
            await asyncio.sleep(0.3)
            endpoint = running.gateway._fleet_now().catalogue.endpoints["local/tiny"]
            assert endpoint.context_tokens == bears
            assert running.gateway._fleet_now().catalogue is running.gateway._fleet_now().catalogue
            told = await listen(running.client, {**LONG, "max_tokens": 36_000})
            assert told.text == TEXT
            assert told.attempts == 1  # the local one was not even asked
            assert (await listen(running.client, SHORT)).chunks[0]["provider"] == "local"

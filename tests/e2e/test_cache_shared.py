"""What gateways of one fleet keep for one another in Redis: answers, and those of calls that may be sent again."""

import asyncio
import signal
import sqlite3

import pytest

from gateway.state.cache_rows import read_cache_rows
from gateway.state.connection import FILE_NAME
from tests.e2e.test_cache import COST_NUSD, ON, PATH, THREE, status, told
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.process import served
from tests.fakes.provider import fake_provider, says
from tests.fakes.workers import workers
from tests.gateway.sharing.redis_kit import redis_server

KEY = "a-client-key-of-this-test"
BEARER = {"authorization": f"Bearer {KEY}"}
NAMED = BEARER | {"idempotency-key": "once"}
SHARED = "gateway: {client_keys: [env:KEY], redis: {url: env:REDIS}}\n"


async def test_another_gateway_gives_the_answer_again_and_one_without_redis_asks(tmp_path):
    async with fake_provider(says(THREE)) as provider, redis_server(tmp_path) as redis:
        env = {"KEY": KEY, "REDIS": redis.url}
        answers, named = [], []
        for name in ("one", "two", "three"):
            (tmp_path / name).mkdir()
            async with running_gateway(SHARED + openai_config(provider.base_url), tmp_path / name, env) as on:
                if name == "three":
                    await redis.kill()
                    await until(lambda on=on: not on.gateway.store.status().up)
                else:
                    on.gateway.store._begin_answers()  # which the first to look for one does else
                    on.gateway.store.answers._wait_max_s = 10  # a busy machine is no slow Redis
                    await until(lambda on=on: on.gateway.store.status().up and on.gateway.store._answers_lane.up)
                answers.append(await on.client.post(PATH, json=chat(), headers=ON | BEARER))
                named.append(await on.client.post(PATH, json=chat("else"), headers=NAMED))
                if name == "one":
                    await until_kept(redis, 2)
    assert [answer.status_code for answer in (*answers, *named)] == [200] * 6
    assert list(map(status, answers)) == ["MISS", "HIT", "MISS"]
    assert all(told(answer)[0] == {0: THREE} for answer in answers)
    assert named[0].content == named[1].content != named[2].content
    assert [answer.headers.get("idempotent-replayed") for answer in named] == [None, "true", None]
    assert len(provider.requests) == 4


async def until_kept(redis, count):
    """What is told to Redis is told behind the answer."""
    async with asyncio.timeout(20):
        while await redis.say("KEYS", "*x:*") != b"*%d\r\n" % count:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.02)


async def until(true):
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)


@pytest.mark.full
async def test_workers_of_one_gateway_give_one_another_s_answers_again_and_count_that(tmp_path):
    path = tmp_path / "providers.yaml"
    async with fake_provider(says(THREE)) as provider:
        path.write_text(openai_config(provider.base_url))
        async with served(path, "--workers", "2") as (running, client):
            once = {"connection": "close"}  # so that each comes to whichever worker is next
            answers = [await client.post(PATH, json=chat(), headers=ON | once) for _ in range(12)]
            named = [
                await client.post(PATH, json=chat("else"), headers=once | {"idempotency-key": "once"})
                for _ in range(12)
            ]
            pids = workers(running)
            running.process.send_signal(signal.SIGTERM)
            assert await running.exit_code(60) == 0, running.errors
        connection = sqlite3.connect(tmp_path / "home" / FILE_NAME)
        rows = read_cache_rows(connection, 0, 10**9)
        connection.close()
    assert len(pids) == 2
    assert list(map(status, answers)) == ["MISS"] + ["HIT"] * 11
    assert len({one.content for one in named}) == 1
    assert len(provider.requests) == 2
    assert [(row.hits, row.saved_in_nusd) for row in rows] == [(11, 11 * COST_NUSD)]

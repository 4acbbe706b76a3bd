"""What gateways of one fleet keep for one another in Redis: answers, and those of calls that may be sent again."""

import asyncio

from tests.e2e.test_cache import ON, PATH, THREE, status, told
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.provider import fake_provider, says
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
                    await until(lambda on=on: on.gateway.store.status().up and on.gateway.store._answers_lane.up)
                answers.append(await on.client.post(PATH, json=chat(), headers=ON | BEARER))
                named.append(await on.client.post(PATH, json=chat("else"), headers=NAMED))
                await asyncio.sleep(0.05)  # what is told to Redis is told behind the answer
    assert [answer.status_code for answer in (*answers, *named)] == [200] * 6
    assert list(map(status, answers)) == ["MISS", "HIT", "MISS"]
    assert all(told(answer)[0] == {0: THREE} for answer in answers)
    assert named[0].content == named[1].content != named[2].content
    assert [answer.headers.get("idempotent-replayed") for answer in named] == [None, "true", None]
    assert len(provider.requests) == 4


async def until(true):
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)

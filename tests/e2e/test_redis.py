"""Several gateways in processes of their own, one Redis, and a budget that nobody overspends; one of them is killed."""

import asyncio
import json
import os
import random
import shutil
import subprocess
from contextlib import AsyncExitStack

import httpx

from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.process import MIXGATE, served
from tests.fakes.provider import fake_provider, says
from tests.gateway.sharing.redis_kit import redis_server

FULL = bool(os.environ.get("MIXGATE_TEST_FULL"))
PROCESSES = 4 if FULL else 2
CLIENTS = 500 if FULL else 8
LIMIT_USD = 1.0 if FULL else 0.03
KILL_AT = 0.3
TOTAL_S, EXTRA_S = (30, 5) if FULL else (8, 3)
ADMIN, OTHER = "canary-admin-token-78", "canary-client-key-0079"
FINAL = "insufficient_quota"
PAUSES = random.Random(5)


def configured(provider, replica):
    redis = f"redis: {{url: env:REDIS_URL, replica: {replica}, lease_extra_s: {EXTRA_S}}}"
    settings = f"admin_token: env:ADMIN, in_flight_max: 1000, in_flight_per_key_max: 1000, {redis}"
    config = openai_config(provider.base_url, rescue=False)
    config = config.replace("{policy:", f"{{timeouts: {{total_timeout_s: {TOTAL_S}}}, policy:")
    return f"gateway: {{{settings}}}\n{config}"


async def slowly_as_long_as_asked(request, seen):
    """Answers with as many words as it may, so at the cost that was reserved for the answer."""
    await asyncio.sleep(PAUSES.uniform(0.02, 0.1))
    return await says(" ".join(["word"] * seen.body["max_tokens"]))(request, seen)


def make_homes(folder):
    """One home with a key, and copies of it: the gateways share what is secret, and no file."""
    env = {"PATH": os.environ["PATH"], "MIXGATE_HOME": str(folder / "g0" / "home")}
    (folder / "g0").mkdir()
    made = subprocess.run(
        [MIXGATE, "keys", "create", "app", "--ever", f"{LIMIT_USD}", "--json"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    for number in range(1, PROCESSES):
        shutil.copytree(folder / "g0", folder / f"g{number}")
    return json.loads(made.stdout)["key"]


class Fleet:
    """The gateways that live, and what became of the requests of all clients."""

    def __init__(self, key, processes):
        self.key, self.alive = key, list(processes)
        self.codes = {}

    async def ask(self, http, url):
        headers = {"authorization": f"Bearer {self.key}"}
        answer = await http.post(f"{url}/v1/chat/completions", json=chat(max_tokens=100), headers=headers)
        code = "ok" if answer.status_code == 200 else answer.json()["error"]["code"]
        self.codes[code] = self.codes.get(code, 0) + 1
        assert answer.status_code in {200, 429} or answer.status_code >= 500, (
            answer.text
        )  # all of this is one busy machine
        return code

    async def spend_all(self, http, number):
        """Repeat until finally refused, wherever somebody answers."""
        while True:
            running = self.alive[number % len(self.alive)]
            try:
                code = await self.ask(http, running.url)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            if code == FINAL:
                return
            if code != "ok":
                await asyncio.sleep(PAUSES.uniform(0.05, 0.4 if FULL else 0.1))


async def reserved(http, url):
    keys = (await http.get(f"{url}/api/v1/keys", headers={"authorization": f"Bearer {ADMIN}"})).json()["data"]
    return keys[0]["mixgate"]["reserved"]


async def test_processes_that_share_a_redis_cannot_overspend_one_budget_though_one_is_killed(tmp_path):
    async with redis_server(tmp_path) as redis, fake_provider(slowly_as_long_as_asked) as provider:
        key = make_homes(tmp_path)
        env = {"REDIS_URL": redis.url, "ADMIN": ADMIN}
        async with AsyncExitStack() as stack:
            configs = [tmp_path / f"g{number}" / "providers.yaml" for number in range(PROCESSES)]
            for number, config in enumerate(configs):
                config.write_text(configured(provider, f"g{number}"))
            starting = (stack.enter_async_context(served(config, env=env)) for config in configs)
            processes = [running for running, _ in await asyncio.gather(*starting)]
            limits = httpx.Limits(max_connections=CLIENTS)
            http = await stack.enter_async_context(httpx.AsyncClient(timeout=30, trust_env=False, limits=limits))
            fleet = Fleet(key, processes)

            async def kill_one():
                while provider.billed_pusd < KILL_AT * LIMIT_USD * 10**12:  # noqa: ASYNC110 (nobody tells)
                    await asyncio.sleep(0.005)
                fleet.alive.remove(processes[-1])
                processes[-1].process.kill()

            await asyncio.gather(kill_one(), *(fleet.spend_all(http, number) for number in range(CLIENTS)))
            assert provider.billed_pusd <= LIMIT_USD * 10**12
            # What the killed one had sent counts at its worst until it is back and says what it came to.
            again = await stack.enter_async_context(served(configs[-1], env=env))
            fleet.alive = [again[0]]
            await asyncio.gather(*(fleet.spend_all(http, number) for number in range(4)))
            async with asyncio.timeout(20):  # until each has heard of the other
                while [await reserved(http, one.url) for one in (processes[0], again[0])] != ["0"] * 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        billed_usd = provider.billed_pusd / 10**12
    assert 0.95 * LIMIT_USD <= billed_usd <= LIMIT_USD, fleet.codes


async def test_without_redis_a_gateway_answers_all_but_keys_with_a_budget_and_these_when_it_is_back(tmp_path):
    async with redis_server(tmp_path) as redis, fake_provider(says("fine")) as provider:
        config = configured(provider, "alone").replace("redis:", "client_keys: [env:OTHER], redis:")
        env = {"REDIS_URL": redis.url, "ADMIN": ADMIN, "OTHER": OTHER}
        async with running_gateway(config, tmp_path, env) as running:

            async def ask(key):
                headers = {"authorization": f"Bearer {key}"}
                return await running.client.post("/v1/chat/completions", json=chat(max_tokens=20), headers=headers)

            async def until(status):
                async with asyncio.timeout(20):
                    while (answer := await ask(rich)).status_code != status:  # noqa: ASYNC110 (nobody tells)
                        await asyncio.sleep(0.02)
                return answer

            made = [
                await running.client.post("/api/v1/keys", json=wish, headers={"authorization": f"Bearer {ADMIN}"})
                for wish in ({"name": "rich", "limit": 0.01}, {"name": "free"})
            ]
            rich, free = (one.json()["key"] for one in made)
            await until(200)
            await redis.kill()
            refused = await until(503)  # once its spare is spent
            assert refused.json()["error"]["code"] == "keys_unavailable"
            assert refused.headers["retry-after"] == "1"
            assert "127.0.0.1" not in refused.text
            for _ in range(5):
                assert [(await ask(key)).status_code for key in (free, OTHER)] == [200, 200]
            await redis.start()
            await until(200)
            own = await running.client.get("/api/v1/key", headers={"authorization": f"Bearer {rich}"})
            assert 0 < own.json()["data"]["usage"] * 10**12 < provider.billed_pusd

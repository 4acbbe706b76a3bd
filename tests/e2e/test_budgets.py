"""What issued keys may spend, ask and use, over HTTP; the fake provider's own bill is the oracle."""

import asyncio
import os
import random
from contextlib import suppress

import httpx
import pytest
from aiohttp import web

from gateway.admission import IN_FLIGHT_MAX
from gateway.state.connection import FILE_NAME
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.process import served
from tests.fakes.provider import completion, fails, fake_provider, says, stream_chunks, streams, usage_of
from tests.fakes.workers import children, end, until, until_back, workers
from tests.gateway.ledger.ledger_kit import rows_of

ADMIN = "canary-admin-token-77"
KEYS = "/api/v1/keys"
FULL = bool(os.environ.get("MIXGATE_TEST_FULL"))
CLIENTS = 500 if FULL else 60


def bearer(text):
    return {"authorization": f"Bearer {text}"}


def configured(*urls, more=""):
    settings = f"admin_token: env:ADMIN, in_flight_max: {IN_FLIGHT_MAX}, in_flight_per_key_max: 1000"
    return f"gateway: {{{settings}}}\n{openai_config(*urls, rescue=False)}{more}"


async def issue(running, name="app", **wishes):
    made = await running.client.post(KEYS, json={"name": name, **wishes}, headers=bearer(ADMIN))
    assert made.status_code == 201, made.text
    return made.json()["key"], made.json()["data"]


async def ask(running, key, **members):
    return await running.client.post("/v1/chat/completions", json=chat(**members), headers=bearer(key))


async def spent_of(running, key):
    return (await running.client.get("/api/v1/key", headers=bearer(key))).json()["data"]["usage"]


async def as_long_as_asked(request, seen):
    """Answers with as many words as it may, so at the cost that was reserved for the answer."""
    return await says(" ".join(["word"] * seen.body["max_tokens"]))(request, seen)


async def test_many_clients_cannot_overspend_one_budget_and_nearly_all_of_it_is_usable(tmp_path):
    # An answer costs 7 + 2 x 100 micro-USD and may be 100 tokens long: 0.000207 USD.
    limit_usd = 1.0 if FULL else 0.05
    async with fake_provider(as_long_as_asked) as provider:
        async with running_gateway(configured(provider.base_url), tmp_path, {"ADMIN": ADMIN}) as running:
            key, _ = await issue(running, limit=limit_usd)

            async def client():
                while True:
                    answer = await ask(running, key, max_tokens=100)
                    if answer.status_code == 200:
                        continue
                    code = answer.json()["error"]["code"]
                    assert (answer.status_code, code) in {(429, "insufficient_quota"), (429, "budget_reserved")}
                    if code == "insufficient_quota":
                        assert answer.headers["x-should-retry"] == "false"
                        return
                    await asyncio.sleep(0.02)

            await asyncio.gather(*(client() for _ in range(CLIENTS)))
            reported = await spent_of(running, key)
        billed_usd = provider.billed_pusd / 10**12
    assert billed_usd <= limit_usd
    assert billed_usd >= 0.95 * limit_usd
    assert reported == pytest.approx(billed_usd, abs=1e-9)


async def test_what_is_left_shortens_the_answer_and_says_so(tmp_path):
    async with fake_provider(says("short")) as provider:
        async with running_gateway(configured(provider.base_url), tmp_path, {"ADMIN": ADMIN}) as running:
            key, _ = await issue(running, limit=0.0005)
            answer = await ask(running, key, max_tokens=5000)
            assert answer.status_code == 200, answer.text
            clamped = int(answer.headers["x-mixgate-max-tokens-clamped"])
            assert 16 <= clamped < 250
            assert provider.requests[0].body["max_tokens"] == clamped


async def test_when_the_money_is_spent_a_free_endpoint_still_answers(tmp_path):
    async with fake_provider(says("dear " * 50)) as dear, fake_provider(says("free")) as free:
        config = configured(dear.base_url, free.base_url).replace(
            "price: {input: 1, output: 2}", "price: {input: 1000, output: 2000}", 1
        )
        head, tail = config.split("  p1:")
        config = head + "  p1:" + tail.replace("price: {input: 1, output: 2}", "price: {input: 0, output: 0}")
        async with running_gateway(config, tmp_path, {"ADMIN": ADMIN}) as running:
            key, _ = await issue(running, limit=0.5)
            providers = [(await ask(running, key, max_tokens=50)).json().get("provider") for _ in range(8)]
    assert providers[0] == "p0"
    assert providers[-1] == "p1"


@pytest.mark.parametrize("stream", [False, True])
async def test_failovers_cuts_and_clients_that_leave_give_back_what_they_do_not_use(tmp_path, stream):
    cut = streams(*stream_chunks("one two three", usage=False, finish_reason=None)[:-1], cut=True)
    replies = [fails(503), says("fine"), cut, fails(400)]
    async with fake_provider(*replies) as provider, fake_provider(fails(503), says("fine too")) as other:
        async with running_gateway(
            configured(provider.base_url, other.base_url), tmp_path, {"ADMIN": ADMIN}
        ) as running:
            key, _ = await issue(running, limit=1.0)
            for _ in range(5):
                await ask(running, key, max_tokens=20, stream=stream)
            purse = running.gateway.access.purse
            usage = purse.usage(running.gateway.access.ring.records()[0].id, 4e9)
            assert usage.reserved_in_nusd == 0
            assert purse.expired == 0


async def test_requests_per_minute_are_limited_and_told(tmp_path):
    async with fake_provider(says("ok")) as provider:
        async with running_gateway(configured(provider.base_url), tmp_path, {"ADMIN": ADMIN}) as running:
            key, _ = await issue(running, mixgate={"requests_per_min": 3})
            answers = [await ask(running, key) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    refused = answers[-1]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["x-ratelimit-limit-requests"] == "3"
    assert int(refused.headers["retry-after"]) >= 1


async def test_a_key_uses_only_what_it_may(tmp_path):
    async with fake_provider(says("ok")) as first, fake_provider(says("ok")) as second:
        async with running_gateway(configured(first.base_url, second.base_url), tmp_path, {"ADMIN": ADMIN}) as running:
            narrow, _ = await issue(running, mixgate={"providers": ["p1"]})
            nowhere, _ = await issue(running, "nowhere", mixgate={"models": ["another-model"]})
            assert (await ask(running, narrow)).json()["provider"] == "p1"
            refused = await ask(running, nowhere)
    assert refused.status_code in (400, 403)
    assert first.requests == []


async def billed_before_it_answers(request, seen):
    """Whoever is gone before the answer is there pays all of it."""
    words = " ".join(["word"] * seen.body["max_tokens"])
    request.match_info.handler.__self__.bill(usage_of(words))
    await asyncio.sleep(0.05)
    return web.json_response(completion(words))


async def spend_all(client, key):
    """Until the budget is spent. False: the gateway was gone before."""
    with suppress(httpx.HTTPError):
        while True:
            answer = await client.post("/v1/chat/completions", json=chat(max_tokens=100), headers=bearer(key))
            if answer.status_code == 200:
                continue
            code = answer.json()["error"]["code"]
            assert code in {"insufficient_quota", "budget_reserved", "keys_unavailable"}
            if code == "insufficient_quota":
                return True
            await asyncio.sleep(0.02)
    return False


def assert_kept_though_killed(provider, home, limit_usd):
    """The budget held; the books have estimates all the same, which are less than what the provider bills."""
    found = rows_of(home / FILE_NAME).values()
    cut = [row for row in found if row.usage_source == "recovered"]
    billed_usd, spent_usd = provider.billed_pusd / 10**12, sum(row.cost_in_nusd for row in found) / 10**9
    print(f"{limit_usd} USD: billed {billed_usd}, in the books {spent_usd}, {len(cut)} cut")  # noqa: T201  # for -s
    assert cut
    assert all(row.cost_in_nusd < row.reserved_in_nusd for row in cut)
    assert spent_usd < billed_usd <= limit_usd
    assert billed_usd >= 0.8 * limit_usd


async def test_a_gateway_that_is_killed_again_and_again_does_not_overspend_what_it_is_billed_in_full(tmp_path):
    limit_usd, dice = 1.0 if FULL else 0.04, random.Random(5)
    config = tmp_path / "providers.yaml"
    async with fake_provider(billed_before_it_answers) as provider:
        config.write_text(configured(provider.base_url))
        async with served(config, env={"ADMIN": ADMIN}) as (running, client):
            made = await client.post("/api/v1/keys", json={"name": "app", "limit": limit_usd}, headers=bearer(ADMIN))
            key = made.json()["key"]
            running.process.kill()
        for _ in range(20 if FULL else 3):
            async with served(config, env={"ADMIN": ADMIN}) as (running, client):
                asked = len(provider.requests)
                spending = [asyncio.create_task(spend_all(client, key)) for _ in range(20)]
                await until(lambda asked=asked: len(provider.requests) >= asked + 20)
                await asyncio.sleep(dice.uniform(0, 0.04))
                running.process.kill()
                assert not any(await asyncio.gather(*spending))
        async with served(config, env={"ADMIN": ADMIN}) as (running, client):
            assert all(await asyncio.gather(*(spend_all(client, key) for _ in range(20))))
    assert_kept_though_killed(provider, tmp_path / "home", limit_usd)


async def spend_whoever_dies(client, key):
    while not await spend_all(client, key):  # noqa: ASYNC110 (nobody tells when it is back)
        await asyncio.sleep(0.02)


@pytest.mark.full
async def test_what_killed_workers_may_owe_counts_for_the_next_owner_and_after_all_were_killed(tmp_path):
    limit_usd = 0.1
    config = tmp_path / "providers.yaml"
    async with fake_provider(billed_before_it_answers) as provider:
        config.write_text(configured(provider.base_url))
        async with served(config, "--workers", "2", env={"ADMIN": ADMIN}) as (running, client):
            made = await client.post("/api/v1/keys", json={"name": "app", "limit": limit_usd}, headers=bearer(ADMIN))
            key = made.json()["key"]
            spending = [asyncio.create_task(spend_whoever_dies(client, key)) for _ in range(20)]
            for kill in range(2):
                asked = len(provider.requests)
                await until(lambda asked=asked: len(provider.requests) >= asked + 40)
                for pid in workers(running).values():
                    end(pid)
                await until_back(running, 3 * kill + 2)
                end(children(running.process.pid)["owner"])
                await until_back(running, 3 * kill + 3)
            asked = len(provider.requests)
            await until(lambda: len(provider.requests) >= asked + 20)
            for pid in (running.process.pid, *children(running.process.pid).values()):
                end(pid)
            for task in spending:
                task.cancel()
        async with served(config, "--workers", "2", env={"ADMIN": ADMIN}) as (running, client):
            assert all(await asyncio.gather(*(spend_all(client, key) for _ in range(20))))
    assert_kept_though_killed(provider, tmp_path / "home", limit_usd)

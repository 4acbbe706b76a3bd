"""The door of a whole gateway: who is refused, how soon, with what words, and that everyone who was let in leaves."""

import asyncio
import time

import httpx
import pytest
from openai import AsyncOpenAI

from tests.fakes.duo import Place, config_of
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.listener import FULL, listen
from tests.fakes.process import served
from tests.fakes.raw_clients import RawClient, quantile, request_bytes, request_head
from tests.fakes.scripted import TEXT, fails, resets, scripted, silent, tells

KEYS = {"A": "client-key-of-somebody", "B": "client-key-of-somebody-else"}
BODY_BYTES = 1000
SOON_S = 0.02
"""How soon a refusal is there; a machine that does other things besides is given the best of several tries."""


def keyed(url, settings="client_keys: [env:A, env:B]"):
    return config_of(Place(url), gateway=f"gateway: {{{settings}}}")


async def fill(url, count, key=None):
    """Requests that are let in and stay: their bodies never come."""
    clients = [await RawClient.connect(url) for _ in range(count)]
    for client in clients:
        client.writer.write(request_head(BODY_BYTES, key))
    return clients


async def refusals(url, key=None, tries=15):
    """Send headers only, several times; gives the last answer, and how long each took."""
    took_s = []
    for _ in range(tries):
        client = await RawClient.connect(url)
        began_s = time.monotonic()
        reply = await client.ask(request_head(BODY_BYTES, key))
        took_s.append(time.monotonic() - began_s)
        client.close()
    return reply, took_s


async def until(check, limit_s=5.0):
    until_s = time.monotonic() + limit_s
    while not check():
        assert time.monotonic() < until_s
        await asyncio.sleep(0.01)


async def test_a_keys_fifty_first_request_is_refused_before_its_body_and_another_keys_is_answered(tmp_path):
    async with scripted(tells()) as provider, running_gateway(keyed(provider.base_url), tmp_path, KEYS) as running:
        door = running.gateway.admission
        inside = await fill(running.url, 50, KEYS["A"])
        await until(lambda: door.in_flight == 50)
        reply, took_s = await refusals(running.url, KEYS["A"])
        assert (reply.status, reply.error["code"], reply.error["type"]) == (429, "key_over_limit", "rate_limit_error")
        assert (reply.headers["retry-after"], reply.headers["x-should-retry"]) == ("1", "true")
        assert reply.headers["connection"] == "close"  # its body was not looked at
        assert quantile(took_s, 0.9 if FULL else 0.0) <= SOON_S
        told = await listen(running.client, chat(stream=True), authorization=f"Bearer {KEYS['B']}")
        assert told.text == TEXT
        for client in inside:
            client.close()
        await until(lambda: door.in_flight == 0)
        assert door.refused == len(took_s)
        told = await listen(running.client, chat(stream=True), authorization=f"Bearer {KEYS['A']}")
        assert told.text == TEXT


async def test_the_gateways_thousand_and_first_request_is_refused_before_its_body(tmp_path):
    config = tmp_path / "providers.yaml"
    async with scripted(tells()) as provider:
        config.write_text(config_of(Place(provider.base_url)))
        async with served(config) as (running, client):
            inside = await fill(running.url, 1000)
            await asyncio.sleep(0.2)
            reply, took_s = await refusals(running.url)
            assert (reply.status, reply.error["code"], reply.error["source"]) == (503, "gateway_overloaded", "gateway")
            assert (reply.headers["retry-after"], reply.headers["x-should-retry"]) == ("1", "true")
            assert quantile(took_s, 0.9 if FULL else 0.0) <= SOON_S
            assert (await client.get("/readyz")).status_code == 200  # a full gateway is well
            assert (await client.get("/v1/models")).status_code == 200
            for one in inside:
                one.close()
            for _ in range(100):
                answer = await client.post("/v1/chat/completions", json=chat())
                if answer.status_code == 200:
                    break
                await asyncio.sleep(0.05)
            assert answer.json()["choices"][0]["message"]["content"] == TEXT


async def test_whoever_is_not_known_is_told_that_and_counts_for_nothing(tmp_path):
    settings = "client_keys: [env:A], in_flight_max: 1"
    async with scripted(tells()) as provider:
        async with running_gateway(keyed(provider.base_url, settings), tmp_path, KEYS) as running:
            inside = await fill(running.url, 1, KEYS["A"])
            await until(lambda: running.gateway.admission.in_flight == 1)
            reply, _ = await refusals(running.url, "not-a-key", tries=1)
            assert reply.status == 401
            assert running.gateway.admission.refused == 0
            inside[0].close()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "script",
    [tells(), tells(stop_after=3), fails(400), fails(503), resets(), tells(gap_s=0.05), silent()],
    ids=["answers", "breaks off", "refuses", "is busy", "resets", "is slow", "says nothing"],
)
async def test_everyone_who_was_let_in_leaves_however_it_ends(tmp_path, script, stream):
    async with scripted(script) as provider:
        async with running_gateway(keyed(provider.base_url), tmp_path, KEYS) as running:
            door = running.gateway.admission
            data = request_bytes(KEYS["A"], stream=stream)
            clients = [await RawClient.connect(running.url) for _ in range(6)]
            for number, client in enumerate(clients):
                client.writer.write(data if number else data[:-10])
            await until(lambda: door.in_flight or provider.calls)
            await asyncio.sleep(0.2)
            for client in clients:
                client.close()
            await until(lambda: door.in_flight == 0)
            assert door._by_key == {}


async def test_a_body_that_is_no_request_leaves_too(tmp_path):
    async with scripted(tells()) as provider, running_gateway(config_of(Place(provider.base_url)), tmp_path) as running:
        for body in (b"{", b"[]", b'{"model": "nobody", "messages": []}'):
            answer = await running.client.post(
                "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
            )
            assert answer.status_code == 400
        assert (await running.client.post("/v1/chat/completions", content=b"x")).status_code == 400
        assert running.gateway.admission.in_flight == 0


async def holds(url, count):
    """Whether exactly so many are let in."""
    inside = await fill(url, count)
    await asyncio.sleep(0.1)
    reply, _ = await refusals(url, tries=1)
    for client in inside:
        client.close()
    return reply.status == 503


async def eventually(check, limit_s=10.0):
    until_s = time.monotonic() + limit_s
    while not await check():
        assert time.monotonic() < until_s
        await asyncio.sleep(0.2)


@pytest.mark.parametrize("way", ["file", "variable", "flag"])
async def test_a_bound_of_ones_own_is_kept(tmp_path, way):
    config = tmp_path / "providers.yaml"
    config.write_text(config_of(Place("http://127.0.0.1:1/v1"), gateway="gateway: {in_flight_max: 3}"))
    flags = ["--in-flight-max", "2"] if way == "flag" else []
    env = {"MIXGATE_IN_FLIGHT_MAX": "2"} if way == "variable" else {}
    async with served(config, *flags, env=env) as (running, _):
        assert await holds(running.url, 3 if way == "file" else 2)


async def test_bounds_change_with_the_file_while_requests_are_on_their_way(tmp_path):
    config = tmp_path / "providers.yaml"
    settings = "client_keys: [env:A, env:B], in_flight_max: {}, in_flight_per_key_max: {}"
    url = "http://127.0.0.1:1/v1"
    config.write_text(keyed(url, settings.format(10, 2)))
    async with served(config, env=KEYS) as (running, _):
        inside = await fill(running.url, 2, KEYS["A"])
        await asyncio.sleep(0.1)
        assert (await refusals(running.url, KEYS["A"], tries=1))[0].error["code"] == "key_over_limit"
        config.write_text(keyed(url, settings.format(4, 3)))

        async def one_more_fits():
            client = await RawClient.connect(running.url)
            reply = await client.ask(request_bytes(KEYS["A"]))
            client.close()
            return reply.status != 429

        await eventually(one_more_fits)
        inside += await fill(running.url, 1, KEYS["A"]) + await fill(running.url, 1, KEYS["B"])
        await asyncio.sleep(0.1)
        assert (await refusals(running.url, KEYS["B"], tries=1))[0].error["code"] == "gateway_overloaded"
        for client in inside:
            client.close()


@pytest.mark.parametrize(("bound", "status"), [("in_flight_max", 503), ("in_flight_per_key_max", 429)])
async def test_the_openai_sdk_waits_as_told_and_is_answered(tmp_path, bound, status):
    settings = f"client_keys: [env:A, env:B], {bound}: 1"
    async with scripted(tells()) as provider:
        async with running_gateway(keyed(provider.base_url, settings), tmp_path, KEYS) as running:
            inside = await fill(running.url, 1, KEYS["A"])
            door = running.gateway.admission
            await until(lambda: door.in_flight == 1)
            seen = []

            async def note(response):
                seen.append((response.status_code, response.request.headers["x-stainless-retry-count"]))

            async with httpx.AsyncClient(trust_env=False, event_hooks={"response": [note]}) as http_client:
                sdk = AsyncOpenAI(
                    base_url=f"{running.url}/v1", api_key=KEYS["A"], max_retries=3, http_client=http_client
                )
                asking = asyncio.ensure_future(
                    sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
                )
                await until(lambda: door.refused == 1)
                refused_s = time.monotonic()
                inside[0].close()
                answer = await asking
            assert answer.choices[0].message.content == TEXT
            assert time.monotonic() - refused_s >= 0.9  # what Retry-After says, not the SDK's own half second
            assert seen == [(status, "0"), (200, "1")]

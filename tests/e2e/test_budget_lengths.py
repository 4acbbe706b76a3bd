"""A budget bounds what is spent; it costs nobody a provider, or an answer, that there would be without it."""

import pytest

from tests.e2e.test_budgets import ADMIN, bearer, issue
from tests.fakes.duo import Place, config_of
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.provider import fails, fake_provider, says

KEYS = {"ADMIN": ADMIN}
GATEWAY = "gateway: {admin_token: env:ADMIN}"
LARGE, SMALL = 65_536, 8_192


def config(first, second):
    large, small = (Place(one.base_url, context_tokens=size) for one, size in ((first, LARGE), (second, SMALL)))
    return config_of(large, small, gateway=GATEWAY)


@pytest.mark.parametrize("usd", [100, 0.05])
async def test_a_smaller_endpoint_stands_in_and_is_told_a_length_of_its_own(tmp_path, usd):
    async with fake_provider(fails(503)) as first, fake_provider(says("ok")) as second:
        async with running_gateway(config(first, second), tmp_path, KEYS) as on:
            key, _ = await issue(on, limit=usd)
            answer = await on.client.post("/v1/chat/completions", json=chat("hi"), headers=bearer(key))
    assert answer.status_code == 200, answer.text
    told = [one.requests[0].body["max_tokens"] for one in (first, second)]
    assert told[0] > SMALL
    assert SMALL // 2 < told[1] < SMALL


@pytest.mark.parametrize("text", ["你好" * 300, "0123456789" * 60, "x = {}\n" * 90], ids=["chinese", "digits", "code"])
async def test_a_length_that_nobody_asked_for_leaves_room_for_the_prompt_however_it_is_counted(tmp_path, text):
    async with fake_provider(says("ok")) as first, fake_provider(says("ok")) as second:
        async with running_gateway(config(second, first), tmp_path, KEYS) as on:
            key, _ = await issue(on, limit=100)
            asked = {**chat(text), "model": "p1/up"}
            answer = await on.client.post("/v1/chat/completions", json=asked, headers=bearer(key))
    assert answer.status_code == 200, answer.text
    assert first.requests[0].body["max_tokens"] + len(text.encode()) <= SMALL


async def test_a_length_that_was_asked_for_is_told_as_it_is(tmp_path):
    async with fake_provider(says("ok")) as first, fake_provider(says("ok")) as second:
        async with running_gateway(config(first, second), tmp_path, KEYS) as on:
            key, _ = await issue(on, limit=100)
            body = chat("hi", max_tokens=LARGE - 100)
            answer = await on.client.post("/v1/chat/completions", json=body, headers=bearer(key))
    assert answer.status_code == 200, answer.text
    assert first.requests[0].body["max_tokens"] == LARGE - 100

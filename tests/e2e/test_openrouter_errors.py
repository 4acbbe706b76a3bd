"""What OpenRouter's clients are told beside an error, over sockets: who was asked, and who could be asked instead."""

import json

import pytest
from openrouter.components import OpenRouterMetadata

from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.provider import fails, fake_provider, stream_chunks, streams

ASKED = {"x-openrouter-metadata": "enabled"}


@pytest.mark.parametrize("surface", ["/v1", "/api/v1"])
@pytest.mark.parametrize("headers", [{}, ASKED])
async def test_an_error_in_a_stream_says_who_was_asked_where_that_is_wanted(tmp_path, surface, headers):
    chunks = stream_chunks("one two three four")
    async with fake_provider(streams(*chunks[:3], 0.05, cut=True)) as provider:
        async with running_gateway(openai_config(provider.base_url, rescue=False), tmp_path) as running:
            answer = await running.client.post(f"{surface}/chat/completions", json=chat(stream=True), headers=headers)
    assert answer.status_code == 200
    *_, last, done = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert done == "[DONE]"
    body = json.loads(last)
    assert "error" in body
    assert ("openrouter_metadata" in body) == bool(headers)
    if headers:
        told = OpenRouterMetadata.model_validate(body["openrouter_metadata"])
        assert (told.requested, [one.provider for one in told.attempts]) == ("m", ["p0"])


async def test_a_name_that_nothing_has_comes_with_those_that_were_meant(tmp_path):
    async with fake_provider() as provider:
        config = openai_config(provider.base_url).replace("{policy", "{aliases: [mixtral-8x7b], policy")
        async with running_gateway(config, tmp_path) as running:
            for surface, told in (("/v1", False), ("/api/v1", True)):
                body = chat(model="m", models=["mixtral-8x7", "gone"])
                answer = await running.client.post(f"{surface}/chat/completions", json=body)
                assert answer.status_code == 404
                error = answer.json()["error"]
                assert error["code"] == "model_not_found"
                assert ("availability" in error) == told
        assert provider.requests == []
    assert error["availability"] == {
        "code": "model_not_found",
        "retryable": False,
        "retry_after": None,
        "requested_models": ["m", "mixtral-8x7", "gone"],
        "affected_providers": [],
        "excluded_by": [],
        "fallback_models": ["mixtral-8x7b"],
    }


async def test_whoever_has_to_wait_is_told_all_the_names_that_it_asked_for(tmp_path):
    async with fake_provider(fails(429, headers={"retry-after": "60"})) as provider:
        config = openai_config(provider.base_url).replace("{policy", "{aliases: [one, two], policy")
        async with running_gateway(config, tmp_path) as running:
            for _ in range(2):
                body = chat(model="one", models=["two", "m"])
                answer = await running.client.post("/api/v1/chat/completions", json=body)
    said = answer.json()["error"]["availability"]
    assert (said["code"], said["requested_models"]) == ("capacity_exhausted", ["one", "two", "m"])


async def test_without_model_the_first_of_models_was_requested(tmp_path):
    async with fake_provider() as provider, running_gateway(openai_config(provider.base_url), tmp_path) as running:
        body = {"models": ["m", "p0/up"], "messages": chat()["messages"]}
        answer = await running.client.post("/api/v1/chat/completions", json=body, headers=ASKED)
    assert answer.json()["openrouter_metadata"]["requested"] == "m"

"""What OpenRouter's clients are told beside an error, over sockets: who was asked, and who could be asked instead."""

import json

import pytest
from openrouter.components import OpenRouterMetadata

from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.provider import fake_provider, stream_chunks, streams

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

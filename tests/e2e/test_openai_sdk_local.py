"""The same client against the demonstration model in its own worker process."""

import json

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from tests.fakes.engine import needs_engine
from tests.fakes.gateway import running_gateway

pytestmark = needs_engine
CONFIG = """
providers:
  local:
    dialect: local
    models:
      tiny:
        file: bundled
        serves: demo
        context_tokens: 2048
        capabilities: {system: true, json_object: true, json_schema: true, prefill: true, logprobs: true, seed: true}
"""
HI = [{"role": "user", "content": "hello"}]
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@pytest.fixture(params=["/v1", "/api/v1"])
async def client(request, tmp_path):
    async with running_gateway(CONFIG, tmp_path) as running:
        await running.gateway._local.wait_ready("tiny")
        async with httpx.AsyncClient(trust_env=False) as http_client:
            yield AsyncOpenAI(
                base_url=running.url + request.param,
                api_key="unused",
                max_retries=0,
                timeout=60,
                http_client=http_client,
                _strict_response_validation=True,
            )


async def read(client, **members):
    """Text per choice, finish reasons, usage."""
    texts, reasons, usage = {}, {}, None
    settings = {"model": "demo", "messages": HI, "stream_options": {"include_usage": True}, **members}
    async for part in await client.chat.completions.create(stream=True, **settings):
        usage = part.usage or usage
        for choice in part.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
    return texts, reasons, usage


async def test_it_answers_whole_and_streamed_alike(client):
    settings = {"model": "demo", "messages": HI, "max_tokens": 24, "temperature": 0, "seed": 1}
    answer = await client.chat.completions.create(**settings)
    texts, reasons, usage = await read(client, **settings)
    assert texts == {0: answer.choices[0].message.content}
    assert reasons == {0: answer.choices[0].finish_reason}
    assert (usage.prompt_tokens, usage.completion_tokens) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    )
    assert answer.usage.completion_tokens > 0 < answer.usage.prompt_tokens


async def test_a_seed_repeats_and_stop_strings_stop(client):
    settings = {"max_tokens": 16, "temperature": 1, "seed": 5}
    first, _, _ = await read(client, **settings)
    second, _, _ = await read(client, **settings)
    assert first == second
    word = first[0].split()[-1]
    stopped, reasons, _ = await read(client, stop=[word], **settings)
    assert word not in stopped[0]
    assert reasons == {0: "stop"}


async def test_a_limit_ends_with_length_and_choices_are_several(client):
    texts, reasons, usage = await read(client, max_tokens=2, n=2, temperature=1)
    assert set(texts) == {0, 1}
    assert set(reasons.values()) <= {"length", "stop"}
    assert usage.completion_tokens <= 4


@pytest.mark.parametrize(
    "form", [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}]
)
async def test_json_is_json(client, form):
    answer = await client.chat.completions.create(
        model="demo", messages=HI, response_format=form, max_tokens=200, seed=1
    )
    if answer.choices[0].finish_reason == "stop":
        parsed = json.loads(answer.choices[0].message.content)
        assert form["type"] == "json_object" or isinstance(parsed["ok"], bool)
    else:
        assert form["type"] == "json_object"


async def test_token_probabilities_have_their_form(client):
    answer = await client.chat.completions.create(
        model="demo", messages=HI, logprobs=True, top_logprobs=3, max_tokens=4, temperature=0
    )
    entries = answer.choices[0].logprobs.content
    assert entries
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 3 for entry in entries)
    assert "".join(entry.token for entry in entries).startswith(answer.choices[0].message.content[:1])


async def test_what_it_cannot_do_is_refused_in_words(client):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="demo", messages=[{"role": "user", "content": [picture]}])
    assert "vision" in caught.value.message
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "word " * 20_000}])
    assert caught.value.code == "context_length_exceeded"


async def test_it_is_listed_as_a_demonstration(client):
    (model,) = (await client.models.list()).data
    assert model.id == "demo"
    assert model.model_extra["demonstration"] is True
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-4o")

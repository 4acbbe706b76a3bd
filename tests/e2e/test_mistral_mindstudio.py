"""Mistral and MindStudio behind a whole gateway, over real sockets."""

import json

from aiohttp import web

from tests.fakes.gateway import chat, running_gateway
from tests.fakes.provider import chunk, fails, fake_provider, streams

ENV = {"KEY": "provider-key-0123456789"}


def config(dialect, url, **row):
    model = {
        "serves": "m",
        "context_tokens": 4096,
        "max_output_tokens": 2500,
        "price": {"input": 1, "output": 1},
        **row,
    }
    return json.dumps(
        {
            "providers": {"p": {"dialect": dialect, "base_url": url, "api_key": "env:KEY", "models": {"up": model}}},
            "routes": {"m": {"policy": "ordered", "endpoints": ["p/up"]}},
        }
    )


def answers(body, status=200, headers=None):
    async def reply(request, seen):
        return web.json_response(body, status=status, headers=headers)

    return reply


def events(text):
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


THOUGHT = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Bonjour"}]
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "num_cached_tokens": 4}


async def test_mistral_gets_its_own_form_and_its_answer_comes_back_in_ours(tmp_path):
    call = {"id": "aB3dE6gH9", "function": {"name": "f", "arguments": {"q": 1}}}
    reply = {
        "id": "x",
        "model": "up",
        "choices": [{"index": 0, "message": {"content": THOUGHT, "tool_calls": [call]}, "finish_reason": "tool_calls"}],
        "usage": USAGE,
    }
    async with fake_provider(answers(reply)) as provider:
        row = {"capabilities": ["system", "tools"]}
        async with running_gateway(config("mistral", provider.base_url, **row), tmp_path, ENV) as gateway:
            asked = chat(seed=5, user="u", stream_options=None, tools=[{"type": "function", "function": {"name": "f"}}])
            response = await gateway.client.post("/v1/chat/completions", json=asked)
    assert response.status_code == 200
    message = response.json()["choices"][0]["message"]
    assert (message["content"], message["reasoning"]) == ("Bonjour", "Hm.")
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"q":1}'}
    assert response.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == 4
    (seen,) = provider.requests
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == "Bearer provider-key-0123456789"
    assert seen.body["random_seed"] == 5
    assert not {"seed", "user", "stream_options"} & set(seen.body)


async def test_a_stream_of_mistrals_is_a_stream_of_ours(tmp_path):
    parts = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": THOUGHT}),
        chunk({"content": " !"}),
        chunk({"content": ""}, "stop", usage=USAGE),
        b"data: [DONE]\n\n",
    ]
    async with fake_provider(streams(*parts)) as provider:
        async with running_gateway(config("mistral", provider.base_url), tmp_path, ENV) as gateway:
            asked = chat(stream=True, stream_options={"include_usage": True})
            response = await gateway.client.post("/v1/chat/completions", json=asked)
    told = events(response.text)
    deltas = [choice["delta"] for event in told for choice in event["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "Bonjour !"
    assert "".join(delta.get("reasoning") or "" for delta in deltas) == "Hm."
    assert told[-1]["usage"]["prompt_tokens"] == 7
    assert response.text.endswith("data: [DONE]\n\n")


async def test_what_mistral_refuses_reaches_the_client_with_the_member_named(tmp_path):
    detail = {"detail": [{"type": "x", "loc": ["body", "stop"], "msg": "too many"}]}
    refusal = {"object": "error", "message": detail, "type": "invalid_request_error", "code": None}
    async with fake_provider(fails(422, refusal)) as provider:
        async with running_gateway(config("mistral", provider.base_url), tmp_path, ENV) as gateway:
            response = await gateway.client.post("/v1/chat/completions", json=chat())
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "stop: too many"
    assert response.json()["error"]["param"] == "stop"


async def test_mindstudio_gets_one_text_and_answers_one(tmp_path):
    async with fake_provider(answers({"output": {"content": "Salut"}})) as provider:
        async with running_gateway(config("mindstudio", provider.base_url), tmp_path, ENV) as gateway:
            asked = chat(temperature=2, max_tokens=2500)
            asked["messages"].insert(0, {"role": "system", "content": "In French."})
            response = await gateway.client.post("/v1/chat/completions", json=asked)
    assert response.json()["choices"][0]["message"]["content"] == "Salut"
    (seen,) = provider.requests
    assert seen.path == "/v1/steps/generateText/execute"
    assert seen.headers["authorization"] == "Bearer provider-key-0123456789"
    assert seen.body["step"]["message"] == "hi"
    assert seen.body["step"]["modelOverride"] == {
        "model": "up",
        "temperature": 1.0,
        "maxResponseTokens": 2500,
        "preamble": "In French.",
        "ignorePreamble": False,
    }


async def test_who_cannot_answer_at_the_length_that_is_asked_for_is_not_asked(tmp_path):
    async with fake_provider(answers({"output": {"content": "Salut"}})) as provider:
        async with running_gateway(config("mindstudio", provider.base_url), tmp_path, ENV) as gateway:
            response = await gateway.client.post("/v1/chat/completions", json=chat(max_tokens=2501))
    assert response.status_code == 400
    assert "2500 tokens at most, 2501 were asked for" in response.json()["error"]["message"]
    assert provider.requests == []


async def test_a_stream_from_mindstudio_is_its_one_text_as_one_delta(tmp_path):
    async with fake_provider(answers({"output": {"content": "Salut"}})) as provider:
        async with running_gateway(config("mindstudio", provider.base_url), tmp_path, ENV) as gateway:
            response = await gateway.client.post("/v1/chat/completions", json=chat(stream=True))
    contents = [choice["delta"].get("content") for event in events(response.text) for choice in event["choices"]]
    assert [content for content in contents if content] == ["Salut"]
    assert response.text.endswith("data: [DONE]\n\n")


async def test_an_answer_left_at_the_providers_own_place_is_fetched_without_the_key(tmp_path):
    async with fake_provider() as provider:
        left = provider.base_url + "/left/1?signature=x"
        provider.replies[:] = [answers({"outputUrl": left}), answers({"value": {"content": "from afar"}})]
        async with running_gateway(config("mindstudio", provider.base_url), tmp_path, ENV) as gateway:
            response = await gateway.client.post("/v1/chat/completions", json=chat())
    assert response.json()["choices"][0]["message"]["content"] == "from afar"
    assert provider.requests[1].path == "/v1/left/1"
    assert "authorization" not in provider.requests[1].headers


async def test_an_answer_left_at_a_configured_place_is_fetched(tmp_path):
    async with fake_provider(answers({"value": {"content": "from the bucket"}})) as bucket:
        async with fake_provider(answers({"outputUrl": bucket.base_url + "/1"})) as provider:
            written = json.loads(config("mindstudio", provider.base_url))
            written["providers"]["p"]["quirks"] = {"answer_origins": [bucket.base_url]}
            async with running_gateway(json.dumps(written), tmp_path, ENV) as gateway:
                response = await gateway.client.post("/v1/chat/completions", json=chat(stream=True))
    assert "from the bucket" in response.text


async def test_an_answer_left_anywhere_else_is_not_fetched(tmp_path):
    async with fake_provider() as elsewhere:
        async with fake_provider(answers({"outputUrl": elsewhere.base_url + "/1"})) as provider:
            async with running_gateway(config("mindstudio", provider.base_url), tmp_path, ENV) as gateway:
                response = await gateway.client.post("/v1/chat/completions", json=chat())
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "answer_elsewhere"
    assert elsewhere.requests == []


async def test_a_place_that_leads_to_another_place_is_followed_once(tmp_path):
    async with fake_provider() as provider:
        provider.replies[:] = [answers({"outputUrl": provider.base_url + "/again"})]
        async with running_gateway(config("mindstudio", provider.base_url), tmp_path, ENV) as gateway:
            response = await gateway.client.post("/v1/chat/completions", json=chat())
    assert response.json()["error"]["code"] == "answer_elsewhere"
    assert len(provider.requests) == 2


async def test_a_place_that_has_nothing_is_a_failure(tmp_path):
    async with fake_provider() as provider:
        provider.replies[:] = [answers({"outputUrl": provider.base_url + "/gone"}), answers({}, status=403)]
        async with running_gateway(config("mindstudio", provider.base_url), tmp_path, ENV) as gateway:
            response = await gateway.client.post("/v1/chat/completions", json=chat())
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "provider_error"


async def test_mindstudios_limit_reaches_the_client_with_its_wait(tmp_path):
    slow = answers({"code": "rate_limited", "message": "20 at once"}, status=429, headers={"retry-after": "9"})
    async with fake_provider(slow) as provider:
        async with running_gateway(config("mindstudio", provider.base_url), tmp_path, ENV) as gateway:
            response = await gateway.client.post("/v1/chat/completions", json=chat())
    assert response.status_code == 429
    assert response.headers["retry-after"] == "9"

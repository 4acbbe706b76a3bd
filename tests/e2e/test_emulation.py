import json

import pytest

from providers.schema_validation import complaint
from tests.e2e.test_failover import read_stream
from tests.fakes.engine import needs_engine
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.provider import fake_provider, says

PLAIN = "{system: true}"
SCHEMA = {
    "type": "object",
    "properties": {"country": {"type": "string"}, "capital": {"type": "string"}},
    "required": ["country", "capital"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Look up a country",
            "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        },
    }
]
GOOD = '{"country": "Peru", "capital": "Lima"}'
CALL = '{"tool_calls": [{"name": "look_up", "arguments": {"name": "Peru"}}]}'
DEMO = """
providers:
  local:
    dialect: local
    models:
      tiny:
        file: bundled
        serves: demo
        context_tokens: 2048
        capabilities: {system: true, json_object: true, json_schema: true}
"""


async def test_a_good_reply_at_first_needs_one_attempt(tmp_path):
    async with fake_provider(says(f"Sure:\n```json\n{GOOD}\n```")) as provider:
        config = openai_config(provider.base_url, capabilities=PLAIN)
        async with running_gateway(config, tmp_path) as running:
            response = await running.client.post("/v1/chat/completions", json=chat(response_format=FORM))
    body = response.json()
    assert json.loads(body["choices"][0]["message"]["content"]) == json.loads(GOOD)
    assert body["mixgate"]["emulated"] == ["json"]
    assert "response_format" not in provider.requests[0].body
    assert "JSON Schema" in provider.requests[0].body["messages"][0]["content"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bad_reply_is_mended_by_one_more_attempt(tmp_path, stream):
    async with fake_provider(says('{"country": 5}'), says(GOOD)) as provider:
        config = openai_config(provider.base_url, capabilities=PLAIN)
        async with running_gateway(config, tmp_path) as running:
            request = chat(response_format=FORM, stream=stream)
            if stream:
                _, _, text = await read_stream(running.client, request)
            else:
                response = await running.client.post("/v1/chat/completions", json=request)
                assert response.headers["x-mixgate-attempts"] == "2"
                text = response.json()["choices"][0]["message"]["content"]
    assert json.loads(text) == json.loads(GOOD)
    assert "not valid" in provider.requests[1].body["messages"][-1]["content"]


async def test_a_model_that_never_learns_is_left_for_the_next_and_no_bad_form_is_passed_on(tmp_path):
    async with fake_provider(says("I like prose.")) as first, fake_provider(says(GOOD)) as second:
        config = openai_config(first.base_url, second.base_url, capabilities=PLAIN)
        async with running_gateway(config, tmp_path) as running:
            response = await running.client.post("/v1/chat/completions", json=chat(response_format=FORM))
        assert json.loads(response.json()["choices"][0]["message"]["content"]) == json.loads(GOOD)
        assert (len(first.requests), len(second.requests)) == (2, 1)
    async with fake_provider(says("I like prose.")) as only:
        async with running_gateway(openai_config(only.base_url, capabilities=PLAIN), tmp_path) as running:
            response = await running.client.post("/v1/chat/completions", json=chat(response_format=FORM))
    assert response.status_code == 502
    assert "form" in response.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_work_on_a_model_without_them(tmp_path, stream):
    async with fake_provider(says(f"Let me see. {CALL}")) as provider:
        config = openai_config(provider.base_url, capabilities=PLAIN)
        async with running_gateway(config, tmp_path) as running:
            request = chat(tools=TOOLS, tool_choice="required", stream=stream)
            if stream:
                _, chunks, _ = await read_stream(running.client, request)
                deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", ())]
                calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
                finish = [choice["finish_reason"] for chunk in chunks for choice in chunk.get("choices", ())][-1]
            else:
                body = (await running.client.post("/v1/chat/completions", json=request)).json()
                calls = body["choices"][0]["message"]["tool_calls"]
                finish = body["choices"][0]["finish_reason"]
                assert body["choices"][0]["message"]["content"] is None
    assert [call["function"]["name"] for call in calls] == ["look_up"]
    assert json.loads(calls[0]["function"]["arguments"]) == {"name": "Peru"}
    assert finish == "tool_calls"
    assert "tools" not in provider.requests[0].body


async def test_who_can_by_itself_is_asked_before_who_must_be_helped(tmp_path):
    async with fake_provider(says(GOOD)) as plain, fake_provider(says(GOOD)) as capable:
        config = openai_config(plain.base_url, capable.base_url, policy="balanced", capabilities=PLAIN)
        head, _, tail = config.rpartition(PLAIN)
        async with running_gateway(f"{head}{{json_schema: true}}{tail}", tmp_path) as running:
            response = await running.client.post("/v1/chat/completions", json=chat(response_format=FORM))
    assert response.json()["provider"] == "p1"
    assert "mixgate" not in response.json()


async def test_emulation_can_be_switched_off_for_a_route(tmp_path):
    async with fake_provider() as provider:
        config = openai_config(provider.base_url, capabilities=PLAIN).replace("policy: ordered", "emulate: false")
        async with running_gateway(config, tmp_path) as running:
            response = await running.client.post("/v1/chat/completions", json=chat(tools=TOOLS))
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["source"]) == (400, "unsupported", "gateway")
    assert "tools" in error["message"]


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "http://127.0.0.1:9/x"}])
async def test_a_schema_that_cannot_be_used_is_the_clients_fault(tmp_path, schema):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    async with fake_provider(says("{}")) as provider:
        config = openai_config(provider.base_url, capabilities=PLAIN)
        async with running_gateway(config, tmp_path) as running:
            response = await running.client.post("/v1/chat/completions", json=chat(response_format=form))
    assert (response.status_code, response.json()["error"]["param"]) == (400, "response_format")


@needs_engine
async def test_the_local_model_calls_tools_by_its_grammar(tmp_path):
    async with running_gateway(DEMO, tmp_path) as running:
        for seed in range(10):
            request = {
                "model": "demo",
                "messages": [{"role": "user", "content": "What is the capital of Peru?"}],
                "tools": TOOLS,
                "tool_choice": "required",
                "seed": seed,
                "max_tokens": 500,
            }
            body = (await running.client.post("/v1/chat/completions", json=request)).json()
            choice = body["choices"][0]
            if choice["finish_reason"] != "length":
                call = choice["message"]["tool_calls"][0]["function"]
                assert call["name"] == "look_up"
                assert complaint(json.loads(call["arguments"]), TOOLS[0]["function"]["parameters"]) is None

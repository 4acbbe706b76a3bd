"""Clients that people have besides OpenAI's own, each against a whole gateway: what we return must parse in them."""

import asyncio
import json

import pytest

from tests.fakes.gateway import openai_config, running_gateway
from tests.fakes.provider import completion, fails, fake_provider, says

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look up",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}
CALL = {"id": "abc123def", "type": "function", "function": {"name": "look_up", "arguments": '{"name": "Peru"}'}}


def calls_a_tool():
    message = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL]}
    return fails(200, completion("", message=message, finish_reason="tool_calls"))


async def test_the_mistral_client_reads_whole_answers_streams_and_tool_calls(tmp_path):
    mistral = pytest.importorskip("mistralai.client").Mistral
    async with fake_provider(says("Hello there."), says("Hello there."), calls_a_tool()) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            async with mistral(api_key="unused", server_url=running.url) as client:
                messages = [{"role": "user", "content": "hi"}]
                whole = await client.chat.complete_async(model="m", messages=messages)
                assert whole.choices[0].message.content == "Hello there."
                assert whole.usage.prompt_tokens == 7
                text = ""
                async for event in await client.chat.stream_async(model="m", messages=messages):
                    for choice in event.data.choices:
                        text += choice.delta.content or ""
                assert text == "Hello there."
                tools = await client.chat.complete_async(model="m", messages=messages, tools=[TOOL])
                assert tools.choices[0].message.tool_calls[0].function.name == "look_up"


async def test_the_openrouter_client_reads_whole_answers_streams_and_tool_calls(tmp_path):
    openrouter = pytest.importorskip("openrouter").OpenRouter
    async with fake_provider(says("Hello there."), says("Hello there."), calls_a_tool()) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            async with openrouter(api_key="unused", server_url=f"{running.url}/api/v1") as client:
                messages = [{"role": "user", "content": "hi"}]
                whole = await client.chat.send_async(model="m", messages=messages)
                assert whole.choices[0].message.content == "Hello there."
                text = ""
                async with await client.chat.send_async(model="m", messages=messages, stream=True) as events:
                    async for event in events:
                        for choice in event.choices:
                            text += choice.delta.content or ""
                assert text == "Hello there."
                tools = await client.chat.send_async(model="m", messages=messages, tools=[TOOL])
                assert json.loads(tools.choices[0].message.tool_calls[0].function.arguments) == {"name": "Peru"}


async def test_langchain_reads_whole_answers_streams_and_tool_calls(tmp_path):
    chat_openai = pytest.importorskip("langchain_openai").ChatOpenAI
    async with fake_provider(says("Hello there."), says("Hello there."), calls_a_tool()) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            model = chat_openai(model="m", base_url=f"{running.url}/v1", api_key="unused", max_retries=0)
            whole = await model.ainvoke("hi")
            assert whole.content == "Hello there."
            assert whole.usage_metadata["input_tokens"] == 7
            assert "".join([str(part.content) async for part in model.astream("hi")]) == "Hello there."
            tools = await model.bind_tools([TOOL]).ainvoke("hi")
            assert tools.tool_calls[0]["args"] == {"name": "Peru"}
            await asyncio.sleep(0)

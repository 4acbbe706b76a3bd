"""A whole gateway in front of a scripted Anthropic, over real sockets: the client speaks OpenAI, Anthropic its own."""

import asyncio
import json

from aiohttp import web
from openai import AsyncOpenAI

from tests.contract.dialect_cases import anthropic_error, anthropic_events, anthropic_message
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.provider import fails, fake_provider, says, streams

KEY = "sk-ant-planted"
ENV = {"ANTHROPIC_API_KEY": KEY}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"q": "é"}}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
THOUGHT = ({"type": "thinking", "thinking": ""}, [{"type": "thinking_delta", "thinking": "Hm."}])
SIGNED = (THOUGHT[0], [*THOUGHT[1], {"type": "signature_delta", "signature": "S"}])
TEXT = ({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in ("Hel", "lo")])
CALL_PIECES = [{"type": "input_json_delta", "partial_json": piece} for piece in ('{"q"', ': "\u00e9"}')]
CALLED = ({**CALL, "input": {}}, CALL_PIECES)


def config(anthropic, openai=None, *, more=""):
    """The Model `m` at Anthropic, then at an OpenAI-compatible server where there is one."""
    abilities = "capabilities: [system, tools, reasoning, prefill]"
    row = f"models: {{up: {{serves: m, price: {{input: 1, output: 2}}, {abilities}}}}}"
    lines = ["providers:", f"  a: {{dialect: anthropic, base_url: '{anthropic.base_url}', {row}}}"]
    if openai is not None:
        lines.append(f"  b: {{dialect: openai, base_url: '{openai.base_url}', {row}}}")
    ends = "a/up" if openai is None else "a/up, b/up"
    return "\n".join([*lines, f"routes: {{m: {{policy: ordered, endpoints: [{ends}]{more}}}}}", ""])


def answers(body):
    """Replies with a whole Message."""

    async def reply(request, seen):
        return web.Response(body=body, content_type="application/json", headers={"request-id": "req_1"})

    return reply


def openai_client(gateway):
    return AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)


async def test_a_whole_answer_with_a_tool_call(tmp_path):
    text = {"type": "text", "text": "Let me see."}
    async with fake_provider(answers(anthropic_message("tool_use", text, CALL))) as fake:
        async with running_gateway(config(fake), tmp_path, ENV) as gateway, openai_client(gateway) as client:
            system = {"role": "system", "content": "Be brief."}
            answer = await client.chat.completions.create(
                model="m", messages=[system, {"role": "user", "content": "hi"}], tools=[TOOL], tool_choice="required"
            )
    (seen,) = fake.requests
    assert seen.path == "/v1/messages"
    assert seen.headers["x-api-key"] == KEY
    assert seen.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in seen.headers
    assert seen.body["model"] == "up"
    assert seen.body["system"] == [{"type": "text", "text": "Be brief."}]
    assert seen.body["tool_choice"] == {"type": "any"}
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me see.")
    (call,) = choice.message.tool_calls
    assert (call.id, call.function.name, json.loads(call.function.arguments)) == ("toolu_1", "look_up", {"q": "é"})
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 5)


async def test_a_stream_and_its_thinking_handed_back(tmp_path):
    stream = anthropic_events(SIGNED, TEXT, CALLED, reason="tool_use")
    async with fake_provider(streams(stream[:50], stream[50:400], stream[400:])) as fake:
        async with running_gateway(config(fake), tmp_path, ENV) as gateway, openai_client(gateway) as client:
            asked = [{"role": "user", "content": "hi"}]
            more = {"extra_body": {"reasoning": {"max_tokens": 1500}}, "max_tokens": 4000}
            said = {"content": "", "arguments": "", "details": [], "finish": None, "id": None, "usage": None}
            async for chunk in await client.chat.completions.create(
                model="m", messages=asked, tools=[TOOL], stream=True, stream_options={"include_usage": True}, **more
            ):
                said["usage"] = chunk.usage or said["usage"]
                for choice in chunk.choices:
                    said["content"] += choice.delta.content or ""
                    said["details"] += getattr(choice.delta, "reasoning_details", None) or []
                    said["finish"] = choice.finish_reason or said["finish"]
                    for call in choice.delta.tool_calls or ():
                        said["id"] = call.id or said["id"]
                        said["arguments"] += call.function.arguments or ""
            function = {"name": "look_up", "arguments": said["arguments"]}
            turn = {
                "role": "assistant",
                "content": said["content"],
                "tool_calls": [{"id": said["id"], "type": "function", "function": function}],
                "reasoning_details": said["details"],
            }
            result = {"role": "tool", "tool_call_id": said["id"], "content": "42"}
            async for _ in await client.chat.completions.create(
                model="m", messages=[*asked, turn, result], tools=[TOOL], stream=True, **more
            ):
                pass
    assert (said["content"], said["finish"], json.loads(said["arguments"])) == ("Hello", "tool_calls", {"q": "é"})
    assert (said["usage"].prompt_tokens, said["usage"].prompt_tokens_details.cached_tokens) == (7, 2)
    first, second = fake.requests
    assert first.body["stream"] is True
    assert first.body["thinking"] == {"type": "enabled", "budget_tokens": 1500} == second.body["thinking"]
    assert second.body["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "S"},
                {"type": "text", "text": "Hello"},
                CALL,
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "42"}]},
    ]


async def test_an_overloaded_anthropic_is_passed_by(tmp_path):
    overloaded = fails(529, anthropic_error("overloaded_error", "Overloaded"))
    async with fake_provider(overloaded) as busy, fake_provider(says("from next door")) as other:
        async with running_gateway(config(busy, other), tmp_path, ENV) as gateway:
            for stream in (False, True):
                answer = await gateway.client.post("/v1/chat/completions", json=chat(stream=stream))
                assert answer.status_code == 200
                assert "next" in answer.text
    assert len(busy.requests) == len(other.requests) == 2


async def test_an_error_before_any_content_is_passed_by_too(tmp_path):
    head = anthropic_events(reason="end_turn").split(b"event: message_delta")[0]
    error = b"event: error\ndata: %b\n\n" % json.dumps(anthropic_error("overloaded_error", "Overloaded")).encode()
    async with fake_provider(streams(head + error)) as busy, fake_provider(says("from next door")) as other:
        async with running_gateway(config(busy, other), tmp_path, ENV) as gateway:
            answer = await gateway.client.post("/v1/chat/completions", json=chat(stream=True))
    assert "next" in answer.text
    assert "Overloaded" not in answer.text


async def test_an_error_in_the_middle_is_told_in_the_stream(tmp_path):
    head = anthropic_events(TEXT, reason="end_turn").split(b"event: message_delta")[0]
    error = b"event: error\ndata: %b\n\n" % json.dumps(anthropic_error("overloaded_error", "Overloaded")).encode()
    begun = asyncio.Event()

    async def reply(request, seen):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(head)
        await begun.wait()
        await response.write(error)
        await response.write_eof()
        return response

    async with fake_provider(reply) as busy, fake_provider(says("from next door")) as other:
        async with running_gateway(config(busy, other, more=", rescue: false"), tmp_path, ENV) as gateway:
            lines = []
            async with gateway.client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as answer:
                async for line in answer.aiter_lines():
                    lines += [line.removeprefix("data: ")] if line else []
                    begun.set()
    assert lines[-1] == "[DONE]"
    assert json.loads(lines[-2])["error"]["code"] == "provider_overloaded"
    assert other.requests == []


async def test_a_stream_that_breaks_off_is_no_success(tmp_path):
    head = anthropic_events(TEXT, reason="end_turn").split(b"event: message_delta")[0]
    async with fake_provider(streams(head)) as fake:
        async with running_gateway(config(fake), tmp_path, ENV) as gateway:
            answer = await gateway.client.post("/v1/chat/completions", json=chat(stream=True))
    assert '"answer_truncated"' in answer.text
    assert '"finish_reason":"stop"' not in answer.text


async def test_what_the_client_did_wrong_is_said_to_it(tmp_path):
    wrong = fails(400, anthropic_error("invalid_request_error", "tools.0.name: too long"))
    async with fake_provider(wrong) as fake, fake_provider(says("x")) as other:
        async with running_gateway(config(fake, other), tmp_path, ENV) as gateway:
            answer = await gateway.client.post("/v1/chat/completions", json=chat())
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "tools.0.name: too long"
    assert other.requests == []
    assert KEY not in answer.text

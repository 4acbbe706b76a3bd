"""The official `openai` client, strict about what it reads, sync and async, on both base paths."""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.attempts import Limits
from tests.fakes.gateway import openai_config, running_gateway
from tests.fakes.provider import chunk, completion, fails, fake_provider, hangs, resets, says, stream_chunks, streams

HI = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
ENTRY = {
    "token": "a",
    "logprob": -0.25,
    "bytes": [97],
    "top_logprobs": [{"token": "b", "logprob": -2.0, "bytes": None}],
}


class SyncClient:
    """The blocking client, in a thread of its own."""

    def __init__(self, base_url, key):
        self.sdk = OpenAI(**_settings(base_url, key, httpx.Client(trust_env=False)))

    async def call(self, find, **members):
        return await asyncio.to_thread(find(self.sdk), **members)

    async def stream(self, **members):
        def read():
            with self.sdk.chat.completions.create(model="m", messages=HI, stream=True, **members) as stream:
                return _collect(stream)

        return await asyncio.to_thread(read)

    async def close(self):
        self.sdk.close()


class AsyncClient:
    """The asynchronous client."""

    def __init__(self, base_url, key):
        self.sdk = AsyncOpenAI(**_settings(base_url, key, httpx.AsyncClient(trust_env=False)))

    async def call(self, find, **members):
        return await find(self.sdk)(**members)

    async def stream(self, **members):
        chunks, error = [], None
        async with await self.sdk.chat.completions.create(model="m", messages=HI, stream=True, **members) as stream:
            try:
                async for part in stream:
                    chunks.append(part)
            except openai.APIError as failure:
                error = failure
        return chunks, error

    async def close(self):
        await self.sdk.close()


def _collect(stream):
    """The chunks of a stream, and the error it ended with if it did."""
    chunks = []
    try:
        for part in stream:
            chunks.append(part)  # noqa: PERF402 (what came before an error counts)
    except openai.APIError as error:
        return chunks, error
    return chunks, None


def _settings(base_url, key, http_client):
    return {
        "base_url": base_url,
        "api_key": key,
        "max_retries": 0,
        "timeout": 30,
        "http_client": http_client,
        "_strict_response_validation": True,
    }


def completions(sdk):
    return sdk.chat.completions.create


@pytest.fixture(
    params=[(kind, path) for kind in (SyncClient, AsyncClient) for path in ("/v1", "/api/v1")],
    ids=lambda pair: f"{pair[0].__name__} {pair[1]}",
)
def serve(request, tmp_path):
    """`async with serve(*replies) as (client, provider)`: a provider, a gateway and a client in a row."""
    kind, path = request.param

    @asynccontextmanager
    async def run(*replies, limits=None, keys=(), key="unused"):
        async with fake_provider(*replies) as provider:
            config = openai_config(provider.base_url)
            env = {f"KEY_{place}": value for place, value in enumerate(keys)}
            if keys:
                config += f"gateway: {{client_keys: [{', '.join(f'env:{name}' for name in env)}]}}\n"
            async with running_gateway(config, tmp_path, env, limits=limits) as running:
                client = kind(running.url + path, key)
                client.path = path
                client.forget = running.forget
                try:
                    yield client, provider
                finally:
                    await client.close()

    return run


def text_of(chunks):
    return "".join(choice.delta.content or "" for part in chunks for choice in part.choices)


async def test_a_whole_answer(serve):
    async with serve(says("Hello there.")) as (client, provider):
        answer = await client.call(completions, model="m", messages=HI)
    assert isinstance(answer, ChatCompletion)
    assert answer.choices[0].message.content == "Hello there."
    assert (answer.choices[0].finish_reason, answer.object, answer.model) == ("stop", "chat.completion", "m")
    assert answer.id.startswith("gen-")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 2, 9)
    assert answer.choices[0].message.refusal is answer.choices[0].logprobs is None
    assert provider.requests[0].body["model"] == "up"


async def test_a_stream(serve):
    async with serve(says("One two three.")) as (client, _):
        chunks, error = await client.stream()
    assert error is None
    assert all(isinstance(part, ChatCompletionChunk) for part in chunks)
    assert text_of(chunks) == "One two three."
    assert len({part.id for part in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    reasons = [choice.finish_reason for part in chunks for choice in part.choices]
    assert (reasons[-1], set(reasons[:-1])) == ("stop", {None})


async def test_usage_comes_in_a_last_chunk_of_its_own_when_it_is_asked_for(serve):
    async with serve(says("One two.")) as (client, _):
        chunks, _ = await client.stream(stream_options={"include_usage": True})
        plain, _ = await client.stream()
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 9
    assert all(part.usage is None for part in chunks[:-1])
    has_usage = [part for part in plain if part.usage is not None]
    assert len(has_usage) == (1 if client.path == "/api/v1" else 0)


async def test_several_choices(serve):
    body = completion("one")
    body["choices"].append({**body["choices"][0], "index": 1, "message": {"role": "assistant", "content": "two"}})
    parts = [chunk({"content": "o"}), chunk({"content": "t"}, index=1), chunk({"content": "wo"}, "stop", 1)]
    replies = [fails(200, body), streams(*parts, chunk({"content": "ne"}, "length"))]
    async with serve(*replies) as (client, provider):
        answer = await client.call(completions, model="m", messages=HI, n=2)
        chunks, _ = await client.stream(n=2)
    assert [(choice.index, choice.message.content) for choice in answer.choices] == [(0, "one"), (1, "two")]
    texts = {0: "", 1: ""}
    for part in chunks:
        for choice in part.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {0: "one", 1: "two"}
    assert provider.requests[0].body["n"] == 2


async def test_settings_reach_the_provider_as_they_were_given(serve):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True}}
    settings = {
        "stop": ["\n", "END"],
        "seed": 42,
        "temperature": 0.5,
        "top_p": 0.9,
        "response_format": form,
        "max_completion_tokens": 9,
        "presence_penalty": -1,
        "logit_bias": {"50": -100},
        "user": "u",
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "tools": TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "reasoning_effort": "low",
    }
    async with serve() as (client, provider):
        await client.call(completions, model="m", messages=HI, extra_body={"top_k": 5, "vendor": {"x": 1}}, **settings)
    sent = provider.requests[0].body
    settings["max_tokens"] = settings.pop("max_completion_tokens")
    assert {name: sent[name] for name in settings} == settings
    assert (sent["top_k"], sent["vendor"], sent["messages"]) == (5, {"x": 1}, HI)


async def test_token_probabilities(serve):
    parts = [chunk({"content": "a"}), chunk({}, "stop")]
    body = json.loads(parts[0][6:])
    body["choices"][0]["logprobs"] = {"content": [ENTRY]}
    streamed = streams(b"data: %b\n\n" % json.dumps(body).encode(), parts[1])
    async with serve(fails(200, completion("a", logprobs={"content": [ENTRY]})), streamed) as (client, provider):
        answer = await client.call(completions, model="m", messages=HI, logprobs=True, top_logprobs=1)
        chunks, _ = await client.stream(logprobs=True)
    found = [answer.choices[0].logprobs, *(choice.logprobs for part in chunks for choice in part.choices)]
    entries = [entry for logprobs in found if logprobs for entry in logprobs.content or ()]
    assert [(entry.token, entry.logprob, entry.top_logprobs[0].token) for entry in entries] == [("a", -0.25, "b")] * 2
    assert provider.requests[0].body["top_logprobs"] == 1


CALL = {"id": "call_a", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}


async def test_a_tool_call(serve):
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    reply = fails(200, completion("", message=message, finish_reason="tool_calls"))
    async with serve(reply) as (client, provider):
        answer = await client.call(completions, model="m", messages=HI, tools=TOOLS)
        history = [*HI, answer.choices[0].message, {"role": "tool", "tool_call_id": "call_a", "content": "3"}]
        await client.call(completions, model="m", messages=history, tools=TOOLS)
    (call,) = answer.choices[0].message.tool_calls
    assert (call.id, call.function.name, call.function.arguments) == ("call_a", "add", '{"x": 1}')
    assert (answer.choices[0].finish_reason, answer.choices[0].message.content) == ("tool_calls", None)
    assert provider.requests[1].body["messages"][1]["tool_calls"] == [CALL]


async def test_parallel_tool_calls_in_pieces(serve):
    def piece(index, arguments, name=None, **start):
        function = {"arguments": arguments, **({"name": name} if name else {})}
        return chunk({"tool_calls": [{"index": index, "function": function, **start}]})

    parts = [
        piece(0, "", "add", id="call_a", type="function"),
        piece(0, '{"x"'),
        piece(1, '{"y":', "sub", id="call_b", type="function"),
        piece(0, ": 1}"),
        piece(1, " 2}"),
        chunk({}, "tool_calls"),
    ]
    async with serve(streams(*parts)) as (client, _):
        chunks, error = await client.stream(tools=TOOLS)
    calls = {}
    for part in chunks:
        for choice in part.choices:
            for call in choice.delta.tool_calls or ():
                known = calls.setdefault(call.index, ["", "", ""])
                known[0] += call.id or ""
                known[1] += call.function.name or ""
                known[2] += call.function.arguments or ""
    assert error is None
    assert calls == {0: ["call_a", "add", '{"x": 1}'], 1: ["call_b", "sub", '{"y": 2}']}
    assert chunks[-1 if client.path == "/v1" else -2].choices[0].finish_reason == "tool_calls"


STATUS_ERRORS = {
    "400": (fails(400, {"error": {"message": "bad", "param": "tools"}}), openai.BadRequestError, "invalid_request"),
    "422": (fails(422), openai.BadRequestError, "invalid_request"),
    "context": (
        fails(400, {"error": {"code": "context_length_exceeded"}}),
        openai.BadRequestError,
        "context_length_exceeded",
    ),
    "401": (fails(401), openai.InternalServerError, "provider_credentials"),
    "429": (fails(429, headers={"retry-after": "30"}), openai.RateLimitError, "rate_limited"),
    "500": (fails(500), openai.InternalServerError, "provider_error"),
    "503": (fails(503), openai.InternalServerError, "provider_overloaded"),
    "html": (fails(502, "<html>"), openai.InternalServerError, "provider_error"),
    "reset": (resets(), openai.InternalServerError, "connection_reset"),
    "hang": (hangs(), openai.InternalServerError, "first_token_timeout"),
}


@pytest.mark.parametrize(("reply", "kind", "code"), STATUS_ERRORS.values(), ids=STATUS_ERRORS)
async def test_a_provider_that_fails_raises_the_clients_own_exception(serve, reply, kind, code):
    limits = Limits(last_first_token_timeout_s=0.3, whole_timeout_s=0.3)
    async with serve(reply, limits=limits) as (client, _):
        for members in ({}, {"stream": True}):
            client.forget()
            with pytest.raises(kind) as caught:
                await client.call(completions, model="m", messages=HI, **members)
            error = caught.value
            assert isinstance(error, openai.APIStatusError)
            assert (error.code, error.body["source"]) == (code, "provider")
            assert error.body["attempts"][0]["endpoint"] == "p0/up"
            assert error.request_id is None or isinstance(error.request_id, str)
    if code == "rate_limited":
        assert error.response.headers["retry-after"] == "30"


async def test_a_wrong_request_raises_the_clients_own_exception(serve):
    async with serve() as (client, provider):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.call(completions, model="m", messages=[{"role": "robot", "content": "x"}])
        assert (caught.value.param, caught.value.type) == ("messages[0].role", "invalid_request_error")
        with pytest.raises(openai.NotFoundError) as caught:
            await client.call(completions, model="nobody", messages=HI)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.NotFoundError):
            await client.call(lambda sdk: sdk.models.retrieve, model="nobody")
    assert provider.requests == []


async def test_a_stream_that_breaks_raises_in_the_middle(serve):
    parts = stream_chunks("one two three", usage=False, finish_reason=None)[:4]
    async with serve(streams(*parts, 0.05, cut=True)) as (client, _):
        chunks, error = await client.stream()
    assert text_of(chunks) == "one two three"
    assert isinstance(error, openai.APIError)
    assert not isinstance(error, openai.APIStatusError)
    assert "answer" in error.message


async def test_models_are_listed_and_found(serve):
    async with serve() as (client, _):
        listed = await client.call(lambda sdk: sdk.models.list)
        model = await client.call(lambda sdk: sdk.models.retrieve, model="m")
        endpoint = await client.call(lambda sdk: sdk.models.retrieve, model="p0/up")
    assert [entry.id for entry in listed.data] == ["m"]
    assert (model.id, model.object, model.owned_by, endpoint.id) == ("m", "model", "p0", "p0/up")


async def test_headers_say_who_answered(serve):
    async with serve() as (client, _):
        raw = await client.call(lambda sdk: sdk.chat.completions.with_raw_response.create, model="m", messages=HI)
        answer = raw.parse()
    assert raw.headers["x-generation-id"] == answer.id
    assert (raw.headers["x-mixgate-endpoint"], raw.headers["x-mixgate-attempts"]) == ("p0/up", "1")


@pytest.mark.parametrize(("key", "good"), [("one-key-of-ours", True), ("the-other-key", True), ("wrong", False)])
async def test_client_keys_let_in_who_has_one(serve, key, good):
    async with serve(keys=("one-key-of-ours", "the-other-key"), key=key) as (client, provider):
        for find, members in ((completions, {"model": "m", "messages": HI}), (lambda sdk: sdk.models.list, {})):
            if good:
                await client.call(find, **members)
                continue
            with pytest.raises(openai.AuthenticationError) as caught:
                await client.call(find, **members)
            assert (caught.value.code, caught.value.body["source"]) == ("invalid_api_key", "gateway")
    assert len(provider.requests) == good
    assert all(key not in json.dumps(seen.headers) for seen in provider.requests)


async def test_the_clients_own_retries_find_a_provider_that_recovered(serve):
    async with serve(fails(503, headers={"retry-after": "0"}), says("Again.")) as (client, provider):
        client.sdk.max_retries = 2
        answer = await client.call(completions, model="m", messages=HI)
    assert answer.choices[0].message.content == "Again."
    assert len(provider.requests) == 2

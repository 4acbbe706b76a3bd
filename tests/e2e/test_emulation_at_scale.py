"""Tools and JSON through models without them, at scale: what comes out is valid, cut by its length, or an error."""

import json
import os
import random
from collections import Counter

import pytest
from aiohttp import web

from gateway.server import chat as chat_reply
from providers.schema_validation import complaint
from tests.e2e.test_emulation import DEMO, PLAIN
from tests.fakes.engine import needs_engine
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.provider import chunk, completion, fake_provider
from tests.fakes.schemas import make_schema, make_tools, spoiled, wrapped

CASES = 200 if os.environ.get("MIXGATE_TEST_FULL") else 40
PATH = "/v1/chat/completions"
LOCAL_TOKENS_MAX = 400


def replies_with(*answers):
    """A reply of the fake provider: one choice per text, streamed in small pieces where a stream is asked for."""

    async def reply(request, seen):
        texts = answers[: seen.body.get("n") or 1]
        if not seen.body.get("stream"):
            body = completion("")
            body["choices"] = [
                {"index": place, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                for place, text in enumerate(texts)
            ]
            return web.json_response(body)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for place, text in enumerate(texts):
            for start in range(0, len(text), 16):
                await response.write(chunk({"content": text[start : start + 16]}, index=place))
            await response.write(chunk({}, "stop", index=place))
        await response.write(b"data: [DONE]\n\n")
        return response

    return reply


class Choice:
    """What one choice of an answer said, however it came."""

    def __init__(self):
        self.text = ""
        self.calls = {}
        self.reason = None

    def add(self, part, reason):
        self.text += part.get("content") or ""
        for place, call in enumerate(part.get("tool_calls") or ()):
            name, arguments = self.calls.get(call.get("index", place), ("", ""))
            function = call["function"]
            self.calls[call.get("index", place)] = (name + function.get("name", ""), arguments + function["arguments"])
        self.reason = reason or self.reason


async def ask(client, body):
    """The choices of an answer and its error, one of them None."""
    response = await client.post(PATH, json=body, timeout=60)
    if response.headers["content-type"] == "application/json":
        payloads = [response.json()]
    else:
        lines = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
        assert lines[-1] == "[DONE]"
        payloads = [json.loads(line) for line in lines[:-1]]
    error = next((payload["error"] for payload in payloads if "error" in payload), None)
    if error is not None:
        return None, error
    choices = {}
    for payload in payloads:
        for sent in payload["choices"]:
            part = sent.get("delta") or sent.get("message") or {}
            choices.setdefault(sent["index"], Choice()).add(part, sent["finish_reason"])
    return choices, None


def check(choices, made, tools):
    """What is wrong with an answer that was given as a good one."""
    for choice in choices.values():
        if choice.reason == "length":
            continue
        if tools is not None and choice.calls:
            if choice.reason != "tool_calls" or choice.text:
                return f"calls, and {choice.reason} with {choice.text!r}"
            for name, arguments in choice.calls.values():
                if name not in tools or (problem := complaint(strict(arguments), tools[name].schema)):
                    return f"call of {name}: {arguments[:200]}: {problem if name in tools else 'unknown'}"
        elif tools is not None and choice.reason != "stop":
            return f"no calls, and {choice.reason}"
        elif made is not None and (problem := complaint(strict(choice.text), made.schema)):
            return f"{choice.text[:200]}: {problem}"
    return None


def strict(text):
    """JSON as a client's parser reads it: no NaN."""

    def refuse(name):
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def json_form(made):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "made", "schema": made.schema}}}


def tool_form(tools, choice):
    offered = [
        {"type": "function", "function": {"name": name, "description": "Do it.", "parameters": made.schema}}
        for name, made in tools.items()
    ]
    return {"tools": offered, "tool_choice": choice}


def script(seed):
    """The request's own members, its judges, and makers of a right and of a wrong reply."""
    rng = random.Random(seed)
    if seed % 2:
        made = make_schema(seed)

        def right():
            return wrapped(rng, json.dumps(made.value(rng), ensure_ascii=False))

        def wrong():
            while True:
                text = spoiled(rng, made.value(rng))
                if not fits(text, made.schema):
                    return text

        return json_form(made), made, None, right, wrong
    tools = make_tools(seed)
    name, made = rng.choice(list(tools.items()))

    def call(arguments, name=name):
        return json.dumps({"tool_calls": [{"name": name, "arguments": arguments}]}, ensure_ascii=False)

    def right_call():
        return wrapped(rng, call(made.value(rng)))

    def wrong_call():
        whole = call(made.value(rng))
        bad = {"unheard_of": 1}
        return rng.choice((spoiled(rng, {"x": 1}), whole[:-3], whole[: len(whole) // 2], call(bad), call({}, "nobody")))

    chosen = rng.choice(("required", {"type": "function", "function": {"name": name}}))
    return tool_form(tools, chosen), None, tools, right_call, wrong_call


def fits(text, schema):
    try:
        return complaint(strict(text), schema) is None
    except ValueError:
        return False


@pytest.mark.parametrize("stream", [False, True])
async def test_a_scripted_model_is_right_at_first_after_one_repair_or_an_error(tmp_path, stream):
    counts = Counter()
    problems = []
    async with fake_provider() as provider:
        async with running_gateway(openai_config(provider.base_url, capabilities=PLAIN), tmp_path) as running:
            for seed in range(CASES):
                form, made, tools, right, wrong = script(seed)
                body = chat("Do.", stream=stream, n=1 + seed // 2 % 2, **form)
                plans = {
                    "at first": [replies_with(right(), right())],
                    "after one repair": [replies_with(right(), wrong()), replies_with(right(), right())],
                    "after all wrong": [replies_with(wrong(), wrong()), replies_with(right(), right())],
                    "never": [replies_with(wrong(), wrong())],
                }
                if body["n"] == 1:
                    plans["after one repair"] = plans["after all wrong"]
                for when, replies in plans.items():
                    provider.replies = list(replies)
                    choices, error = await ask(running.client, body)
                    counts[when, "answered" if error is None else error["code"]] += 1
                    if (error is None) != (when != "never"):
                        problems.append(f"{seed}, {when}: {error or [choice.text for choice in choices.values()]}")
                    elif error is None and (len(choices) != body["n"] or (found := check(choices, made, tools))):
                        problems.append(f"{seed}, {when}: {found}")
    print("scripted:", dict(counts))  # noqa: T201 (the figures are what a full run is for)
    assert problems == []
    assert counts == {
        **{(when, "answered"): CASES for when in ("at first", "after one repair", "after all wrong")},
        ("never", "provider_error"): CASES,
    }


@needs_engine
@pytest.mark.parametrize("stream", [False, True])
async def test_the_local_model_keeps_to_every_schema_and_tool_set(tmp_path, stream):
    counts = Counter()
    problems = []
    async with running_gateway(DEMO, tmp_path) as running:
        await running.gateway._local.wait_ready("tiny")
        for seed in range(CASES):
            rng = random.Random(seed)
            made, tools = (make_schema(seed), None) if seed % 2 else (None, make_tools(seed))
            form = json_form(made) if made else tool_form(tools, rng.choice(("required", "auto")))
            members = {"model": "demo", "seed": seed, "max_tokens": LOCAL_TOKENS_MAX, "n": 1 + seed // 2 % 2}
            choices, error = await ask(running.client, {**chat("Tell me of Peru.", stream=stream), **members, **form})
            if error is not None:
                counts[error["code"]] += 1
                problems.append(f"{seed}: {error}")
                continue
            for choice in choices.values():
                found = check({0: choice}, made, tools)
                counts["cut" if choice.reason == "length" else "wrong" if found else "valid"] += 1
                if found:
                    problems.append(f"{seed}: {found}")
    print("local:", dict(counts))  # noqa: T201 (the figures are what a full run is for)
    assert problems == []
    assert counts["valid"] >= 0.99 * (counts["valid"] + counts["wrong"])
    assert counts["valid"] > counts["cut"]


async def test_a_client_that_waits_for_an_emulated_stream_is_pinged(tmp_path, monkeypatch):
    monkeypatch.setattr(chat_reply, "PING_FIRST_S", 0.05)
    monkeypatch.setattr(chat_reply, "PING_EVERY_S", 0.05)
    form, made, _, right, wrong = script(1)
    waits = 0.3

    def slowly(reply):
        async def wait(request, seen):
            await chat_reply.asyncio.sleep(waits)
            return await reply(request, seen)

        return wait

    async with fake_provider() as provider:
        async with running_gateway(openai_config(provider.base_url, capabilities=PLAIN), tmp_path) as running:
            for last, answered in ((right, True), (wrong, False)):
                provider.replies = [slowly(replies_with(wrong())), slowly(replies_with(last()))]
                response = await running.client.post(PATH, json=chat("Do.", stream=True, **form))
                assert response.status_code == 200
                lines = response.text.split("\n\n")
                assert lines[:4] == [": ping"] * 4
                payloads = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
                if answered:
                    text = "".join(sent["delta"].get("content", "") for p in payloads for sent in p["choices"])
                    assert complaint(json.loads(text), made.schema) is None
                else:
                    assert payloads[-1]["error"]["code"] == "provider_error"
                assert lines[-2] == "data: [DONE]"

"""Answers that are none: empty, a web page, an error inside a 200, silence behind a head, an end without an end."""

import asyncio
import json

import pytest

from gateway.attempts import Limits
from tests.fakes.duo import Place, fan_config, shortened, stage
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.listener import FULL, listen
from tests.fakes.scripted import STORY, TEXT, chunk, scripted, silent, streams, tells

ASK = chat("Tell it.", stream=True, stream_options={"include_usage": True})
ROLE = chunk({"role": "assistant", "content": ""})
ERROR = {"error": {"message": "no capacity", "code": 503}}


def answers(body, content_type="application/json", status=200):
    """A whole body, whatever it is."""

    async def script(talk):
        await talk.whole(status, body, content_type, {})

    return script


def completion(**choice):
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0, **choice}]}
    return json.dumps(body).encode()


NONE = {
    "empty": answers(b""),
    "empty stream": answers(b"", "text/event-stream"),
    "empty page": answers(b"", "text/html"),
    "page": answers(b"<html><body>It works!</body></html>", "text/html"),
    "page as a stream": streams(b"<html><body>It works!</body></html>"),
    "page said to be JSON": answers(b"<html></html>"),
    "no JSON": answers(b"Bad Gateway", "text/plain"),
    "null": answers(b"null"),
    "error in the body": answers(json.dumps(ERROR).encode()),
    "error in text": answers(b'{"error": "out of memory"}'),
    "error as the first chunk": streams(b"data: %b\n\n" % json.dumps(ERROR).encode()),
    "error behind the role": streams(ROLE, b"data: %b\n\n" % json.dumps(ERROR).encode()),
    "no choices": answers(b'{"id":"x","object":"chat.completion","choices":[]}'),
    "no content, no reason": answers(completion(message={"role": "assistant", "content": None}, finish_reason=None)),
    "only a role": streams(ROLE, b"data: [DONE]\n\n"),
    "only an end mark": streams(b"data: [DONE]\n\n"),
    "only comments": streams(b": ping\n\n" * 5),
    "nothing behind the role": streams(ROLE),
    "two broken chunks": streams(b"data: {\n\n", b"data: {\n\n"),
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_an_answer_that_is_none_is_answered_by_the_next(tmp_path, stream):
    names = {f"none{number}": form for number, form in enumerate(NONE)}
    async with scripted(tells()) as bad, scripted(tells()) as good:
        bad.by_path = {f"/{name}/v1/chat/completions": NONE[form] for name, form in names.items()}
        urls = {name: f"http://127.0.0.1:{bad.port}/{name}/v1" for name in names}
        async with running_gateway(fan_config(urls, Place(good.base_url)), tmp_path, limits=shortened()) as running:
            for name, form in names.items():
                if stream:
                    told = await listen(running.client, {**ASK, "model": name})
                    assert told.complete, (form, told.payloads[-2:] or told.body)
                    assert told.text == TEXT, form
                    assert told.chunks[-1]["provider"] == "good", form
                    assert told.usage["completion_tokens"] == len(STORY), form
                else:
                    response = await running.client.post("/v1/chat/completions", json={**chat("x"), "model": name})
                    assert response.status_code == 200, (form, response.text)
                    assert response.json()["choices"][0]["message"]["content"] == TEXT, form
                tries = [call for call in bad.calls if call.path.startswith(f"/{name}/")]
                assert 1 <= len(tries) <= 2, form
        assert len(good.calls) == len(NONE)


async def test_when_nobody_answers_anything_the_client_hears_of_it(tmp_path):
    async with stage(tmp_path, NONE["page"], NONE["empty stream"]) as on:
        told = await listen(on.running.client, ASK)
    assert told.status == 502
    assert told.error["source"] == "provider"
    assert "It works" not in json.dumps(told.body)
    assert {one["endpoint"] for one in told.error["attempts"]} == {"p0/up", "p1/up"}


@pytest.mark.parametrize(
    "script",
    [silent(head=True), streams(ROLE, 60.0), streams(*[part for _ in range(600) for part in (b": x\n\n", 0.05)])],
    ids=["nothing", "a role", "comments"],
)
async def test_a_head_without_content_is_left_at_the_first_token_limit(tmp_path, script):
    limit_s = 10.0 if FULL else 0.5
    async with stage(tmp_path, script, tells(), limits=Limits(first_token_timeout_s=limit_s)) as on:
        told = await listen(on.running.client, ASK)
        assert told.complete
        assert told.text == TEXT
        assert {one["provider"] for one in told.chunks} == {"p1"}
        assert limit_s - 0.05 <= told.elapsed_s <= limit_s + (0.5 if FULL else 2.0)
        await asyncio.sleep(0.3)
        assert on.providers[0].running == 0


@pytest.mark.parametrize("after", range(1, 51) if FULL else (1, 2, 17, 50))
async def test_without_rescue_a_stall_after_any_token_ends_with_an_error_in_band(tmp_path, after):
    idle_s = 0.4
    limits = Limits(idle_timeout_s=idle_s)
    route = "policy: ordered, rescue: false"
    async with stage(tmp_path, tells(stop_after=after, how="stall"), tells(), limits=limits, route=route) as on:
        told = await listen(on.running.client, ASK)
        assert told.error["code"] == "provider_stalled"
        assert told.text == "".join(STORY[:after])
        assert idle_s - 0.05 <= told.elapsed_s <= idle_s + (1.0 if FULL else 2.0)
        assert told.finish_reasons == []
        assert on.tries == (1, 0)


@pytest.mark.parametrize("done", [False, True], ids=["no end mark", "an end mark"])
@pytest.mark.parametrize("after", [0, 1, 59, 60])
async def test_an_end_without_a_finish_reason_is_never_a_success(tmp_path, after, done):
    parts = [ROLE, *(chunk({"content": token}) for token in STORY[:after]), *([b"data: [DONE]\n\n"] * done)]
    async with stage(tmp_path, streams(*parts)) as on:
        told = await listen(on.running.client, ASK)
        assert not told.complete
        assert told.error is not None
        if after:
            assert told.error["code"] == "answer_truncated"
            assert told.text in ("", "".join(STORY[:after]))  # what came all at once was never begun


async def test_a_pause_shorter_than_the_limit_is_no_stall(tmp_path):
    limits = Limits(first_token_timeout_s=0.8, idle_timeout_s=0.8)
    parts = [0.4, ROLE]
    for token in STORY[:3]:
        parts += [chunk({"content": token}), 0.4]
    parts += [chunk({}, "stop"), b"data: [DONE]\n\n"]
    async with stage(tmp_path, streams(*parts), tells(), limits=limits) as on:
        told = await listen(on.running.client, ASK)
        assert told.complete
        assert told.text == "".join(STORY[:3])
        assert on.tries == (1, 0)

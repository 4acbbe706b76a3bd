"""Connections that die between requests, whole answers that break, pings while nobody answers, echoes of a prefill."""

import asyncio
import json

import pytest

from gateway.attempts import Limits
from gateway.server import chat as chat_reply
from tests.fakes.duo import CAPABILITIES, PREFILLING, stage
from tests.fakes.gateway import chat
from tests.fakes.listener import FULL, listen
from tests.fakes.scripted import STORY, TEXT, chunk, fails, resets, silent, streams, tells

ASK = chat("Tell it.", stream=True, stream_options={"include_usage": True})
WHOLE = chat("Tell it.")
COUNT = 1000 if FULL else 60


async def wait_until(check):
    for _ in range(200):
        if check():
            return
        await asyncio.sleep(0.02)


def closing(how, pause_s=0.0):
    """Answers, and then drops the connection without having said that it would."""

    async def script(talk):
        await tells()(talk)
        await asyncio.sleep(pause_s)
        getattr(talk, how)()

    return script


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("body", [ASK, WHOLE], ids=["stream", "whole"])
async def test_a_connection_that_died_while_idle_costs_no_attempt(tmp_path, how, body):
    async with stage(tmp_path, closing(how, 0.001), tells(prefill="refused")) as on:
        for number in range(COUNT):
            response = await on.running.client.post("/v1/chat/completions", json=body)
            assert response.status_code == 200
            assert response.headers["x-mixgate-attempts"] == "1"
            await asyncio.sleep((0, 0.0005, 0.001, 0.0015, 0.003)[number % 5])
        assert on.tries == (COUNT, 0)
        seen = on.running.gateway.health.observe("p0/up", asyncio.get_running_loop().time())
        assert seen.standing == "healthy"


CUT_BODIES = {
    "reset": resets(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n" + b'{"id":'),
    "reset in the head": resets(b"HTTP/1.1 200 OK\r\ncontent-ty"),
    "500 cut": resets(b"HTTP/1.1 500 Oh\r\ncontent-length: 900\r\n\r\n{"),
}


@pytest.mark.parametrize("script", CUT_BODIES.values(), ids=CUT_BODIES)
async def test_a_whole_answer_that_breaks_is_asked_for_again(tmp_path, script):
    async with stage(tmp_path, script, tells()) as on:
        response = await on.running.client.post("/v1/chat/completions", json=WHOLE)
        assert response.status_code == 200, response.text
        assert response.json()["choices"][0]["message"]["content"] == TEXT
        assert response.json()["provider"] == "p1"
        assert on.tries[0] <= 2


@pytest.mark.parametrize("stop_after", [0, 1, 30, 59])
async def test_a_whole_answer_run_as_a_stream_is_whole_whatever_breaks(tmp_path, stop_after):
    script = tells(stop_after=stop_after, how="stall") if stop_after % 2 else tells(stop_after=stop_after)
    limits = Limits(first_token_timeout_s=0.6, rescue_idle_timeout_s=0.6)  # the client has nothing yet
    async with stage(tmp_path, script, tells(), route="policy: ordered, upcast: true", limits=limits) as on:
        response = await on.running.client.post("/v1/chat/completions", json=WHOLE)
        assert response.status_code == 200, response.text
        said = response.json()
        assert said["object"] == "chat.completion"
        assert said["choices"][0]["message"]["content"] == TEXT
        assert said["choices"][0]["finish_reason"] == "stop"
        assert said["usage"]["completion_tokens"] >= 0.9 * len(STORY)
        assert all(call.body["stream"] is True for one in on.providers for call in one.calls)


async def test_pings_go_out_while_nobody_answers_and_the_next_may_still(tmp_path, monkeypatch):
    monkeypatch.setattr(chat_reply, "PING_FIRST_S", 0.2)
    monkeypatch.setattr(chat_reply, "PING_EVERY_S", 0.1)
    async with stage(tmp_path, silent(), tells()) as on:
        told = await listen(on.running.client, ASK)
        assert told.pings >= 2
        assert told.complete
        assert told.text == TEXT
        # A head that left with the first ping names whoever was asked then; the chunks name who answered.
        assert {one["provider"] for one in told.chunks} == {"p1"}


async def test_after_a_ping_a_failure_is_told_in_band(tmp_path, monkeypatch):
    monkeypatch.setattr(chat_reply, "PING_FIRST_S", 0.2)
    async with stage(tmp_path, silent(), fails(503)) as on:
        told = await listen(on.running.client, ASK)
        assert told.status == 200
        assert told.error is not None
        assert told.text == ""
        assert {one["endpoint"] for one in told.error["attempts"]} == {"p0/up", "p1/up"}


@pytest.mark.parametrize("after", [5, 20, 45, 59])
async def test_a_provider_that_repeats_what_it_was_given_to_continue_is_not_heard_twice(tmp_path, after):
    """Mistral's API includes the prefix in its answer."""

    async def echoing(talk):
        assert talk.call.body["messages"][-1]["role"] == "assistant"
        await tells(prefill="ignored")(talk)

    async with stage(tmp_path, tells(stop_after=after), echoing, capabilities=PREFILLING) as on:
        told = await listen(on.running.client, ASK)
        assert told.complete
        assert told.text == TEXT


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_an_end_for_a_reason_is_no_cut(tmp_path, reason):
    async with stage(tmp_path, tells(tokens=STORY[:20], finish=reason), tells()) as on:
        told = await listen(on.running.client, ASK)
        assert told.complete
        assert told.finish_reasons == [reason]
        assert on.tries == (1, 0)


async def test_a_client_that_leaves_during_a_rescue_ends_it(tmp_path):
    async with stage(tmp_path, tells(stop_after=20), silent(head=True), capabilities=PREFILLING) as on:
        asking = asyncio.ensure_future(on.running.client.post("/v1/chat/completions", json=ASK))
        await wait_until(lambda: on.providers[1].calls)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await wait_until(lambda: on.providers[1].calls[0].left_s is not None)
        assert on.providers[1].calls[0].left_s is not None
        assert on.tries == (1, 1)


@pytest.mark.parametrize("capabilities", [CAPABILITIES, PREFILLING], ids=["again", "prefill"])
async def test_a_slow_rescue_is_pinged_through(tmp_path, monkeypatch, capabilities):
    monkeypatch.setattr(chat_reply, "PING_FIRST_S", 0.1)
    monkeypatch.setattr(chat_reply, "PING_EVERY_S", 0.1)
    second = tells(prefill="openai", late_s=0.35)
    async with stage(tmp_path, tells(stop_after=20), second, capabilities=capabilities) as on:
        told = await listen(on.running.client, ASK)
        assert told.complete
        assert told.text == TEXT
        assert told.pings >= 1


async def test_thoughts_that_were_heard_are_not_gone_on_from(tmp_path):
    thinking = chunk({"role": "assistant", "reasoning_content": "Let me see."})
    async with stage(tmp_path, streams(thinking, 0.05), tells(), capabilities=PREFILLING) as on:
        told = await listen(on.running.client, ASK)
        assert told.error["code"] == "answer_truncated"
        assert told.finish_reasons == []
        assert on.tries[1] == 0


async def test_two_answers_at_once_on_one_gateway_do_not_mix(tmp_path):
    """Cut and rescued, in hundreds at the same time: everybody hears their own."""

    def named(talk):
        return tuple(f" {talk.call.body['messages'][0]['content']}-{place}" for place in range(40))

    async def cut(talk):
        await tells(tokens=named(talk), stop_after=int(talk.call.body["messages"][0]["content"]) % 40 + 1)(talk)

    async def whole(talk):
        await tells(tokens=named(talk), prefill="openai")(talk)

    count = 500 if FULL else 60
    async with stage(tmp_path, cut, whole, capabilities=PREFILLING) as on:
        asking = [listen(on.running.client, {**chat(str(number), stream=True)}) for number in range(count)]
        for number, told in enumerate(await asyncio.gather(*asking)):
            assert told.complete, told.payloads[-2:]
            assert told.text == "".join(f" {number}-{place}" for place in range(40))
        assert json.dumps(on.providers[1].wrong_prefixes) == "[]"

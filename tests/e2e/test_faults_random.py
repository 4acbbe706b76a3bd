"""Everything that can go wrong, at random and at once: whoever asks hears the whole text or an honest error."""

import asyncio
import random

import pytest

from gateway.attempts import Limits
from gateway.health import answers, breaker, parking
from tests.fakes.duo import PREFILLING, stage
from tests.fakes.gateway import chat
from tests.fakes.listener import FULL, listen
from tests.fakes.provider import PRICE_INPUT_PUSD, PRICE_OUTPUT_PUSD
from tests.fakes.scripted import PROMPT_TOKENS, STORY, TEXT, chunk, fails, resets, silent, streams, tells

COUNT = 6_000 if FULL else 210
AT_ONCE = 60 if FULL else 20
ASK = chat("Tell it.", stream=True, stream_options={"include_usage": True})
QUICK = Limits(first_token_timeout_s=0.8, idle_timeout_s=0.5, last_first_token_timeout_s=1.0)
BROKEN = (
    fails(500),
    fails(502, "<html>Bad gateway</html>"),
    fails(503, retry_after_ms="10"),
    fails(529),
    fails(429),
    fails(429, retry_after_ms="50"),
    fails(400, {"error": {"message": "x", "code": "unsupported_parameter", "type": "invalid_request_error"}}),
    resets(),
    resets(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"),
    silent(head=True),
    silent(),
    streams(),
    streams(b"data: [DONE]\n\n"),
    streams(b'data: {"error": {"message": "no", "code": 500}}\n\n'),
    streams(chunk({"role": "assistant", "content": ""}), 0.01),
    tells(garble=(0, 1), prefill="openai"),
)


@pytest.fixture(autouse=True)
def _forgiving_health(monkeypatch):
    """Else whoever is broken is left alone after a few requests, and nothing more is seen of it."""
    for module, name, value in (
        (breaker, "FAILURES_MAX", 10**9),
        (breaker, "CONNECT_FAILURES_MAX", 10**9),
        (answers, "RATIO_LEAST", 10**9),
        (parking, "PARK_S", 0.01),
        (parking, "PARK_MAX_S", 0.01),
        (parking, "CAP_FIRST_SHARE", 100.0),
        (parking, "CAP_REST_S", 0.0),
    ):
        monkeypatch.setattr(module, name, value)


def cut(rng):
    how = rng.choice(("reset", "close", "end", "error", "stall"))
    return tells(stop_after=rng.randrange(len(STORY) + 1), how=how, prefill="openai")


async def ask_all(on, count, judge):
    """Many at a time."""
    for start in range(0, count, AT_ONCE):
        asking = (listen(on.running.client, ASK) for _ in range(min(AT_ONCE, count - start)))
        for told in await asyncio.gather(*asking):
            judge(told)


@pytest.mark.parametrize("seed", range(3) if FULL else range(2))
async def test_with_one_sound_provider_behind_it_nobody_hears_of_a_broken_one(tmp_path, seed):
    rng = random.Random(seed)

    async def broken(talk):
        drawn = rng.random()
        script = tells() if drawn < 0.7 else cut(rng) if drawn < 0.85 else rng.choice(BROKEN)
        await script(talk)

    def judge(told):
        assert told.complete, told.body or told.payloads[-3:]
        assert told.text == TEXT
        assert told.usage["completion_tokens"] >= 0.9 * len(STORY)

    sound = tells(prefill="openai")
    async with stage(tmp_path, broken, sound, limits=QUICK, capabilities=PREFILLING) as on:
        await ask_all(on, COUNT // 3, judge)
        assert on.providers[1].wrong_prefixes == []
        assert len(on.providers[0].calls) >= COUNT // 30
        for provider in on.providers:
            told = sum(call.output_tokens for call in provider.calls) * PRICE_OUTPUT_PUSD
            asked = sum(bool(call.output_tokens) for call in provider.calls) * PROMPT_TOKENS * PRICE_INPUT_PUSD
            assert provider.billed_pusd >= told + asked


async def test_where_all_are_broken_an_answer_is_whole_or_says_that_it_is_not(tmp_path):
    rng = random.Random(9)
    seen = {"whole": 0, "cut": 0, "none": 0}

    def anything(share):
        async def script(talk):
            drawn = rng.random()
            plain = tells(prefill="openai") if drawn < share else cut(rng) if drawn < 0.8 else rng.choice(BROKEN)
            await plain(talk)

        return script

    def judge(told):
        if told.status != 200:
            assert told.error is not None
            seen["none"] += 1
        elif told.complete:
            assert told.text == TEXT
            assert told.error is None
            seen["whole"] += 1
        else:
            assert told.error is not None
            assert TEXT.startswith(told.text)
            assert told.finish_reasons == []
            seen["cut"] += 1

    scripts = (anything(0.3), anything(0.4), anything(0.5))
    async with stage(tmp_path, *scripts, limits=QUICK, capabilities=PREFILLING) as on:
        await ask_all(on, COUNT // 3, judge)
        for _ in range(100):
            if not any(provider.running for provider in on.providers):
                break
            await asyncio.sleep(0.05)
        assert [provider.running for provider in on.providers] == [0, 0, 0]
        health = on.running.gateway.health
        now_s = asyncio.get_running_loop().time()
        assert [health.observe(f"p{place}/up", now_s).in_flight for place in range(3)] == [0, 0, 0]
    assert seen["whole"] > COUNT // 20

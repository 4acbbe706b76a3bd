"""The sixteen failures that every user of a gateway meets: one streamed request each, a first provider and a fallback.

Real timings under MIXGATE_TEST_FULL; else the long ones are a tenth of a second where they would be ten.
"""

import asyncio
from contextlib import asynccontextmanager

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from tests.fakes.duo import CAPABILITIES, PREFILLING, Place, stage
from tests.fakes.gateway import chat
from tests.fakes.listener import FULL, listen
from tests.fakes.provider import PRICE_INPUT_PUSD, PRICE_OUTPUT_PUSD
from tests.fakes.scripted import PROMPT_TOKENS, STORY, TEXT, fails, resets, silent, story, tells

ASK = chat("Tell it.", stream=True, stream_options={"include_usage": True})
SLACK_S = 2.0
"""A busy machine may take so much longer for what should take no time."""
OTHER = "".join(reversed(STORY))
"""What a provider says that nobody should hear."""
LARGE = Place("", context_tokens=131_072)


def in_limit(full_s, short_s):
    """The bound as written, or that of shortened limits with room for a busy machine."""
    return full_s if FULL else short_s + SLACK_S


@asynccontextmanager
async def sdk(url):
    async with httpx.AsyncClient(trust_env=False) as client:
        yield AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=60, http_client=client)


async def sdk_text(url):
    """The text, the last finish reason and the usage as the official client hears them."""
    text, reason, usage = "", None, None
    async with sdk(url) as client:
        async for part in await client.chat.completions.create(**ASK):
            usage = part.usage or usage
            for choice in part.choices:
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
    return text, reason, usage


def check_whole(told, *, provider):
    """A complete success with exactly that text. A stream has one name on all its chunks: of whoever began it."""
    assert told.complete, told.payloads[-3:] or told.body
    assert told.text == TEXT
    assert told.finish_reasons == ["stop"]
    assert {one["provider"] for one in told.chunks} == {provider}


def rescued(told):
    """What the last chunk says of the rescue."""
    assert "rescued" in told.notes, told.notes
    return told.notes["rescued"]


async def test_s01_a_short_retry_after_is_waited_out_and_the_first_answers(tmp_path):
    wait_s = 2 if FULL else 1
    async with stage(tmp_path, [fails(429, retry_after=str(wait_s)), tells()], tells(story(9))) as on:
        told = await listen(on.running.client, ASK)
        check_whole(told, provider="p0")
        assert on.tries == (2, 0)
        first, second = on.providers[0].calls
        assert wait_s <= second.at_s - first.at_s <= wait_s + SLACK_S
        assert told.attempts == 2


async def test_s02_a_429_without_end_is_left_for_the_fallback(tmp_path):
    async with stage(tmp_path, fails(429), tells()) as on:
        told = await listen(on.running.client, ASK)
        check_whole(told, provider="p1")
        assert 1 <= on.tries[0] <= 4
        assert on.tries[1] == 1
        assert told.elapsed_s <= 3.0


async def test_s03_after_one_500_the_same_endpoint_answers(tmp_path):
    async with stage(tmp_path, [fails(500), tells()], tells(story(9))) as on:
        told = await listen(on.running.client, ASK)
        check_whole(told, provider="p0")
        assert on.tries == (2, 0)
        assert told.elapsed_s <= 0.4 + SLACK_S
        assert on.providers[0].billed_pusd == PROMPT_TOKENS * PRICE_INPUT_PUSD + len(STORY) * PRICE_OUTPUT_PUSD


async def test_s04_a_503_without_end_is_left_for_the_fallback(tmp_path):
    async with stage(tmp_path, fails(503), tells()) as on:
        told = await listen(on.running.client, ASK)
        check_whole(told, provider="p1")
        assert 1 <= on.tries[0] <= 2
        assert told.elapsed_s <= SLACK_S


async def test_s05_a_reset_before_the_head_is_answered_by_whoever_can(tmp_path):
    async with stage(tmp_path, resets(), tells()) as on:
        told = await listen(on.running.client, ASK)
        check_whole(told, provider="p1")
        assert 1 <= on.tries[0] <= 2
        assert told.elapsed_s <= 0.4 + SLACK_S


@pytest.mark.parametrize("head", [False, True], ids=["nothing", "only a head"])
async def test_s06_silence_is_left_after_one_try(tmp_path, head):
    async with stage(tmp_path, silent(120, head=head), tells()) as on:
        told = await listen(on.running.client, ASK)
        check_whole(told, provider="p1")
        assert on.tries == (1, 1)
        assert told.elapsed_s <= in_limit(15, 0.6)
        await asyncio.sleep(0.3)
        assert on.providers[0].calls[0].left_s is not None


async def test_s07_a_first_token_that_comes_late_is_not_waited_for(tmp_path):
    async with stage(tmp_path, tells(late_s=20 if FULL else 4), tells()) as on:
        told = await listen(on.running.client, ASK)
        check_whole(told, provider="p1")
        assert told.elapsed_s <= in_limit(15, 0.6)


@pytest.mark.parametrize("how", ["reset", "close", "end", "error"])
@pytest.mark.parametrize("by", ["prefill", "again"])
async def test_s08_an_answer_cut_after_40_of_60_tokens_is_whole_all_the_same(tmp_path, how, by):
    capabilities = PREFILLING if by == "prefill" else CAPABILITIES
    second = tells(prefill="openai" if by == "prefill" else "refused")
    async with stage(tmp_path, tells(stop_after=40, how=how), second, capabilities=capabilities) as on:
        told = await listen(on.running.client, ASK)
        check_whole(told, provider="p0")
        assert on.tries == (1, 1)
        note = rescued(told)
        assert (note["by"], note["cut"], note["continued"]) == (by, "p0/up", "p1/up")
        assert note["after_chars"] == len("".join(STORY[:40]))
        assert on.providers[1].wrong_prefixes == []
        assert told.elapsed_s <= SLACK_S
        # Each provider bills what it wrote, and the client is told of no less.
        assert [one.calls[0].output_tokens for one in on.providers] == [40, 20 if by == "prefill" else 60]
        assert 55 <= told.usage["completion_tokens"] <= 60


async def test_s09_silence_after_20_tokens_is_gone_on_from_elsewhere(tmp_path):
    async with stage(
        tmp_path, tells(stop_after=20, how="stall"), tells(prefill="openai"), capabilities=PREFILLING
    ) as on:
        told = await listen(on.running.client, ASK)
        check_whole(told, provider="p0")
        assert rescued(told)["code"] == "provider_stalled"
        assert told.elapsed_s <= in_limit(15, 0.6)
        assert on.tries == (1, 1)
        await asyncio.sleep(0.3)
        assert on.providers[0].calls[0].left_s is not None


async def test_s10_one_malformed_chunk_is_skipped_in_place(tmp_path):
    async with stage(tmp_path, tells(garble=(30,)), tells(story(9))) as on:
        told = await listen(on.running.client, ASK)
        check_whole(told, provider="p0")
        assert told.notes["skipped_chunks"] == 1
        assert on.tries == (1, 0)


@pytest.mark.parametrize("held", [False, True], ids=["its body ends", "its connection stays open"])
async def test_s11_without_an_end_mark_the_answer_is_finished_and_its_usage_kept(tmp_path, held):
    async with stage(tmp_path, tells(done=False, hold_s=60.0 if held else 0.0), tells(story(9))) as on:
        told = await listen(on.running.client, ASK)
        check_whole(told, provider="p0")
        assert told.usage["completion_tokens"] == len(STORY)
        assert on.tries == (1, 0)
        # What is left open is closed for it, soon after the last finish reason.
        assert told.elapsed_s <= (in_limit(5.5, 0.6) if held else SLACK_S)
        assert told.times_s[len(STORY)] <= SLACK_S


async def test_s12_a_prompt_that_does_not_fit_goes_to_the_larger_model_at_once(tmp_path):
    said = {"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}}
    async with stage(tmp_path, fails(400, said), tells(), places={1: LARGE}) as on:
        told = await listen(on.running.client, ASK)
        check_whole(told, provider="p1")
        assert on.tries == (1, 1)
        assert told.elapsed_s <= SLACK_S


@pytest.mark.parametrize("second", [Place(""), Place("", context_tokens=8_192)], ids=["as large", "smaller"])
async def test_s12_nobody_who_is_not_larger_is_asked(tmp_path, second):
    said = {"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}}
    async with stage(tmp_path, fails(400, said), tells(), places={1: second}) as on:
        told = await listen(on.running.client, ASK)
        assert (told.status, told.error["code"]) == (400, "context_length_exceeded")
        assert on.tries == (1, 0)
        assert told.headers["x-should-retry"] == "false"


async def test_s13_a_refusal_of_what_was_said_is_passed_on(tmp_path):
    reason = "Your request was rejected as a result of our safety system."
    said = {"error": {"message": reason, "type": "invalid_request_error", "code": "content_policy_violation"}}
    async with stage(tmp_path, fails(400, said), tells()) as on:
        told = await listen(on.running.client, ASK)
        assert (told.status, told.error["code"]) == (400, "content_policy_violation")
        assert told.error["message"] == reason
        async with sdk(on.running.url) as client:
            with pytest.raises(openai.BadRequestError, match="safety system") as caught:
                await client.chat.completions.create(**ASK)
        assert caught.value.code == "content_policy_violation"
        assert on.tries == (2, 0)  # two requests, one try each


async def test_s14_a_fallback_that_refuses_a_prefill_is_asked_again_and_nobody_sees_it(tmp_path):
    async with stage(tmp_path, tells(stop_after=40), tells(prefill="refused"), capabilities=PREFILLING) as on:
        told = await listen(on.running.client, ASK)
        check_whole(told, provider="p0")
        assert on.tries == (1, 2)
        first, second = (call.body["messages"][-1]["role"] for call in on.providers[1].calls)
        assert (first, second) == ("assistant", "user")
        assert rescued(told)["by"] == "again"
        assert "prefill" not in "".join(told.payloads[:-2])
        assert on.providers[1].calls[0].output_tokens == 0


async def test_s16_the_fallback_names_itself_and_failed_attempts_are_not_billed(tmp_path):
    places = {1: Place("", serves="other", price="{input: 3, output: 5}")}
    async with stage(tmp_path, fails(503), tells(model="fallback-model"), places=places) as on:
        told = await listen(on.running.client, ASK)
        check_whole(told, provider="p1")
        assert {one["model"] for one in told.chunks} == {"other"}
        assert told.headers["x-mixgate-endpoint"] == "p1/up"
        assert told.usage["prompt_tokens"] == PROMPT_TOKENS
        assert told.usage["completion_tokens"] == len(STORY)
        assert on.providers[0].billed_pusd == 0
        assert on.providers[1].billed_pusd == PROMPT_TOKENS * PRICE_INPUT_PUSD + len(STORY) * PRICE_OUTPUT_PUSD


HEARD = {
    "s01": ([fails(429, retry_after_ms="200"), tells()], tells()),
    "s03": ([fails(500), tells()], tells()),
    "s05": (resets(), tells()),
    "s08": (tells(stop_after=40), tells(prefill="openai")),
    "s09": (tells(stop_after=20, how="stall"), tells(prefill="openai")),
    "s10": (tells(garble=(30,)), tells()),
    "s11": (tells(done=False), tells()),
    "s14": (tells(stop_after=40), tells(prefill="refused")),
}


@pytest.mark.parametrize("scripts", HEARD.values(), ids=HEARD)
async def test_the_official_client_hears_one_clean_answer(tmp_path, scripts):
    async with stage(tmp_path, *scripts, capabilities=PREFILLING) as on:
        text, reason, usage = await sdk_text(on.running.url)
    assert (text, reason) == (TEXT, "stop")
    assert 55 <= usage.completion_tokens <= 60

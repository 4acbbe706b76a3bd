"""Streams that break or come apart at every byte: no hang, no wrong text."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from tests.fakes.duo import CAPABILITIES, PREFILLING, Place, fan_config, shortened, stage
from tests.fakes.fault_proxy import NO_FAULTS, Faults, fault_proxy
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.listener import FULL, listen
from tests.fakes.scripted import chunk, scripted, story, tells

ASK = chat("Tell it.", stream=True, stream_options={"include_usage": True})
STEP = 1 if FULL else 37
SEVENTH = 7 if FULL else 61
"""The same for variations of the theme."""
BATCH = 256
"""Providers of one configuration."""
HANG_S = 15.0
TOKENS = story(26)
TEXT = "".join(TOKENS)


async def size_of_the_stream():
    """How many bytes the provider sends for one answer, head and framing included."""
    async with scripted(tells(tokens=TOKENS)) as provider:
        reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
        body = json.dumps({"messages": [{"role": "user", "content": "x"}], "stream": True}).encode()
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.close()
        return provider.calls[0].written_bytes


@asynccontextmanager
async def broken_at(folder, offsets, *, route="policy: ordered", capabilities=PREFILLING):
    """A gateway with the Routes `at17`, whose first provider is behind a proxy; gives what asks one of them."""
    async with scripted(tells(tokens=TOKENS)) as bad, scripted(tells(tokens=TOKENS, prefill="openai")) as good:
        async with fault_proxy(bad.port) as proxy:
            urls = {f"at{offset}": proxy.base_url for offset in offsets}
            config = fan_config(urls, Place(good.base_url, capabilities=capabilities), route=route)
            async with running_gateway(config, folder, limits=shortened()) as running:

                async def ask(offset, **fault):
                    proxy.down = Faults(**dict.fromkeys(fault, offset))
                    async with asyncio.timeout(HANG_S):
                        return await listen(running.client, {**ASK, "model": f"at{offset}"})

                yield ask
            assert good.wrong_prefixes == []


def batches(size, step=STEP):
    offsets = range(0, size + 1, step)
    return [offsets[start : start + BATCH] for start in range(0, len(offsets), BATCH)]


@pytest.mark.parametrize(
    ("fault", "capabilities", "step"),
    [("reset_at", PREFILLING, STEP), ("reset_at", CAPABILITIES, SEVENTH), ("close_at", PREFILLING, SEVENTH)],
    ids=["reset", "reset, asked again", "close"],
)
async def test_a_stream_that_breaks_at_any_byte_is_whole_all_the_same(tmp_path, fault, capabilities, step):
    size = await size_of_the_stream()
    assert size >= 4096
    for offsets in batches(size, step):
        async with broken_at(tmp_path, offsets, capabilities=capabilities) as ask:
            for offset in offsets:
                told = await ask(offset, **{fault: True})
                assert told.complete, (offset, told.payloads[-3:] or told.body)
                assert told.text == TEXT, offset


async def test_without_rescue_a_stream_that_breaks_at_any_byte_is_whole_or_says_that_it_is_not(tmp_path):
    size = await size_of_the_stream()
    whole = 0
    for offsets in batches(size, SEVENTH):
        async with broken_at(tmp_path, offsets, route="policy: ordered, rescue: false") as ask:
            for offset in offsets:
                told = await ask(offset, reset_at=True)
                assert TEXT.startswith(told.text), offset
                assert told.complete is (told.error is None), offset
                assert told.complete is (told.text == TEXT and bool(told.finish_reasons)), offset
                whole += told.complete
    assert whole >= 2  # before the first token, and behind the last


FRAMED = {
    "LF": b"\n",
    "CRLF": b"\r\n",
    "CR": b"\r",
}


def sse(end):
    """A stream as other servers may frame it: comments, events with names, data in several lines, any line end."""
    lines = [b": hello", b"", b"retry: 3000", b""]
    for place, token in enumerate(TOKENS):
        data = chunk({"content": token}).removeprefix(b"data: ").rstrip()
        if place % 5 == 0:
            head, comma, rest = data.partition(b", ")
            lines += [b"event: message", b"id: %d" % place, b"data: " + head + comma, b"data: " + rest, b""]
        elif place % 5 == 1:
            lines += [b": ping", b"data:" + data, b""]
        else:
            lines += [b"data: " + data, b""]
    lines += [chunk({}, "stop").rstrip(), b"", b"data: [DONE]", b"", b""]
    return end.join(lines)


@pytest.mark.parametrize("end", FRAMED.values(), ids=FRAMED)
async def test_a_stream_split_at_any_byte_says_the_same(tmp_path, end):
    data = sse(end)
    places = iter(range(1, len(data), STEP * 2))
    count = len(range(1, len(data), STEP * 2))

    async def split(talk):
        place = next(places)
        await talk.head()
        await talk.send(data[:place])
        await asyncio.sleep(0.002)
        await talk.send(data[place:])
        await talk.end()

    async with stage(tmp_path, split, tells(story(9))) as on:
        for _ in range(count):
            told = await listen(on.running.client, ASK)
            assert told.complete
            assert told.text == TEXT
        assert on.tries == (count, 0)


SLICED = {"1": Faults(slice_bytes=1), "20 with pauses": Faults(slice_bytes=20, slice_pause_s=0.0001)}


@pytest.mark.parametrize("faults", SLICED.values(), ids=SLICED)
async def test_a_stream_in_pieces_of_a_few_bytes_says_the_same(tmp_path, faults):
    async with scripted(tells(tokens=TOKENS)) as provider, fault_proxy(provider.port, down=faults, up=faults) as proxy:
        async with running_gateway(fan_config({"m": proxy.base_url}, Place(proxy.base_url)), tmp_path) as running:
            told = await listen(running.client, ASK)
            assert told.complete
            assert told.text == TEXT
            assert told.attempts == 1
            assert told.usage["completion_tokens"] == len(TOKENS)


async def test_a_body_cut_short_by_a_byte_is_no_whole_answer(tmp_path):
    ask = chat("Tell it.")
    async with scripted(tells(tokens=TOKENS)) as bad, scripted(tells(tokens=TOKENS)) as good:
        async with fault_proxy(bad.port) as proxy:
            offsets = range(0, 700, 7 if FULL else 70)
            config = fan_config({f"at{offset}": proxy.base_url for offset in offsets}, Place(good.base_url))
            async with running_gateway(config, tmp_path) as running:
                for offset in offsets:
                    proxy.down = Faults(reset_at=offset)
                    response = await running.client.post("/v1/chat/completions", json={**ask, "model": f"at{offset}"})
                    assert response.status_code == 200, response.text
                    assert response.json()["choices"][0]["message"]["content"] == TEXT


CORRUPT = {
    "a stall in the middle": Faults(stall_at=2500),
    "a stall in the head": Faults(stall_at=30),
    "half a close": Faults(half_close_at=2500),
    "a black hole": Faults(black_hole=True),
    "an answer before the question": Faults(reply_early=b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    "a garbled head": Faults(corrupt_at=3),
}


@pytest.mark.parametrize("faults", CORRUPT.values(), ids=CORRUPT)
async def test_other_things_that_networks_do_end_in_the_whole_answer(tmp_path, faults):
    async with scripted(tells(tokens=TOKENS)) as bad, scripted(tells(tokens=TOKENS, prefill="openai")) as good:
        async with fault_proxy(bad.port, down=faults) as proxy:
            config = fan_config({"m": proxy.base_url}, Place(good.base_url, capabilities=PREFILLING))
            async with running_gateway(config, tmp_path, limits=shortened()) as running:
                told = await listen(running.client, ASK)
                assert told.complete
                assert told.text == TEXT


async def test_a_slow_and_lossy_line_costs_time_and_nothing_else(tmp_path):
    """200 ms each way, 50 ms more or less, one packet in fifty sent again, 64 kbit/s."""
    line = Faults(latency_s=0.2, jitter_s=0.05, pause_chance=0.02, bytes_per_s=8000)
    count = 200 if FULL else 10
    async with scripted(tells(tokens=TOKENS)) as provider:
        async with fault_proxy(provider.port, down=line, up=line) as proxy:
            config = fan_config({"m": proxy.base_url}, Place("http://127.0.0.1:1/v1"))
            async with running_gateway(config, tmp_path) as running:
                for start in range(0, count, 50):
                    asking = [listen(running.client, ASK) for _ in range(min(50, count - start))]
                    for told in await asyncio.gather(*asking):
                        assert told.complete, told.body or told.payloads[-2:]
                        assert told.text == TEXT
                        assert told.attempts == 1
                        assert told.elapsed_s >= 0.3
            assert len(provider.calls) == count
        assert proxy.down is not NO_FAULTS

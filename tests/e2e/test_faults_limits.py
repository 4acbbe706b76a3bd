"""Rate limits, outages that last, clients in a hurry and clocks that jump, over real sockets in real time."""

import asyncio
import socket
import time
from email.utils import formatdate

import pytest

from gateway.health import breaker
from tests.fakes.duo import Place, config_of, fan_config, stage
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.listener import FULL, listen
from tests.fakes.scripted import TEXT, fails, scripted, silent, tells

ASK = chat("Tell it.", stream=True)
DUE_S = 7.0 if FULL else 1.2
EXACT_S = 0.1
"""How far off the due time a call may be: never before it."""


def limited(*, then=None, **headers):
    """One 429 with these headers, evaluated when it is sent; then it answers."""

    async def script(talk):
        if len([call for call in talk.provider.calls if call.path == talk.call.path]) == 1:
            values = {name: value() if callable(value) else value for name, value in headers.items()}
            await fails(429, **values)(talk)
        else:
            await (then or tells())(talk)

    return script


def date_in(seconds):
    """An HTTP date at least so far from now; dates have no fractions."""
    return lambda: formatdate(int(time.time() + seconds + 0.999), usegmt=True)


FORMS = {
    # what it says, and after how many seconds it may be asked again (at the earliest, at the latest)
    "seconds": ({"retry_after": f"{round(DUE_S)}"}, round(DUE_S), round(DUE_S)),
    "fraction": ({"retry_after": f"{DUE_S:.1f}"}, DUE_S, DUE_S),
    "milliseconds": ({"retry_after_ms": f"{DUE_S * 1000:.0f}"}, DUE_S, DUE_S),
    "both": ({"retry_after": "60", "retry_after_ms": f"{DUE_S * 1000:.0f}"}, DUE_S, DUE_S),
    "date": ({"retry_after": date_in(DUE_S)}, DUE_S, DUE_S + 1.0),
    "past date": ({"retry_after": date_in(-3600)}, 0.0, 0.0),
    "zero": ({"retry_after": "0"}, 0.0, 0.0),
    "negative": ({"retry_after": "-1"}, 0.0, 0.0),
    "reset in seconds": ({"x_ratelimit_reset": f"{DUE_S:.1f}"}, DUE_S, DUE_S),
    "reset as a duration": ({"x_ratelimit_reset_requests": f"{DUE_S:.1f}s"}, DUE_S, DUE_S),
    "reset as a moment": ({"x_ratelimit_reset": lambda: f"{time.time() + DUE_S:.2f}"}, DUE_S, DUE_S),
    "garbage": ({"retry_after": "soon"}, 0.8, 1.2),
    "none": ({}, 0.8, 1.2),
    "absurd": ({"retry_after": "1000000000"}, 300.0, 300.0),
    "not a number": ({"retry_after": "nan"}, 0.8, 1.2),
}


async def ask_until(client, name, provider, path, limit_s):
    """Ask ten times a second until the limited provider is asked again, or time is up; gives after how long."""
    until_s = time.monotonic() + limit_s
    calls = []
    while time.monotonic() < until_s and len(calls) < 2:
        told = await listen(client, {**ASK, "model": name})
        assert told.complete
        assert told.text == TEXT
        calls = [call for call in provider.calls if call.path == path]
        await asyncio.sleep(0.03)
    return calls[1].at_s - calls[0].over_s if len(calls) > 1 else None


async def test_nobody_is_asked_before_its_time_whatever_form_that_has(tmp_path):
    """Not in explicit order: there a short wait is waited out, which is a scenario of its own."""
    names = {f"form{number}": headers for number, (headers, _, _) in enumerate(FORMS.values())}
    async with scripted(tells()) as bad, scripted(tells()) as good:
        paths = {name: f"/{name}/v1" for name in names}
        bad.by_path = {f"{paths[name]}/chat/completions": limited(**headers) for name, headers in names.items()}
        urls = {name: f"http://127.0.0.1:{bad.port}{path}" for name, path in paths.items()}
        config = fan_config(urls, Place(good.base_url), route="policy: price").replace(
            "price: {input: 1, output: 2}", "price: {input: 9, output: 9}", 1
        )
        async with running_gateway(config, tmp_path) as running:
            limit_s = DUE_S + (4.0 if FULL else 2.5)
            waits = await asyncio.gather(
                *(ask_until(running.client, name, bad, f"{paths[name]}/chat/completions", limit_s) for name in names)
            )
            for (form, (_, earliest_s, latest_s)), wait_s in zip(FORMS.items(), waits, strict=True):
                if earliest_s > limit_s:
                    assert wait_s is None, form
                    continue
                assert wait_s is not None, form
                assert wait_s >= earliest_s - EXACT_S, form
                assert wait_s <= latest_s + (0.5 if FULL else 2.0), form
            absurd = f"form{list(FORMS).index('absurd')}/up"
            seen = running.gateway.health.observe(absurd, asyncio.get_running_loop().time())
            assert seen.standing == "parked"
            assert 280 < seen.until_s - asyncio.get_running_loop().time() <= 300


async def test_rate_limits_never_open_a_breaker(tmp_path):
    async with stage(tmp_path, [*(fails(429, retry_after_ms="100") for _ in range(6)), tells()], tells()) as on:
        for _ in range(10):
            assert (await listen(on.running.client, ASK)).complete
            await asyncio.sleep(0.11)
        told = await listen(on.running.client, ASK)
        assert told.chunks[0]["provider"] == "p0"
        assert on.running.gateway.health.observe("p0/up", asyncio.get_running_loop().time()).standing == "healthy"


def refusing_port():
    """A port that refuses connections for as long as its socket is kept."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock, sock.getsockname()[1]


async def test_a_provider_that_refuses_connections_costs_nothing_but_two_tries(tmp_path):
    sock, port = refusing_port()
    async with scripted(tells()) as good:
        config = config_of(Place(f"http://127.0.0.1:{port}/v1"), Place(good.base_url))
        async with running_gateway(config, tmp_path) as running:
            attempts = []
            for _ in range(10):
                told = await listen(running.client, ASK)
                assert told.complete
                attempts.append(told.attempts)
            assert attempts[:2] == [2, 2]
            assert attempts[2:] == [1] * 8
    sock.close()


@pytest.mark.parametrize("rate", [50.0] if FULL else [200.0])
async def test_many_streams_at_once_are_all_answered_while_the_first_refuses(tmp_path, rate):
    """200 streams at once, 50 tokens a second each. The load generator shares the processor, so times are ours."""
    sock, port = refusing_port()
    count = 200 if FULL else 40
    async with scripted(tells(gap_s=1 / rate)) as good:
        config = config_of(Place(f"http://127.0.0.1:{port}/v1"), Place(good.base_url))
        async with running_gateway(config, tmp_path) as running:
            for _ in range(2):
                answers = await asyncio.gather(*(listen(running.client, ASK) for _ in range(count)))
                assert all(told.complete and told.text == TEXT for told in answers)
            # Once it is open, it costs the one request that tries it again from time to time.
            assert sum(told.attempts == 2 for told in answers) <= 3
            assert all(told.attempts <= 2 for told in answers)
            assert len(good.calls) == 2 * count
    sock.close()


async def test_s15_a_long_outage_is_bridged_and_its_end_is_noticed(tmp_path, monkeypatch):
    """Down for a minute, twenty requests meanwhile; a small part of all times where they need not be real."""
    scale = 1.0 if FULL else 1 / 25
    for name in ("OPEN_S", "OPEN_MAX_S"):
        monkeypatch.setattr(breaker, name, getattr(breaker, name) * scale)
    down = fails(503)
    async with stage(tmp_path, [*([down] * 100), tells()], tells()) as on:
        primary = on.providers[0]
        began_s = time.monotonic()
        for number in range(20):
            await asyncio.sleep(max(0.0, began_s + number * 3.0 * scale - time.monotonic()))
            told = await listen(on.running.client, ASK)
            assert told.complete
            assert told.text == TEXT
        await asyncio.sleep(max(0.0, began_s + 60.0 * scale - time.monotonic()))
        assert len(primary.calls) <= 8
        primary.scripts = [tells()]
        up_s = time.monotonic()
        while (await listen(on.running.client, ASK)).chunks[0]["provider"] != "p0":
            assert time.monotonic() - up_s <= 30.0 * scale + (0.0 if FULL else 2.0)
            await asyncio.sleep(scale)
        for _ in range(3):
            assert (await listen(on.running.client, ASK)).complete
        assert (await listen(on.running.client, ASK)).chunks[0]["provider"] == "p0"


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 0.7] if FULL else [3600.0, -3600.0])
async def test_a_wall_clock_that_jumps_times_nothing_out_and_wakes_nobody(tmp_path, monkeypatch, jump_s):
    shift, real = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: real() + shift[0])
    scripts = [tells(gap_s=0.01), fails(429, retry_after_ms="600"), tells()]
    async with stage(tmp_path, scripts, tells(), route="policy: price") as on:
        streaming = asyncio.ensure_future(listen(on.running.client, ASK))
        await asyncio.sleep(0.2)
        shift[0] = jump_s
        told = await streaming
        assert told.complete
        assert told.text == TEXT
        assert told.attempts == 1
        shift[0] = 0.0
        assert (await listen(on.running.client, ASK)).complete  # 429: parked for 0.6 s
        shift[0] = jump_s
        for _ in range(5):
            assert (await listen(on.running.client, ASK)).complete
        assert len(on.providers[0].calls) == 2
        await asyncio.sleep(0.6)
        assert (await listen(on.running.client, ASK)).chunks[0]["provider"] == "p0"


async def test_when_everything_is_down_that_is_said_at_once_and_nobody_is_stormed(tmp_path):
    async with stage(tmp_path, fails(503), fails(500)) as on:
        for _ in range(6):
            assert (await listen(on.running.client, chat(stream=True))).status in (502, 503)
        seen = sum(on.tries)
        asked = [listen(on.running.client, chat(stream=True)) for _ in range(40)]
        answers = await asyncio.gather(*asked)
        assert {told.status for told in answers} <= {502, 503}
        assert sum(told.status == 503 for told in answers) >= 20
        for told in answers:
            if told.status == 503:
                assert 1 <= int(told.headers["retry-after"]) <= 60
                assert told.headers["x-should-retry"] == "true"
        assert sum(on.tries) - seen <= 1.2 * len(answers)
        began_s = time.monotonic()
        assert (await listen(on.running.client, chat(stream=True))).status in (502, 503)
        assert time.monotonic() - began_s <= (0.1 if FULL else 1.5)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_in_a_hurry_hears_in_time(tmp_path, stream):
    async with stage(tmp_path, silent(), silent()) as on:
        told = await listen(on.running.client, chat(stream=stream), x_request_timeout_ms="400")
        assert told.status == 504
        assert 0.35 <= told.elapsed_s <= 0.4 + (0.1 if FULL else 2.0)
        assert told.error["code"] == "first_token_timeout"
        await asyncio.sleep(0.3)
        assert sum(provider.running for provider in on.providers) == 0


async def test_a_client_that_comes_back_by_itself_gets_two_attempts(tmp_path):
    async with stage(tmp_path, fails(503), fails(503), fails(503), tells()) as on:
        told = await listen(on.running.client, chat(stream=True), x_stainless_retry_count="1")
        assert told.status == 503
        assert sum(on.tries) == 2
        assert (await listen(on.running.client, chat(stream=True))).text == TEXT

"""Free looks, on real sockets where there are any."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from aiohttp import web

from gateway import probes
from gateway.config.load import load
from gateway.fleet import Fleet
from gateway.health import Health, Permit, Result
from gateway.probes import Prober
from gateway.upstream import Upstream
from gateway.virtual_time import run
from providers import DIALECTS
from tests.fakes.provider import fails, fake_provider, hangs, resets

CONFIG = """
providers:
  one:
    dialect: openai
    base_url: "{url}"
    api_key: env:ONE_KEY
    models:
      small-1: {{serves: small, context_tokens: 1000}}
      large-1: {{serves: large, context_tokens: 1000}}
"""
LOCAL_CONFIG = """
providers:
  local:
    dialect: local
    models:
      tiny: {{serves: demo, file: bundled}}
# no {url}
"""


@contextlib.asynccontextmanager
async def probing(tmp_path, url, config=CONFIG, statuses=(), off=None):
    path = tmp_path / "providers.yaml"
    path.write_text(config.format(url=url))
    catalogue = load(path, {"ONE_KEY": "sk-planted-0001"})
    upstreams = {}
    for endpoint in catalogue.endpoints.values():
        provider = catalogue.providers[endpoint.provider]
        dialect = DIALECTS[provider.dialect]
        headers = {} if provider.api_key is None else dialect.authorize(provider.api_key.reveal())
        upstreams[endpoint.id] = Upstream(dialect, None, headers)
    fleet = Fleet(catalogue, upstreams, off or {})
    health = Health(lambda: 0.5)
    prober = Prober(health, lambda: fleet, lambda: statuses, lambda: 0.5)
    try:
        yield SimpleNamespace(prober=prober, health=health, fleet=fleet)
    finally:
        await prober.aclose()


def now_s():
    return asyncio.get_running_loop().time()


def looks(health):
    return {row.endpoint_id: (row.probe_ok, row.probe_fail) for row in health.drain_minutes(1)}


def lists(*, status=200, headers=None):
    async def reply(request, seen):
        return web.json_response({"object": "list", "data": []}, status=status, headers=headers)

    return reply


async def test_one_request_without_a_bill_looks_at_all_idle_endpoints_of_a_provider(tmp_path):
    async with fake_provider(lists()) as provider, probing(tmp_path, provider.base_url) as at:
        await at.prober.look_at_remote(now_s())
        (seen,) = provider.requests
        assert (seen.path, seen.body) == ("/v1/models", {})
        assert seen.headers["authorization"] == "Bearer sk-planted-0001"
        assert provider.billed_pusd == 0
        assert looks(at.health) == {"one/small-1": (1, 0), "one/large-1": (1, 0)}


async def test_who_was_asked_for_real_is_left_alone(tmp_path):
    async with fake_provider(lists()) as provider, probing(tmp_path, provider.base_url) as at:
        small, large = at.health.of("one/small-1"), at.health.of("one/large-1")
        small.leave(small.enter(now_s()), Result(ttft_s=0.1), now_s())
        large.enter(now_s())
        await at.prober.look_at_remote(now_s())
        assert provider.requests == []
        large.leave(Permit.NORMAL, Result(failure="cancelled"), now_s() - 100)
        await at.prober.look_at_remote(now_s())
        assert looks(at.health)["one/large-1"] == (1, 0)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (lists(), (1, 0)),
        (fails(500), (0, 1)),
        (fails(503), (0, 1)),
        (resets(), (0, 1)),
        (fails(404), None),
        (fails(401), None),
        (fails(429), None),
    ],
)
async def test_what_an_answer_says(tmp_path, reply, verdict):
    async with fake_provider(reply) as provider, probing(tmp_path, provider.base_url) as at:
        await at.prober.look_at_remote(now_s())
        assert looks(at.health).get("one/small-1") == verdict


@pytest.mark.parametrize("said", [404, 405, 401, 403])
@pytest.mark.parametrize(
    ("health", "verdict"),
    [
        (lists(), (1, 0)),
        (fails(503), (0, 1)),
        (resets(), (0, 1)),
        (fails(404), None),
        (fails(401), None),
        (fails(429), None),
        (lists(status=302, headers={"location": "/welcome"}), None),
    ],
)
async def test_without_a_list_its_health_is_asked_once_and_without_our_key(tmp_path, said, health, verdict):
    async with fake_provider(fails(said), health) as provider, probing(tmp_path, provider.base_url) as at:
        await at.prober.look_at_remote(now_s())
        assert [seen.path for seen in provider.requests] == ["/v1/models", "/health"]
        assert "authorization" not in provider.requests[1].headers
        assert provider.billed_pusd == 0
        assert looks(at.health).get("one/small-1") == verdict


@pytest.mark.parametrize("reply", [lists(), fails(500), fails(429), lists(status=302)])
async def test_a_list_that_says_something_is_enough(tmp_path, reply):
    async with fake_provider(reply) as provider, probing(tmp_path, provider.base_url) as at:
        await at.prober.look_at_remote(now_s())
        assert [seen.path for seen in provider.requests] == ["/v1/models"]


async def test_both_questions_share_the_time_of_one_look(tmp_path, monkeypatch):
    monkeypatch.setattr(probes, "LOOK_TIMEOUT_S", 0.3)
    async with fake_provider(fails(404), hangs()) as provider, probing(tmp_path, provider.base_url) as at:
        await at.prober.look_at_remote(now_s())
        assert looks(at.health)["one/small-1"] == (0, 1)


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://h:8000/v1", "http://h:8000/health"),
        ("https://h.example/a/b", "https://h.example/health"),
        ("http://[::1]:80", "http://[::1]:80/health"),
    ],
)
def test_health_is_at_the_root_of_the_same_server(base_url, url):
    assert probes.health_url(base_url) == url


async def test_nobody_there_is_bad(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        async with probing(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}/v1") as at:
            await at.prober.look_at_remote(now_s())
            assert looks(at.health)["one/small-1"] == (0, 1)


async def test_silence_is_bad_and_waited_for_a_while_only(tmp_path, monkeypatch):
    monkeypatch.setattr(probes, "LOOK_TIMEOUT_S", 0.2)
    async with fake_provider(hangs()) as provider, probing(tmp_path, provider.base_url) as at:
        await at.prober.look_at_remote(now_s())
        assert looks(at.health)["one/small-1"] == (0, 1)


async def test_a_redirect_is_not_followed(tmp_path):
    async with fake_provider(lists()) as other:
        moved = lists(status=302, headers={"location": f"{other.base_url}/models"})
        async with fake_provider(moved) as provider, probing(tmp_path, provider.base_url) as at:
            await at.prober.look_at_remote(now_s())
            assert other.requests == []
            assert looks(at.health)["one/small-1"] == (0, 1)


async def test_an_endless_body_is_not_read(tmp_path):
    sent = []

    async def endless(request, seen):
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while len(sent) < 10_000:
                await response.write(b"x" * 65536)
                sent.append(1)
        return response

    async with fake_provider(endless) as provider, probing(tmp_path, provider.base_url) as at:
        await at.prober.look_at_remote(now_s())
        assert looks(at.health)["one/small-1"] == (1, 0)
    assert len(sent) < 1000


async def test_a_proxy_in_the_environment_is_not_used(tmp_path, monkeypatch):
    async with fake_provider(lists()) as proxy, fake_provider(lists()) as provider:
        monkeypatch.setenv("HTTP_PROXY", proxy.base_url)
        monkeypatch.setenv("ALL_PROXY", proxy.base_url)
        async with probing(tmp_path, provider.base_url) as at:
            await at.prober.look_at_remote(now_s())
            assert (len(proxy.requests), len(provider.requests)) == (0, 1)


async def test_what_is_off_or_goes_another_way_is_not_looked_at(tmp_path):
    async with fake_provider(lists()) as provider:
        config = CONFIG.replace("api_key:", "transport: aiohttp\n    proxy: http://127.0.0.1:9\n    api_key:")
        async with probing(tmp_path, provider.base_url, config) as at:
            await at.prober.look_at_remote(now_s())
        everything = {"one/small-1": "no key", "one/large-1": "no key"}
        async with probing(tmp_path, provider.base_url, off=everything) as at:
            await at.prober.look_at_remote(now_s())
        assert provider.requests == []


async def test_three_bad_looks_put_it_behind_and_two_good_ones_back(tmp_path):
    replies = [fails(500), fails(500), fails(500), lists(), lists()]
    async with fake_provider(*replies) as provider, probing(tmp_path, provider.base_url) as at:
        standings = []
        for _ in replies:
            await at.prober.look_at_remote(now_s())
            standings.append(at.health.observe("one/small-1", now_s()).standing)
        assert standings == ["healthy", "healthy", "degraded", "degraded", "healthy"]


async def test_a_good_look_shortens_no_open_time(tmp_path):
    async with fake_provider(lists()) as provider, probing(tmp_path, provider.base_url) as at:
        health = at.health.of("one/small-1")
        for _ in range(3):
            health.leave(health.enter(now_s()), Result(failure="server"), now_s() - 100)
        before = health.observe(now_s() - 100)
        await at.prober.look_at_remote(now_s() - 90)
        assert before.standing == "open"
        assert health.observe(now_s() - 100).until_s == before.until_s


async def test_a_local_worker_that_crashed_goes_behind(tmp_path):
    status = SimpleNamespace(name="tiny", state="crashed")
    async with probing(tmp_path, "", LOCAL_CONFIG, statuses=[status]) as at:
        for state, standing in (
            ("starting", "healthy"),
            ("crashed", "degraded"),
            ("off", "degraded"),
            ("ready", "healthy"),
        ):
            status.state = state
            for _ in range(3):
                at.prober.look_at_local(now_s())
            assert at.health.observe("local/tiny", now_s()).standing == standing
        assert looks(at.health) == {"local/tiny": (3, 3)}


def test_it_looks_once_a_minute_and_stops_when_told(tmp_path, monkeypatch):
    looked = []

    async def look(self, at_s):
        looked.append(("remote", at_s))

    monkeypatch.setattr(Prober, "look_at_remote", look)
    monkeypatch.setattr(Prober, "look_at_local", lambda _, at_s: looked.append(("local", at_s)))

    async def watch():
        async with probing(tmp_path, "http://127.0.0.1:9/v1") as at:
            start_s = now_s()
            task = asyncio.create_task(at.prober.run())
            await asyncio.sleep(301.0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return [(what, round(at_s - start_s)) for what, at_s in looked]

    times = run(watch())
    assert [at_s for what, at_s in times if what == "remote"] == [60, 120, 180, 240, 300]
    assert [at_s for what, at_s in times if what == "local"][:5] == [5, 10, 15, 20, 25]


async def test_cancelled_in_the_middle_of_a_look_it_leaves_nothing_behind(tmp_path):
    arrived = asyncio.Event()

    async def hang(request, seen):
        arrived.set()
        await asyncio.sleep(3600)

    async with fake_provider(hang) as provider, probing(tmp_path, provider.base_url) as at:
        task = asyncio.create_task(at.prober.look_at_remote(now_s()))
        await arrived.wait()
        before = asyncio.all_tasks()
        assert task in before
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await at.prober.aclose()
        assert looks(at.health) == {}


def test_the_start_does_not_wait_for_it():
    code = "import sys, gateway.probes; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

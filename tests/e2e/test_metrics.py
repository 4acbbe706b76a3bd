"""`/metrics`: who may read it, that its figures are the ledger's, and that nothing a client writes becomes a label."""

import asyncio
import re
import signal
import sqlite3
import subprocess
import sys
from decimal import Decimal

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics.families import FAMILIES
from gateway.state.connection import FILE_NAME
from tests.fakes.duo import stage
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.listener import listen
from tests.fakes.money import ASK, FAST, answers, ask_whole, cost, leave_after, odd, rows
from tests.fakes.process import served
from tests.fakes.provider import fake_provider, says
from tests.fakes.scripted import STORY, Tells, fails, tells

CLIENT_KEY, METRICS_TOKEN, ADMIN_TOKEN = "client-key-000000", "metrics-token-0000", "admin-token-00000"
ENV = {"CLIENT": CLIENT_KEY, "WATCH": METRICS_TOKEN, "ADMIN": ADMIN_TOKEN}
DOORS = "gateway: {client_keys: [env:CLIENT], metrics_token: env:WATCH, admin_token: env:ADMIN}\n"
LABELS = "openai | demo | x"


async def scrape(client, **headers):
    response = await client.get("/metrics", headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=")
    return response.text


def figures(text):
    """Every sample by name and labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, "no sample comes twice"
            found[key] = sample.value
    return found


def of(found, name, **labels):
    return found.get((f"mixgate_{name}", frozenset(labels.items())), 0)


def total(found, name, **labels):
    wanted = set(labels.items())
    return sum(value for (one, given), value in found.items() if one == f"mixgate_{name}" and wanted <= given)


def in_nusd(text, endpoint):
    """The cost of an Endpoint, read from the text as decimal digits."""
    lines = re.findall(rf'^mixgate_cost_usd_total{{endpoint="{endpoint}",source="\w+"}} (\S+)$', text, re.MULTILINE)
    return sum(Decimal(line) * 10**9 for line in lines)


def ledger(on, sql):
    connection = sqlite3.connect(f"file:{on.running.gateway._home / FILE_NAME}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


async def a_day(on):
    """A good answer, a failover, a stream with cached tokens, a rescue, a client that leaves, and a refusal."""
    client = on.running.client
    for number in range(2):
        response, _ = await ask_whole(on)
        assert response.status_code == 200, number
        on.running.forget()
    for _ in range(2):
        told = await listen(client, ASK)
        assert told.status == 200
        on.running.forget()
    await leave_after(on, 3)
    assert (await client.post("/v1/chat/completions", json={"model": "none", "messages": []})).status_code == 400


async def test_a_scripted_day_gives_exactly_the_ledgers_figures(tmp_path):
    cached = answers({"prompt_tokens": 90, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 64}})
    first = [tells(), fails(503), cached, Tells(stop_after=10, prefill="openai"), Tells(gap_s=0.05)]
    async with stage(tmp_path, first, Tells(prefill="openai"), places=odd(), limits=FAST) as on:
        await a_day(on)
        told = await rows(on)
        text = await scrape(on.running.client)
        found = figures(text)
        spent = "SELECT endpoint, sum(cost_in_nusd), count(*), sum(input_tokens), sum(output_tokens), "
        for endpoint, nusd, count, prompt, output, seen in ledger(
            on, f"{spent} sum(cached_tokens) FROM entry GROUP BY endpoint"
        ):
            assert in_nusd(text, endpoint) == nusd, "to the nano-dollar"
            assert total(found, "attempts_total", endpoint=endpoint) == count
            assert of(found, "tokens_total", endpoint=endpoint, kind="input") == prompt
            assert of(found, "tokens_total", endpoint=endpoint, kind="output") == output
            assert of(found, "tokens_total", endpoint=endpoint, kind="cached") == (seen or 0)
            assert of(found, "attempt_duration_seconds_count", endpoint=endpoint) == count
        for endpoint, outcome, code, count in ledger(
            on, "SELECT endpoint, outcome, coalesce(code, ''), count(*) FROM entry GROUP BY 1, 2, 3"
        ):
            assert of(found, "attempts_total", endpoint=endpoint, outcome=outcome, code=code) == count
    # By hand: one whole answer at p0, one at p1 after p0 refused, 90 + 5 with 64 cached, and the rest.
    assert told[0].cost_in_nusd == told[2].cost_in_nusd == cost(7, len(STORY))
    assert of(found, "requests_total", route="m", surface="openai", outcome="ok") == 4
    assert of(found, "requests_total", route="m", surface="openai", outcome="cancelled") == 1
    assert of(found, "failovers_total", route="m") == 2
    assert of(found, "rescues_total", route="m", by="prefill") == 1
    assert of(found, "extra_attempts_total", route="m", why="rescue") == 1
    assert of(found, "refusals_total", code="invalid_request") == 1
    assert of(found, "request_duration_seconds_count", route="m") == 5
    assert of(found, "ttft_seconds_count", endpoint="p0/up") == total(
        found, "ttft_seconds_bucket", endpoint="p0/up", le="+Inf"
    )
    assert of(found, "requests_in_flight") == of(found, "ledger_in_flight") == 0
    assert of(found, "endpoint_standing", endpoint="p1/up", standing="healthy") == 1


async def test_every_family_is_documented_and_every_sample_belongs_to_one(tmp_path):
    async with stage(tmp_path, tells(), places=odd(1)) as on:
        await ask_whole(on)
        await rows(on)
        text = await scrape(on.running.client)
        open_metrics = await on.running.client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    known = {family.full_name for family in FAMILIES}
    for name, _ in figures(text):
        if name.startswith("mixgate_"):
            assert re.sub(r"_(bucket|sum|count)$", "", name) in known or name in known
    assert "process_resident_memory_bytes" in text
    assert "python_gc" not in text, "not the library's default registry"
    assert open_metrics.text.endswith("# EOF\n")


async def test_nothing_that_a_client_writes_is_a_label(tmp_path):
    mark = "client-wrote-this"
    headers = {"x-title": mark, "http-referer": f"https://{mark}.example", "x-mixgate-tags": mark, "x-session-id": mark}
    async with fake_provider(says("fine")) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            asked = chat(mark, user=mark)
            for body in (asked, asked | {"model": mark}, asked | {"model": "m:nitro"}, asked | {mark: 1}):
                await running.client.post("/v1/chat/completions", json=body, headers=headers)
            await running.client.get(f"/{mark}")
            text = await scrape(running.client)
    assert mark not in text
    assert figures(text)


@pytest.mark.parametrize(
    ("token", "status"),
    [(None, 401), (CLIENT_KEY, 403), ("wrong-wrong-wrong", 401), (METRICS_TOKEN, 200), (ADMIN_TOKEN, 200)],
)
async def test_metrics_are_for_the_admin_and_the_metrics_token(tmp_path, token, status):
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    async with fake_provider() as provider:
        async with running_gateway(DOORS + openai_config(provider.base_url), tmp_path, ENV) as running:
            response = await running.client.get("/metrics", headers=headers)
            assert response.status_code == status
            for secret in ENV.values():
                assert secret not in response.text


async def test_the_metrics_token_reads_metrics_and_does_nothing_else(tmp_path):
    headers = {"authorization": f"Bearer {METRICS_TOKEN}"}
    async with fake_provider() as provider:
        async with running_gateway(DOORS + openai_config(provider.base_url), tmp_path, ENV) as running:
            ask = running.client
            assert (await ask.get("/metrics", headers=headers)).status_code == 200
            assert (await ask.get("/v1/models", headers=headers)).status_code == 403
            assert (await ask.post("/v1/chat/completions", json=chat(), headers=headers)).status_code == 403
            assert (await ask.get("/api/v1/keys", headers=headers)).status_code == 403
            assert (await ask.post("/metrics", headers=headers)).status_code == 405


async def test_a_proxy_on_this_machine_does_not_publish_them(tmp_path):
    async with fake_provider() as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path) as running:
            assert (await running.client.get("/metrics")).status_code == 200
            told = await running.client.get("/metrics", headers={"x-forwarded-for": "192.0.2.1"})
            assert told.status_code == 403
            rebound = await running.client.get("/metrics", headers={"host": "evil.example"})
            assert rebound.status_code == 403


async def test_several_workers_show_all_of_their_figures_as_one(tmp_path):
    path = tmp_path / "providers.yaml"
    async with fake_provider(says("fine")) as provider:
        path.write_text(openai_config(provider.base_url))
        async with served(path, "--workers", "2") as (process, client):
            await until_workers(process.url, 2)
            for _ in range(8):  # each by a connection of its own, which either worker may get
                async with httpx.AsyncClient(base_url=process.url, trust_env=False) as one:
                    assert (await one.post("/v1/chat/completions", json=chat())).status_code == 200
            texts = [await scrape(client)]
            for _ in range(4):
                async with httpx.AsyncClient(base_url=process.url, trust_env=False) as one:
                    texts.append(await scrape(one))
            process.process.send_signal(signal.SIGINT)
            assert await process.exit_code(60) == 0
    for found in map(figures, texts):
        assert total(found, "attempts_total", endpoint="p0/up", outcome="ok") == 8
        assert total(found, "requests_total", route="m", outcome="ok") == 8
        assert total(found, "cost_usd_total") > 0
        pids = {dict(labels)["worker"] for name, labels in found if name == "process_resident_memory_bytes"}
        assert (
            pids == {dict(labels)["worker"] for name, labels in found if name == "mixgate_build_info"} == {"w1", "w2"}
        )


async def until_workers(url, count):
    """Wait until so many tell their figures."""
    async with asyncio.timeout(30):
        while True:
            async with httpx.AsyncClient(base_url=url, trust_env=False) as one:
                if (await scrape(one)).count("mixgate_build_info{") == count:
                    return
            await asyncio.sleep(0.1)


def test_nobody_pays_for_the_library_who_is_not_scraped():
    seen = "import sys, gateway.app; print([n for n in sys.modules if n.startswith(('prometheus', 'opentelemetry'))])"
    told = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"

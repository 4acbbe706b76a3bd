"""Several processes behind one port: none is missed by anybody, whichever of them is killed."""

import asyncio
import random
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx
import pytest

from gateway.state.connection import FILE_NAME
from tests.fakes.duo import PREFILLING, Place, config_of
from tests.fakes.engine import needs_engine
from tests.fakes.gateway import chat, openai_config
from tests.fakes.listener import FULL
from tests.fakes.money import ASK
from tests.fakes.process import served, started
from tests.fakes.provider import fake_provider, says
from tests.fakes.scripted import scripted, story, tells
from tests.fakes.workers import children, client_ports, end, until, until_back, workers
from tests.gateway.ledger.ledger_kit import rows_of, total_of

ADMIN = "canary-admin-token-771b"
KILLS = 200 if FULL else 20
OWNER_KILLS = 10 if FULL else 1
CLIENTS = 8
READY_MAX_S = 3.0
PRICE = "{input: 1, output: 2}"


def bearer(text):
    return {"authorization": f"Bearer {text}"}


def journals(tmp_path):
    return [one for one in (tmp_path / "home" / "journal").glob("**/*") if one.name != "journal.lock"]


def port_of(running):
    return int(running.url.rpartition(":")[2])


def answering(running):
    return [pid for pid in workers(running).values() if client_ports(pid, port_of(running))]


async def stop(running, number=signal.SIGINT):
    running.process.send_signal(number)
    assert await running.exit_code(60) == 0, running.errors[-3000:]


def unbilled(provider, found):
    """What the provider saw and the books do not have, and what they have twice or he never saw."""
    seen = Counter(call.body["user"] for call in provider.calls)
    booked = Counter(row.user for row in found.values())
    return seen - booked, booked - seen


async def ask_on(client, name, dice, asked, over):
    """One request after the other, each with a name of its own, whoever dies."""
    count = 0
    while not over.is_set():
        count += 1
        user = f"{name}-{count}"
        asked.append(user)
        body = (ASK if dice.random() < 0.5 else chat("hi")) | {"user": user}
        with suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(60.0):
                await client.post("/v1/chat/completions", json=body)


async def test_connections_are_spread_over_the_workers(tmp_path):
    config = tmp_path / "providers.yaml"
    async with scripted(tells(gap_s=0.02)) as provider:
        config.write_text(config_of(Place(provider.base_url, price=PRICE)))
        async with served(config, "--workers", "3") as (running, client):
            asking = [asyncio.create_task(client.post("/v1/chat/completions", json=ASK)) for _ in range(60)]
            await until(lambda: len(provider.calls) >= 60)
            held = [len(client_ports(pid, port_of(running))) for pid in workers(running).values()]
            answers = await asyncio.gather(*asking)
            assert {one.status_code for one in answers} == {200}
            assert sum(held) >= 55
            assert min(held) >= 5, held
            assert (await client.get("/readyz")).json() == {"status": "ready"}
            await stop(running)
    assert len(rows_of(tmp_path / "home" / FILE_NAME)) == 60
    assert journals(tmp_path) == []


async def test_workers_killed_under_load_lose_no_attempt_and_are_missed_by_nobody_else(tmp_path):
    dice = random.Random(7)
    config = tmp_path / "providers.yaml"
    asked, over, away_s = [], asyncio.Event(), []
    async with scripted(tells(gap_s=0.004, prefill="openai")) as provider:
        config.write_text(config_of(Place(provider.base_url, price=PRICE, capabilities=PREFILLING)))
        async with served(config, "--workers", "3") as (running, client):
            loading = [
                asyncio.create_task(ask_on(client, number, random.Random(number), asked, over))
                for number in range(CLIENTS)
            ]
            for _ in range(KILLS):
                await asyncio.sleep(dice.uniform(0.05, 0.3))
                await until(lambda: answering(running), 0.02)
                end(dice.choice(answering(running)))
            away_s = await until_back(running, KILLS)
            over.set()
            await asyncio.gather(*loading)
            assert (await client.post("/v1/chat/completions", json=ASK | {"user": "last"})).status_code == 200
            await stop(running)
        await asyncio.sleep(0.1)
    found = rows_of(tmp_path / "home" / FILE_NAME)
    missing, more = unbilled(provider, found)
    assert not missing, "the provider saw what is not in the books"
    recovered = Counter(row.user for row in found.values() if row.usage_source == "recovered")
    free = Counter(row.user for row in found.values() if row.cost_in_nusd == 0)
    strange = more - recovered - free
    assert not strange, [row for row in found.values() if row.user in strange]
    assert recovered
    unknown = [row for row in found.values() if row.cost_in_nusd is None]
    assert not unknown, unknown[:3]
    total = total_of(tmp_path / "home" / FILE_NAME)
    assert (total.attempts, total.cost_in_nusd) == (len(found), sum(row.cost_in_nusd for row in found.values()))
    assert journals(tmp_path) == []
    figures = f"{KILLS} kills, {len(asked)} requests, {len(provider.calls)} attempts seen, {len(found)} rows"
    print(f"{figures}, {sum(recovered.values())} recovered, away {max(away_s):.2f} s at most")  # noqa: T201  # for -s
    assert max(away_s) < 3 * READY_MAX_S, "far more than it takes even where others use the machine"


async def test_streams_of_other_workers_go_on_when_one_is_killed_and_its_new_clients_are_served_at_once(tmp_path):
    config = tmp_path / "providers.yaml"
    async with scripted(tells(tokens=story(60), gap_s=0.02)) as provider:
        config.write_text(config_of(Place(provider.base_url, price=PRICE), route="policy: ordered, rescue: false"))
        async with served(config, "--workers", "3") as (running, client):
            async with httpx.AsyncClient(base_url=running.url, timeout=30, trust_env=False) as streaming:
                whole, broken = [], []

                async def stream():
                    text = ""
                    try:
                        async with streaming.stream("POST", "/v1/chat/completions", json=ASK) as answer:
                            port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
                            async for piece in answer.aiter_text():
                                text += piece
                    except httpx.HTTPError:
                        broken.append(port)
                    else:
                        assert text.endswith("data: [DONE]\n\n")
                        whole.append(port)

                tasks = [asyncio.create_task(stream()) for _ in range(24)]
                await until(lambda: len(provider.calls) >= 24)
                await asyncio.sleep(0.1)
                victim = max(workers(running).values(), key=lambda pid: len(client_ports(pid, port_of(running))))
                held = client_ports(victim, port_of(running))
                end(victim)
                began_s = time.monotonic()
                told = await asyncio.gather(*(client.get("/livez", timeout=10) for _ in range(30)))
                waited_s = time.monotonic() - began_s
                await asyncio.gather(*tasks)
            assert {one.status_code for one in told} == {200}
            assert waited_s < 5.0
            assert set(broken) <= held
            assert len(whole) == 24 - len(broken) >= 24 - len(held)
            await until_back(running, 1)
            assert sorted(workers(running)) == ["worker 1", "worker 2", "worker 3"]
            await stop(running)
    assert len(rows_of(tmp_path / "home" / FILE_NAME)) == 24


async def issue(client, **wishes):
    made = await client.post("/api/v1/keys", json={"name": "app", **wishes}, headers=bearer(ADMIN))
    assert made.status_code == 201, made.text
    return made.json()["key"], made.json()["data"]


def with_keys(*urls):
    settings = "admin_token: env:ADMIN, in_flight_max: 1000, in_flight_per_key_max: 1000"
    return f"gateway: {{{settings}}}\n{openai_config(*urls, rescue=False)}"


async def as_long_as_asked(request, seen):
    return await says(" ".join(["word"] * seen.body["max_tokens"]))(request, seen)


async def test_a_dollar_is_never_overspent_by_four_workers_whose_owner_is_killed_and_one_of_them_after(tmp_path):
    limit_usd = 1.0 if FULL else 0.06
    config = tmp_path / "providers.yaml"
    async with fake_provider(as_long_as_asked) as provider:
        config.write_text(with_keys(provider.base_url))
        async with served(config, "--workers", "4", env={"ADMIN": ADMIN}) as (running, client):
            key, item = await issue(client, limit=limit_usd)

            async def spend():
                while True:
                    try:
                        answer = await client.post(
                            "/v1/chat/completions", json=chat(max_tokens=100), headers=bearer(key)
                        )
                    except httpx.HTTPError:
                        continue
                    if answer.status_code == 200:
                        continue
                    code = answer.json()["error"]["code"]
                    assert (answer.status_code, code) in {
                        (429, "insufficient_quota"),
                        (429, "budget_reserved"),
                        (503, "keys_unavailable"),
                    }
                    if code == "insufficient_quota":
                        return
                    await asyncio.sleep(0.02)

            spending = [asyncio.create_task(spend()) for _ in range(500 if FULL else 40)]
            await until(lambda: provider.billed_pusd >= 0.2 * limit_usd * 10**12)
            end(children(running.process.pid)["owner"])
            await until(lambda: provider.billed_pusd >= 0.5 * limit_usd * 10**12)
            end(workers(running)["worker 2"])
            await asyncio.gather(*spending)
            shown = (await client.get(f"/api/v1/keys/{item['hash']}", headers=bearer(ADMIN))).json()["data"]
            assert shown["mixgate"]["reserved"] == "0"
            await stop(running)
    found = rows_of(tmp_path / "home" / FILE_NAME).values()
    billed_usd, spent_usd = provider.billed_pusd / 10**12, sum(row.cost_in_nusd for row in found) / 10**9
    print(f"{limit_usd} USD: billed {billed_usd}, in the books {spent_usd}")  # noqa: T201  # for -s
    assert 0.95 * limit_usd <= billed_usd <= limit_usd
    assert spent_usd <= limit_usd


async def test_the_owner_is_missed_by_nobody_and_what_was_settled_meanwhile_is_written_by_the_next(tmp_path):
    config = tmp_path / "providers.yaml"
    async with scripted(tells()) as provider:
        config.write_text(config_of(Place(provider.base_url, price=PRICE)))
        async with served(config, "--workers", "2") as (running, client):
            for kill in range(OWNER_KILLS):
                end(children(running.process.pid)["owner"])
                answers = await asyncio.gather(
                    *(
                        client.post("/v1/chat/completions", json=ASK | {"user": f"u-{kill}-{number}"})
                        for number in range(20)
                    )
                )
                assert {one.status_code for one in answers} == {200}
                await until_back(running, kill + 1)
            await stop(running)
    found = rows_of(tmp_path / "home" / FILE_NAME)
    missing, more = unbilled(provider, found)
    assert not missing
    assert not more
    assert len(found) == 20 * OWNER_KILLS


@pytest.mark.full
async def test_a_key_that_one_worker_disables_is_refused_by_all(tmp_path):
    config = tmp_path / "providers.yaml"
    async with fake_provider(says("hello")) as provider:
        config.write_text(with_keys(provider.base_url))
        async with served(config, "--workers", "2", env={"ADMIN": ADMIN}) as (running, client):
            key, item = await issue(client)

            async def statuses():
                """Of new connections, so that every worker is asked."""
                found = set()
                for _ in range(12):
                    async with httpx.AsyncClient(base_url=running.url, trust_env=False) as other:
                        answer = await other.post("/v1/chat/completions", json=chat(), headers=bearer(key))
                    found.add(answer.status_code)
                return found

            assert await statuses() == {200}
            changed = await client.patch(f"/api/v1/keys/{item['hash']}", json={"disabled": True}, headers=bearer(ADMIN))
            assert changed.status_code == 200
            assert await statuses() == {401}
            await stop(running)


async def test_sigterm_lets_running_answers_finish_and_refuses_new_connections(tmp_path):
    config = tmp_path / "providers.yaml"
    async with scripted(tells(tokens=story(50), gap_s=0.04)) as provider:
        config.write_text(config_of(Place(provider.base_url, price=PRICE)))
        async with served(config, "--workers", "2") as (running, client):
            streams = [asyncio.create_task(client.post("/v1/chat/completions", json=ASK)) for _ in range(6)]
            await until(lambda: len(provider.calls) >= 6)
            running.process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.5)
            assert running.process.returncode is None
            refused = 0
            async with httpx.AsyncClient(base_url=running.url, trust_env=False) as late:
                with suppress(httpx.HTTPError):
                    refused = (await late.get("/livez")).status_code
            assert refused == 0
            answers = await asyncio.gather(*streams)
            assert all(one.text.endswith("data: [DONE]\n\n") for one in answers)
            assert await running.exit_code(60) == 0
    assert len(rows_of(tmp_path / "home" / FILE_NAME)) == 6


def below(pid):
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


LOCAL = """
providers:
  local:
    dialect: local
    models:
      tiny: {file: bundled, serves: demo, context_tokens: 2048}
"""


@pytest.mark.full
@needs_engine
async def test_all_workers_have_the_one_local_model_of_the_machine(tmp_path):
    config = tmp_path / "providers.yaml"
    config.write_text(LOCAL)
    async with served(config, "--workers", "2") as (running, client):
        body = {"model": "demo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
        holding = set()
        async with AsyncExitStack() as stack:
            for _ in range(6):
                one = await stack.enter_async_context(
                    httpx.AsyncClient(base_url=running.url, trust_env=False, timeout=60)
                )
                answer = await one.post("/v1/chat/completions", json=body)
                assert answer.status_code == 200, answer.text
                assert answer.json()["usage"]["completion_tokens"] == 5
            holding = {title for title, pid in workers(running).items() if client_ports(pid, port_of(running))}
            text = ""
            async with client.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as streamed:
                async for piece in streamed.aiter_text():
                    text += piece
        assert text.endswith("data: [DONE]\n\n")
        assert len(holding) >= 1
        assert below(children(running.process.pid)["owner"]) == 1, "one process for the model, the owner's"
        assert (await client.get("/readyz")).json()["status"] == "ready"
        await stop(running)


async def test_where_all_of_them_are_killed_at_once_one_process_alone_takes_up_what_they_left(tmp_path):
    config = tmp_path / "providers.yaml"
    asked, over = [], asyncio.Event()
    async with scripted(tells(gap_s=0.01, prefill="openai")) as provider:
        config.write_text(config_of(Place(provider.base_url, price=PRICE, capabilities=PREFILLING)))
        async with served(config, "--workers", "2") as (running, client):
            async with started(config, "--workers", "2", "--port", "0") as second:
                assert await second.exit_code() == 2
                assert "another gateway" in second.output + second.errors
            loading = [asyncio.create_task(ask_on(client, n, random.Random(n), asked, over)) for n in range(6)]
            await until(lambda: len(provider.calls) >= 20)
            for pid in (running.process.pid, *children(running.process.pid).values()):
                end(pid)
            over.set()
            await asyncio.gather(*loading)
        assert journals(tmp_path) != []
        async with served(config) as (running, client):
            assert (await client.post("/v1/chat/completions", json=ASK | {"user": "last"})).status_code == 200
            await stop(running)
    found = rows_of(tmp_path / "home" / FILE_NAME)
    missing, more = unbilled(provider, found)
    recovered = Counter(row.user for row in found.values() if row.usage_source == "recovered")
    free = Counter(row.user for row in found.values() if row.cost_in_nusd == 0)
    assert not missing
    assert not more - recovered - free
    assert journals(tmp_path) == []


@pytest.mark.full
async def test_without_their_parent_workers_finish_their_answers_and_end_and_the_owner_after_them(tmp_path):
    config = tmp_path / "providers.yaml"
    async with scripted(tells(tokens=story(30), gap_s=0.03)) as provider:
        config.write_text(config_of(Place(provider.base_url, price=PRICE)))
        async with served(config, "--workers", "2") as (running, client):
            streams = [asyncio.create_task(client.post("/v1/chat/completions", json=ASK)) for _ in range(4)]
            await until(lambda: len(provider.calls) >= 4)
            left = children(running.process.pid)
            end(running.process.pid)
            answers = await asyncio.gather(*streams)
            assert all(one.text.endswith("data: [DONE]\n\n") for one in answers)
            await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left.values()))
    assert len(rows_of(tmp_path / "home" / FILE_NAME)) == 4
    assert journals(tmp_path) == []


async def test_the_dashboard_shows_what_is_on_its_way_at_all_workers_whichever_answers(tmp_path):
    config = tmp_path / "providers.yaml"
    async with scripted(tells(stop_after=3, how="stall")) as provider:
        config.write_text(config_of(Place(provider.base_url, price=PRICE)))
        async with served(config, "--workers", "3") as (running, client):
            asking = [asyncio.create_task(client.post("/v1/chat/completions", json=ASK)) for _ in range(12)]
            await until(lambda: len(provider.calls) == 12)
            assert len(answering(running)) > 1
            for _ in range(6):
                async with httpx.AsyncClient(base_url=running.url, timeout=30, trust_env=False) as looking:
                    live = (await looking.get("/dashboard/api/live")).json()
                    overview = (await looking.get("/dashboard/api/overview")).json()
                assert (live["in_flight"], len(live["data"]), overview["in_flight"]) == (12, 12, 12)
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            await stop(running)


async def test_an_address_has_as_many_tries_to_sign_in_as_at_one_process_and_a_sign_out_holds_for_all(tmp_path):
    config = tmp_path / "providers.yaml"
    config.write_text("gateway: {admin_token: env:ADMIN}\n" + openai_config("http://127.0.0.1:9/v1"))
    async with served(config, "--workers", "3", env={"ADMIN": ADMIN}) as (running, _):
        origin = {"origin": running.url}

        async def ask(path, method="POST", **more):
            async with httpx.AsyncClient(base_url=running.url, timeout=30, trust_env=False) as client:
                more["headers"] = origin | more.get("headers", {})
                return await client.request(method, f"/dashboard/api/{path}", **more)

        good = await ask("sign-in", json={"token": ADMIN})
        assert good.status_code == 200
        cookie = {"cookie": good.headers["set-cookie"].partition(";")[0]}
        seen = [(await ask("overview", "GET", headers=cookie)).status_code for _ in range(8)]
        assert seen == [200] * 8, "whichever worker answers knows who is signed in"
        tried = [(await ask("sign-in", json={"token": "wrong"})).status_code for _ in range(12)]
        assert Counter(tried) == {401: 4, 429: 8}
        csrf = {"x-mixgate-csrf": good.json()["csrf"]}
        looking = [asyncio.create_task(ask("overview", "GET", headers=cookie)) for _ in range(8)]
        assert (await ask("sign-out", json={}, headers=cookie | csrf)).status_code < 300
        await asyncio.gather(*looking)
        assert {(await ask("overview", "GET", headers=cookie)).status_code for _ in range(8)} == {401}
        await stop(running)

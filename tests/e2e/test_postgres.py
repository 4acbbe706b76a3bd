"""A fleet's Postgres may be down, slow or killed: no client notices, and in the end it has every row."""

import asyncio
import json
import os
import signal
import time
from contextlib import asynccontextmanager

import httpx
import pytest

from gateway.state.connection import FILE_NAME
from gateway.state.errors import StoreError
from gateway.state.postgres_reader import open_fleet
from tests.fakes.duo import Place, config_of
from tests.fakes.fault_proxy import Faults, fault_proxy
from tests.fakes.gateway import chat
from tests.fakes.listener import FULL
from tests.fakes.money import ASK
from tests.fakes.postgres import postgres
from tests.fakes.process import MIXGATE, served
from tests.fakes.scripted import scripted, tells
from tests.gateway.ledger.ledger_kit import rows_of, total_of
from tests.gateway.state.fleet_kit import all_entries, assert_equal, assert_sound

PRICE = "{input: 0.123457, output: 0.654321}"
SLOW_S = 5.0 if FULL else 0.4
WAIT_S = 60.0
APP_KEY = "an-app-s-own-key-0123456789"


@pytest.fixture(scope="module")
def server():
    with postgres() as server:
        yield server


def config_for(folder, provider, variable="FLEET_URL"):
    path = folder / "providers.yaml"
    gateway = f"gateway: {{client_keys: [env:APP_KEY], postgres: {{url: env:{variable}}}}}"
    path.write_text(config_of(Place(provider.base_url, price=PRICE), gateway=gateway))
    return path


@asynccontextmanager
async def replica(folder, provider, url):
    folder.mkdir(exist_ok=True)
    async with served(config_for(folder, provider), env={"FLEET_URL": url, "APP_KEY": APP_KEY}) as (running, client):
        client.headers["authorization"] = f"Bearer {APP_KEY}"
        yield running, client


async def ask(client, count):
    """The slowest answer's time, in seconds."""
    slowest_s = 0.0
    for number in range(count):
        began_s = time.monotonic()
        response = await client.post("/v1/chat/completions", json=ASK | {"user": f"u{number}"})
        assert response.status_code == 200
        slowest_s = max(slowest_s, time.monotonic() - began_s)
    return slowest_s


async def end(running):
    running.process.send_signal(signal.SIGINT)
    assert await running.exit_code(WAIT_S) == 0


async def mixgate(folder, url, *words):
    process = await asyncio.create_subprocess_exec(
        *(str(MIXGATE), *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "MIXGATE_HOME": str(folder / "home"), "FLEET_URL": url, "APP_KEY": APP_KEY},
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def until_equal(url, path):
    """The fleet has what this file has."""
    async with asyncio.timeout(WAIT_S):
        with open_fleet(url) as fleet:
            while await asyncio.to_thread(count_of, fleet) < len(rows_of(path)):  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.1)
            assert_equal(fleet, path)
            assert_sound(fleet)


def count_of(fleet) -> int:
    try:
        return sum(line.attempts for line in fleet.spend("all", 0, 1 << 60))
    except StoreError:  # it is made by the first gateway that comes through to it
        return -1


async def test_a_postgres_that_is_killed_while_it_is_sent_rows_costs_no_answer_and_no_row(tmp_path, server):
    url = server.url(server.make_database())
    folder = tmp_path / "one"
    async with scripted(tells()) as provider:
        async with replica(folder, provider, url) as (running, client):
            asking = asyncio.create_task(ask(client, 40))
            for _ in range(3):
                await asyncio.sleep(0.2)
                await asyncio.to_thread(server.stop)
                await asyncio.sleep(0.1)
                await asyncio.to_thread(server.start)
            await asking
            await asyncio.to_thread(server.stop)
            await ask(client, 5)
            await running.until("nothing can be sent to Postgres", "errors")
            running.process.send_signal(signal.SIGKILL)
            await running.exit_code()
        async with replica(folder, provider, url) as (running, client):
            await ask(client, 5)
            await asyncio.to_thread(server.start)
            await until_equal(url, folder / "home" / FILE_NAME)
            await end(running)
        assert len(rows_of(folder / "home" / FILE_NAME)) == len(provider.calls) == 50
        await until_equal(url, folder / "home" / FILE_NAME)
        with open_fleet(url) as fleet:
            (total,) = fleet.spend("all", 0, 1 << 60)
        assert total == total_of(folder / "home" / FILE_NAME)
        rows = rows_of(folder / "home" / FILE_NAME).values()
        exact = [123_457 * row.input_tokens + 654_321 * row.output_tokens for row in rows]
        assert abs(total.cost_in_nusd * 1000 - sum(exact)) <= 500 * len(exact)
        assert provider.billed_pusd is not None


@pytest.mark.full
async def test_a_slow_postgres_keeps_nobody_waiting_and_is_caught_up_with(tmp_path, server):
    database = server.make_database()
    async with scripted(tells()) as provider, fault_proxy(server.port) as proxy:
        proxy.down = Faults(latency_s=SLOW_S)
        url = server.url(database, proxy.port)
        async with replica(tmp_path / "one", provider, url) as (running, client):
            assert await ask(client, 20) < SLOW_S * 5
            proxy.down = Faults()
            await until_equal(server.url(database), tmp_path / "one" / "home" / FILE_NAME)
            proxy.up = Faults(black_hole=True)  # it hears nothing any more, and nobody says so
            assert await ask(client, 5) < WAIT_S / 2
            proxy.up = Faults()
            await end(running)
        async with replica(tmp_path / "one", provider, server.url(database)) as (running, _):
            await until_equal(server.url(database), tmp_path / "one" / "home" / FILE_NAME)
            await end(running)


@pytest.mark.full
async def test_gateways_of_a_fleet_have_one_ledger_and_one_set_of_keys(tmp_path, server):
    url = server.url(server.make_database())
    async with scripted(tells()) as provider:
        async with replica(tmp_path / "one", provider, url) as (first, one):
            home = tmp_path / "two" / "home"
            home.mkdir(parents=True)
            (home / "secret").write_bytes((tmp_path / "one" / "home" / "secret").read_bytes())
            (home / "secret").chmod(0o600)
            async with replica(tmp_path / "two", provider, url) as (second, two):
                code, out = await mixgate(tmp_path / "one", url, "keys", "create", "ann", "--json", "--url", first.url)
                assert code == 0, out
                key = json.loads(out)["key"]
                for client in (one, two):
                    await until_let_in(client, key, 200)
                hash_ = json.loads(out)["data"]["hash"]
                code, out = await mixgate(tmp_path / "two", url, "keys", "disable", hash_, "--url", second.url)
                assert code == 0, out
                for client in (one, two):
                    await until_let_in(client, key, 401)
                await end(second)
            await end(first)
        code, out = await mixgate(tmp_path / "one", url, "ledger", "status")
        assert (code, "rows to be sent  " in out, "THE FLEET" in out.upper()) == (0, True, True), out
        assert (await mixgate(tmp_path / "one", url, "ledger", "check", "--fleet"))[0] == 0
        code, out = await mixgate(tmp_path / "two", url, "spend", "--fleet", "--by", "all", "--json")
        assert (code, json.loads(out)[0]["attempts"]) == (0, len(provider.calls)), out
        with open_fleet(url) as fleet:
            assert len(all_entries(fleet)) == len(provider.calls)
            assert len(fleet.replicas()) == 2
            assert {row.key_id for row in all_entries(fleet).values()} != {""}


async def until_let_in(client: httpx.AsyncClient, key: str, status: int) -> None:
    """Seconds, no more: that is how often keys go to and fro."""
    async with asyncio.timeout(WAIT_S):
        while True:
            response = await client.post(
                "/v1/chat/completions", json=chat("hi"), headers={"authorization": f"Bearer {key}"}
            )
            if response.status_code == status:
                return
            await asyncio.sleep(0.2)

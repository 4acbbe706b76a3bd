"""Whenever a gateway is killed, and whatever its disk does: each attempt that a provider saw is one row in the end."""

import asyncio
import os
import random
import resource
import signal
import sqlite3
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx

from gateway.ledger.books import Books
from gateway.state.connection import FILE_NAME
from gateway.state.errors import StoreError
from gateway.state.reader import Reader
from tests.fakes.duo import PREFILLING, Place, config_of, stage
from tests.fakes.gateway import chat
from tests.fakes.listener import FULL, listen
from tests.fakes.money import ASK, OK, odd, rows, said
from tests.fakes.process import served
from tests.fakes.scripted import fails, scripted, silent, story, tells
from tests.gateway.ledger.ledger_kit import rows_of, total_of

KILLS = 200 if FULL else 20
CLIENTS = 6
READY_MAX_S = 3.0
WAIT_S = 30.0
PRICE = "{input: 1, output: 2}"
FREE = "{input: 0, output: 0}"


def some_of_all(dice):
    """A provider that is mostly slow enough to be killed in the middle of."""

    async def script(talk):
        drawn = dice.random()
        if drawn < 0.15:
            await fails(503)(talk)
        elif drawn < 0.3:
            await tells(stop_after=dice.randrange(1, 50), how="close", prefill="openai")(talk)
        elif drawn < 0.35:
            await silent(head=True)(talk)
        elif drawn < 0.65:
            await tells(gap_s=0.003, prefill="openai")(talk)
        else:
            await tells(prefill="openai")(talk)

    return script


async def ask_on_and_on(client, number, dice, asked):
    """One request after the other, each with a name of its own, until the gateway is gone."""
    count = 0
    with suppress(httpx.HTTPError):
        while True:
            count += 1
            user = f"u-{number}-{count}"
            asked.append(user)
            body = (ASK if dice.random() < 0.7 else chat("hi")) | {"user": user}
            async with asyncio.timeout(dice.choice((0.05, 5.0))):
                await client.post("/v1/chat/completions", json=body)


async def load(client, kill, dice, asked):
    async def asking(number):
        while True:
            with suppress(TimeoutError):
                await ask_on_and_on(client, f"{kill}-{number}-{dice.random()}", dice, asked)
                return

    await asyncio.gather(*(asking(number) for number in range(CLIENTS)))


def by_request(items):
    return Counter(items)


def left_at_once(row):
    """A client that left, of a provider on a busy machine that perhaps never came to read what was sent."""
    return (row.outcome, row.usage_source, row.output_tokens) == ("cancelled", "estimate", 0)


async def test_a_gateway_that_is_killed_under_load_has_a_row_for_each_attempt(tmp_path):
    dice = random.Random(11)
    slowest_s, asked = 0.0, []
    config = tmp_path / "providers.yaml"
    async with scripted(some_of_all(dice)) as one, scripted(some_of_all(dice)) as two:
        places = [Place(each.base_url, price=PRICE, capabilities=PREFILLING) for each in (one, two)]
        config.write_text(config_of(*places, route="policy: balanced"))
        for kill in range(KILLS):
            began_s = time.monotonic()
            async with served(config) as (running, client):
                slowest_s = max(slowest_s, time.monotonic() - began_s)
                loading = asyncio.create_task(load(client, kill, dice, asked))
                await asyncio.sleep(dice.uniform(0.0, 0.6))
                running.process.send_signal(signal.SIGKILL)
                await running.exit_code()
                await loading
        async with served(config) as (running, client):
            assert (await client.get("/readyz")).status_code == 200
            running.process.send_signal(signal.SIGINT)
            assert await running.exit_code() == 0
        await asyncio.sleep(0.1)
        seen = Counter((call.body["user"], f"p{n}") for n, each in enumerate((one, two)) for call in each.calls)
    found = rows_of(tmp_path / "home" / FILE_NAME).values()
    in_books = Counter((row.user, row.provider) for row in found)
    assert not seen - in_books, "a provider saw what is not in the books"
    # Nobody saw what was begun in the moment of the kill, or went to a connection that was closed for a moment before.
    unseen = in_books - seen
    recovered = Counter((row.user, row.provider) for row in found if row.usage_source == "recovered")
    never_arrived = Counter((row.user, row.provider) for row in found if row.cost_in_nusd == 0 or left_at_once(row))
    assert not unseen - recovered - never_arrived
    assert recovered
    for row in found:
        assert (row.usage_source == "recovered") == (row.code == "gateway_killed") == (row.cost_source == "recovered")
        assert row.cost_in_nusd is not None
        if said(row) == OK:
            assert row.cost_in_nusd == 1000 * row.input_tokens + 2000 * row.output_tokens
    total = total_of(tmp_path / "home" / FILE_NAME)
    assert (total.attempts, total.cost_in_nusd) == (len(found), sum(row.cost_in_nusd for row in found))
    assert list((tmp_path / "home" / "journal").glob("*.journal")) == []
    figures = f"{KILLS} kills, {len(asked)} requests, {sum(seen.values())} attempts seen, {len(found)} rows"
    print(f"{figures}, {sum(recovered.values())} recovered, ready in {slowest_s:.2f} s at most")  # noqa: T201  # for -s
    assert sum(seen.values()) > KILLS * 5
    assert slowest_s < 3 * READY_MAX_S, "far more than it takes even where others use the machine"


async def test_how_far_an_answer_was_is_billed_when_the_gateway_is_killed_in_it(tmp_path):
    config = tmp_path / "providers.yaml"
    async with scripted(tells(tokens=story(600), stop_after=599, how="stall")) as provider:
        config.write_text(config_of(Place(provider.base_url, price=PRICE)))
        async with served(config) as (running, client):
            heard = 0
            async with client.stream("POST", "/v1/chat/completions", json=ASK) as response:
                async for line in response.aiter_lines():
                    heard += '"content":' in line
                    if heard == 599:
                        break
                running.process.send_signal(signal.SIGKILL)
                await running.exit_code()
        async with served(config) as (running, _):
            running.process.send_signal(signal.SIGINT)
            assert await running.exit_code() == 0
    (row,) = rows_of(tmp_path / "home" / FILE_NAME).values()
    assert (row.usage_source, row.cost_source, row.code) == ("recovered", "recovered", "gateway_killed")
    assert 599 - 256 <= row.output_tokens <= 599
    assert row.cost_in_nusd == 1000 * row.prompt_tokens + 2000 * row.output_tokens


async def ask_many(client, count, body=ASK):
    told = await asyncio.gather(*(listen(client, body | {"user": f"u-{number}"}) for number in range(count)))
    assert all(one.complete for one in told), [one.body for one in told if not one.complete]
    return told


async def test_a_database_that_another_holds_locked_keeps_nobody_waiting_and_has_all_rows_after(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.state.connection.BUSY_TIMEOUT_S", 0.2)
    monkeypatch.setattr("gateway.state.store.RETRY_WAIT_MAX_S", 0.1)
    async with stage(tmp_path, tells(), places=odd(1)) as on:
        await ask_many(on.running.client, 5)
        store = on.running.gateway._store
        assert await asyncio.to_thread(store.flush, WAIT_S)
        with sqlite3.connect(tmp_path / "home" / FILE_NAME, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            end_s = time.monotonic() + (30.0 if FULL else 1.5)
            slowest_s = 0.0
            while time.monotonic() < end_s:
                told = await ask_many(on.running.client, 5)
                slowest_s = max(slowest_s, *(one.elapsed_s for one in told))
            assert isinstance(store.failure, StoreError)
            assert len(rows_of(tmp_path / "home" / FILE_NAME)) == 5
            other.execute("ROLLBACK")
        other.close()
        found = await rows(on)
    assert {said(row) for row in found} == {OK}
    assert slowest_s < WAIT_S / 2


def limit_files(pid, soft_bytes=None):
    """How large a file that process may make or have grow; as far as it can tell, its disk is full."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if soft_bytes is None else soft_bytes, hard))


async def test_a_disk_that_is_full_for_a_while_costs_no_answer_and_no_row(tmp_path):
    config = tmp_path / "providers.yaml"
    async with scripted(tells()) as provider:
        config.write_text(config_of(Place(provider.base_url, price=PRICE)))
        async with served(config) as (running, client):
            await ask_many(client, 5)
            limit_files(running.process.pid, 4096)
            for _ in range(6):
                await ask_many(client, 10)
                await asyncio.sleep(0.1)
            await running.until("cannot be written", "errors")
            limit_files(running.process.pid)
            await ask_many(client, 5)
            running.process.send_signal(signal.SIGINT)
            assert await running.exit_code() == 0
    found = rows_of(tmp_path / "home" / FILE_NAME)
    assert len(found) == len(provider.calls) == 70
    assert {said(row) for row in found.values()} == {OK}
    assert sum(row.cost_in_nusd for row in found.values()) * 1000 == provider.billed_pusd
    assert total_of(tmp_path / "home" / FILE_NAME).attempts == 70


@asynccontextmanager
async def full_disk(config):
    """A gateway that finds room for a few rows of its store, and none for a journal, from its first moment on."""
    async with AsyncExitStack() as stack:
        limit_files(os.getpid(), 64 * 1024)
        try:
            running, client = await stack.enter_async_context(served(config))
        finally:
            limit_files(os.getpid())
        yield running, client


async def until_status(client, body, status):
    async with asyncio.timeout(WAIT_S):
        while (response := await client.post("/v1/chat/completions", json=body)).status_code != status:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.1)
    return response


async def test_where_nothing_can_be_written_what_costs_money_is_refused_and_what_does_not_is_answered(tmp_path):
    config = tmp_path / "providers.yaml"
    free = chat("hi", model="free")
    async with scripted(tells()) as paid, scripted(tells()) as gratis:
        text = config_of(Place(paid.base_url, price=PRICE), Place(gratis.base_url, price=FREE, serves="free"))
        text = text.replace("endpoints: [p0/up, p1/up]}", "endpoints: [p0/up]}")
        config.write_text(text + "  free: {endpoints: [p1/up]}\n")
        async with served(config) as (running, _):  # the first start makes what every later one needs
            running.process.send_signal(signal.SIGINT)
            assert await running.exit_code() == 0
        async with full_disk(config) as (running, client):
            refused = await until_status(client, chat("hi"), 503)
            before = len(paid.calls)
            assert refused.json()["error"]["code"] == "ledger_unavailable"
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            for body in (chat("hi"), ASK):
                assert (await client.post("/v1/chat/completions", json=body)).status_code == 503
            assert len(paid.calls) == before, "nothing that costs is sent"
            for _ in range(10):
                assert (await client.post("/v1/chat/completions", json=free)).status_code == 200
            limit_files(running.process.pid)
            await until_status(client, chat("hi"), 200)
            running.process.send_signal(signal.SIGINT)
            assert await running.exit_code() == 0
    found = rows_of(tmp_path / "home" / FILE_NAME).values()
    counted = Counter(row.provider for row in found)
    assert counted == {"p0": len(paid.calls), "p1": len(gratis.calls)}
    assert {row.cost_in_nusd for row in found if row.provider == "p1"} == {0}
    assert sum(row.cost_in_nusd for row in found) * 1000 == paid.billed_pusd


async def test_a_refusal_for_want_of_a_ledger_is_on_record_and_holds_nothing(tmp_path, monkeypatch):
    async with stage(tmp_path, tells(), places=odd(1)) as on:
        with monkeypatch.context() as patch:
            patch.setattr(Books, "available", property(lambda _: False))
            for body in (ASK, chat("hi")) * 3:
                told = await listen(on.running.client, body)
                assert (told.status, told.error["code"]) == (503, "ledger_unavailable")
        gateway = on.running.gateway
        assert gateway.health.retries_of("m").in_flight == 0
        assert gateway.engine.books.in_flight == 0
        assert on.tries == (0,)
        assert await asyncio.to_thread(gateway._store.flush, WAIT_S)
        with Reader(tmp_path / "home" / FILE_NAME) as reader:
            assert reader.kept().count == 6
        await ask_many(on.running.client, 1)

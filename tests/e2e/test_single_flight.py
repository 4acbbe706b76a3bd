"""Several who ask the same at the same time share one call: what each gets, who pays, and what if somebody leaves."""

import asyncio
import json
import os
import signal
import sqlite3
from contextlib import asynccontextmanager

import httpx
import pytest
from aiohttp import web

from gateway.cache.flight import Flight
from gateway.explain.record import decode
from gateway.state.connection import FILE_NAME
from gateway.state.reader import Reader
from tests.e2e.test_cache import COST_USD, ON, PATH, THREE, ask, status, told
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.provider import fails, fake_provider, says, stream_chunks

USAGE = {"stream_options": {"include_usage": True}}
MANY = 100
CONFIG = "gateway: {in_flight_max: 2000, in_flight_per_key_max: 1000}\n"


class Gate:
    """Replies that wait: the first part at once, the rest once `open` is set."""

    def __init__(self):
        self.open = asyncio.Event()
        self.came = asyncio.Event()

    def then(self, reply):
        async def wait(request, seen):
            self.came.set()
            await self.open.wait()
            return await reply(request, seen)

        return wait

    def in_the_middle(self, text, *, cut=False):
        """A stream that stops after its first word."""

        async def reply(request, _seen):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            first, *rest = stream_chunks(text)
            await response.write(first + rest[0])
            self.came.set()
            await self.open.wait()
            if cut:
                request.transport.abort()
                return response
            for part in rest[1:]:
                await response.write(part)
            await response.write_eof()
            return response

        return reply


@asynccontextmanager
async def gateway(folder, *replies, config=openai_config):
    async with fake_provider(*replies) as provider:
        async with running_gateway(CONFIG + config(provider.base_url), folder) as on:
            async with asyncio.timeout(60):
                yield provider, on


async def listening(on, count):
    """Wait until so many listen to the one answer that is on its way."""
    flights = on.gateway.application._reuse._flights
    while sum(len(flight._listeners) for flight in flights.values()) != count:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0.01)


async def kept_records(on, answers):
    """By id, what is on record of each, which must be one record."""
    assert await asyncio.to_thread(on.gateway._store.flush, 10)
    with Reader(on.gateway._store.path) as reader:
        ids = [name for name, _ in reader.newest_records(1000)]
        found = {one.headers["x-generation-id"]: None for one in answers}
        assert sorted(ids) == sorted(found), "one record for each request"
        return {name: decode(reader.find_record(name)) for name in found}


async def rows(on):
    assert await asyncio.to_thread(on.gateway._store.flush, 10)
    connection = sqlite3.connect(f"file:{on.gateway._store.path}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT attempt_id, outcome, cost_in_nusd FROM entry ORDER BY 1").fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hundred_at_once_are_one_call_and_one_bill(tmp_path, stream):
    gate = Gate()
    shape = {"stream": stream, **(USAGE if stream else {})}
    async with gateway(tmp_path, gate.then(says(THREE))) as (provider, on):
        asking = [asyncio.create_task(ask(on, **shape)) for _ in range(MANY)]
        await listening(on, MANY)
        gate.open.set()
        answers = await asyncio.gather(*asking)
        billed = await rows(on)
        later = await ask(on, **shape)
    assert len(provider.requests) == 1
    assert sorted(map(status, answers)) == ["HIT"] * (MANY - 1) + ["MISS"]
    assert len({one.headers["x-generation-id"] for one in answers}) == MANY
    assert all(told(one)[:2] == ({0: THREE}, {0: "stop"}) for one in answers)
    costs = sorted(told(one)[2]["cost"] for one in answers)
    assert costs[:-1] == [0] * (MANY - 1)
    assert costs[-1] == pytest.approx(float(COST_USD))
    leader = next(one for one in answers if status(one) == "MISS")
    assert billed == [(f"{leader.headers['x-generation-id']}/1", "ok", 13_000)]
    assert status(later) == "HIT"


async def test_different_requests_and_clients_that_want_none_of_it_ask_for_themselves(tmp_path):
    gate = Gate()
    async with gateway(tmp_path, gate.then(says(THREE))) as (provider, on):
        asking = [asyncio.create_task(ask(on, text, headers=headers)) for text in "ab" for headers in (ON, {}, ON)]
        await listening(on, 4)
        while len(provider.requests) < 4:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
        gate.open.set()
        answers = await asyncio.gather(*asking)
    assert len(provider.requests) == 4
    assert sorted(str(status(one)) for one in answers) == ["HIT", "HIT", "MISS", "MISS", "None", "None"]


async def test_who_comes_in_the_middle_of_a_stream_gets_it_from_the_beginning(tmp_path):
    gate = Gate()
    async with gateway(tmp_path, gate.in_the_middle("one two three")) as (provider, on):
        first = asyncio.create_task(ask(on, stream=True))
        await gate.came.wait()
        second = asyncio.create_task(ask(on, stream=True))
        await listening(on, 2)
        gate.open.set()
        answers = await asyncio.gather(first, second)
    assert len(provider.requests) == 1
    assert [told(one)[0] for one in answers] == [{0: "one two three"}] * 2


async def leave_in_the_middle(on, when):
    """Ask, and hang up after the first content, once others are there."""
    async with on.client.stream("POST", PATH, json=chat(stream=True), headers=ON) as response:
        async for line in response.aiter_lines():
            if '"content":"one"' in line:
                await when.wait()
                return


async def test_the_first_may_leave_and_the_others_get_everything(tmp_path):
    gate = Gate()
    async with gateway(tmp_path, gate.in_the_middle("one two three")) as (provider, on):
        there = asyncio.Event()
        leaving = asyncio.create_task(leave_in_the_middle(on, there))
        await gate.came.wait()
        others = [asyncio.create_task(ask(on, stream=True)) for _ in range(3)]
        await listening(on, 4)
        there.set()
        await leaving
        await listening(on, 3)
        gate.open.set()
        answers = await asyncio.gather(*others)
        billed = await rows(on)
    assert len(provider.requests) == 1
    assert [told(one)[0] for one in answers] == [{0: "one two three"}] * 3
    assert [status(one) for one in answers] == ["HIT"] * 3
    assert [(outcome, cost) for _, outcome, cost in billed] == [("ok", 13_000)]


async def test_a_first_that_is_killed_before_anything_came_leaves_its_call_to_the_others(tmp_path):
    gate = Gate()
    async with gateway(tmp_path, gate.then(says(THREE))) as (provider, on):
        first = asyncio.create_task(ask(on))
        await gate.came.wait()
        others = [asyncio.create_task(ask(on)) for _ in range(3)]
        await listening(on, 4)
        first.cancel()  # which closes its connection
        await listening(on, 3)
        gate.open.set()
        answers = await asyncio.gather(*others)
    assert len(provider.requests) == 1
    assert all(told(one)[0] == {0: THREE} for one in answers)


async def test_with_the_last_one_the_call_is_broken_off(tmp_path):
    gate = Gate()
    async with gateway(tmp_path, gate.in_the_middle("one two three")) as (provider, on):
        there = asyncio.Event()
        leaving = [asyncio.create_task(leave_in_the_middle(on, there)) for _ in range(2)]
        await listening(on, 2)
        there.set()
        await asyncio.gather(*leaving)
        await listening(on, 0)
        while not provider.requests[0].cancelled:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
        while on.gateway.engine.books.in_flight:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
        billed = await rows(on)
        gate.open.set()
        after = await ask(on, stream=True)
    assert [outcome for _, outcome, _ in billed] == ["cancelled"]
    assert status(after) == "MISS"


@pytest.mark.parametrize("stream", [False, True])
async def test_when_the_first_fails_another_asks_and_the_rest_follow_that_one(tmp_path, stream):
    gate = Gate()
    async with gateway(tmp_path, gate.then(fails(503)), fails(503), says(THREE)) as (provider, on):
        asking = [asyncio.create_task(ask(on, stream=stream)) for _ in range(20)]
        await listening(on, 20)
        gate.open.set()
        answers = await asyncio.gather(*asking)
        billed = await rows(on)
        records = await kept_records(on, answers)
    assert sorted(one.outcome for one in records.values()) == ["failed"] + ["ok"] * 19
    codes = sorted(one.status_code for one in answers)
    assert codes == [200] * 19 + [503]
    assert len(provider.requests) == 3, "the first asks twice, the second once"
    good = [one for one in answers if one.status_code == 200]
    assert sorted(map(status, good)) == ["HIT"] * 18 + ["MISS"]
    assert all(told(one)[0] == {0: THREE} for one in good)
    assert sorted(outcome for _, outcome, _ in billed) == ["failed", "failed", "ok"]


async def test_a_provider_that_stays_down_is_asked_in_the_name_of_two_and_not_of_all(tmp_path):
    gate = Gate()
    async with gateway(tmp_path, gate.then(fails(503))) as (provider, on):
        asking = [asyncio.create_task(ask(on)) for _ in range(20)]
        await listening(on, 20)
        gate.open.set()
        answers = await asyncio.gather(*asking)
        records = await kept_records(on, answers)
    assert {one.status_code for one in answers} == {503}
    assert {one.outcome for one in records.values()} == {"failed"}
    assert sum(one.cached is None for one in records.values()) == 2
    assert len(provider.requests) <= 4, "two requests of two attempts at most, not twenty"


async def test_a_request_that_is_wrong_is_not_asked_again_for_the_others(tmp_path):
    gate = Gate()
    async with gateway(tmp_path, gate.then(fails(400)), says(THREE)) as (provider, on):
        asking = [asyncio.create_task(ask(on)) for _ in range(5)]
        await listening(on, 5)
        gate.open.set()
        answers = await asyncio.gather(*asking)
    assert {one.status_code for one in answers} == {400}
    assert len(provider.requests) == 1


async def test_a_stream_that_breaks_off_ends_with_an_error_for_everybody_who_saw_some_of_it(tmp_path):
    gate = Gate()

    def config(url):
        return openai_config(url, rescue=False)

    async with gateway(tmp_path, gate.in_the_middle("one two three", cut=True), config=config) as (provider, on):
        asking = [asyncio.create_task(ask(on, stream=True)) for _ in range(3)]
        await listening(on, 3)
        await gate.came.wait()
        while any(one.position == 0 for flight in flights(on) for one in flight._listeners):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        gate.open.set()
        answers = await asyncio.gather(*asking)
    assert len(provider.requests) == 1
    for answer in answers:
        last = json.loads(answer.text.strip().splitlines()[-3].removeprefix("data: "))
        assert last["error"]["code"]
        assert '"one"' in answer.text


def flights(on):
    return list(on.gateway.application._reuse._flights.values())


async def test_an_answer_that_is_too_long_to_be_held_reaches_everybody_and_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.reuse.Flight", lambda source_id: Flight(source_id, held_max_bytes=2000))
    text = " ".join(["word"] * 300)
    async with gateway(tmp_path, says(text)) as (provider, on):
        answers = await asyncio.gather(*(ask(on, stream=True) for _ in range(3)))
        later = await ask(on, stream=True)
    assert all(told(one)[0] == {0: text} for one in (*answers, later))
    assert status(later) == "MISS"
    assert len(provider.requests) <= 4


async def test_when_the_gateway_is_stopped_all_who_share_an_answer_are_told(tmp_path):
    gate = Gate()
    async with fake_provider(gate.in_the_middle("one two three")) as provider:
        async with running_gateway(openai_config(provider.base_url), tmp_path, drain_s=0.3) as on:
            async with httpx.AsyncClient(base_url=on.url, timeout=60, trust_env=False) as client:
                streams = [asyncio.create_task(client.post(PATH, json=chat(stream=True), headers=ON)) for _ in range(3)]
                wholes = [asyncio.create_task(client.post(PATH, json=chat("whole"), headers=ON)) for _ in range(3)]
                await listening(on, 6)
                await gate.came.wait()
                os.kill(os.getpid(), signal.SIGTERM)
                streamed, whole = await asyncio.gather(*streams), await asyncio.gather(*wholes)
            assert not flights(on)
        gate.open.set()
    assert [one.json()["error"]["code"] for one in whole] == ["server_shutdown"] * 3
    assert all('"code":"server_shutdown"' in one.text for one in streamed)
    assert len(provider.requests) == 2
    with Reader(tmp_path / "home" / FILE_NAME) as reader:
        ends = [decode(data) for _, data in reader.newest_records(6)]
    assert [(one.outcome, one.code) for one in ends] == [("failed", "server_shutdown")] * 6

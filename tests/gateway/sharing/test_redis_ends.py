"""What in Redis has an end of its own, and what never does: a Redis that is full, or waits, forgets no money."""

import asyncio
import time

import pytest
import redis

from gateway.keys.limits import Limited
from gateway.sharing.rate_scripts import RATES_KEPT_S
from tests.gateway.sharing.redis_kit import ask, hold, record, redis_store, running, until
from tests.gateway.sharing.test_contract import RECORDS, until_kept

NEVER, GONE = -1, -2
SPENDING = ("a:", "d:", "n:", "s:", "m:", "epoch")
"""What was spent and is reserved, by whom, and who is there."""
ENDING = ("q:", "v:", "x:", "y:", "hints")
SLACK_S = 60


@pytest.fixture
def look(shared_server, prefix):
    with redis.Redis(port=shared_server.port) as client:

        def ends():
            names = [name.decode() for name in client.scan_iter(f"{prefix}*")]
            return {name.removeprefix(prefix): client.ttl(name) for name in names}

        yield ends


@pytest.fixture
async def store(shared_server, prefix):
    await shared_server.settle(prefix)
    made = redis_store(shared_server.url, (*RECORDS, record("slow", tokens_per_min=10)), prefix=prefix)
    async with running(made):
        yield made


async def test_what_was_spent_and_is_reserved_never_ends_by_itself_and_all_else_does(store, look):
    now_s, unix_s = asyncio.get_running_loop().time(), time.time()
    for key, lease in (("k", "g1"), ("sibling", "g2"), ("free", "g3")):
        grant = await ask(store, lease, key)
        await hold(store, lease, f"{lease}/1", grant.amount_in_nusd)
        store.budgets.settle(lease, f"{lease}/1", 700)
    store.budgets.release("g1")  # the others stay open
    held = await store.rates.enter("often", 500, now_s)
    store.sessions.remember("s", "e", unix_s)
    await store.tries.count("192.0.2.7", now_s)
    await until_kept(store, unix_s)
    await until(lambda: not store.status().waiting, "telling")
    store.rates.leave(held, 600, now_s)
    await asyncio.sleep(0.05)
    found = look()
    for kind in ("a:", "d:", "n:", "s:", "m:", "epoch", "q:", "v:", "x:", "y:"):
        assert any(name.startswith(kind) for name in found), (kind, found)
    for name, end_s in found.items():
        if name.startswith(ENDING):
            assert end_s > 0, name
        else:
            assert name.startswith(SPENDING), name
            assert end_s == NEVER, name


async def until_ends(look, name, least_s):
    async with asyncio.timeout(10):
        while look().get(name, GONE) < least_s:  # noqa: ASYNC110 (Redis is told behind)
            await asyncio.sleep(0.01)
    return look()[name]


async def test_rates_are_forgotten_only_when_all_that_was_taken_is_there_again(store, look):
    now_s = asyncio.get_running_loop().time()
    await store.rates.enter("often", 900, now_s)
    assert abs(await until_ends(look, "q:often", 1) - RATES_KEPT_S) < SLACK_S
    assert RATES_KEPT_S > 60, "a bucket is full again after a minute, and requests last no day"


async def test_what_a_long_answer_owes_is_remembered_until_it_is_paid_whoever_joins_or_asks_meanwhile(
    store, look, shared_server, prefix
):
    now_s = asyncio.get_running_loop().time()
    held, on_its_way = [await store.rates.enter("slow", 5, now_s) for _ in range(2)]
    store.rates.leave(held, 100_000, now_s)
    owed_s = 100_000 * 60 // 10
    assert abs(await until_ends(look, "q:slow", owed_s - SLACK_S) - owed_s) < SLACK_S
    refused = await store.rates.enter("slow", 5, now_s)
    assert isinstance(refused, Limited)
    assert refused.kind == "tokens"
    other = redis_store(shared_server.url, (record("slow", tokens_per_min=10),), prefix=prefix, name="b")
    async with running(other):
        assert isinstance(await other.rates.enter("slow", 5, now_s), Limited)
        store._member.lane.reset("the test wants it to join anew")
        await until(lambda: store.status().whole, "joining")
        assert abs(look()["q:slow"] - owed_s) < SLACK_S
        store.rates.leave(on_its_way, None, now_s)
        assert isinstance(await other.rates.enter("slow", 5, now_s), Limited)
        assert abs(look()["q:slow"] - owed_s) < SLACK_S


async def test_a_redis_that_forgets_rates_forgets_no_money(store, look, shared_server, prefix):
    grant = await ask(store, "g1", "k")
    store.budgets.release("g1")
    held = await store.rates.enter("often", 900, asyncio.get_running_loop().time())
    with redis.Redis(port=shared_server.port) as client:
        for name in [name for name in look() if name.startswith("q:")]:
            client.delete(prefix + name)
    store.rates.leave(held, 900, asyncio.get_running_loop().time())
    assert not isinstance(await store.rates.enter("often", 900, asyncio.get_running_loop().time()), Limited)
    assert grant.amount_in_nusd == 1_000
    assert (await store.budgets.usage(["k"], time.time()))["k"].reserved_in_nusd == 0

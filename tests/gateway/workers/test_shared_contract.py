"""A worker's StateStore promises what every other does: the very same tests, asked of an owner over its socket."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from gateway.config.catalogue import GatewaySettings
from gateway.config.secrets import Secret
from gateway.config.stores import RedisSettings
from gateway.keys.budget import Offer
from gateway.keys.purse import Grant, Refusal
from gateway.sharing.base import TRIES_MAX, TRIES_WINDOW_S
from gateway.workers.owner import ALONE
from tests.gateway.sharing import test_contract
from tests.gateway.sharing.conftest import shared_server  # noqa: F401  # a fixture
from tests.gateway.sharing.redis_kit import SERVER, ask, hold, record
from tests.gateway.workers.workers_kit import owner_of, until, worker_of

THEIR_OWN = {
    "test_before_the_past_is_known_no_budget_is_spent",
    "test_those_who_tell_hear_the_others_and_only_while_it_holds",
    "test_processes_of_a_fleet_have_no_more_tries_than_one",
    "test_where_redis_is_away_a_process_counts_tries_itself",
}
"""Of other stores."""
PROMISES = {
    name: promise for name, promise in vars(test_contract).items() if name.startswith("test_") and name not in THEIR_OWN
}


async def kept(promise, home, settings=ALONE):
    async with owner_of(home, *test_contract.RECORDS, settings=settings) as owner:
        async with worker_of(home, "w1", *test_contract.RECORDS) as state:
            await until(lambda: owner.money.whole and owner.shared.status().whole)
            await promise(state)


async def all_kept(tmp_path, settings_of):
    # Beside one another, as most of the time is waiting for a disk.
    names = list(PROMISES)
    found = await asyncio.gather(
        *(kept(PROMISES[name], tmp_path / name[-60:], settings_of(name)) for name in names), return_exceptions=True
    )
    return {name: error for name, error in zip(names, found, strict=True) if error is not None}


def of_fleet(server, prefix, replica="a"):
    return GatewaySettings(redis=RedisSettings(Secret(server.url, "env:REDIS"), replica, prefix))


async def test_a_worker_keeps_every_promise(tmp_path):
    assert len(PROMISES) >= 18
    assert not await all_kept(tmp_path, lambda _: ALONE)


@pytest.mark.skipif(SERVER is None, reason="redis-server is not installed")
async def test_a_worker_keeps_every_promise_whose_owner_is_one_of_a_fleet(tmp_path, shared_server):  # noqa: F811
    assert not await all_kept(tmp_path, lambda name: of_fleet(shared_server, f"w-{name[-40:]}:"))


@pytest.mark.skipif(SERVER is None, reason="redis-server is not installed")
async def test_workers_of_two_machines_share_one_budget(tmp_path, shared_server):  # noqa: F811
    key = record("k", ever_in_nusd=10_000)
    offers = (Offer("e", 0, 1_000, 2_000),)
    homes = [tmp_path / "one", tmp_path / "two"]
    settings = [of_fleet(shared_server, "machines:", name) for name in ("one", "two")]
    async with (
        owner_of(homes[0], key, settings=settings[0]) as first,
        owner_of(homes[1], key, settings=settings[1]) as second,
        worker_of(homes[0], "w1", key) as one,
        worker_of(homes[1], "w1", key) as two,
    ):
        await until(lambda: all(owner.money.whole and owner.shared.status().whole for owner in (first, second)))
        found = await asyncio.gather(*(ask(two if n % 2 else one, f"g{n}", offers=offers) for n in range(10)))
        granted = [grant for grant in found if isinstance(grant, Grant)]
        assert sum(grant.amount_in_nusd for grant in granted) <= 10_000
        assert any(isinstance(one_of, Refusal) for one_of in found)
        for grant in granted:
            state = two if int(grant.id[1:]) % 2 else one
            await hold(state, grant.id, f"{grant.id}/1", grant.amount_in_nusd)
            state.budgets.settle(grant.id, f"{grant.id}/1", grant.amount_in_nusd)
            state.budgets.release(grant.id)
        total = sum(grant.amount_in_nusd for grant in granted)
        usage = {}

        async def all_told():
            usage.update(await one.budgets.usage(["k"], time.time()))
            return usage["k"].ever_in_nusd

        async with asyncio.timeout(20):
            while await all_told() != total:  # noqa: ASYNC110 (Redis is told behind)
                await asyncio.sleep(0.02)
        assert usage["k"].reserved_in_nusd == 0


async def test_workers_have_no_more_tries_than_one_process_and_count_themselves_while_their_owner_is_away(tmp_path):
    async with worker_of_owner(tmp_path) as (owner, one, two):
        now_s = time.monotonic()
        counted = [await (one, two)[number % 2].tries.count("192.0.2.7", now_s) for number in range(TRIES_MAX)]
        assert counted == [None] * TRIES_MAX
        assert await one.tries.count("192.0.2.7", now_s) == pytest.approx(TRIES_WINDOW_S)
        assert await two.tries.count("192.0.2.7", now_s) == pytest.approx(TRIES_WINDOW_S)
        await owner.aclose()
        await until(lambda: not one.status().up)
        left = [await one.tries.count("192.0.2.7", now_s) for _ in range(TRIES_MAX)]
        assert sum(wait_s is None for wait_s in left) == TRIES_MAX // 2, "three of the first five were its own"


@asynccontextmanager
async def worker_of_owner(home):
    async with owner_of(home) as owner, worker_of(home, "w1") as one, worker_of(home, "w2") as two:
        yield owner, one, two

"""Three gateways and one budget: whatever they do, it is never overspent, and nothing stays reserved."""

import asyncio
import itertools
import os
import time

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.errors import KeysUnavailableError
from gateway.keys.budget import Offer
from gateway.keys.purse import Grant
from tests.gateway.sharing.redis_kit import NOON, Server, ask, hold, record, redis_store, until

FULL = bool(os.environ.get("MIXGATE_TEST_FULL"))
KEYS = ("a", "b", "c")
PLACES = itertools.count()


class Spending(RuleBasedStateMachine):
    """Keys of two teams at three gateways; requests begin, fall back, end; connections are lost."""

    server: Server

    @initialize(limits=st.lists(st.integers(0, 20_000), min_size=3, max_size=3))
    def begin(self, limits):
        self.loop = asyncio.new_event_loop()
        self.prefix = f"m{next(PLACES)}:"
        self.limits = dict(zip(("team", "a", "b"), limits, strict=True))
        records = (
            record("team", ever_in_nusd=limits[0]),
            record("a", "team", day_in_nusd=limits[1]),
            record("b", "team", ever_in_nusd=limits[2]),
            record("c", "team"),
        )
        self.stores = [
            redis_store(self.server.url, records, name=f"g{place}", prefix=self.prefix) for place in range(3)
        ]
        self.leases, self.holds, self.count = {}, {}, 0
        self.run(self.start())

    def run(self, step):
        return self.loop.run_until_complete(asyncio.wait_for(step, 60))

    async def start(self):
        await self.server.settle(self.prefix)
        for store in self.stores:
            await store.start()
        for store in self.stores:
            await until(lambda store=store: store.status().whole, "joining")

    @rule(place=st.integers(0, 2), key=st.sampled_from(KEYS), tokens=st.integers(0, 6_000), at_once=st.integers(1, 4))
    def reserve(self, place, key, tokens, at_once):
        async def one(lease):
            try:
                return lease, await ask(self.stores[place], lease, key, (Offer("e", 0, 1_000, tokens),))
            except KeysUnavailableError:
                return lease, None

        async def several():
            self.count += at_once
            return await asyncio.gather(*(one(f"l{self.count}.{number}") for number in range(at_once)))

        for lease, found in self.run(several()):
            if isinstance(found, Grant):
                self.leases[lease] = (place, key)

    @precondition(lambda self: self.leases)
    @rule(worst=st.integers(0, 9_000), data=st.data())
    def hold(self, worst, data):
        lease = data.draw(st.sampled_from(sorted(self.leases)))
        place, _ = self.leases[lease]
        self.count += 1
        attempt = f"{lease}/{self.count}"
        try:
            refused = self.run(hold(self.stores[place], lease, attempt, worst))
        except KeysUnavailableError:
            return
        if refused is None:
            self.holds[attempt] = (lease, place, worst)

    @precondition(lambda self: self.holds)
    @rule(share=st.floats(0, 1), twice=st.booleans(), data=st.data())
    def settle(self, share, twice, data):
        attempt = data.draw(st.sampled_from(sorted(self.holds)))
        lease, place, worst = self.holds.pop(attempt)
        for _ in range(1 + twice):
            self.stores[place].budgets.settle(lease, attempt, round(worst * share))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data):
        lease = data.draw(st.sampled_from(sorted(self.leases)))
        place, _ = self.leases.pop(lease)
        self.stores[place].budgets.release(lease)

    @rule(place=st.integers(0, 2), key=st.sampled_from(KEYS), steps=st.integers(0, 12))
    def give_up(self, place, key, steps):
        async def begin_and_leave():
            self.count += 1
            asking = asyncio.ensure_future(ask(self.stores[place], f"l{self.count}", key))
            for _ in range(steps):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            self.stores[place].budgets.release(f"l{self.count}")

        self.run(begin_and_leave())

    @rule(place=st.integers(0, 2))
    def lose_the_connection(self, place):
        async def lose():
            self.stores[place]._member.lane.reset("as if it was cut")

        self.run(lose())

    @rule(place=st.integers(0, 2))
    def return_spares(self, place):
        self.stores[place].budgets.return_idle_spares(time.monotonic() + 1)

    @invariant()
    def nobody_has_more_than_the_budget(self):
        for key, limit in self.limits.items():
            accounts = [store.budgets.purse.account(key) for store in self.stores]
            starts = self.stores[0].budgets.purse.starts(NOON)
            window = "day" if key == "a" else "ever"
            had = sum(one.spent(window, starts) + one.kept_in_nusd + one.spare_in_nusd for one in accounts)
            assert had <= limit, (key, had, limit)

    def teardown(self):
        if hasattr(self, "loop"):
            try:
                self.run(self.finish())
            finally:
                self.loop.close()

    async def finish(self):
        for attempt, (lease, place, _) in self.holds.items():
            self.stores[place].budgets.settle(lease, attempt, None)
        for lease, (place, _) in self.leases.items():
            self.stores[place].budgets.release(lease)
        for store in self.stores:
            store.budgets.return_idle_spares(float("inf"))
        await until(lambda: all(one.status().whole and not one.status().waiting for one in self.stores), "telling")
        for store in self.stores:
            await store._member.ask("beat")  # behind all that was told
        for key in ("team", *KEYS):
            account = f"{self.prefix}a:{key}"
            spent = sum(one.budgets.purse.account(key).spent("ever", (0, 0, 0, 0)) for one in self.stores)
            assert await self.server.number("HGET", f"{self.prefix}s:{key}:e0", "") == spent
            assert await self.server.number("HGET", account, "R") == 0
        for store in self.stores:
            await store.aclose()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_three_gateways_never_overspend_whatever_happens(shared_server):
    Spending.server = shared_server
    run_state_machine_as_test(
        Spending,
        settings=settings(
            max_examples=200 if FULL else 8,
            stateful_step_count=50 if FULL else 25,
            deadline=None,
            derandomize=not FULL,
            suppress_health_check=list(HealthCheck),
        ),
    )

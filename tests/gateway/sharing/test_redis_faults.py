"""Redis down, slow, emptied, failed over, cut in the middle: requests go on, budgets hold, state is put together."""

import asyncio
import time

import pytest

from gateway.errors import KeysUnavailableError
from gateway.keys.budget import Offer
from gateway.keys.limits import Limited, Pass
from gateway.keys.purse import Grant, Refusal
from gateway.sharing.base import Hint
from tests.fakes.fault_proxy import NO_FAULTS, Faults, fault_proxy
from tests.gateway.sharing.redis_kit import (
    NOON,
    Server,
    ask,
    free_port,
    hold,
    record,
    redis_server,
    redis_store,
    running,
    until,
)

K = record("k", ever_in_nusd=100_000)
RECORDS = (K, record("free"), record("often", requests_per_min=2))
DOLLAR_OFFER = (Offer("e", 0, 1_000, 1_000),)


def two(server, **settings):
    return redis_store(server.url, RECORDS, name="a", **settings), redis_store(
        server.url, RECORDS, name="b", **settings
    )


async def spend(store, lease, cost=1_000, key="k"):
    grant = await ask(store, lease, key)
    if isinstance(grant, Grant):
        assert await hold(store, lease, f"{lease}/1", grant.amount_in_nusd) is None
        store.budgets.settle(lease, f"{lease}/1", min(cost, grant.amount_in_nusd))
        store.budgets.release(lease)
    return grant


def committed(*stores):
    """What all of them together have spent and reserved."""
    accounts = [store.budgets.purse.account("k") for store in stores]
    return sum(one.spent("ever", (0, 0, 0, 0)) + one.reserved_in_nusd for one in accounts)


async def told(*stores):
    await until(lambda: not any(store.status().waiting for store in stores), "telling")


async def test_without_redis_keys_without_a_budget_go_on_and_others_are_told_when_to_come_back(tmp_path):
    store = redis_store("redis://127.0.0.1:1/0", RECORDS)
    await store.start()
    try:
        assert isinstance(await spend(store, "f0", 5, "free"), Grant)
        began_s = time.monotonic()
        with pytest.raises(KeysUnavailableError) as caught:
            await ask(store, "g1")
        assert caught.value.retry_after_s == 1.0
        assert time.monotonic() - began_s < 10
        await asyncio.sleep(max(0.0, 2.2 - (time.monotonic() - began_s)))
        steps = 0

        async def count_steps():
            nonlocal steps
            while True:
                steps += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count_steps())
        await asyncio.sleep(0)
        steps = 0
        for number in range(50):
            assert isinstance(await spend(store, f"f{number}x", 5, "free"), Grant)
            held = await store.rates.enter("free", 1, 0.0)
            assert isinstance(held, Pass)
            store.rates.leave(held, 1, 0.0)
            with pytest.raises(KeysUnavailableError):
                await ask(store, f"g{number}x")
        assert steps < 200, "nobody waits for a Redis that is known to be away"
        counting.cancel()
        assert [isinstance(await store.rates.enter("often", 1, 0.0), Limited) for _ in range(3)] == [False, False, True]
        status = store.status()
        assert (status.up, status.whole) == (False, False)
        assert "127.0.0.1" not in status.reason
    finally:
        await store.aclose()


async def test_all_that_redis_held_is_put_together_again_when_it_is_emptied_under_load(tmp_path):
    async with redis_server(tmp_path) as server:
        a, b = two(server)
        async with running(a, b):
            for number in range(20):
                await spend((a, b)[number % 2], f"w{number}", 700)
            await ask(a, "long")
            assert await hold(a, "long", "long/1", 1_000) is None
            await told(a, b)
            seen = []

            async def client(number):
                store = (a, b)[number % 2]
                for turn in range(40):
                    try:
                        seen.append(await spend(store, f"c{number}.{turn}", 900))
                    except KeysUnavailableError:
                        await asyncio.sleep(0.05)
                    assert committed(a, b) <= 100_000
                    await asyncio.sleep(0.01)

            clients = [asyncio.create_task(client(number)) for number in range(8)]
            await asyncio.sleep(0.2)
            began_s = time.monotonic()
            await server.say("FLUSHALL")
            await until(lambda: not (a.status().whole and b.status().whole), "noticing")
            await until(lambda: a.status().whole and b.status().whole, "putting together")
            took_s = time.monotonic() - began_s
            await asyncio.gather(*clients)
            assert took_s < 10  # 2 s on a machine that has nothing else to do
            a.budgets.settle("long", "long/1", 1_000)
            a.budgets.release("long")
            refusal = seen[-1]
            for number in range(200):
                refusal = await spend((a, b)[number % 2], f"z{number}", 1_000)
                if isinstance(refusal, Refusal) and refusal.final:
                    break
            await told(a, b)
            refusal = await ask(b, "last")
            assert isinstance(refusal, Refusal)
            assert refusal.final
            assert refusal.standing.reserved_in_nusd == 0
            assert 99_984 < committed(a, b) <= 100_000
            assert refusal.standing.spent_in_nusd == committed(a, b)
            assert (a.status().rebuilds, b.status().rebuilds) == (1, 1)


async def test_what_a_dead_gateway_had_spent_survives_the_loss_as_long_as_another_remembers(tmp_path):
    async with redis_server(tmp_path) as server:
        a, b = two(server)
        async with running(a):
            async with running(b):
                for number in range(10):
                    await spend(b, f"b{number}")
                await told(b)
                await until(lambda: a.budgets.purse.usage("k", NOON).ever_in_nusd == 10_000, "hearing of it")
            await server.say("FLUSHALL")
            await until(lambda: a.status().rebuilds == 1 and a.status().whole, "putting together")
            grant = await ask(a, "g1")
            assert isinstance(grant, Grant)
            assert grant.left_in_nusd == 90_000


async def test_after_a_failover_that_lost_the_last_second_nothing_is_counted_twice_or_not_at_all(tmp_path):
    async with redis_server(tmp_path) as server:
        a, b = two(server)
        async with running(a, b):
            for number in range(5):
                await spend(a, f"a{number}")
            await told(a)
            await server.say("SAVE")  # what the other Redis had heard
            await ask(b, "open")
            for number in range(5):
                await spend(b, f"b{number}")
            await spend(a, "late")
            await told(a, b)
            await server.kill()
            await server.start("--dbfilename", "dump.rdb")
            await until(lambda: not a.status().whole, "noticing")
            await until(lambda: a.status().whole and b.status().whole, "putting together")
            grant = await ask(a, "g1")
            assert isinstance(grant, Grant)
            assert grant.left_in_nusd == 100_000 - 11_000 - 1_000
            assert committed(a, b) == 13_000


async def test_what_is_told_while_redis_is_away_is_told_when_it_is_back(tmp_path):
    async with redis_server(tmp_path) as server:
        (a, b) = two(server)
        async with running(a, b):
            await ask(a, "g1")
            await hold(a, "g1", "g1/1", 1_000)
            await server.kill()
            await until(lambda: not a.status().up, "noticing")
            a.budgets.settle("g1", "g1/1", 600)
            a.budgets.release("g1")
            await spend(a, "f1", 77, "free")
            await server.start()
            await until(lambda: a.status().whole and b.status().whole, "coming back")
            await until(lambda: b.budgets.purse.usage("free", NOON).ever_in_nusd == 77, "telling")
            assert b.budgets.purse.usage("k", NOON).ever_in_nusd == 600


async def test_a_spare_carries_a_key_over_an_outage_and_no_further_than_it_goes(tmp_path):
    async with redis_server(tmp_path) as server, fault_proxy(server.port) as proxy:
        rich = (record("k", ever_in_nusd=10**9),)
        store = redis_store(f"redis://127.0.0.1:{proxy.port}/0", rich)
        other = redis_store(server.url, rich, name="b")
        async with running(store, other):
            await spend(store, "g0")
            spare = store.budgets.spares["k"].amount_in_nusd
            assert spare == 8_000
            await told(store)
            proxy.down = Faults(black_hole=True)
            granted = 0
            for number in range(20):
                try:
                    granted += isinstance(await spend(store, f"g{number}x"), Grant)
                except KeysUnavailableError:
                    continue
            assert granted == 8
            grant = await ask(other, "o1")
            assert isinstance(grant, Grant)
            unheard = 1_000  # what was asked for, and nobody heard the answer
            assert grant.left_in_nusd == 10**9 - 1_000 - spare - unheard  # the others leave it alone
            other.budgets.release("o1")
            other.budgets.return_idle_spares(float("inf"))
            proxy.down = NO_FAULTS
            await until(lambda: not store.status().up, "giving the silent connection up")
            await until(lambda: store.status().whole and not store.status().waiting, "coming back")
            grant = await ask(other, "o2")
            assert isinstance(grant, Grant)
            assert grant.left_in_nusd == 10**9 - 9_000


async def test_a_redis_that_takes_twenty_seconds_delays_one_request_at_most(tmp_path):
    async with redis_server(tmp_path) as server, fault_proxy(server.port) as proxy:
        store = redis_store(f"redis://127.0.0.1:{proxy.port}/0", RECORDS, wait_max_s=0.05)
        async with running(store):
            assert await store.sessions.find("x", NOON) is None
            proxy.down = Faults(latency_s=20.0)
            began_s = time.monotonic()
            held = await store.rates.enter("often", 1, time.monotonic())
            first_s = time.monotonic() - began_s
            assert isinstance(held, Pass)
            began_s = time.monotonic()
            for number in range(100):
                assert isinstance(await spend(store, f"f{number}", 1, "free"), Grant)
                assert await store.sessions.find("x", NOON) is None
                await store.rates.enter("often", 1, time.monotonic())
            assert time.monotonic() - began_s < max(2.0, 20 * first_s), "who knows that it is slow does not wait again"
            proxy.down = NO_FAULTS


async def test_somebody_who_gives_up_in_the_middle_of_anything_gets_nobody_elses_answer(tmp_path):
    async with redis_server(tmp_path) as server, fault_proxy(server.port) as proxy:
        store = redis_store(f"redis://127.0.0.1:{proxy.port}/0", RECORDS)
        async with running(store):
            for number in range(8):
                store.sessions.remember(f"s{number}", f"p{number}/m", NOON)
            proxy.down = Faults(latency_s=0.004, jitter_s=0.003, slice_bytes=3)
            wrong = []

            async def find(number, patience_s):
                try:
                    async with asyncio.timeout(patience_s):
                        found = await store.sessions.find(f"s{number}", NOON)
                except TimeoutError:
                    return
                if found != f"p{number}/m":
                    wrong.append((number, found))

            for turn in range(30):
                await asyncio.gather(*(find(number, 0.0007 * ((turn * 3 + number) % 20)) for number in range(8)))
                tasks = [asyncio.create_task(ask(store, f"g{turn}.{number}")) for number in range(3)]
                for _ in range(turn):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for number in range(3):
                    store.budgets.release(f"g{turn}.{number}")
            assert wrong == []
            proxy.down = NO_FAULTS
            await until(lambda: store.status().whole and not store.status().waiting, "giving all back")
            grant = await ask(store, "all", offers=(Offer("e", 0, 1_000, 98_000),))
            assert isinstance(grant, Grant)
            assert not grant.clamped


@pytest.mark.parametrize("cut_at", [1, 9, 77])
async def test_an_answer_that_is_cut_ends_the_connection_and_nothing_stays_reserved(tmp_path, cut_at):
    async with redis_server(tmp_path) as server, fault_proxy(server.port) as proxy:
        store = redis_store(f"redis://127.0.0.1:{proxy.port}/0", RECORDS)
        async with running(store):
            proxy.down = Faults(reset_at=cut_at)
            asking = [asyncio.create_task(ask(store, f"g{number}")) for number in range(20)]
            await until(lambda: not store.status().up, "losing the connection")
            proxy.down = NO_FAULTS
            granted = await asyncio.gather(*asking, return_exceptions=True)
            for number, one in enumerate(granted):
                assert isinstance(one, Grant | KeysUnavailableError)
                store.budgets.release(f"g{number}")
            await until(lambda: store.status().whole and not store.status().waiting, "coming back")
            grant = await ask(store, "all", offers=(Offer("e", 0, 1_000, 98_000),))
            assert isinstance(grant, Grant)
            assert not grant.clamped


async def test_what_a_killed_gateway_had_sent_counts_at_its_worst_also_when_it_is_back(tmp_path):
    async with redis_server(tmp_path) as server:
        settings = {"lease_extra_s": 1.0}
        a, b = two(server, **settings)
        await b.start()
        async with running(a):
            await until(lambda: b.status().whole, "joining")
            for number in range(3):
                assert isinstance(await ask(b, f"b{number}", total_s=0.5), Grant)
            for task in b._tasks:
                task.cancel()  # as if it was killed: nothing is told, and nobody beats
            await asyncio.gather(*b._tasks, return_exceptions=True)

            async def left():
                grant = await ask(a, f"l{time.monotonic()}", total_s=0.5)
                a.budgets.release(grant.id)
                a.budgets.return_idle_spares(float("inf"))
                await told(a)
                await asyncio.sleep(0.05)
                return grant.left_in_nusd

            await asyncio.sleep(1.6)
            async with asyncio.timeout(10):
                while await server.say("HEXISTS", "t:a:k", "r:b") != b":0\r\n":
                    await left()
                    await asyncio.sleep(0.1)
            assert await left() == 97_000
            again = redis_store(server.url, RECORDS, name="b", past=[("ever", 0, {"k": 400})], **settings)
            async with running(again):
                await told(a, again)
                assert await left() == 97_000  # 400 of it is what its ledger made of the three
                assert await server.say("HGET", "t:s:k:e0", "p:b") == b"$4\r\n"


async def test_nobody_takes_the_name_of_one_who_lives(tmp_path):
    async with redis_server(tmp_path) as server:
        first = redis_store(server.url, RECORDS, name="same")
        second = redis_store(server.url, RECORDS, name="same")
        async with running(first):
            await second.start()
            await asyncio.sleep(1.2)
            assert not second.status().whole
            assert first.status().whole
            with pytest.raises(KeysUnavailableError):
                await ask(second, "g1")
        await until(lambda: second.status().whole, "taking the name that is free now")
        await second.aclose()


async def test_a_clock_that_jumps_at_one_gateway_ends_no_lease(tmp_path):
    async with redis_server(tmp_path) as server:
        a = redis_store(server.url, RECORDS, name="a", now=lambda: NOON)
        b = redis_store(server.url, RECORDS, name="b", now=lambda: NOON + 3600)
        async with running(a, b):
            await ask(a, "g1", unix_s=NOON)
            grant = await ask(b, "g2", unix_s=NOON + 3600)
            assert isinstance(grant, Grant)
            assert grant.left_in_nusd == 99_000
            grant = await ask(b, "g3", unix_s=NOON - 3600)
            assert isinstance(grant, Grant)
            assert grant.left_in_nusd == 98_000


async def test_a_clock_of_redis_that_was_set_back_stops_nobody(tmp_path):
    async with redis_server(tmp_path) as server:
        await server.say("HSET", "t:epoch", "since", int((time.time() + 3600) * 1000))
        store = redis_store(server.url, RECORDS)
        async with running(store):
            assert isinstance(await ask(store, "g1"), Grant)


async def test_others_hear_of_an_endpoint_that_is_down_as_long_as_it_is(tmp_path):
    async with redis_server(tmp_path) as server:
        a, b = two(server)
        async with running(a, b):
            a.hints.tell(Hint("p/m", "open", NOON - 1, NOON + 5))
            a.hints.tell(Hint("q/m", "parked", NOON - 9, NOON - 1))
            await until(lambda: b.hints.heard(NOON), "hearing")
            assert [(one.endpoint_id, one.kind) for one in b.hints.heard(NOON)] == [("p/m", "open")]
            assert list(b.hints.heard(NOON + 5)) == []
            assert list(a.hints.heard(NOON)) == []


async def test_rates_hold_over_all_gateways(tmp_path):
    async with redis_server(tmp_path) as server:
        a, b = two(server)
        async with running(a, b):
            entered = [await (a, b)[number % 2].rates.enter("often", 1, time.monotonic()) for number in range(4)]
            assert [isinstance(one, Pass) for one in entered] == [True, True, False, False]


async def test_a_redis_that_is_full_of_answers_forgets_no_spending(tmp_path):
    """Else a client that has many answers kept could spend its budget anew."""
    records = (record("k", day_in_nusd=3_000), record("many", day_in_nusd=10_000))
    server = Server(tmp_path, free_port())
    try:
        await server.start("--maxmemory", "4mb", "--maxmemory-policy", "volatile-lru")
        await server.settle()
        store = redis_store(server.url, records)
        async with running(store):
            spent = [await spend(store, f"f{number}") for number in range(4)]
            await told(store)
            for number in range(200):
                store.answers.put("key:k/k", str(number), b"x" * 50_000, 300, NOON)
                await asyncio.sleep(0.002)
            await until(lambda: store.status().up and not store.status().waiting, "telling")
            assert int((await server.say("DBSIZE"))[1:]) < 150  # it had to forget some
            again = await spend(store, "again")
    finally:
        await server.kill()
    assert [isinstance(one, Grant) for one in spent] == [True, True, True, False]
    assert isinstance(again, Refusal)


async def test_of_what_was_spent_only_the_last_days_are_kept(tmp_path):
    now = [NOON]
    async with redis_server(tmp_path) as server:
        store = redis_store(server.url, (record("k", day_in_nusd=100_000),), now=lambda: now[0])
        async with running(store):
            for day in range(5):
                now[0] = NOON + 86_400 * day
                grant = await ask(store, f"d{day}", unix_s=now[0])
                assert await hold(store, f"d{day}", f"d{day}/1", grant.amount_in_nusd, now[0]) is None
                store.budgets.settle(f"d{day}", f"d{day}/1", 10)
                store.budgets.release(f"d{day}")
                await told(store)
            days = [int(NOON) // 86_400 * 86_400 + 86_400 * day for day in range(5)]
            kept = [await server.say("EXISTS", f"t:s:k:d{day}") for day in days]
    assert kept == [b":0\r\n"] * 2 + [b":1\r\n"] * 3

"""What every StateStore promises, whoever keeps the state. A further kind is one more line in KINDS."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from gateway.dashboard.sessions import SEEN_EVERY_S, Moment, SharedSessions
from gateway.errors import KeysUnavailableError
from gateway.keys.budget import Offer
from gateway.keys.limits import Limited, Limiter, Pass
from gateway.keys.purse import Grant, Purse, Refusal
from gateway.keys.ring import KeyRing
from gateway.sharing.base import ANSWER_MAX_BYTES, TRIES_MAX, TRIES_WINDOW_S, Hint
from gateway.sharing.memory import HintBoard, MemoryStore
from tests.gateway.sharing.redis_kit import NOON, ask, hold, record, redis_store, running, until

RECORDS = (
    record("team", ever_in_nusd=50_000, requests_per_min=100),
    record("k", "team", day_in_nusd=10_000),
    record("sibling", "team"),
    record("free"),
    record("often", requests_per_min=3, tokens_per_min=1000, concurrency=2),
)


@asynccontextmanager
async def memory(_server, _prefix):
    chain_of = KeyRing(b"pepper", RECORDS).chain
    yield MemoryStore(chain_of, Purse(chain_of), Limiter(chain_of))


@asynccontextmanager
async def redis(server, prefix):
    await server.settle(prefix)
    store = redis_store(server.url, RECORDS, prefix=prefix)
    async with running(store):
        yield store


KINDS = {"memory": memory, "redis": redis}


@pytest.fixture(params=list(KINDS))
async def store(request, shared_server, prefix):
    async with KINDS[request.param](shared_server, prefix) as made:
        yield made


async def reserved(store, key="k"):
    return (await store.budgets.usage([key], NOON))[key].reserved_in_nusd


async def spent(store, key="k"):
    return (await store.budgets.usage([key], NOON))[key].day_in_nusd


async def told(store):
    await until(lambda: not store.status().waiting, "telling")


async def test_a_grant_is_for_the_worst_case_and_comes_back_when_the_request_is_over(store):
    grant = await ask(store, "g1")
    assert isinstance(grant, Grant)
    assert (grant.amount_in_nusd, grant.clamped, grant.left_in_nusd) == (1_000, False, 10_000)
    assert await reserved(store) == 1_000
    store.budgets.release("g1")
    assert await reserved(store) == 0


async def test_asked_twice_it_is_granted_once(store):
    first = await ask(store, "g1")
    assert await ask(store, "g1") is first
    assert await reserved(store) == 1_000


async def test_what_an_attempt_cost_is_counted_once_for_the_key_and_its_team(store):
    await ask(store, "g1")
    assert await hold(store, "g1", "g1/1", 1_000) is None
    for _ in range(3):
        store.budgets.settle("g1", "g1/1", 700)
    store.budgets.release("g1")
    store.budgets.release("g1")
    await told(store)
    assert (await spent(store), await spent(store, "team"), await reserved(store)) == (700, 700, 0)


async def test_what_nobody_knows_counts_at_its_worst(store):
    await ask(store, "g1")
    await hold(store, "g1", "g1/1", 900)
    store.budgets.settle("g1", "g1/1", None)
    store.budgets.release("g1")
    assert await spent(store) == 900


async def test_a_budget_is_reserved_to_its_end_and_not_beyond(store):
    grants = [await ask(store, f"g{number}") for number in range(12)]
    assert [isinstance(one, Grant) for one in grants] == [True] * 10 + [False] * 2
    refusal = grants[-1]
    assert isinstance(refusal, Refusal)
    assert (refusal.standing.window, refusal.standing.left_in_nusd, refusal.final) == ("day", 0, False)
    for number in range(10):
        await hold(store, f"g{number}", f"g{number}/1", 1_000)
        store.budgets.settle(f"g{number}", f"g{number}/1", 1_000)
        store.budgets.release(f"g{number}")
    await told(store)
    final = await ask(store, "g13")
    assert isinstance(final, Refusal)
    assert final.final
    assert final.standing.spent_in_nusd == 10_000


async def test_less_than_was_asked_for_is_granted_where_that_is_what_is_left(store):
    await ask(store, "g1", offers=(Offer("e", 0, 1_000, 9_900),))
    grant = await ask(store, "g2")
    assert isinstance(grant, Grant)
    assert (grant.clamped, grant.output_tokens_max, grant.amount_in_nusd) == (True, 100, 100)


async def test_a_teams_budget_bounds_all_its_keys(store):
    for number in range(5):
        assert isinstance(await ask(store, f"s{number}", "sibling", (Offer("e", 0, 1_000, 9_000),)), Grant)
    grant = await ask(store, "g1", offers=(Offer("e", 0, 1_000, 9_000),))
    assert isinstance(grant, Grant)
    assert grant.amount_in_nusd == 5_000
    refusal = await ask(store, "g2")
    assert isinstance(refusal, Refusal)
    assert refusal.standing.key_id == "team"


async def test_an_attempt_that_the_lease_does_not_cover_takes_more_or_is_refused(store):
    await ask(store, "g1")
    assert await hold(store, "g1", "g1/1", 1_000) is None
    assert await hold(store, "g1", "g1/2", 4_000) is None
    assert await reserved(store) == 5_000
    refusal = await hold(store, "g1", "g1/3", 6_000)
    assert isinstance(refusal, Refusal)
    assert await reserved(store) == 5_000
    store.budgets.release("g1")
    assert await reserved(store) == 5_000  # both are on their way
    store.budgets.settle("g1", "g1/1", 10)
    store.budgets.settle("g1", "g1/2", 20)
    assert (await reserved(store), await spent(store)) == (0, 30)


async def test_what_costs_nothing_is_granted_when_all_is_spent(store):
    await ask(store, "g1", offers=(Offer("e", 0, 1_000, 10_000),))
    grant = await ask(store, "g2", offers=(Offer("dear", 0, 1_000, 100), Offer("local", 0, 0, 100)))
    assert isinstance(grant, Grant)
    assert (grant.amount_in_nusd, grant.endpoints) == (0, ("local",))


async def test_a_key_without_a_budget_is_never_refused_and_what_it_spends_is_counted(store):
    assert not store.budgets.has_budget("free")
    assert store.budgets.has_budget("sibling")
    grant = await ask(store, "f1", "free", ())
    assert isinstance(grant, Grant)
    assert (grant.output_tokens_max, grant.left_in_nusd) == (None, None)
    assert await hold(store, "f1", "f1/1", 0) is None
    store.budgets.settle("f1", "f1/1", 12_345)
    store.budgets.release("f1")
    assert await spent(store, "free") == 12_345


async def test_a_lease_that_nobody_ends_ends_by_itself(store):
    now_s = time.monotonic()
    await ask(store, "g1", now_s=now_s, total_s=10.0)
    assert await reserved(store) == 1_000
    await ask(store, "g2", now_s=now_s + 71.0, total_s=10.0)
    assert await reserved(store) == 1_000
    assert isinstance(await ask(store, "g3", now_s=now_s + 71.0), Grant)


async def test_a_new_day_has_a_new_budget_and_an_old_one_its_own_bill(store):
    await ask(store, "g1", offers=(Offer("e", 0, 1_000, 10_000),))
    await hold(store, "g1", "g1/1", 10_000)
    tomorrow = NOON + 86_400
    assert isinstance(await ask(store, "g2", unix_s=tomorrow), Refusal)  # what is on its way may still count
    store.budgets.settle("g1", "g1/1", 10_000)
    store.budgets.release("g1")
    await told(store)
    assert isinstance(await ask(store, "g3", unix_s=tomorrow), Grant)
    assert isinstance(await ask(store, "g4"), Refusal)
    assert isinstance(await ask(store, "g5", unix_s=NOON - 3600), Refusal)


async def test_a_request_that_is_given_up_while_it_waits_leaves_nothing_behind(store):
    for steps in range(6):
        task = asyncio.create_task(ask(store, f"c{steps}"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        store.budgets.release(f"c{steps}")
    await until(lambda: not store.status().waiting, "giving back")
    grant = await ask(store, "g1", offers=(Offer("e", 0, 1_000, 10_000),))
    assert isinstance(grant, Grant)
    assert not grant.clamped


async def test_requests_tokens_and_concurrency_are_counted(store):
    now_s = time.monotonic()
    first = await store.rates.enter("often", 400, now_s)
    assert isinstance(first, Pass)
    second = await store.rates.enter("often", 400, now_s)
    assert isinstance(second, Pass)
    third = await store.rates.enter("often", 100, now_s)
    assert isinstance(third, Limited)
    assert (third.kind, third.limit) == ("concurrency", 2)
    store.rates.leave(first, None, now_s)
    store.rates.leave(first, None, now_s)
    fourth = await store.rates.enter("often", 400, now_s)
    assert isinstance(fourth, Limited)
    assert fourth.kind == "tokens"
    left = await store.rates.allowances("often", now_s)
    assert left["requests"].remaining == 1
    assert 195 <= left["tokens"].remaining <= 230
    store.rates.leave(second, 900, now_s)
    fifth = await store.rates.enter("often", 1, now_s)
    assert isinstance(fifth, Limited)  # it came to more than was thought
    too_large = await store.rates.enter("often", 1001, now_s)
    assert isinstance(too_large, Limited)
    assert too_large.retry_after_s is None


async def test_what_is_refused_by_one_limit_is_taken_from_no_other(store):
    now_s = time.monotonic()
    for _ in range(5):
        assert isinstance(await store.rates.enter("often", 2000, now_s), Limited)
    assert (await store.rates.allowances("often", now_s))["requests"].remaining == 3


async def test_a_key_without_rates_is_always_let_in(store):
    held = await store.rates.enter("free", 10**9, 0.0)
    assert isinstance(held, Pass)
    store.rates.leave(held, 1, 0.0)
    assert await store.rates.allowances("free", 0.0) == {}


async def test_answers_are_kept_for_their_tenant_and_their_time(store):
    unix_s = time.time()
    await until_kept(store, unix_s)
    assert await store.answers.get("a", "1", unix_s) == b"one"
    assert await store.answers.get("b", "1", unix_s) is None
    assert await store.answers.get("a:1", "", unix_s) is None
    store.answers.drop("a", "1")
    assert await store.answers.get("a", "1", unix_s) is None
    store.answers.put("a", "2", b"short", 0.05, unix_s)
    await asyncio.sleep(0.1)
    assert await store.answers.get("a", "2", unix_s + 0.1) is None
    store.answers.put("a", "3", bytes(ANSWER_MAX_BYTES + 1), 60.0, unix_s)
    assert await store.answers.get("a", "3", unix_s) is None


async def until_kept(store, unix_s):
    """The first connection for answers is made when it is first wanted."""
    async with asyncio.timeout(10):
        while await store.answers.get("a", "1", unix_s) is None:
            store.answers.put("a", "1", b"one", 60.0, unix_s)
            await asyncio.sleep(0.01)


async def test_tries_are_counted_by_name_and_one_too_many_is_told_how_long_to_wait(store):
    now_s = time.monotonic()
    for _ in range(TRIES_MAX):
        assert await store.tries.count("192.0.2.7", now_s) is None
    for _ in range(2):
        wait_s = await store.tries.count("192.0.2.7", now_s)
        assert wait_s is not None
        assert TRIES_WINDOW_S - 10 <= wait_s <= TRIES_WINDOW_S
    assert await store.tries.count("192.0.2.8", now_s) is None


class Interrupted:
    """A shelf on which somebody else does something after each look, before whoever looked goes on."""

    def __init__(self, shelf, meanwhile):
        self._shelf, self._meanwhile = shelf, meanwhile

    async def get(self, tenant, digest, unix_s):
        found = await self._shelf.get(tenant, digest, unix_s)
        await self._meanwhile()
        return found

    def put(self, *given):
        self._shelf.put(*given)

    def drop(self, *given):
        self._shelf.drop(*given)


async def until_signed_in(sessions, name, moment):
    """Whoever is slow to answer for once is asked again."""
    async with asyncio.timeout(20):
        while await sessions.find(name, moment) is None:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)


async def test_a_sign_out_wins_over_whatever_keeps_the_session_alive_at_that_moment(store):
    await until_kept(store, time.time())
    began, later = Moment(0.0, NOON), Moment(60.0, NOON + SEEN_EVERY_S)
    here = SharedSessions(store.answers, b"seal")
    for look in (1, 2):
        looks = []
        async with asyncio.timeout(20):
            while len(looks) < look:  # once, unless the store is slow to answer
                name, _ = await here.begin("admin", b"digest", began)
                looks = []

                async def meanwhile(name=name, look=look, looks=looks):
                    looks.append(1)
                    if len(looks) == look:
                        await until_signed_in(here, name, began)
                        await here.end(name)
                        assert await here.find(name, began) is None

                await SharedSessions(Interrupted(store.answers, meanwhile), b"seal").find(name, later)
        for _ in range(3):
            assert await here.find(name, later) is None
            await asyncio.sleep(0.01)


async def test_who_answered_a_conversation_last_is_remembered(store):
    assert await store.sessions.find("talk", NOON) is None
    store.sessions.remember("talk", "p/m", NOON)
    assert await store.sessions.find("talk", NOON) == "p/m"
    store.sessions.remember("talk", "q/m", NOON)
    assert await store.sessions.find("talk", NOON) == "q/m"
    store.sessions.remember("x" * 10_000, "p/m", NOON)
    assert await store.sessions.find("x" * 10_000, NOON) is None


async def test_nobody_hears_a_hint_of_his_own(store):
    store.hints.tell(Hint("p/m", "open", NOON, NOON + 10))
    await asyncio.sleep(0)
    assert list(store.hints.heard(NOON)) == []


async def test_it_says_how_it_is(store):
    status = store.status()
    assert (status.up, status.whole, status.reason) == (True, True, "")


async def test_before_the_past_is_known_no_budget_is_spent(shared_server, prefix):
    unknown = redis_store(shared_server.url, RECORDS, prefix=prefix, past=None)
    await unknown.start()
    with pytest.raises(KeysUnavailableError):
        await ask(unknown, "g1")
    assert isinstance(await ask(unknown, "f1", "free", ()), Grant)
    await unknown.aclose()


def test_those_who_tell_hear_the_others_and_only_while_it_holds():
    board = HintBoard()
    board.tell("a", Hint("p/m", "open", NOON, NOON + 10))
    board.tell("a", Hint("p/m", "open", NOON, NOON + 20))
    board.tell("b", Hint("q/m", "parked", NOON, NOON + 5))
    assert [one.until_unix_s for one in board.heard("b", NOON)] == [NOON + 20]
    assert [one.endpoint_id for one in board.heard("a", NOON)] == ["q/m"]
    assert board.heard("a", NOON + 5) == []


async def test_processes_of_a_fleet_have_no_more_tries_than_one(shared_server, prefix):
    await shared_server.settle(prefix)
    stores = [redis_store(shared_server.url, RECORDS, prefix=prefix, name=name) for name in ("a", "b")]
    async with running(stores[0]), running(stores[1]):
        now_s = time.monotonic()
        counted = [await stores[number % 2].tries.count("192.0.2.7", now_s) for number in range(TRIES_MAX)]
        assert counted == [None] * TRIES_MAX
        assert all([await one.tries.count("192.0.2.7", now_s) for one in stores])


async def test_where_redis_is_away_a_process_counts_tries_itself(prefix):
    store = redis_store("redis://127.0.0.1:1/0", RECORDS, prefix=prefix)
    counted = [await store.tries.count("192.0.2.7", 100.0) for _ in range(TRIES_MAX + 1)]
    assert counted == [None] * TRIES_MAX + [TRIES_WINDOW_S]
    assert await store.tries.count("192.0.2.7", 100.0 + TRIES_WINDOW_S) is None

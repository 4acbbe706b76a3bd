"""What an owner makes of workers that live, that die, and that lived before it."""

import asyncio
import os
import socket
import time
from contextlib import asynccontextmanager

import pytest

from gateway.errors import KeysUnavailableError
from gateway.keys.budget import Offer
from gateway.keys.limits import Limiter
from gateway.keys.purse import Grant, Refusal
from gateway.keys.ring import KeyRing
from gateway.ledger.books import Books
from gateway.ledger.costs import Ending, tariff_of
from gateway.ledger.entry import Intent, head_of
from gateway.ledger.journal import Journal
from gateway.sharing.base import Hint
from gateway.state.blocks import Packed
from gateway.state.connection import FILE_NAME
from gateway.state.frames import FRAME_MAX_BYTES, HEAD
from gateway.workers.link import DeclinedError, connect, is_ours, socket_path
from gateway.workers.local_models import SharedModels
from gateway.workers.messages import Hello, KeyChanged, Reserve
from gateway.workers.remote_store import RemoteStore
from gateway.workers.shared import OwnerState
from providers.base import Price
from providers.messages import Usage
from tests.gateway.ledger.ledger_kit import rows_of
from tests.gateway.sharing.redis_kit import ask, hold, record
from tests.gateway.workers.workers_kit import FakeBackend, line_of, owner_of, until, worker_of

KEY = record("k", ever_in_nusd=10_000)
OFFER = (Offer("e", 0, 1_000, 4_000),)
TARIFF = tariff_of("p/m", Price(200_000, 600_000), ())


class Place:
    """A worker's books: a journal of its own, and a store that is the owner's."""

    def __init__(self, home, name):
        self.store = RemoteStore(home / FILE_NAME, lambda record: record, home=home, name=name)
        self.store.begin()
        self.books = Books(Journal(home / "journal" / name, spares=1), self.store)
        self.books.start()

    def begin(self, attempt_id, unix_us=None):
        at = int(time.time() * 1e6) if unix_us is None else unix_us
        intent = Intent(
            attempt_id, at, "k", "r", "m", "p/m", "p", "chat", True, TARIFF.snapshot.price_id, 5, None, 2_500
        )
        self.books.begin(head_of(intent), intent.tags, TARIFF)

    def end(self, attempt_id):
        ending = Ending(unix_us=1, outcome="ok", usage=Usage(input_tokens=10, output_tokens=1))
        return self.books.end(attempt_id, ending).cost_in_nusd

    def die(self):
        """As a kill leaves it: files, and nobody who has them."""
        self.store._stopping = True
        self.store._outbox = None
        self.store._wake.set()
        self.store._hurry.set()
        self.store._runner.join()
        journal = self.books._journal
        journal._stopping = True
        journal._wake.set()
        journal._hurry.set()
        journal._keeper.join()  # its files stay
        journal._lock.release()


async def dying(place):
    await asyncio.to_thread(place.die)


async def test_a_worker_that_dies_gives_back_what_it_held_once_its_journal_is_counted(tmp_path):
    async with owner_of(tmp_path, KEY) as owner:
        async with worker_of(tmp_path, "w1", KEY) as state:
            await until(lambda: owner.money.whole)
            place = Place(tmp_path, "w1")
            for name in ("told", "untold", "never"):
                assert isinstance(await ask(state, name, offers=(Offer("e", 0, 1_000, 3_000),)), Grant)
            await hold(state, "told", "told/1", 3_000)
            place.begin("told/1")
            cost = place.end("told/1")
            state.budgets.settle("told", "told/1", cost)
            await hold(state, "never", "never/1", 3_000)  # killed before its journal had it: it was never sent
            await state.budgets.usage(["k"], time.time())
            place.begin("untold/1")  # its hold was on the way when the worker was killed
        await dying(place)
        owner.bury("w1")
        purse = owner.access.purse
        await until(lambda: purse.usage("k", time.time()).reserved_in_nusd == 0)
        found = rows_of(tmp_path / FILE_NAME)
        assert sorted(found) == ["told/1", "untold/1"]
        assert found["untold/1"].usage_source == "recovered"
        # What was cut may be billed at its worst, whatever the ledger guesses.
        assert purse.usage("k", time.time()).ever_in_nusd == cost + 2_500 > cost + found["untold/1"].cost_in_nusd
        assert not (tmp_path / "journal" / "w1").exists()
    async with owner_of(tmp_path, KEY) as later:
        await until(lambda: later.money.whole)
        assert later.access.purse.usage("k", time.time()).ever_in_nusd == cost + 2_500, "the next owner counts the same"


async def test_a_new_owner_grants_nothing_before_it_knows_what_workers_that_lived_on_have(tmp_path):
    async with worker_lives_on(tmp_path) as (state, line):
        async with owner_of(tmp_path, KEY):
            await until(lambda: line.up)
            assert isinstance(await ask(state, "g1", offers=OFFER), Grant)
            assert isinstance(await ask(state, "g2", offers=OFFER), Grant)
            await hold(state, "g1", "g1/1", 4_000)
        await until(lambda: not line.up)
        state.budgets.settle("g1", "g1/1", 1_500)  # nobody hears it; the ledger will have it
        state.budgets.release("g1")
        await hold(state, "g2", "g2/1", 4_000)
        async with owner_of(tmp_path, KEY, living=("w1", "w2")) as owner:
            await until(lambda: line.up)
            asking = asyncio.create_task(ask(state, "g3", offers=OFFER))
            await asyncio.sleep(0.1)
            assert not asking.done(), "w2 has not said yet what it has"
            owner.money.confirm("w2")
            grant = await asking
            assert isinstance(grant, Grant)
            assert owner.access.purse.usage("k", time.time()).reserved_in_nusd == 4_000 + grant.amount_in_nusd
            state.budgets.settle("g2", "g2/1", 10)
            state.budgets.release("g2")
            state.budgets.release("g3")
            assert (await state.budgets.usage(["k"], time.time()))["k"].reserved_in_nusd == 0


@asynccontextmanager
async def worker_lives_on(home):
    """A worker whose owner may come and go."""
    ring = KeyRing(b"pepper", [KEY])
    async with line_of(home, "w1") as line:
        state = OwnerState(line, ring.chain, Limiter(ring.chain), time.monotonic)
        line.hello = lambda: Hello("w1", state.budgets.open_leases(), state.rates.running())
        yield state, line


async def test_without_an_owner_keys_with_a_budget_wait_a_moment_and_others_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.workers.shared.BUDGET_WAIT_S", 0.05)
    (tmp_path / "run").mkdir()
    async with worker_lives_on(tmp_path) as (state, _):
        with pytest.raises(KeysUnavailableError, match="away"):
            await ask(state, "g1")
        assert isinstance(await ask(state, "f1", "nobody", ()), Grant)
        assert state.status().up is False


async def test_rows_of_workers_are_in_the_file_when_that_is_said_and_once(tmp_path):
    async with owner_of(tmp_path) as owner:
        places = [Place(tmp_path, f"w{number}") for number in (1, 2)]
        for number, place in enumerate(places):
            for count in range(40):
                place.begin(f"g{number}-{count}/1")
                place.end(f"g{number}-{count}/1")
        for place in places:
            assert await asyncio.to_thread(place.store.flush, 10.0)
            assert place.store.put(Packed(f"r-{id(place)}", b"{}"))
        assert len(rows_of(tmp_path / FILE_NAME)) == 80
        for place in places:
            assert await asyncio.to_thread(place.store.close)
            await asyncio.to_thread(place.books.close)
        assert owner.store.dropped == 0


async def test_while_the_owner_is_away_rows_wait_in_the_journal_and_go_to_the_next_one(tmp_path):
    async with owner_of(tmp_path):
        place = Place(tmp_path, "w1")
        place.begin("g1/1")
        place.end("g1/1")
        assert await asyncio.to_thread(place.store.flush, 10.0)
    place.begin("g2/1")
    place.end("g2/1")
    assert not await asyncio.to_thread(place.store.flush, 0.5)
    assert place.books.available
    async with owner_of(tmp_path, living=("w1",)):
        assert await asyncio.to_thread(place.store.flush, 10.0)
        assert sorted(rows_of(tmp_path / FILE_NAME)) == ["g1/1", "g2/1"]
        await asyncio.to_thread(place.store.close)
        await asyncio.to_thread(place.books.close)


async def test_a_changed_key_is_on_the_disk_and_everywhere_when_that_is_said(tmp_path):
    async with owner_of(tmp_path, KEY) as owner:
        async with line_of(tmp_path, "w1") as one, line_of(tmp_path, "w2") as two:
            heard = []
            two.on_key = heard.append
            await until(lambda: one.up and heard)
            assert heard == [KEY]
            heard.clear()
            changed = record("k", ever_in_nusd=5)
            await one.ask(KeyChanged(changed, KEY.updated_us), None)
            assert heard == [changed]
            assert owner.access.ring.get("k") == changed
            with pytest.raises(DeclinedError, match="same moment"):
                await two.ask(KeyChanged(record("k"), KEY.updated_us - 1), None)
            new = record("another")
            await two.ask(KeyChanged(new, None), None)
            assert owner.access.ring.get("another") == new


async def test_a_hint_is_heard_by_the_others_and_an_answer_is_everybodys(tmp_path):
    async with owner_of(tmp_path):
        async with worker_of(tmp_path, "w1") as one, worker_of(tmp_path, "w2") as two:
            now = time.time()
            one.hints.tell(Hint("p/m", "open", now, now + 60))
            await until(lambda: two.hints.heard(now))
            assert list(one.hints.heard(now)) == []
            one.answers.put("a", "1", b"x" * 3_000_000, 60.0, now)
            assert await one.answers.get("a", "1", now) == await two.answers.get("a", "1", now) is not None


async def test_a_local_model_is_asked_through_the_owner_and_let_go_of(tmp_path):
    class Request:
        url, body, stream, caller = "local:tiny", b"{}", True, "key:1"

    backend = FakeBackend(b'{"t":"text"}\n', b'{"t":"usage"}\n')
    async with owner_of(tmp_path, backend=backend):
        async with line_of(tmp_path, "w1") as line:
            models = SharedModels(line, lambda members: members["state"])
            await until(lambda: models.models() == ("ready",))
            answer = await models.send(Request, connect_timeout_s=1)
            said = b""
            while data := await answer.read():
                said += data
            assert (answer.status, said) == (200, b'{"t":"text"}\n{"t":"usage"}\n')
            assert (backend.asked[0].url, backend.asked[0].caller) == ("local:tiny", "key:1")
            backend.state = "crashed"
            await until(lambda: models.models() == ("crashed",))
            early = await models.send(Request, connect_timeout_s=1)
            early.close()
            await until(lambda: backend.answers[1].closed)
    refused = await models.send(Request, connect_timeout_s=1)
    assert refused.status == 503


async def test_the_socket_is_this_users_alone_and_garbage_is_cut_off(tmp_path):
    home = tmp_path / ("long" * 30)  # longer than a socket's name may be
    async with owner_of(home, KEY) as owner:
        path = socket_path(home)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        for garbage in (HEAD.pack(FRAME_MAX_BYTES + 1, 0), HEAD.pack(3, 1) + b"\xc1\xc1\xc1", os.urandom(64)):
            stranger = await asyncio.to_thread(connect, path, 5.0)
            assert is_ours(stranger)
            await asyncio.to_thread(stranger.sendall, garbage)
            if len(garbage) < 64:
                assert await asyncio.to_thread(stranger.recv, 100) == b""
            stranger.close()
        async with line_of(home, "w1") as line:
            await until(lambda: line.up)
            silent = await asyncio.to_thread(connect, path, 5.0)
            frame = __import__("gateway.workers.messages", fromlist=["encode"]).encode(
                Reserve("g", "k", OFFER, 1, 1, 1)
            )
            await asyncio.to_thread(silent.sendall, HEAD.pack(len(frame), 1) + frame)
            assert b"say hello first" in await asyncio.to_thread(silent.recv, 1000)
            silent.close()
        assert owner.counter.leases == 0


def test_another_users_process_is_known_by_the_system():
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert is_ours(ours)


async def test_a_refusal_has_its_numbers_on_every_worker(tmp_path):
    async with owner_of(tmp_path, KEY) as owner:
        async with worker_of(tmp_path, "w1", KEY) as one, worker_of(tmp_path, "w2", KEY) as two:
            await until(lambda: owner.money.whole)
            grants = await asyncio.gather(*(ask(one if n % 2 else two, f"g{n}", offers=OFFER) for n in range(6)))
            granted = [grant for grant in grants if isinstance(grant, Grant)]
            assert sum(grant.amount_in_nusd for grant in granted) == 10_000
            refused = [grant for grant in grants if isinstance(grant, Refusal)]
            assert {(one.standing.budget_in_nusd, one.standing.left_in_nusd, one.final) for one in refused} == {
                (10_000, 0, False)
            }

"""Rows reach a fleet's Postgres in the end, whatever becomes of it or of the gateway; keys reach the other gateways."""

import asyncio
import random
import threading
import time

import msgspec
import psycopg
import pytest

from gateway.access import Access
from gateway.config.secrets import Secret
from gateway.config.stores import PostgresSettings
from gateway.keys.changes import NewKey, create
from gateway.keys.home_secret import open_home_secrets
from gateway.keys.storage import row_of
from gateway.observation import MinuteRow
from gateway.state import postgres_database, shipping
from gateway.state.connection import FILE_NAME
from gateway.state.key_rows import KeyRow, write_key
from gateway.state.ledger_reader import LedgerReader
from gateway.state.outbox import Outbox
from gateway.state.postgres_reader import open_fleet
from gateway.state.shipping import PARCEL_ROWS, Shipper
from gateway.state.store import Store
from tests.fakes.listener import FULL
from tests.gateway.ledger.ledger_kit import Ledger
from tests.gateway.state.fleet_kit import all_entries, assert_equal, assert_sound, until

DOWN_S = 600.0 if FULL else 1.0
KEY = KeyRow("k1", "Ann", b"d" * 32, b"", 0, 1, 1, None, 0, None, None, "{}")


@pytest.fixture
def quick(monkeypatch):
    """Pauses that no test should wait for."""
    monkeypatch.setattr(shipping, "RETRY_WAIT_S", 0.02)
    monkeypatch.setattr(shipping, "RETRY_WAIT_MAX_S", 0.2)
    monkeypatch.setattr(shipping, "SEND_EVERY_S", 0.02)
    monkeypatch.setattr(shipping, "KEYS_EVERY_S", 0.05)
    monkeypatch.setattr(shipping, "NOTE_EVERY_S", 0.1)


class Replica:
    """A ledger that belongs to a fleet."""

    def __init__(self, home, url, **settings) -> None:
        self.ledger = Ledger(home)
        assert self.ledger.store.flush(20.0)
        self.told = []
        self.shipper = Shipper.open(self.ledger.path, self.ledger.store, url, on_keys=self.told.extend, **settings)
        self.name = home.name
        self.count = 0

    def settle(self, count: int) -> None:
        for _ in range(count):
            self.count += 1
            self.ledger.whole(f"gen-{self.name}-{self.count:07d}/1", self.count % 1000)

    def save(self, row: KeyRow) -> None:
        self.ledger.store.submit(lambda connection: write_key(connection, row)).result(30.0)

    def keys(self) -> dict:
        outbox = Outbox(self.ledger.path)
        found = {row.id: row for row in list(outbox.keys())}
        outbox.close()
        return found

    def until_sent(self) -> None:
        assert self.ledger.store.flush(20.0)
        until(lambda: self.shipper.shipping.sent >= self.count and self.shipper.shipping.waiting == 0)

    def close(self) -> bool:
        sent = self.shipper.close(20.0)
        self.ledger.close()
        return sent


@pytest.fixture
def make_replica(tmp_path, fleet_url, quick):
    made = []

    def make(name="one", url=fleet_url, **settings):
        (tmp_path / name).mkdir(exist_ok=True)
        replica = Replica(tmp_path / name, url, **settings)
        made.append(replica)
        return replica

    yield make
    for replica in made:
        replica.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "mixgate-postgres"]


def test_every_row_is_sent_and_the_sums_are_those_of_the_file(make_replica, fleet_url):
    replica = make_replica()
    replica.settle(2 * PARCEL_ROWS + 50)
    replica.until_sent()
    with open_fleet(fleet_url) as fleet:
        assert_equal(fleet, replica.ledger.path)
        (seen,) = fleet.replicas()
    assert seen.silent_s < 60.0


def test_what_is_left_at_the_end_is_sent_then_and_no_row_twice_after(make_replica, fleet_url, tmp_path):
    replica = make_replica()
    replica.settle(30)
    assert replica.close()
    with open_fleet(fleet_url) as fleet:
        assert_equal(fleet, replica.ledger.path)
    outbox = Outbox(replica.ledger.path)
    assert outbox.position == outbox.last == 30
    outbox.close()
    again = make_replica()
    again.ledger.whole("gen-more/1")
    until(lambda: again.shipper.shipping.sent == 1)
    assert again.close()
    assert again.shipper.shipping.sent == 1, "what was sent before is not sent again"


def test_two_replicas_come_to_the_sum_of_both(make_replica, fleet_url):
    one, two = make_replica("one"), make_replica("two")
    one.settle(70)
    two.settle(30)
    one.until_sent()
    two.until_sent()
    with open_fleet(fleet_url) as fleet:
        assert_sound(fleet)
        assert len(all_entries(fleet)) == 100
        with LedgerReader(one.ledger.path) as first, LedgerReader(two.ledger.path) as second:
            spent = [reader.spend("all", 0, 1 << 60)[0].cost_in_nusd for reader in (first, second)]
        assert fleet.spend("all", 0, 1 << 60)[0].cost_in_nusd == sum(spent)
        assert len(fleet.replicas()) == 2


def test_a_postgres_that_is_down_loses_nothing_and_is_caught_up_with_alone(
    make_replica, fleet_url, postgres_server, caplog
):
    replica = make_replica()
    replica.settle(20)
    replica.until_sent()
    postgres_server.stop()
    try:
        end_s = time.monotonic() + DOWN_S
        while time.monotonic() < end_s:
            replica.settle(50)
            time.sleep(0.5 if FULL else 0.1)
        assert replica.ledger.store.flush(20.0)
        until(lambda: replica.shipper.shipping.failure is not None)
        until(lambda: (replica.shipper.shipping.waiting or 0) > 0)
    finally:
        postgres_server.start()
    replica.until_sent()
    with open_fleet(fleet_url) as fleet:
        assert_equal(fleet, replica.ledger.path)
    assert len([one for one in caplog.records if "nothing can be sent" in one.message]) == 1, "it is said once"


def cut(server, until_event, dice) -> None:
    """End every connection again and again, in whatever it is doing."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        while not until_event.wait(dice.uniform(0.0, 0.05)):
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mixgate'"
            )


def test_connections_that_are_cut_at_any_moment_neither_lose_a_row_nor_count_it_twice(
    make_replica, fleet_url, postgres_server, monkeypatch
):
    monkeypatch.setattr(shipping, "PARCEL_ROWS", 20)
    replica, stop = make_replica(), threading.Event()
    cutting = threading.Thread(target=cut, args=(postgres_server, stop, random.Random(1)))
    cutting.start()
    for _ in range(200 if FULL else 30):
        replica.settle(20)
        time.sleep(0.02)
    stop.set()
    cutting.join()
    assert replica.ledger.store.flush(20.0)
    until(lambda: replica.shipper.shipping.waiting == 0)
    with open_fleet(fleet_url) as fleet:
        until(lambda: len(all_entries(fleet)) == replica.count)
        assert_equal(fleet, replica.ledger.path)
        assert_sound(fleet)


def test_an_answer_that_is_lost_after_the_commit_counts_once(make_replica, fleet_url, monkeypatch):
    from gateway.state import postgres_writer  # noqa: PLC0415 # it is patched, and slow to import

    add, failures = postgres_writer.add_entries, [3]

    def add_and_lose(connection, replica, rows, prices):
        added = add(connection, replica, rows, prices)
        if failures[0]:
            failures[0] -= 1
            raise postgres_database.PostgresError("the answer is lost")
        return added

    monkeypatch.setattr(postgres_writer, "add_entries", add_and_lose)
    replica = make_replica()
    replica.settle(40)
    replica.until_sent()
    assert failures == [0]
    with open_fleet(fleet_url) as fleet:
        assert_equal(fleet, replica.ledger.path)


def test_a_row_that_postgres_refuses_holds_up_no_other(make_replica, fleet_url, caplog):
    replica = make_replica()
    columns = "attempt_id, unix_us, key_id, route, model, endpoint, provider, surface, stream, price_id, prompt_tokens"
    more = "reserved_in_nusd, app, referer, user, session, tags, ended_unix_us, outcome, usage_source, cost_source"
    replica.settle(5)
    assert replica.ledger.store.flush(20.0)
    replica.ledger.store.submit(
        lambda connection: connection.execute(
            f"INSERT INTO entry ({columns}, {more}, duration_ms) VALUES "  # noqa: S608
            "('gen-bad/1', 1, '', '', '', '', '', '', 0, '', 1, 0, '', '', '', '', '{', 1, 'ok', '', '', 1)"
        )
    ).result(30.0)
    replica.settle(5)
    until(lambda: replica.shipper.shipping.refused == 1 and replica.shipper.shipping.sent == 10)
    with open_fleet(fleet_url) as fleet:
        assert len(all_entries(fleet)) == 10
        assert_sound(fleet)
    assert any("gen-bad/1" in one.message for one in caplog.records)


def test_what_endpoints_did_is_there_once_by_replica_however_often_it_is_sent(make_replica, fleet_url, postgres_server):
    one, two = make_replica("one"), make_replica("two")
    for replica in (one, two):
        replica.settle(1)
        replica.until_sent()
    now = int(time.time() // 60)
    for replica in (one, two):
        replica.ledger.store.write_minutes([MinuteRow(endpoint_id="p/m", minute=now, ok=3, ttft_hist=bytes(128))])
        assert replica.ledger.store.flush(20.0)
        replica.ledger.store.write_minutes([MinuteRow(endpoint_id="p/m", minute=now, ok=1)])
    name = fleet_url.rpartition("/")[2]

    def counts():
        return postgres_server.execute(name, "SELECT ok, length(ttft_hist) FROM endpoint_minute")

    until(lambda: counts() == [(4, 128), (4, 128)])
    time.sleep(0.3)
    assert counts() == [(4, 128), (4, 128)]


def test_a_key_that_one_gateway_changes_is_so_at_the_others(make_replica):
    one, two = make_replica("one", key_mark="s"), make_replica("two", key_mark="s")
    one.save(KEY)
    until(lambda: two.keys() == {"k1": KEY})
    assert two.told == [KEY]
    renamed = msgspec.structs.replace(KEY, name="Bea", updated_us=2, digest=bytes(range(32)))
    two.save(renamed)
    until(lambda: one.keys() == {"k1": renamed})
    gone = msgspec.structs.replace(renamed, deleted_us=5, updated_us=3, digest=b"")
    one.save(gone)
    two.save(msgspec.structs.replace(renamed, name="late", updated_us=9))  # at the same time, by a clock that is ahead
    until(lambda: one.keys()["k1"].deleted_us == two.keys()["k1"].deleted_us == 5)
    three = make_replica("three", key_mark="s")
    until(lambda: three.keys() == {"k1": gone})
    assert one.told == [renamed]


def test_gateways_of_different_secrets_do_not_share_keys_and_one_is_told(make_replica, caplog):
    one = make_replica("one", key_mark="s")
    one.save(KEY)
    until(lambda: one.shipper._keys.note and "k1" in one.shipper._keys._known)
    two = make_replica("two", key_mark="another")
    two.settle(3)
    two.until_sent()
    until(lambda: any("another secret" in record.message for record in caplog.records))
    assert two.keys() == {}


def test_a_file_that_begins_anew_is_a_replica_of_its_own(make_replica, fleet_url):
    replica = make_replica()
    replica.settle(10)
    replica.until_sent()
    replica.close()
    for path in replica.ledger.home.glob("mixgate.db*"):
        path.unlink()
    again = make_replica()
    again.ledger.whole("gen-new/1")
    until(lambda: again.shipper.shipping.sent == 1)
    with open_fleet(fleet_url) as fleet:
        until(lambda: len(fleet.replicas()) == 2)
        assert len(all_entries(fleet)) == 11


def test_a_url_that_is_none_is_said_and_costs_nothing_else(make_replica):
    replica = make_replica(url="redis://x/0")
    replica.settle(3)
    until(lambda: replica.shipper.shipping.failure is not None)
    assert replica.ledger.store.flush(20.0)
    assert not replica.close()


async def test_a_key_of_another_gateway_opens_this_one_s_door_and_is_shut_out_again(make_replica, fleet_url, tmp_path):
    home = tmp_path / "running"
    access = Access(home)
    store = Store.open(home / FILE_NAME, lambda record: record)
    assert await access.open(store) is None
    shipper = access.join(PostgresSettings(Secret(fleet_url)), store)
    try:
        pepper = open_home_secrets(home).pepper
        issued = create(access.ring, pepper, NewKey(name="Ann"), entropy=bytes(range(40)), now_us=1)
        credential = issued.text.reveal().encode()
        other = make_replica("other", key_mark=open_home_secrets(home).key_mark)
        other.save(row_of(issued.record))
        await until_holds(lambda: access.ring.find(credential, 2) == issued.record)
        other.save(row_of(msgspec.structs.replace(issued.record, disabled=True, updated_us=2)))
        await until_holds(lambda: access.ring.find(credential, 2) is None)
        assert access.ring.has_keys
    finally:
        await asyncio.to_thread(shipper.close, 20.0)
        await asyncio.to_thread(store.close)


async def until_holds(holds) -> None:
    async with asyncio.timeout(20.0):
        while not holds():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.02)

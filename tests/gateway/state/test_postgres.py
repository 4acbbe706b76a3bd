"""A fleet's Postgres has every row once and sums that agree, whatever breaks off, comes again or in disorder."""

import random
import threading

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from gateway.keys.fleet_past import fleet_past
from gateway.state.entries import ENTRY_COLUMNS
from gateway.state.errors import NewerStoreError, StoreError
from gateway.state.ledger_reader import BYS, Filter, LedgerReader
from gateway.state.postgres_database import VERSION, Database, PostgresError, RefusedError
from gateway.state.postgres_reader import open_fleet
from gateway.state.postgres_writer import add_entries, note_replica
from tests.fakes.listener import FULL
from tests.gateway.state.fleet_kit import (
    HOUR_US,
    PRICE,
    all_entries,
    assert_equal,
    assert_sound,
    entries,
    fill,
)

ROWS = 800
FILTERS = (
    Filter(),
    Filter(model="Ü m"),
    Filter(key_id="k1", outcome="failed"),
    Filter(tag="ü"),
    Filter(tag="'; DROP TABLE entry; --"),
    Filter(app="", user="u", provider="P2"),
    Filter(since_unix_us=10 * HOUR_US, until_unix_us=20 * HOUR_US),
    Filter(endpoint="p1/m1", route="m1", session=""),
)
SPANS = ((0, 1 << 60), (5 * HOUR_US, 55 * HOUR_US), (30 * HOUR_US + 1, 31 * HOUR_US), (HOUR_US, HOUR_US))


def send(database, rows, replica="r") -> int:
    with database.connect(autocommit=True) as connection:
        return add_entries(connection, replica, [msgspec.structs.astuple(row) for row in rows], (PRICE,))


@pytest.fixture
def database(fleet_url):
    database = Database(fleet_url)
    database.prepare()
    yield database
    database.close()


@pytest.fixture(scope="module")
def two_ledgers(tmp_path_factory, postgres_server):
    """The same rows in a file and in a Postgres, by their readers."""
    path = tmp_path_factory.mktemp("ledgers") / "mixgate.db"
    rows = entries(ROWS, 1)
    fill(path, rows)
    database = Database(postgres_server.url(postgres_server.make_database()))
    database.prepare()
    assert send(database, rows) == ROWS
    database.close()
    with LedgerReader(path) as own, open_fleet(database._engine.url.render_as_string(hide_password=False)) as fleet:
        yield {"file": own, "fleet": fleet, "rows": rows}


@pytest.mark.parametrize("kind", ["file", "fleet"])
@pytest.mark.parametrize("by", BYS)
def test_what_was_spent_is_what_the_rows_come_to(two_ledgers, kind, by):
    reader, rows = two_ledgers[kind], two_ledgers["rows"]
    for since_us, until_us in SPANS:
        hours = range(since_us // HOUR_US, -(-until_us // HOUR_US))
        expected = {}
        for row in rows:
            names = {"key": [row.key_id], "all": [""], "tag": msgspec.json.decode(row.tags or '[""]')}
            names["day"] = [f"1970-01-0{1 + row.unix_us // (24 * HOUR_US)}"]
            for name in names[by] if by in names else [getattr(row, by)]:
                if row.unix_us // HOUR_US in hours:
                    cost, count = expected.get(name, (0, 0))
                    expected[name] = (cost + (row.cost_in_nusd or 0), count + 1)
        lines = reader.spend(by, since_us, until_us)
        assert {line.name: (line.cost_in_nusd, line.attempts) for line in lines} == expected
        order = sorted(expected) if by == "day" else sorted(expected, key=lambda one: (-expected[one][0], one))
        assert [line.name for line in lines] == order
        if by != "day" and lines:
            assert reader.spend(by, since_us, until_us, name=lines[-1].name) == lines[-1:]


@pytest.mark.parametrize("kind", ["file", "fleet"])
def test_rows_are_found_by_filters_page_by_page(two_ledgers, kind):
    reader, rows = two_ledgers[kind], two_ledgers["rows"]
    for wanted in FILTERS:
        found, before = [], None
        while True:
            page = reader.entries(wanted, before=before, count=90)
            found += page.entries
            if (before := page.before) is None:
                break
        plain = {name: getattr(wanted, name) for name in ("model", "key_id", "outcome", "app", "user", "provider")}
        fits = [
            row
            for row in rows
            if all(value is None or getattr(row, name) == value for name, value in plain.items())
            and (wanted.tag is None or wanted.tag in msgspec.json.decode(row.tags or "[]"))
            and (wanted.since_unix_us is None or wanted.since_unix_us <= row.unix_us < wanted.until_unix_us)
            and (wanted.endpoint is None or row.endpoint == wanted.endpoint)
        ]
        assert found == fits[::-1], wanted


@pytest.mark.parametrize("kind", ["file", "fleet"])
def test_one_request_and_its_prices_are_found(two_ledgers, kind):
    reader, rows = two_ledgers[kind], two_ledgers["rows"]
    row = rows[77]
    assert reader.find_entries(row.attempt_id.partition("/")[0]) == (row,)
    assert reader.find_entries("gen-0000") == ()
    assert reader.price(PRICE.price_id) == PRICE
    assert reader.price("nobody's") is None


@pytest.mark.parametrize("kind", ["file", "fleet"])
def test_what_was_cut_by_a_kill_may_cost_what_was_reserved_for_it(two_ledgers, kind):
    reader, rows = two_ledgers[kind], two_ledgers["rows"]
    for since_us, _ in SPANS:
        expected = {}
        for row in rows:
            more = row.reserved_in_nusd - (row.cost_in_nusd or 0)
            if row.usage_source == "recovered" and row.unix_us >= since_us and more > 0:
                expected[row.key_id] = expected.get(row.key_id, 0) + more
        assert reader.presumed(since_us) == expected
    assert reader.presumed(0)


def test_both_ledgers_say_the_same_to_the_last_count(two_ledgers):
    for by in BYS:
        for span in SPANS:
            assert two_ledgers["fleet"].spend(by, *span) == two_ledgers["file"].spend(by, *span)


@settings(max_examples=60 if FULL else 4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_parcels_that_are_sent_again_in_any_order_change_nothing(postgres_server, data):
    rows = entries(120, data.draw(st.integers(0, 1000)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    parcels = [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True) if b > a]
    overlapping = [rows[max(0, cut - 5) : cut + 5] for cut in cuts]
    times = data.draw(st.lists(st.integers(1, 5), min_size=len(parcels), max_size=len(parcels)))
    sent = [parcel for parcel, count in zip(parcels, times, strict=True) for _ in range(count)] + overlapping
    database = Database(postgres_server.url(postgres_server.make_database()))
    try:
        database.prepare()
        added = sum(send(database, parcel) for parcel in data.draw(st.permutations(sent)) if parcel)
        assert added == len(rows)
        with open_fleet(database._engine.url.render_as_string(hide_password=False)) as fleet:
            assert set(all_entries(fleet).values()) == set(rows)
            assert_sound(fleet)
    finally:
        database.close()


def test_many_replicas_at_once_neither_wait_for_each_other_for_ever_nor_count_twice(fleet_url, database):
    rows = entries(600, 3)
    failed = []

    def replica(number: int) -> None:
        dice = random.Random(number)
        mine = Database(fleet_url)
        try:
            for _ in range(30 if FULL else 6):
                start = dice.randrange(len(rows))
                send(mine, rows[start : start + 100], f"r{number}")
            for start in range(0, len(rows), 100):
                send(mine, rows[start : start + 100], f"r{number}")
        except PostgresError as error:
            failed.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=replica, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with open_fleet(fleet_url) as fleet:
        assert set(all_entries(fleet).values()) == set(rows)
        assert_sound(fleet)


def test_what_postgres_cannot_hold_is_mended_and_what_it_refuses_is_said(database, fleet_url):
    (row,) = entries(1, 4)
    assert send(database, [msgspec.structs.replace(row, app="a\0b", user="\\u0000")]) == 1
    with open_fleet(fleet_url) as fleet:
        (found,) = all_entries(fleet).values()
        assert (found.app, found.user) == ("a\ufffdb", "\\u0000")
    with pytest.raises(RefusedError):
        send(database, [msgspec.structs.replace(row, attempt_id="gen-2/1", tags="{")])


def test_the_schema_goes_forward_and_back_one_version_with_every_row(database, fleet_url, tmp_path):
    rows = entries(200, 5)
    send(database, rows[:100])
    database.migrate(VERSION - 1)
    assert database.version() == VERSION - 1
    send(database, rows[50:])  # as the release before does
    database.prepare()
    assert database.version() == VERSION
    fill(tmp_path / "mixgate.db", rows)
    with open_fleet(fleet_url) as fleet:
        assert_equal(fleet, tmp_path / "mixgate.db")


def test_a_fleet_that_starts_at_once_makes_the_schema_once(fleet_url):
    failed = []

    def prepare() -> None:
        mine = Database(fleet_url)
        try:
            mine.prepare()
        except PostgresError as error:
            failed.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=prepare) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_schema_one_version_newer_is_gone_along_with_and_a_later_one_is_not(database, postgres_server, fleet_url):
    name = fleet_url.rpartition("/")[2]
    postgres_server.execute(name, "UPDATE alembic_version SET version_num = %s", (str(VERSION + 1),))
    database.prepare()
    with pytest.raises(NewerStoreError):
        database.migrate()
    postgres_server.execute(name, "UPDATE alembic_version SET version_num = %s", (str(VERSION + 2),))
    with pytest.raises(NewerStoreError, match="knows versions to"):
        database.prepare()


@pytest.mark.parametrize("url", ["", "redis://x/0", "postgresql", "mysql://u:secret@h/d"])
def test_what_is_no_url_of_a_postgres_is_refused_without_being_shown(url):
    with pytest.raises(PostgresError) as refused:
        Database(url)
    assert "secret" not in str(refused.value)


def test_nobody_there_is_said_without_the_password():
    database = Database("postgresql://me:hunter2@127.0.0.1:1/none")
    with pytest.raises(PostgresError) as failed:
        database.prepare()
    assert "hunter2" not in str(failed.value)
    database.close()


def test_a_row_has_a_type_for_each_column():
    from gateway.state.postgres_writer import _type  # noqa: PLC0415 # what is looked at

    assert {name: _type(name) for name in ("stream", "code", "output_limit", "attempt_id")} == {
        "stream": "boolean",
        "code": "text",
        "output_limit": "bigint",
        "attempt_id": "text",
    }
    assert {_type(name) for name in ENTRY_COLUMNS} == {"boolean", "text", "bigint"}


def test_what_keys_of_a_fleet_have_spent_says_also_what_is_still_to_come(database, fleet_url):
    rows = entries(60, 8)
    with pytest.raises(StoreError, match="no gateway"):
        fleet_past(fleet_url, ["k1"], 1000.0)
    send(database, rows)
    with database.connect() as connection:
        note_replica(connection, "r1", "one", "1", 7)
        note_replica(connection, "r2", "two", "1", 3)
        connection.execute(text("UPDATE replica SET seen = now() - interval '1 day' WHERE replica = 'r2'"))
    said = fleet_past(fleet_url, ["k1", "k2"], 1000.0)
    assert (said.rows_to_come, said.silent) == (7, ("two",))
    ever = next(spent for window, _, spent in said.past if window == "ever")
    assert ever["k1"] == sum(
        max(row.cost_in_nusd or 0, row.reserved_in_nusd if row.usage_source == "recovered" else 0)
        for row in rows
        if row.key_id == "k1"
    )

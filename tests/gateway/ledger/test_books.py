"""Every Attempt that is begun and settled is one row, whatever is repeated, reordered or in the way."""

import os
import random
import sqlite3
import stat

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger import backlog
from gateway.ledger.costs import Ending, settlement_of
from gateway.ledger.entry import Intent, row_of
from gateway.ledger.segment import RECORD_MAX_BYTES, Files
from gateway.state import store as store_module
from gateway.state.connection import open_writer
from gateway.state.entries import Batch
from gateway.state.errors import StoreError
from gateway.state.ledger_reader import LedgerReader, Spent
from gateway.state.schema import MIGRATIONS, migrate
from gateway.state.writer import Writer
from providers.messages import Usage
from tests.gateway.ledger.ledger_kit import PRICE_ID, TARIFF, Ledger, rows_of, total_of

WAIT_S = 30.0
COST = 1200 * 200 + 300 * 600


def row(attempt_id: str, output_tokens: int | None, hour: int = 0, **facts) -> tuple:
    usage = None if output_tokens is None else Usage(input_tokens=10, output_tokens=output_tokens)
    unix_us = hour * 3_600_000_000 + 1
    said = {"key_id": "k", "model": "m", "tags": ()} | facts
    intent = Intent(
        attempt_id,
        unix_us,
        said["key_id"],
        "r",
        said["model"],
        "p/m",
        "p",
        "chat",
        False,
        PRICE_ID,
        10,
        tags=said["tags"],
    )
    return row_of(intent, settlement_of(unix_us, Ending(unix_us=unix_us, outcome="ok", usage=usage), TARIFF))


def test_an_attempt_that_is_settled_is_a_row_with_its_cost(ledger):
    ledger.whole("gen-1/1")
    assert ledger.store.flush(WAIT_S)
    (entry,) = ledger.rows().values()
    assert (entry.attempt_id, entry.cost_in_nusd, entry.cost_source, entry.stream) == ("gen-1/1", COST, "price", True)
    with LedgerReader(ledger.path) as reader:
        assert reader.price(PRICE_ID) == TARIFF.snapshot
    assert (ledger.books.in_flight, ledger.books.behind) == (0, False)


def test_a_clean_end_leaves_no_journal(ledger):
    for number in range(2000):
        ledger.whole(f"gen-{number}/1")
    assert ledger.close()
    assert len(ledger.rows()) == 2000
    assert ledger.journals() == []


def test_the_journal_is_for_its_owner_alone(ledger):
    modes = {stat.S_IMODE(path.stat().st_mode) for path in ledger.journals()}
    assert modes == {0o600}
    assert stat.S_IMODE(ledger.journal.folder.stat().st_mode) == 0o700


def test_what_is_settled_twice_or_was_never_begun_changes_nothing(ledger):
    ledger.whole("gen-1/1")
    assert ledger.end("gen-1/1", 999) is None
    assert ledger.end("gen-2/1") is None
    ledger.begin("gen-3/1")
    ledger.begin("gen-3/1")
    ledger.end("gen-3/1")
    assert ledger.store.flush(WAIT_S)
    assert {name: one.cost_in_nusd for name, one in ledger.rows().items()} == {"gen-1/1": COST, "gen-3/1": COST}
    assert ledger.books.repeated == 3
    assert total_of(ledger.path).cost_in_nusd == 2 * COST


@given(data=st.data())
def test_rows_that_are_handed_over_again_and_in_any_order_add_up_to_the_same(data):
    ids = [f"gen-{number // 2}/{1 + number % 2}" for number in range(data.draw(st.integers(1, 12)))]
    rows = {name: row(name, number or None, hour=number * 7) for number, name in enumerate(ids)}
    order = [name for name in ids for _ in range(data.draw(st.integers(1, 5)))]
    data.draw(st.randoms(use_true_random=False)).shuffle(order)
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    writer = Writer(connection)
    while order:
        size = data.draw(st.integers(1, len(order)))
        batch, order = order[:size], order[size:]
        writer.write_ledger(Batch([rows[name] for name in batch], [TARIFF.snapshot]))
    exact = sum(10 * 200 + number * 600 for number in range(1, len(ids)))
    for span in ("hour", "day"):
        sums = connection.execute(
            f"SELECT sum(requests), sum(attempts), sum(cost_in_nusd), sum(unknown_cost) FROM spend_{span} WHERE by = ?",  # noqa: S608
            ("model",),
        ).fetchone()
        assert sums == ((len(ids) + 1) // 2, len(ids), exact, 1)
    connection.close()


@settings(max_examples=40)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 100), st.sampled_from("ab"), st.sampled_from(["", "x", "x y"])), max_size=30
    ),
    since=st.integers(0, 100),
    length=st.integers(0, 100),
)
def test_a_report_is_what_adding_up_its_rows_gives(tmp_path_factory, rows, since, length):
    path = tmp_path_factory.mktemp("ledger") / "mixgate.db"
    writer = Writer(open_writer(path))
    writer.write_ledger(
        Batch(
            [row(f"gen-{n}/1", n + 1, hour=h, key_id=k, tags=tuple(t.split())) for n, (h, k, t) in enumerate(rows)], ()
        )
    )
    inside = [(n, k, t) for n, (h, k, t) in enumerate(rows) if since <= h < since + length]
    hour_us = 3_600_000_000
    with LedgerReader(path) as reader:
        spent = reader.spend("key", since * hour_us, (since + length) * hour_us)
        assert {one.name: one.output_tokens for one in spent} == {
            key: sum(n + 1 for n, k, _ in inside if k == key) for key in {k for _, k, _ in inside}
        }
        tagged = reader.spend("tag", since * hour_us, (since + length) * hour_us)
        assert {one.name: one.attempts for one in tagged} == {
            tag: sum(tag in (t.split() or [""]) for _, _, t in inside)
            for tag in {g for *_, t in inside for g in t.split() or [""]}
        }
        days = reader.spend("day", since * hour_us, (since + length) * hour_us)
        assert sum(one.attempts for one in days) == len(inside)
        assert [one.name for one in days] == sorted(one.name for one in days)
    writer.close()


def test_rows_beyond_what_fits_into_memory_wait_in_the_journal_alone(make_ledger, monkeypatch, tmp_path):
    monkeypatch.setattr(backlog, "QUEUE_MAX", 50)
    monkeypatch.setattr(backlog, "NEAR_BYTES", 2000)
    monkeypatch.setattr("gateway.state.connection.BUSY_TIMEOUT_S", 0.01)
    monkeypatch.setattr(store_module, "RETRY_WAIT_MAX_S", 0.05)
    ledger = make_ledger(segment_bytes=4 * 1024 * 1024)
    assert ledger.store.flush(WAIT_S)
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    dice = random.Random(5)
    for number in range(3000):
        ledger.whole(f"gen-{number}/1", dice.randrange(1000))
        assert len(ledger.books._backlog) <= 50
    assert ledger.books.available
    other.execute("ROLLBACK")
    other.close()
    for number in range(3000, 6000):  # while it is written off
        ledger.whole(f"gen-{number}/1", dice.randrange(1000))
    assert ledger.store.flush(WAIT_S)
    assert not ledger.books.behind
    rows = ledger.rows()
    assert len(rows) == 6000
    assert total_of(ledger.path).cost_in_nusd == sum(one.cost_in_nusd for one in rows.values())
    assert ledger.close()
    assert ledger.journals() == []


def test_files_whose_attempts_are_all_in_the_store_are_removed_on_the_way(ledger):
    for number in range(8000):
        ledger.whole(f"gen-{number}/1")
        if number % 250 == 249:
            assert ledger.store.flush(WAIT_S)
    assert ledger.journal.position[0] > 3
    while len(ledger.journals()) > 2:  # the one that is written to and the one after
        ledger.journal._keeper.join(0.05)


class NoRoom(Files):
    """A disk on which no new file fits, until one does."""

    full = True

    def create(self, path, size_bytes):
        if self.full:
            raise OSError(28, os.strerror(28))
        return super().create(path, size_bytes)


def test_only_where_neither_journal_nor_store_can_be_written_nothing_is_available(make_ledger, monkeypatch, caplog):
    monkeypatch.setattr("gateway.ledger.journal.RETRY_EVERY_S", 0.05)
    files = NoRoom()
    ledger = make_ledger(files)
    assert ledger.store.flush(WAIT_S)
    assert ledger.books.available, "the store is there"
    ledger.whole("gen-1/1")
    assert ledger.books.unjournaled == 1
    ledger.store.failure = StoreError("gone")
    assert not ledger.books.available
    assert not ledger.books.available
    ledger.whole("gen-2/1")  # it had begun before
    files.full = False
    while not ledger.journal.usable:
        ledger.journal._keeper.join(0.01)
    assert ledger.books.available
    ledger.whole("gen-3/1")
    assert ledger.store.flush(WAIT_S)
    assert set(ledger.rows()) == {"gen-1/1", "gen-2/1", "gen-3/1"}
    said = [one.getMessage() for one in caplog.records]
    assert sum("what costs money is refused" in one for one in said) == 1
    assert sum("the ledger can be written again" in one for one in said) == 1


def test_files_are_bounded_and_what_is_over_waits_in_memory(make_ledger, monkeypatch):
    monkeypatch.setattr("gateway.state.connection.BUSY_TIMEOUT_S", 0.01)
    monkeypatch.setattr(store_module, "RETRY_WAIT_MAX_S", 0.05)
    ledger = make_ledger(segments_max=3)
    assert ledger.store.flush(WAIT_S)
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for number in range(5000):
        ledger.whole(f"gen-{number}/1")
        if number % 100 == 0:
            ledger.journal._keeper.join(0.01)
    assert not ledger.journal.usable
    assert len(ledger.journals()) == 3
    other.execute("ROLLBACK")
    other.close()
    assert ledger.store.flush(WAIT_S)
    assert len(ledger.rows()) == 5000


def test_a_record_that_is_too_long_is_not_in_the_journal_and_in_the_store_all_the_same(ledger):
    ledger.begin("gen-1/1", user="x" * RECORD_MAX_BYTES)
    ledger.whole("gen-2/1")
    ledger.end("gen-1/1")
    assert ledger.store.flush(WAIT_S)
    assert set(ledger.rows()) == {"gen-1/1", "gen-2/1"}


def test_a_second_gateway_in_the_same_folder_keeps_no_books_until_the_first_is_gone(make_ledger, monkeypatch):
    monkeypatch.setattr("gateway.ledger.journal.RETRY_EVERY_S", 0.05)
    monkeypatch.setattr(store_module, "RETRY_WAIT_MAX_S", 0.05)
    first = make_ledger()
    first.begin("gen-1/1")
    assert first.store.flush(WAIT_S)
    second = make_ledger()
    while second.store.failure is None:
        second.journal._keeper.join(0.01)
    assert not second.books.available
    assert first.books.available
    first.end("gen-1/1")
    assert first.close()
    while not second.books.available:
        second.journal._keeper.join(0.01)
    assert second.books.wait_recovered(WAIT_S)
    second.whole("gen-2/1")
    assert second.store.flush(WAIT_S)
    assert set(second.rows()) == {"gen-1/1", "gen-2/1"}


def test_the_rows_of_a_request_are_found_by_its_id_and_pages_miss_none(ledger):
    for number in range(12):
        ledger.whole(f"gen-A/{number + 1}")
    ledger.whole("gen-AB/1")
    assert ledger.store.flush(WAIT_S)
    with LedgerReader(ledger.path) as reader:
        assert [one.attempt_id for one in reader.find_entries("gen-A")] == [f"gen-A/{n + 1}" for n in range(12)]
    assert len(rows_of(ledger.path)) == 13


def test_a_file_of_the_version_before_is_brought_forward_with_all_that_is_in_it(tmp_path):
    path = tmp_path / "mixgate.db"
    old = sqlite3.connect(path, isolation_level=None)
    old.execute("PRAGMA journal_mode = WAL")
    for statement in MIGRATIONS[0].forward:
        old.execute(statement)
    old.execute("INSERT INTO endpoint_event VALUES (1, unixepoch(), 'p/m', 'open', 'x')")
    old.execute("PRAGMA user_version = 1")
    old.close()
    ledger = Ledger(tmp_path)
    ledger.whole("gen-1/1")
    assert ledger.close()
    with LedgerReader(path) as reader:
        assert len(reader.events(None, 0)) == 1
        assert reader.spend("all", 0, 1 << 60) == (Spent("", 1, 1, 0, 0, 1200, 300, 0, 0, 0, COST, 0),)


def test_what_no_file_takes_is_mended_and_what_no_table_takes_holds_up_nobody(ledger, caplog):
    ledger.begin("gen-1/1", user="\ud800", output_limit=10**30, tags=("\ud800",))
    ledger.end("gen-1/1")
    ledger.begin("gen-2/1")
    ledger.books.end("gen-2/1", Ending(unix_us=1, outcome="failed", upstream_id="\ud800", duration_ms=10**30))
    ledger.begin("gen-3/1", prompt_tokens=2**63)  # which the journal takes
    ledger.end("gen-3/1")
    ledger.begin("gen-4/1", prompt_tokens=1.5)
    ledger.end("gen-4/1")
    ledger.whole("gen-5/1")
    assert ledger.store.flush(WAIT_S)
    rows = ledger.rows()
    assert set(rows) == {"gen-1/1", "gen-2/1", "gen-5/1"}
    assert (rows["gen-1/1"].user, rows["gen-1/1"].output_limit) == ("?", 2**63 - 1)
    assert rows["gen-2/1"].duration_ms == 2**63 - 1
    said = [one.getMessage() for one in caplog.records if "cannot be stored" in one.getMessage()]
    assert len(said) == 2
    assert "gen-3/1" in said[0]
    assert ledger.close()
    assert ledger.journals() == []


def test_what_is_not_in_the_store_at_the_end_is_there_after_the_next_start(make_ledger, monkeypatch):
    monkeypatch.setattr("gateway.state.connection.BUSY_TIMEOUT_S", 0.01)
    ledger = make_ledger()
    assert ledger.store.flush(WAIT_S)
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for number in range(100):
        ledger.whole(f"gen-{number}/1")
    assert not ledger.close()
    assert len(ledger.journals()) == 1
    other.execute("ROLLBACK")
    other.close()
    again = make_ledger()
    assert again.books.wait_recovered(WAIT_S)
    rows = again.rows()
    assert (len(rows), {one.usage_source for one in rows.values()}) == (100, {"provider"})

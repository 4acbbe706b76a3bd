"""A file that is damaged costs no key its rights and no door its lock, and its rows can be had again."""

import sqlite3

import pytest

from gateway.keys.storage import has_issued_keys, load_ring, read_records
from gateway.state.connection import open_reader
from gateway.state.errors import StoreError
from gateway.state.key_rows import KeyRow, read_keys, write_key
from gateway.state.migrating import take_rows
from gateway.state.salvage import damaged_files, salvaged_keys
from gateway.state.soundness import find_faults
from tests.gateway.ledger.ledger_kit import Ledger, rows_of, total_of

KEY = KeyRow("k1", "Ann", b"d" * 32, b"", 0, 1, 1, None, 0, None, None, "{}")
MEMBER = KeyRow("k2", "Bea", b"e" * 32, b"", 0, 2, 2, None, 0, None, "k1", "{}")
PEPPER = b"p" * 32
PAGE_BYTES = 4096


def filled(home, keys=(KEY, MEMBER)) -> Ledger:
    ledger = Ledger(home)
    for number in range(1500):
        ledger.whole(f"gen-{number:06d}/1", number)
    for key in keys:
        ledger.store.submit(lambda connection, key=key: write_key(connection, key)).result(20.0)
    assert ledger.close()
    return ledger


def page_of(path, table: str, place: int) -> int:
    """The number of a page of a table; found by what is in it, as there is no dbstat."""
    with sqlite3.connect(path) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    connection.close()
    return root + place


def damage(path, page: int) -> None:
    """As a broken disk does it, before a crash that has the file looked at."""
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES)
        file.write(b"\xff" * PAGE_BYTES)
    path.with_name(path.name + "-wal").write_bytes(b"x" * 32)


def keys_of(path) -> list[KeyRow]:
    connection = open_reader(path)
    found = read_keys(connection)
    connection.close()
    return found


def middle_of_rows(path) -> int:
    """A page that has rows of the ledger."""
    data = path.read_bytes()
    pages = [
        n for n in range(1, len(data) // PAGE_BYTES) if b"gen-000700/1" in data[(n - 1) * PAGE_BYTES :][:PAGE_BYTES]
    ]
    return next(n for n in pages if data[(n - 1) * PAGE_BYTES] == 0x0D)


def test_keys_and_rows_of_a_damaged_file_are_in_the_new_one(tmp_path, caplog):
    ledger = filled(tmp_path)
    rows = rows_of(ledger.path)
    damage(ledger.path, middle_of_rows(ledger.path))
    again = Ledger(tmp_path)
    again.whole("gen-new/1")
    assert again.store.flush(20.0)
    assert again.close()
    assert keys_of(ledger.path) == [KEY, MEMBER]
    said = [record.message for record in caplog.records]
    assert any("is damaged" in one for one in said)
    assert any("2 client keys were taken over" in one for one in said)
    found = rows_of(ledger.path)
    assert len(rows) - 100 < len(found) - 1 < len(rows)
    assert all(rows[name] == found[name] for name in found if name != "gen-new/1")
    assert any(f"{len(found) - 1} rows were taken over" in one for one in said)
    (aside,) = damaged_files(ledger.path)
    assert take_rows(ledger.path, aside) == (0, len(rows) - len(found) + 1)
    assert total_of(ledger.path).attempts == len(found)
    assert [fault for _, faults in find_faults(ledger.path) for fault in faults] == []
    caplog.clear()
    third = Ledger(tmp_path)
    assert third.store.flush(20.0)
    assert third.close()
    assert not any("taken over" in record.message for record in caplog.records), "once is enough"


def test_the_doors_stay_closed_where_nobody_knows_what_keys_there_were(tmp_path):
    path = filled(tmp_path).path
    damage(path, page_of(path, "client_key", 0))
    again = Ledger(tmp_path)
    assert again.store.flush(20.0)
    assert again.close()
    assert keys_of(path) == []
    with pytest.raises(StoreError, match="issue new keys, or move"):
        salvaged_keys(path)
    assert has_issued_keys(path)
    assert load_ring(path, PEPPER).has_keys, "also at every later start"
    for one in tmp_path.glob("*.damaged-*"):
        one.rename(one.with_name("looked-at-" + one.name))
    assert not has_issued_keys(path)


def test_keys_work_from_the_first_moment_after_the_damage(tmp_path):
    path = filled(tmp_path).path
    path.rename(path.with_name(path.name + ".damaged-20260101T000000Z"))
    assert [record.id for record in read_records(path)] == ["k1", "k2"]
    assert load_ring(path, PEPPER).get("k2") is not None


def test_a_damaged_file_without_keys_closes_no_door(tmp_path):
    path = filled(tmp_path, ()).path
    damage(path, middle_of_rows(path))
    again = Ledger(tmp_path)
    assert again.store.flush(20.0)
    assert again.close()
    assert damaged_files(path)
    assert not has_issued_keys(path)


def test_a_key_that_was_deleted_since_does_not_come_back(tmp_path):
    path = filled(tmp_path).path
    path.rename(path.with_name(path.name + ".damaged-20260101T000000Z"))
    again = Ledger(tmp_path)
    assert again.store.flush(20.0)
    gone = KeyRow("k1", "Ann", b"", b"", 0, 1, 5, None, 0, 5, None, "{}")
    again.store.submit(lambda connection: write_key(connection, gone)).result(20.0)
    assert again.close()
    third = Ledger(tmp_path)
    assert third.store.flush(20.0)
    assert third.close()
    assert keys_of(path) == [gone, MEMBER]
    assert [record.deleted_us for record in read_records(path)] == [5, None]

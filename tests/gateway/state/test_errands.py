"""Changes that somebody waits for."""

import sqlite3

import pytest

from gateway.state.connection import StoreLock, open_reader
from gateway.state.errors import StoreError
from gateway.state.key_rows import KeyRow, read_keys, write_key
from gateway.state.store import Store


def row(key_id="aaaaaaaa", parent=None):
    return KeyRow(key_id, "n", b"d" * 32, b"", 0, 1, 1, None, 0, None, parent, "{}")


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "mixgate.db", lambda record: record)
    yield store
    store.close()


def test_a_change_is_in_the_file_once_it_is_done(store):
    store.submit(lambda connection: write_key(connection, row())).result(10)
    with open_reader(store.path) as connection:
        assert read_keys(connection) == [row()]
    connection.close()


def test_a_change_that_is_wrong_fails_alone(store):
    wrong = store.submit(lambda connection: write_key(connection, row("bbbbbbbb", parent="missing0")))
    right = store.submit(lambda connection: write_key(connection, row()))
    with pytest.raises(StoreError):
        wrong.result(10)
    right.result(10)
    assert store.failure is None


def test_half_a_change_is_none(store):
    def break_off(connection):
        write_key(connection, row())
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - it is ours
        store.submit(break_off).result(10)
    with open_reader(store.path) as connection:
        assert read_keys(connection) == []
    connection.close()


def test_a_store_that_cannot_write_says_so_at_once(tmp_path):
    lock = StoreLock(tmp_path / "mixgate.db")
    lock.take()
    store = Store.open(tmp_path / "mixgate.db", lambda record: record)
    try:
        with pytest.raises(StoreError, match="another gateway"):
            store.submit(lambda connection: write_key(connection, row())).result(20)
    finally:
        lock.release()
        store.close()


def test_a_closed_store_takes_no_change(tmp_path):
    store = Store.open(tmp_path / "mixgate.db", lambda record: record)
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.submit(lambda connection: write_key(connection, row())).result(10)


def test_a_file_of_before_keys_has_none(tmp_path):
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
    assert read_keys(connection) == []
    connection.close()

"""A file goes forward and back one version and loses nothing, also where it is killed in the middle of that."""

import os
import random
import signal
import sqlite3
import time

import pytest

from gateway.state.connection import connect_writer, open_writer
from gateway.state.errors import NewerStoreError, StoreError, StoreInUseError
from gateway.state.migrating import lead_back
from gateway.state.schema import MIGRATIONS, migrate, version_of
from gateway.state.soundness import find_faults
from tests.fakes.listener import FULL
from tests.gateway.ledger.ledger_kit import Ledger, rows_of, total_of

LAST = len(MIGRATIONS)
KILLS = 100 if FULL else 20
ROWS = 1200


def filled(home, count=ROWS) -> Ledger:
    ledger = Ledger(home)
    for number in range(count):
        ledger.whole(f"gen-{number:06d}/1", number % 500)
    assert ledger.close()
    return ledger


def assert_sound(path) -> None:
    assert [fault for what, faults in find_faults(path) for fault in (what, *faults) if faults] == []


def schema_of(path) -> set:
    with sqlite3.connect(path) as connection:
        found = set(connection.execute("SELECT name, sql FROM sqlite_schema"))
    connection.close()
    return found


def go_to_and_fro(path) -> None:
    """Until the process is killed."""
    try:
        connection = connect_writer(path)
        while True:
            migrate(connection, LAST - 1)
            migrate(connection)
    finally:
        os._exit(1)


def test_there_and_back_again_is_what_it_was(tmp_path):
    ledger = filled(tmp_path)
    before, rows = schema_of(ledger.path), rows_of(ledger.path)
    assert lead_back(ledger.path, LAST - 1) == LAST - 1
    assert lead_back(ledger.path, LAST) == LAST
    assert schema_of(ledger.path) == before
    assert rows_of(ledger.path) == rows
    assert_sound(ledger.path)


def test_every_version_that_can_be_gone_back_to_is_one_that_can_be_come_forward_from(tmp_path):
    ledger = filled(tmp_path)
    rows = rows_of(ledger.path)
    target = LAST
    while MIGRATIONS[target - 1].back is not None:
        target -= 1
        assert lead_back(ledger.path, target) == target
    assert target < LAST - 1
    with pytest.raises(StoreError, match="has no place for"):
        lead_back(ledger.path, target - 1)
    again = Ledger(tmp_path)
    again.whole("gen-new/1")
    assert again.close()
    assert rows_of(ledger.path).keys() == rows.keys() | {"gen-new/1"}
    assert_sound(ledger.path)


def test_a_version_that_nobody_knows_is_refused_and_one_without_a_way_changes_nothing(tmp_path):
    ledger = filled(tmp_path, 5)
    for to in (LAST + 1, -1):
        with pytest.raises(StoreError, match="knows versions"):
            lead_back(ledger.path, to)
    with pytest.raises(StoreError, match="has no place for"):
        lead_back(ledger.path, 0)
    connection = connect_writer(ledger.path)
    assert version_of(connection) == LAST
    connection.execute(f"PRAGMA user_version = {LAST + 1}")
    with pytest.raises(NewerStoreError, match="ledger migrate"):
        migrate(connection)
    connection.close()


def test_a_file_that_a_gateway_has_is_left_alone(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.whole("gen-1/1")
    assert ledger.store.flush(20.0)
    with pytest.raises(StoreInUseError):
        lead_back(ledger.path, LAST - 1)
    assert ledger.close()


def test_a_migration_that_is_killed_at_any_moment_leaves_a_file_that_opens_with_all_rows(tmp_path):
    ledger = filled(tmp_path)
    rows, dice = rows_of(ledger.path), random.Random(3)
    versions = set()
    for _ in range(KILLS):
        process = os.fork()  # it starts at once, and does nothing but what follows
        if process == 0:
            go_to_and_fro(ledger.path)
        time.sleep(dice.uniform(0.005, 0.03))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        with sqlite3.connect(ledger.path) as connection:
            versions.add(version_of(connection))
        connection.close()
    assert versions <= {LAST - 1, LAST}
    open_writer(ledger.path).close()
    assert rows_of(ledger.path) == rows
    assert total_of(ledger.path).attempts == ROWS
    assert_sound(ledger.path)


def test_a_release_goes_to_the_next_and_back_with_traffic_in_between_and_loses_nothing(tmp_path, monkeypatch):
    # The release before has one migration less; what else it does is the same here.
    expected = set()
    for turn in range(6):
        with monkeypatch.context() as patch:
            if turn % 2:
                assert lead_back(tmp_path / "mixgate.db", LAST - 1) == LAST - 1
                patch.setattr("gateway.state.connection.migrate", lambda connection: migrate(connection, LAST - 1))
            ledger = Ledger(tmp_path)
            for number in range(100):
                ledger.whole(f"gen-{turn}-{number:04d}/1")
                expected.add(f"gen-{turn}-{number:04d}/1")
            if turn % 3 == 2:
                assert ledger.store.close()  # what is in the journal alone is found by the release that comes next
                ledger.begin(f"gen-{turn}-late/1")
                ledger.end(f"gen-{turn}-late/1")
                expected.add(f"gen-{turn}-late/1")
            ledger.close()
    ledger = Ledger(tmp_path)
    assert ledger.books.wait_recovered(20.0)
    assert ledger.close()
    assert rows_of(ledger.path).keys() == expected
    assert_sound(ledger.path)

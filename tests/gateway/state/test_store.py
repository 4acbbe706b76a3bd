"""The store: what is handed over is in the file, whatever happens to the process, the disk or the file."""

import contextlib
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.server.ids import GenerationIds
from gateway.state.blocks import RECORD_MAX_BYTES, RECORDS_MAX, Packed, Static, lean
from gateway.state.connection import FILE_NAME
from gateway.state.errors import StoreError
from gateway.state.reader import Reader
from gateway.state.schema import MIGRATIONS
from gateway.state.store import QUEUE_MAX, SMALL_MAX_BYTES, Store
from gateway.state.writer import RECORDS_FOR_S, STATIC_TOUCH_S

WAIT_S = 30.0
ROUND_TRIP = 100_000 if os.environ.get("MIXGATE_TEST_FULL") else 20_000
KILLS = 5 if os.environ.get("MIXGATE_TEST_FULL") else 2


def pack(record: str) -> Packed:
    return Packed(record, b'{"id":"%b"}' % record.encode(), Static("digest", b"x" * 100))


@contextlib.contextmanager
def opened(path: Path, **settings: Any) -> Iterator[Store]:
    store = Store.open(path, pack, **settings)
    try:
        yield store
    finally:
        store.close()


def put_all(store: Store, names: list[str]) -> None:
    """As fast as the queue has room."""
    for name in names:
        while len(store._records) >= QUEUE_MAX - 1:
            time.sleep(0.002)
        assert store.put(name)


def minted(count: int) -> list[str]:
    ids = GenerationIds()
    return [ids.mint() for _ in range(count)]


def is_sound(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_many_records_come_back_each_under_its_own_id(tmp_path: Path):
    path = tmp_path / "home" / FILE_NAME
    names = minted(ROUND_TRIP)
    with opened(path) as store:
        put_all(store, names)
        assert store.flush(WAIT_S)
        assert store.dropped == 0
    with Reader(path) as reader:
        kept = reader.kept()
        assert (kept.count, kept.first_id, kept.last_id) == (ROUND_TRIP, names[0], names[-1])
        for name in names[:: ROUND_TRIP // 50]:
            assert reader.find_record(name) == pack(name).data
        assert [name for name, _ in reader.newest_records(300)] == names[: -300 - 1 : -1]
        assert reader.find_record(names[5] + "X") is None
        assert reader.find_record("gen-") is None
        assert reader.find_static("digest") == b"x" * 100
        assert reader.find_static("another") is None


def test_only_the_user_can_read_the_file_and_its_folder(tmp_path: Path):
    path = tmp_path / "home" / FILE_NAME
    with opened(path) as store:
        store.put("gen-1")
        assert store.flush(WAIT_S)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert FILE_NAME in modes
    assert set(modes.values()) == {0o600}


def test_readers_see_what_is_written_while_it_is_written_and_can_change_nothing(tmp_path: Path):
    path = tmp_path / FILE_NAME
    names = minted(3000)
    failures: list[Exception] = []

    def read(stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                with Reader(path) as reader:
                    kept = reader.kept()
                    if kept.last_id is not None:
                        assert reader.find_record(kept.last_id) is not None
                    assert kept.count <= len(names)
        except Exception as error:
            failures.append(error)
            raise

    stop = threading.Event()
    with opened(path) as store:
        assert store.flush(WAIT_S)
        threads = [threading.Thread(target=read, args=(stop,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for start in range(0, len(names), 100):
            put_all(store, names[start : start + 100])
            assert store.flush(WAIT_S)
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)
        with Reader(path) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._connection.execute("DELETE FROM decision_block")
    assert not failures


WRITING = """
    import sys
    from pathlib import Path
    from gateway.server.ids import GenerationIds
    from gateway.state.blocks import Packed
    from gateway.state.store import Store

    ids = GenerationIds()
    store = Store.open(Path(sys.argv[1]), lambda name: Packed(name, b"{}"))
    while True:
        names = [ids.mint() for _ in range(500)]
        for name in names:
            store.put(name)
        if store.flush(30):
            print(names[0], names[-1], flush=True)
"""


def test_a_killed_process_loses_nothing_that_was_flushed_and_leaves_a_sound_file(tmp_path: Path):
    path = tmp_path / FILE_NAME
    flushed: list[str] = []
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITING), str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process.stdout:
            for _ in range(4):
                flushed += process.stdout.readline().split()
            process.send_signal(signal.SIGKILL)
            flushed += [word for line in process.stdout if len(words := line.split()) == 2 for word in words]
        assert process.wait(WAIT_S) == -signal.SIGKILL
    with opened(path) as store:
        assert store.put("gen-after")
        assert store.flush(WAIT_S)
    assert is_sound(path)
    assert not list(tmp_path.glob("*.damaged-*"))
    with Reader(path) as reader:
        assert all(reader.find_record(name) == b"{}" for name in flushed)
        assert reader.find_record("gen-after") is not None


FILLING = """
    import resource, sys, time
    from pathlib import Path
    from gateway.state.blocks import Packed
    from gateway.state.store import QUEUE_MAX, Store
    import os

    path = Path(sys.argv[1])
    store = Store.open(path, lambda number: Packed(f"gen-{number:08d}", os.urandom(400).hex().encode()))
    assert store.flush(30)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    slowest_s = 0.0
    for number in range(3 * QUEUE_MAX):
        before_s = time.thread_time()
        store.put(number)
        slowest_s = max(slowest_s, time.thread_time() - before_s)
    assert not store.flush(1), "it should have been full"
    assert store.failure is not None
    assert store.dropped > 0, store.dropped
    print(slowest_s, flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert store.flush(60)
    assert store.failure is None
    assert store.close()
"""


def test_a_full_disk_costs_records_but_no_time_and_is_over_when_there_is_room_again(tmp_path: Path):
    path = tmp_path / FILE_NAME
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(FILLING), str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be written") == 1, done.stderr
    assert float(done.stdout) < 0.2
    assert is_sound(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no small file system can be mounted here; a limited file size stands for it")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full_keeps_what_is_on_it(small_disk: Path, caplog: pytest.LogCaptureFixture):
    path = small_disk / FILE_NAME
    filler = small_disk / "filler"
    store = Store.open(path, lambda name: Packed(name, os.urandom(400).hex().encode()))
    assert store.put("gen-0")
    assert store.flush(WAIT_S)
    filler.write_bytes(b"x" * 1_200_000)
    for number in range(QUEUE_MAX + 1000):
        store.put(f"gen-1-{number}")
    assert not store.flush(0.5)
    assert "the disk is full" in str(store.failure)
    filler.unlink()
    assert not store.flush(1.0)  # it still does not hold all of it
    with Reader(path) as reader:
        assert reader.find_record("gen-0") is not None
    store.close()
    assert is_sound(path)
    assert caplog.text.count("the disk is full") == 1


def test_a_file_that_another_program_locks_costs_callers_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gateway.state.connection.BUSY_TIMEOUT_S", 0.01)
    path = tmp_path / FILE_NAME
    with opened(path) as store:
        assert store.flush(WAIT_S)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            before_s = time.thread_time()
            for number in range(QUEUE_MAX + 100):
                store.put(f"gen-{number}")
            assert time.thread_time() - before_s < 1.0
            assert not store.flush(0.3)
            other.execute("ROLLBACK")
        assert store.flush(WAIT_S)
        assert store.failure is None
        with Reader(path) as reader:
            assert reader.kept().count + store.dropped == QUEUE_MAX + 100


def test_two_gateways_do_not_write_one_file(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / FILE_NAME
    with opened(path) as first:
        assert first.flush(WAIT_S)
        with opened(path) as second:
            second.put("gen-1")
            assert not second.flush(0.2)
            assert "another gateway" in str(second.failure)
            first.close()
            assert second.flush(WAIT_S)
            assert second.failure is None
    assert "MIXGATE_HOME of its own. This gateway keeps no ledger" in caplog.text


@pytest.mark.parametrize("damage", ["not a database at all" * 300, ""])
def test_a_file_that_is_no_database_is_moved_aside_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
):
    path = tmp_path / FILE_NAME
    path.write_text(damage)
    with caplog.at_level(logging.ERROR), opened(path) as store:
        store.put("gen-1")
        assert store.flush(WAIT_S)
    aside = [file for file in tmp_path.iterdir() if ".damaged-" in file.name]
    assert [file.read_text() for file in aside] == ([damage] if damage else [])
    assert ("moved to" in caplog.text) == bool(damage)
    with Reader(path) as reader:
        assert reader.find_record("gen-1") is not None


def test_damage_inside_a_file_is_found_after_a_crash_and_moved_aside(tmp_path: Path):
    path = tmp_path / FILE_NAME
    with opened(path) as store:
        put_all(store, minted(4 * RECORDS_MAX))
        assert store.flush(WAIT_S)
    data = bytearray(path.read_bytes())
    data[4096 * 2 : 4096 * 6] = os.urandom(4096 * 4)
    path.write_bytes(data)
    path.with_name(path.name + "-wal").write_bytes(b"left over")
    with opened(path) as store:
        store.put("gen-new")
        assert store.flush(WAIT_S)
    aside = [
        file for file in tmp_path.iterdir() if ".damaged-" in file.name and not file.name.endswith(("-wal", "-shm"))
    ]
    assert [file.read_bytes() for file in aside] == [bytes(data)]
    assert is_sound(path)


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / FILE_NAME
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        connection.execute("CREATE TABLE theirs (x)")
    with opened(path) as store:
        assert not store.flush(0.3)
    assert "newer Mixgate" in caplog.text
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


def test_a_store_in_a_place_that_cannot_be_written_answers_all_the_same(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with opened(tmp_path / "file" / FILE_NAME) as store:
        assert store.put("gen-1")
        assert not store.flush(0.2)
        assert store.failure is not None
    assert store.dropped == 1


def test_a_record_that_cannot_be_packed_or_is_too_large_costs_no_other(tmp_path: Path):
    def picky(name: str) -> Packed:
        if name == "bad":
            raise ValueError(name)
        return Packed(name, b"x" * (RECORD_MAX_BYTES + 1) if name == "large" else b"{}")

    store = Store.open(tmp_path / FILE_NAME, picky)
    for name in ("gen-1", "bad", "large", "gen-2"):
        store.put(name)
    assert store.flush(WAIT_S)
    assert store.close()
    assert store.dropped == 2
    with Reader(tmp_path / FILE_NAME) as reader:
        assert reader.kept().count == 2


def test_large_records_are_written_a_few_at_a_time(tmp_path: Path):
    store = Store.open(tmp_path / FILE_NAME, lambda name: Packed(name, b"x" * RECORD_MAX_BYTES))
    names = minted(20)
    put_all(store, names)
    assert store.close()
    with Reader(tmp_path / FILE_NAME) as reader:
        assert all(len(reader.find_record(name) or b"") == RECORD_MAX_BYTES for name in names)
        assert len(reader._rows("SELECT block FROM decision_block")) >= 4


def test_a_queue_that_is_full_drops_and_counts(tmp_path: Path):
    store = Store(tmp_path / FILE_NAME, pack)  # its thread never starts
    assert [store.put(f"gen-{number}") for number in range(QUEUE_MAX + 3)].count(False) == 3
    assert store.dropped == 3


def test_records_go_when_they_are_too_old(tmp_path: Path):
    path = tmp_path / FILE_NAME
    with opened(path, unix_time_s=lambda: 1000.0) as store:
        store.put("gen-1")
    with opened(path, unix_time_s=lambda: 1000.0 + RECORDS_FOR_S) as store:
        store.put("gen-2")
    with opened(path, unix_time_s=lambda: 1001.0 + RECORDS_FOR_S) as store:
        assert store.flush(WAIT_S)
    with Reader(path) as reader:
        assert reader.kept().first_id == "gen-2"
        assert reader.find_static("digest") is not None
    with opened(path, unix_time_s=lambda: 2000.0 + 2 * RECORDS_FOR_S + 2 * STATIC_TOUCH_S) as store:
        assert store.flush(WAIT_S)
    with Reader(path) as reader:
        assert reader.kept().count == 0
        assert reader.find_static("digest") is None


def test_the_oldest_records_go_when_all_take_too_much_room(tmp_path: Path):
    def random_record(name: str) -> Packed:
        return Packed(name, os.urandom(500).hex().encode())

    path = tmp_path / FILE_NAME
    most = 1_000_000
    store = Store.open(path, random_record, records_max_bytes=most)
    names = minted(5000)
    for start in range(0, len(names), 500):
        put_all(store, names[start : start + 500])
        assert store.flush(WAIT_S)
    assert store.close()
    with Reader(path) as reader:
        assert reader.find_record(names[0]) is None
        assert reader.find_record(names[-1]) is not None
        assert 1000 < reader.kept().count < 2100
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT sum(size_bytes) FROM decision_block").fetchone()[0] <= most


def test_a_long_request_is_found_though_its_block_was_made_late(tmp_path: Path):
    path = tmp_path / FILE_NAME
    names = minted(50)
    with opened(path) as store:
        for name in [*names[1:], names[0]]:
            store.put(name)
            assert store.flush(WAIT_S)
    with Reader(path) as reader:
        assert all(reader.find_record(name) == pack(name).data for name in names)


def test_a_reader_says_what_is_wrong(tmp_path: Path):
    with pytest.raises(StoreError):
        Reader(tmp_path / "missing.db")
    (tmp_path / "bad.db").write_text("no database" * 1000)
    with pytest.raises(StoreError, match="not a database"), Reader(tmp_path / "bad.db") as reader:
        reader.kept()


class Swift:
    """Packs what is not said to take long, once what records refer to is told."""

    def __init__(self) -> None:
        self.told = False
        self.forgot = threading.Event()
        self.at_once_count = 0

    def __call__(self, name: str) -> Packed:
        self.told = True
        return pack(name)

    def at_once(self, name: str) -> Packed | None:
        if not self.told:
            return None
        self.at_once_count += 1
        return Packed(name, b"x" * (SMALL_MAX_BYTES + 1) if name.endswith("7") else b"{}")

    def forget(self) -> None:
        self.told = False
        self.forgot.set()


def test_records_are_packed_by_whoever_puts_them_where_that_is_soon_done(tmp_path: Path):
    swift, names = Swift(), minted(2000)
    with opened(tmp_path / FILE_NAME, at_once=swift) as store:
        store._pack = swift
        assert store.put(names[0])
        assert store.flush(WAIT_S)
        put_all(store, names[1:])
        assert store.flush(WAIT_S)
    assert swift.at_once_count == len(names) - 1
    with Reader(tmp_path / FILE_NAME) as reader:
        assert reader.kept().count == len(names)
        # What is larger is left to the thread, which says what it refers to too.
        assert all(reader.find_record(name) == (pack(name).data if name.endswith("7") else b"{}") for name in names[1:])
    assert store.dropped == 0


def test_what_records_refer_to_is_told_anew_after_the_file_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gateway.state.store.RETRY_WAIT_S", 0.01)
    swift = Swift()
    with opened(tmp_path / FILE_NAME, at_once=swift) as store:
        store._pack = swift
        store.put("gen-1")
        assert store.flush(WAIT_S)
        assert swift.told
        with pytest.raises(StoreError):
            store.submit(lambda connection: connection.execute("SELECT * FROM nowhere")).result(WAIT_S)
        assert swift.forgot.wait(WAIT_S)
        assert not swift.told
        store.put("gen-2")
        assert store.flush(WAIT_S)
        assert swift.told


def test_packed_records_are_bounded_too(tmp_path: Path):
    swift = Swift()
    swift.told = True
    store = Store(tmp_path / FILE_NAME, pack, at_once=swift)  # its thread never starts
    assert [store.put(f"gen-{number}") for number in range(QUEUE_MAX + 3)].count(False) == 3
    assert store.dropped == 3


def test_what_records_refer_to_goes_to_another_process_once():
    one, other = Static("one", b"x" * 100_000), Static("other", b"y")
    records = [Packed("1", b"a", one), Packed("2", b"b", other), Packed("3", b"c", one), Packed("4", b"d")]
    assert lean(records) == [records[0], records[1], Packed("3", b"c"), records[3]]

"""The process that writes while much is written: its rows are those of the gateway, and none is lost with it."""

import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gateway.ledger import scribe as scribe_module
from gateway.ledger.scribe import BUSY_ROWS, ScribeProcess
from gateway.state.blocks import RECORDS_MAX, Packed, Static
from gateway.state.connection import FILE_NAME, StoreLock
from gateway.state.errors import ScribeError
from gateway.state.frames import FRAME_MAX_BYTES
from gateway.state.reader import Reader
from gateway.state.store import Store
from tests.gateway.ledger.ledger_kit import Ledger, rows_of, total_of

WAIT_S = 30.0
KILLS = 30 if os.environ.get("MIXGATE_TEST_FULL") else 6


def wait_for(condition, why="it", timeout_s=WAIT_S):
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, f"{why} did not come"
        time.sleep(0.01)


def put_more(store, names, count):
    """Have a store write so many records more."""
    some = [f"gen-{number:06d}" for number in range(len(names), len(names) + count)]
    assert all(store.put(name) for name in some)
    assert store.flush(WAIT_S)
    names += some


def put_until(condition, store, names, count):
    """Have a store write records, so many at a time, until something is."""

    def is_so():
        put_more(store, names, count)
        return condition()

    wait_for(is_so)


class AtOnce:
    """Packs names."""

    def at_once(self, record):
        return Packed(record, b"{}")

    def forget(self):
        pass


def is_there(pid):
    """Whether a process is, and has not ended."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


class Busy:
    """A ledger in which much is written, until the block ends."""

    def __init__(self, home: Path) -> None:
        home.mkdir(exist_ok=True)
        self.scribe = ScribeProcess(home)
        self.ledger = Ledger(home, scribe=self.scribe)
        self.count = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ledger.close()

    def write(self, count=BUSY_ROWS):
        for _ in range(count):
            self.count += 1
            self.ledger.whole(f"gen-{self.count:06d}/1")
        assert self.ledger.store.flush(WAIT_S)

    def until_it_writes(self):
        """Write until the process does."""
        deadline_s = time.monotonic() + WAIT_S
        while not self.scribe._ready:
            assert time.monotonic() < deadline_s
            self.write()
        self.write()
        assert self.scribe.pid is not None
        return self.scribe.pid

    def check(self):
        rows = rows_of(self.ledger.path)
        assert sorted(rows) == [f"gen-{number:06d}/1" for number in range(1, self.count + 1)]
        assert total_of(self.ledger.path).requests == self.count


def test_its_rows_are_those_that_the_gateway_would_have_written(tmp_path):
    with Busy(tmp_path / "busy") as busy:
        busy.until_it_writes()
        before = busy.count
        written = []
        write = busy.scribe.write_ledger
        busy.scribe.write_ledger = lambda place, prices: (write(place, prices), written.append(dict(place.counts)))
        busy.ledger.begin(f"gen-{busy.count + 1:06d}/1", tags=("a", "ü"), user="u", output_limit=5)
        busy.count += 1
        busy.ledger.end(f"gen-{busy.count:06d}/1")
        busy.write(500)
        # By the process, and by nobody else.
        assert sum(sum(counts.values()) for counts in written) == busy.count - before
        for _ in range(4):
            busy.write(500)
        count = busy.count
        assert busy.ledger.books.behind is False
        # Files of the journal go as soon as all their rows are there: this were five, beside those made ahead.
        wait_for(lambda: len(busy.ledger.journals()) <= 3, "their end")
    busy.check()
    assert busy.ledger.journals() == []
    alone = Ledger(tmp_path / "alone")
    for number in range(1, count + 1):
        facts = {"tags": ("a", "ü"), "user": "u", "output_limit": 5} if number == before + 1 else {}
        alone.begin(f"gen-{number:06d}/1", **facts)
        alone.end(f"gen-{number:06d}/1")
    alone.close()
    assert rows_of(busy.ledger.path) == rows_of(alone.path)
    assert total_of(busy.ledger.path) == total_of(alone.path)


def test_little_is_written_by_the_gateway_itself(tmp_path):
    with Busy(tmp_path) as busy:
        for _ in range(4):
            busy.write(BUSY_ROWS // 4)
        assert busy.scribe.pid is None
    busy.check()


def test_it_ends_once_little_is_written_and_comes_back(tmp_path, monkeypatch):
    with Busy(tmp_path) as busy:
        first = busy.until_it_writes()
        busy.scribe.rest()
        assert busy.scribe.pid == first
        monkeypatch.setattr(scribe_module, "IDLE_S", 0.0)
        busy.scribe.rest()
        assert not is_there(first)
        busy.write(10)
        assert busy.until_it_writes() != first
    busy.check()


def test_it_may_be_killed_at_any_time(tmp_path, monkeypatch):
    monkeypatch.setattr(scribe_module, "AGAIN_AFTER_S", 0.0)
    with Busy(tmp_path) as busy:
        for _ in range(KILLS):
            pid = busy.until_it_writes()
            killer = threading.Timer(0.002 * (busy.count % 7), os.kill, (pid, signal.SIGKILL))
            killer.start()
            busy.write(700)
            killer.join()
            busy.write(10)
    busy.check()
    with contextlib.closing(sqlite3.connect(busy.ledger.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_one_that_gets_no_core_is_replaced_by_one_that_shares_them(tmp_path, monkeypatch):
    monkeypatch.setattr(scribe_module, "STARVED_S", 0.2)
    with Busy(tmp_path) as busy:
        relaxed = busy.until_it_writes()
        assert os.sched_getscheduler(relaxed) == os.SCHED_IDLE
        os.kill(relaxed, signal.SIGSTOP)
        busy.write(300)
        assert not is_there(relaxed)
        pressed = busy.until_it_writes()
        assert os.sched_getscheduler(pressed) == os.SCHED_BATCH
    busy.check()


def test_one_that_cannot_be_started_is_done_without(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(scribe_module, "command_for", lambda *_: ("/nowhere/python",))
    with Busy(tmp_path) as busy:
        for _ in range(3):
            busy.write()
        assert busy.scribe.pid is None
    busy.check()
    assert caplog.text.count("is done without for 60 s: it cannot be started") == 1


def test_one_that_talks_nonsense_is_done_without(tmp_path, monkeypatch, caplog):
    noise = "import os, time; os.write(0, b'x' * 1000); time.sleep(60)"
    monkeypatch.setattr(scribe_module, "command_for", lambda *_: (sys.executable, "-c", noise))
    with Busy(tmp_path) as busy:
        deadline_s = time.monotonic() + WAIT_S
        while "is done without" not in caplog.text:
            assert time.monotonic() < deadline_s
            busy.write()
    busy.check()


def test_a_file_that_another_program_locks_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.state.connection.BUSY_TIMEOUT_S", 0.1)
    with Busy(tmp_path) as busy:
        busy.until_it_writes()
        with contextlib.closing(sqlite3.connect(busy.ledger.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(300):
                busy.count += 1
                busy.ledger.whole(f"gen-{busy.count:06d}/1")
            wait_for(lambda: busy.ledger.store.failure is not None, "the failure")
            other.execute("ROLLBACK")
        busy.write(10)
    busy.check()


GATEWAY = """
import sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
from tests.gateway.ledger.test_scribe import Busy
busy = Busy(Path(sys.argv[1]))
print(busy.until_it_writes(), flush=True)
time.sleep(60)
"""


def test_it_does_not_outlive_the_gateway_and_holds_the_file_for_as_long_as_it_lives(tmp_path):
    words = (sys.executable, "-c", GATEWAY, str(tmp_path), str(Path(__file__).parents[3]))
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        scribe = int(gateway.stdout.readline())
        os.kill(scribe, signal.SIGSTOP)
        gateway.kill()
        gateway.wait()
        with pytest.raises(Exception, match="another gateway writes the same file"):
            StoreLock(tmp_path / FILE_NAME).take()
        os.kill(scribe, signal.SIGCONT)
    wait_for(lambda: not is_there(scribe), "its end")
    lock = StoreLock(tmp_path / FILE_NAME)
    lock.take()
    lock.release()


def test_it_gets_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENROUTER_API_KEY", "not for it")
    with Busy(tmp_path) as busy:
        environment = Path(f"/proc/{busy.until_it_writes()}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"not for it" not in environment


def test_a_gateway_with_thousands_of_connections_has_one_too(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        with contextlib.ExitStack() as files:
            for _ in range(1100):
                files.enter_context(Path(os.devnull).open())
            with Busy(tmp_path) as busy:
                busy.until_it_writes()
        busy.check()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_records_are_written_by_it_in_blocks_and_counted(tmp_path):
    home = tmp_path
    scribe = ScribeProcess(home)
    store = Store.open(home / FILE_NAME, lambda name: Packed(name, b"r" * 100, Static("digest", b"s")), scribe=scribe)
    names: list[str] = []
    put_until(lambda: scribe._ready, store, names, 400)
    for _ in range(20):
        put_more(store, names, 400)
    writer = store._writer
    assert store.close()
    with Reader(home / FILE_NAME) as reader:
        assert all(reader.find_record(name) == b"r" * 100 for name in names[::97])
        assert reader.kept().count == len(names)
        blocks = reader._rows("SELECT count, size_bytes FROM decision_block")
    assert max(count for count, _ in blocks) <= RECORDS_MAX
    assert writer is not None
    assert sum(size_bytes for _, size_bytes in blocks) == writer.records_bytes


def test_what_its_records_refer_to_may_be_larger_together_than_what_it_is_sent_at_once(tmp_path, caplog):
    scribe = ScribeProcess(tmp_path)
    large = Static("digest", b"s" * (2 * FRAME_MAX_BYTES // RECORDS_MAX))
    store = Store.open(tmp_path / FILE_NAME, lambda name: Packed(name, b"{}", large), scribe=scribe)
    names: list[str] = []
    put_until(lambda: scribe._ready, store, names, RECORDS_MAX)
    put_more(store, names, RECORDS_MAX)
    assert scribe._ready
    assert store.close()
    assert "done without" not in caplog.text


def test_records_that_it_wrote_without_saying_so_are_there_once(tmp_path, monkeypatch):
    monkeypatch.setattr(scribe_module, "AGAIN_AFTER_S", 0.0)
    scribe = ScribeProcess(tmp_path)
    store = Store.open(tmp_path / FILE_NAME, lambda name: Packed(name, b"{}"), at_once=AtOnce(), scribe=scribe)
    write, failed = scribe.write_records, []

    def writes_and_dies(records, now_unix_s):
        size_bytes = write(records, now_unix_s)
        if len(records) > RECORDS_MAX:
            failed.append(len(records))
            scribe.end()
            raise ScribeError("nobody knows")
        return size_bytes

    monkeypatch.setattr(scribe, "write_records", writes_and_dies)
    names: list[str] = []
    put_until(lambda: len(failed) >= 3, store, names, 1000)
    writer = store._writer
    assert store.close()
    with Reader(tmp_path / FILE_NAME) as reader:
        assert reader.kept().count == len(names)
        assert writer is not None
        (size_bytes,) = reader._rows("SELECT sum(size_bytes) FROM decision_block")[0]
        assert size_bytes == writer.records_bytes


def test_what_it_is_asked_while_it_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ScribeError):
        ScribeProcess(tmp_path).write_records([Packed("gen-1", b"{}")], 1.0)

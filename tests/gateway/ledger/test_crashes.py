"""Whenever the process dies, what it began is one row each after the next start: exact where it was settled."""

import os
import random
import sqlite3
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger.books import Books
from gateway.ledger.entry import Intent, Settlement, row_of
from gateway.ledger.journal import ENTRY, INTENT, PRICE, Journal
from gateway.ledger.segment import HEAD, MAGIC, MAGIC_OF_OLD, Files
from gateway.state import store as store_module
from gateway.state.connection import FILE_NAME
from tests.gateway.ledger.ledger_kit import PRICE_ID, TARIFF, Ledger, rows_of, total_of

FULL = bool(os.environ.get("MIXGATE_TEST_FULL"))
KILLS = 200 if FULL else 20
READY_MAX_S = 3.0
WAIT_S = 30.0
CHILD = Path(__file__).with_name("crashing_gateway.py")
ROOT = Path(__file__).parents[3]


class Bill:
    """What one process after the other told before it was killed."""

    def __init__(self) -> None:
        self.sent: set[str] = set()
        self.settled: dict[str, int] = {}

    def note(self, said: bytes) -> None:
        for line in said.decode().splitlines(keepends=True):
            words = line.split()
            if not line.endswith("\n") or words[0] == "ready":
                continue
            if words[0] == "b":
                self.sent.add(words[1])
            else:
                self.settled[words[1]] = int(words[2])


@contextmanager
def running(home: Path, seed: int) -> Iterator[subprocess.Popen]:
    command = [sys.executable, str(CHILD), str(home), str(seed)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def kill_at_random(home: Path, seed: int, bill: Bill, *, locked: bool) -> None:
    other = None
    if locked:
        other = sqlite3.connect(home / FILE_NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
    with running(home, seed) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first == b"ready\n"
        os.set_blocking(process.stdout.fileno(), False)
        said = b""
        end_s = time.monotonic() + random.Random(seed).uniform(0.0, 0.25)
        while time.monotonic() < end_s:
            said += process.stdout.read() or b""
            time.sleep(0.001)
        process.kill()
        process.wait()
        os.set_blocking(process.stdout.fileno(), True)
        bill.note(said + process.stdout.read())
    if other is not None:
        other.close()


def judge(home: Path, bill: Bill) -> None:
    rows = rows_of(home / FILE_NAME)
    # An Attempt may have been begun a moment before its process could say so; none else is there.
    assert bill.sent <= set(rows)
    for name, cost in bill.settled.items():
        assert (rows[name].cost_in_nusd, rows[name].usage_source) == (cost, "provider"), name
    for name in set(rows) - set(bill.settled):
        assert rows[name].usage_source in {"provider", "recovered"}
        assert rows[name].cost_in_nusd is not None
    assert total_of(home / FILE_NAME).attempts == len(rows)
    assert total_of(home / FILE_NAME).cost_in_nusd == sum(row.cost_in_nusd for row in rows.values())


def test_a_process_that_is_killed_at_any_time_leaves_one_row_for_each_attempt(tmp_path):
    slowest_s = 0.0
    sent = settled = 0
    for first in range(0, KILLS, 10):
        home, bill = tmp_path / str(first), Bill()
        Ledger(home).close()
        for seed in range(first, first + 10):
            kill_at_random(home, seed, bill, locked=seed % 4 == 3)
            if seed % 3 == 2:
                continue  # killed once more before anybody looked
            began_s = time.monotonic()
            ledger = Ledger(home)
            assert ledger.books.wait_recovered(WAIT_S)
            slowest_s = max(slowest_s, time.monotonic() - began_s)
            assert ledger.books.in_flight == 0
            assert ledger.close()
            judge(home, bill)
            assert list((home / "journal").glob("*.journal")) == []
        sent, settled = sent + len(bill.sent), settled + len(bill.settled)
    said = f"{KILLS} kills, {sent} attempts, {settled} settled, ready in {slowest_s:.2f} s at most"
    print(said)  # noqa: T201  # a figure for whoever asks with -s
    assert sent > KILLS * 20
    assert slowest_s < 3 * READY_MAX_S, "far more than it takes even where others use the machine"


def forget(ledger: Ledger) -> None:
    """What a crash does, as far as one process can: nothing more is written, and nobody tidies up."""
    ledger.store._outbox = None
    ledger.store.close()
    ledger.journal._stopping = True
    ledger.journal._hurry.set()
    ledger.journal._wake.set()
    ledger.journal._keeper.join()
    ledger.journal._lock.release()


def test_how_far_an_answer_was_is_what_is_estimated(tmp_path, make_ledger):
    ledger = make_ledger(home=tmp_path)
    assert ledger.books.wait_recovered(WAIT_S)
    for name, tokens in (("gen-1/1", 255), ("gen-2/1", 256), ("gen-3/1", 10_000)):
        ledger.begin(name)
        ledger.books.checkpoint(name, tokens)
    forget(ledger)
    again = make_ledger(home=tmp_path)
    assert again.books.wait_recovered(WAIT_S)
    found = {name: (one.output_tokens, one.cost_in_nusd, one.cost_source) for name, one in again.rows().items()}
    assert found == {
        "gen-1/1": (0, 1000 * 200, "recovered"),
        "gen-2/1": (256, 1000 * 200 + 256 * 600, "recovered"),
        "gen-3/1": (10_000, 1000 * 200 + 10_000 * 600, "recovered"),
    }
    assert {(one.outcome, one.code, one.usage_source) for one in again.rows().values()} == {
        ("failed", "gateway_killed", "recovered")
    }


@settings(max_examples=300 if FULL else 30, deadline=None)
@given(cut=st.floats(0, 1), flipped=st.integers(0, 255))
def test_a_journal_that_is_torn_anywhere_gives_all_that_is_before(tmp_path_factory, cut, flipped):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "GROUP_WAIT_S", 0.001)
        tear(tmp_path_factory.mktemp("torn"), cut, flipped)


def tear(home: Path, cut: float, flipped: int) -> None:
    journal = Journal(home / "journal", segment_bytes=16 * 1024)
    ledger = object.__new__(Ledger)
    ledger.home, ledger.path, ledger.journal, ledger.store = home, home / FILE_NAME, journal, _NoStore()
    ledger.books = Books(journal, ledger.store)
    ledger.books.start()
    ends = []
    for number in range(10):
        ledger.whole(f"gen-{number}/1")
        ends.append(journal.position[1])
    forget_journal(journal)
    path = min((home / "journal").glob("*.journal"))
    data = bytearray(path.read_bytes())
    at = 64 + int(cut * (ends[-1] - 65))
    data[at] ^= flipped or 1
    path.write_bytes(data)
    again = Ledger(home)
    assert again.books.wait_recovered(WAIT_S)
    assert again.close()
    whole = sum(end <= at for end in ends)
    rows = rows_of(home / FILE_NAME)
    exact = {name for name, one in rows.items() if one.usage_source == "provider"}
    assert exact == {f"gen-{number}/1" for number in range(whole)}
    assert len(rows) <= whole + 1  # the one that is torn may have begun before


def test_a_journal_of_the_version_before_is_read_that_has_crcs_and_every_row_whole(tmp_path, make_ledger):
    data, encode = MAGIC_OF_OLD, msgspec.msgpack.encode
    for number in range(3):
        intent = Intent(f"gen-{number}/1", 1, "k", "r", "m", "p/m", "p", "chat", True, PRICE_ID, 9, tags=("a",))
        row = row_of(intent, Settlement(2, "ok", None, 9, number, cost_in_nusd=7))
        for kind, record in ((PRICE, TARIFF.snapshot), (INTENT, intent), (ENTRY, row))[: 3 if number else 2]:
            payload = encode(record)
            data += HEAD.pack(len(payload), zlib.crc32(payload, kind), kind) + payload
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "000000000003.journal").write_bytes(data + bytes(4096))
    ledger = make_ledger(home=tmp_path)
    assert ledger.books.wait_recovered(WAIT_S)
    found = {name: (one.output_tokens, one.cost_in_nusd, one.tags) for name, one in ledger.rows().items()}
    assert found == {
        "gen-0/1": (0, 9 * 200, '["a"]'),
        "gen-1/1": (1, 7, '["a"]'),
        "gen-2/1": (2, 7, '["a"]'),
    }


class _NoStore:
    failure = None

    def attach(self, outbox) -> None:
        pass

    def wake(self) -> None:
        pass


def forget_journal(journal: Journal) -> None:
    journal._stopping = True
    journal._hurry.set()
    journal._wake.set()
    journal._keeper.join()
    journal._lock.release()


@pytest.mark.parametrize("data", [b"", b"\0" * 4096, MAGIC[:12], MAGIC, b"\xff" * 99])
def test_a_file_that_was_only_being_made_is_nothing(tmp_path, make_ledger, data):
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "000000000007.journal").write_bytes(data)
    ledger = make_ledger(home=tmp_path)
    assert ledger.books.wait_recovered(WAIT_S)
    ledger.whole("gen-1/1")
    assert ledger.store.flush(WAIT_S)
    assert set(ledger.rows()) == {"gen-1/1"}
    assert [path.name for path in ledger.journals()] == ["000000000008.journal", "000000000009.journal"]


class FailsOnce(Files):
    """A disk whose k-th call fails."""

    def __init__(self, fails_at: int) -> None:
        self.calls = 0
        self._fails_at = fails_at

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self._fails_at:
            raise OSError(5, os.strerror(5))

    def create(self, path, size_bytes):
        self._count()
        return super().create(path, size_bytes)

    def sync(self, descriptor):
        self._count()
        super().sync(descriptor)

    def sync_folder(self, folder):
        self._count()
        super().sync_folder(folder)

    def read(self, path):
        self._count()
        return super().read(path)

    def remove(self, path):
        self._count()
        super().remove(path)


class FailingConnection:
    """A connection whose k-th statement fails, as a disk does."""

    def __init__(self, connection, files: FailsOnce) -> None:
        self._connection = connection
        self._files = files

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def _count(self, statement: str) -> None:
        if statement != "ROLLBACK":
            try:
                self._files._count()
            except OSError:
                raise sqlite3.OperationalError("disk I/O error") from None

    def execute(self, statement, *values):
        self._count(statement)
        return self._connection.execute(statement, *values)

    def executemany(self, statement, *values):
        self._count(statement)
        return self._connection.executemany(statement, *values)


def walk(home: Path, files: FailsOnce) -> int:
    """40 Attempts over some files, a crash in the middle of it, and the next start. How many calls that took."""
    first = Ledger(home, files, segment_bytes=4096)
    for number in range(24):
        first.whole(f"gen-{number}/1", number)
        if number % 4 == 0:
            first.store.flush(WAIT_S)
    first.begin("gen-24/1")
    first.store.flush(WAIT_S)
    forget(first)
    second = Ledger(home, files, segment_bytes=4096)
    second.whole("gen-25/1", 25)
    assert second.books.wait_recovered(WAIT_S)
    second.store.flush(WAIT_S)
    second.close()
    return files.calls


def test_whichever_call_to_the_disk_fails_nothing_is_lost_or_there_twice(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(store_module, "GROUP_WAIT_S", 0.001)
    monkeypatch.setattr(store_module, "RETRY_WAIT_S", 0.001)
    monkeypatch.setattr("gateway.ledger.journal.SYNC_EVERY_S", 0.001)
    monkeypatch.setattr("gateway.ledger.journal.RETRY_EVERY_S", 0.005)
    opened = store_module.open_writer
    files = FailsOnce(0)
    monkeypatch.setattr(
        store_module, "open_writer", lambda path, check: FailingConnection(opened(path, check=check), files)
    )
    calls = walk(tmp_path_factory.mktemp("all"), files)
    assert calls > 50
    step = 1 if FULL else 5
    for fails_at in range(1, calls + 1, step):
        home = tmp_path_factory.mktemp("one")
        files = FailsOnce(fails_at)
        walk(home, files)
        last = Ledger(home)  # what a file that could not be read or removed still had
        assert last.books.wait_recovered(WAIT_S)
        assert last.close()
        rows = rows_of(home / FILE_NAME)
        assert {name for name in rows if name != "gen-24/1"} == {f"gen-{n}/1" for n in range(26) if n != 24}, fails_at
        for name, one in rows.items():
            number = int(name[4:-2])
            if number != 24:
                assert one.output_tokens == number, fails_at
        assert total_of(home / FILE_NAME).attempts == len(rows)
        assert "gen-24/1" in rows, fails_at


FILLS_THE_DISK = """
    import resource, signal, sys, time
    from pathlib import Path
    from tests.gateway.ledger.ledger_kit import Ledger
    from gateway.state import store as store_module
    import gateway.ledger.journal as journal_module
    store_module.RETRY_WAIT_MAX_S = journal_module.RETRY_EVERY_S = 0.05
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    ledger = Ledger(Path(sys.argv[1]), segment_bytes=64 * 1024)
    assert ledger.books.wait_recovered(10)
    for number in range(10):
        ledger.whole(f"gen-{number}/1")
    ledger.store.flush(10)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32 * 1024, hard))
    refused = 0
    while ledger.books.available:
        number += 1
        ledger.whole(f"gen-{number}/1")
        time.sleep(0.0002)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    while not ledger.books.available:
        time.sleep(0.01)
    for number in range(number + 1, number + 101):
        ledger.whole(f"gen-{number}/1")
    deadline = time.monotonic() + 20
    while ledger.books.behind and time.monotonic() < deadline:
        time.sleep(0.01)
    print(number + 1, ledger.close(), ledger.books.unjournaled)
"""


def test_a_disk_that_is_full_and_then_is_not_costs_no_row(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FILLS_THE_DISK), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    count, closed, _ = done.stdout.split()
    assert closed == "True", done.stderr
    assert int(count) > 150
    assert "what costs money is refused" in done.stderr
    assert set(rows_of(tmp_path / FILE_NAME)) == {f"gen-{number}/1" for number in range(int(count))}
    assert total_of(tmp_path / FILE_NAME).attempts == int(count)
    assert list((tmp_path / "journal").glob("*.journal")) == []


def test_a_database_that_another_holds_locked_makes_nobody_wait(make_ledger, monkeypatch):
    monkeypatch.setattr("gateway.state.connection.BUSY_TIMEOUT_S", 0.3)
    monkeypatch.setattr(store_module, "RETRY_WAIT_MAX_S", 0.05)
    ledger = make_ledger(segment_bytes=4 * 1024 * 1024)
    assert ledger.store.flush(WAIT_S)
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    slow = 0
    end_s = time.monotonic() + (30.0 if FULL else 1.5)
    number = 0
    while time.monotonic() < end_s:
        began_s = time.monotonic()
        ledger.whole(f"gen-{number}/1")
        slow += time.monotonic() - began_s > 0.2  # whoever waits for the lock waits longer
        number += 1
        time.sleep(0.001)
    assert slow == 0
    assert ledger.store.failure is not None
    assert ledger.books.available
    other.execute("ROLLBACK")
    other.close()
    assert ledger.store.flush(WAIT_S)
    assert len(ledger.rows()) == number

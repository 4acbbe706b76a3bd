"""Whatever the disk refuses, and whenever a process dies at it, every settled Attempt is one row in the end."""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.state.soundness import find_faults
from tests.fakes.listener import FULL
from tests.gateway.ledger.ledger_kit import Ledger, rows_of, total_of

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tests/fakes/failing_disk.c"
ERRORS = (errno.EIO, errno.ENOSPC, errno.EINTR)
SAMPLED = 24
"""Places at which the disk fails, of all that there are, unless every one is tried."""
KILLS = 100 if FULL else 6
WAIT_S = 60.0

WALK = """
import ctypes, json, os, random, shutil, sys
from pathlib import Path
import gateway.ledger.journal as journal_module
from gateway.state import store as store_module
from gateway.state.soundness import find_faults
from tests.gateway.ledger.ledger_kit import Ledger, rows_of, total_of

store_module.GROUP_WAIT_S = store_module.RETRY_WAIT_S = journal_module.SYNC_EVERY_S = 0.001
store_module.RETRY_WAIT_MAX_S = journal_module.RETRY_EVERY_S = 0.005
disk = ctypes.CDLL(None)
disk.failing_disk.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_int]
root, sampled, errors = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
names = {f"gen-{number}/1" for number in range(20)}

def walk(home):
    ledger = Ledger(home, segment_bytes=4096)
    for number in range(20):
        ledger.whole(f"gen-{number}/1", number)
        if number % 4 == 0:
            ledger.store.flush(0.3)
    ledger.store.flush(5)
    ledger.close()

def judge(home):
    disk.failing_disk(0, 0, 0)
    ledger = Ledger(home)
    recovered = ledger.books.wait_recovered(20)
    closed = ledger.close()
    rows = rows_of(home / "mixgate.db")
    right = {name: int(name[4:-2]) == row.output_tokens for name, row in rows.items()}
    sound = not any(faults for _, faults in find_faults(home / "mixgate.db"))
    whole = set(rows) == names and all(right.values()) and total_of(home / "mixgate.db").attempts == len(rows)
    return recovered and closed and sound and whole and not list(home.glob("*.damaged-*"))

home = root / "first"
home.mkdir()
disk.failing_disk(0, 0, 0)
walk(home)
calls = disk.failing_disk_count()
assert judge(home)
cases = [(at, calls_, error) for at in range(1, calls + 1) for error in errors for calls_ in (1, 6)]
if sampled:
    cases = random.Random(9).sample(cases, min(sampled, len(cases)))
bad = []
for case in cases:
    home = root / "one"
    home.mkdir()
    disk.failing_disk(*case)
    walk(home)
    if not judge(home):
        bad.append(case)
    shutil.rmtree(home)
print(json.dumps({"calls": calls, "cases": len(cases), "bad": bad}))
"""


@pytest.fixture(scope="module")
def failing_disk(tmp_path_factory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler is here, or this is no Linux")
    library = tmp_path_factory.mktemp("disk") / "failing_disk.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def test_whichever_write_or_sync_fails_and_however_nothing_is_lost_or_there_twice(failing_disk, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WALK, tmp_path, "0" if FULL else str(SAMPLED), json.dumps(ERRORS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=3600 if FULL else 300,
        env=os.environ | {"PYTHONPATH": str(ROOT), "LD_PRELOAD": str(failing_disk), "FAILING_DISK": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert said["bad"] == [], said
    assert said["calls"] > 40, "SQLite's own calls are among them"
    assert said["cases"] >= SAMPLED


DRAIN = """
import sys, time
from pathlib import Path
from gateway.state import connection
from tests.gateway.ledger.ledger_kit import Ledger
connection.WAL_PAGES_MAX = 8  # so that it moves pages into the file all the time
ledger = Ledger(Path(sys.argv[1]), segment_bytes=256 * 1024, spares=3)
print("ready", flush=True)
number = 0
while True:
    for _ in range(20):
        number += 1
        while not ledger.journal.usable:
            time.sleep(0.001)
        ledger.whole(f"gen-{sys.argv[2]}-{number:06d}/1", number % 1000)
    print(number, flush=True)
    time.sleep(0.001)
"""


@contextlib.contextmanager
def draining(home, turn):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", DRAIN, home, str(turn)], stdout=subprocess.PIPE, env=environment
    ) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def test_a_process_that_is_killed_while_it_drains_the_journal_or_moves_pages_loses_nothing(tmp_path):
    # The file is locked for a while, so that rows pile up in the journal; then they are drained, and it dies in that.
    Ledger(tmp_path).close()
    dice, settled = random.Random(4), {}
    for turn in range(KILLS):
        other = sqlite3.connect(tmp_path / "mixgate.db", isolation_level=None, timeout=30.0)
        with draining(tmp_path, turn) as process:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(dice.uniform(0.05, 0.4))
            other.execute("ROLLBACK")
            other.close()
            time.sleep(dice.uniform(0.0, 0.5))
            process.send_signal(signal.SIGKILL)
            said = process.stdout.read().split()
        settled[turn] = int(said[-1]) if said else 0
    began_s = time.monotonic()
    ledger = Ledger(tmp_path)
    assert ledger.books.wait_recovered(WAIT_S)
    assert ledger.close()
    ready_s = time.monotonic() - began_s
    rows = rows_of(tmp_path / "mixgate.db")
    for turn, count in settled.items():
        assert {f"gen-{turn}-{number:06d}/1" for number in range(1, count + 1)} <= rows.keys()
    for name, row in rows.items():
        assert row.usage_source == "recovered" or row.output_tokens == int(name[-8:-2]) % 1000
    assert total_of(tmp_path / "mixgate.db").attempts == len(rows)
    assert [fault for _, faults in find_faults(tmp_path / "mixgate.db") for fault in faults] == []
    assert ready_s < WAIT_S


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path) -> None:
    """Take all the room that there is."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_disk_that_is_really_full_costs_no_row_and_is_over_when_there_is_room_again(small_disk, monkeypatch):
    monkeypatch.setattr("gateway.state.store.RETRY_WAIT_MAX_S", 0.05)
    monkeypatch.setattr("gateway.ledger.journal.RETRY_EVERY_S", 0.05)
    ledger = Ledger(small_disk, segment_bytes=64 * 1024, spares=2)
    assert ledger.books.wait_recovered(WAIT_S)
    number = 0
    for _ in range(3):
        for _ in range(20):
            number += 1
            ledger.whole(f"gen-{number}/1")
        assert ledger.store.flush(WAIT_S)
        fill(small_disk / "ballast")
        end_s = time.monotonic() + WAIT_S
        while ledger.books.available and time.monotonic() < end_s:
            number += 1
            ledger.whole(f"gen-{number}/1")
            time.sleep(0.0005)
        assert not ledger.books.available, "what costs money is refused then, and only then"
        (small_disk / "ballast").unlink()
        while not ledger.books.available:
            assert time.monotonic() < end_s
            time.sleep(0.01)
    assert ledger.store.flush(WAIT_S)
    while ledger.books.behind:
        time.sleep(0.01)
    assert ledger.close()
    assert rows_of(ledger.path).keys() == {f"gen-{count}/1" for count in range(1, number + 1)}
    assert total_of(ledger.path).attempts == number
    assert [fault for _, faults in find_faults(ledger.path) for fault in faults] == []


def test_a_store_that_is_locked_for_long_is_caught_up_with_and_nobody_waited(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.state.connection.BUSY_TIMEOUT_S", 0.3)
    monkeypatch.setattr("gateway.state.store.RETRY_WAIT_MAX_S", 0.1)
    ledger = Ledger(tmp_path)
    assert ledger.store.flush(WAIT_S)
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    slow = number = 0
    end_s = time.monotonic() + (30.0 if FULL else 1.0)
    while time.monotonic() < end_s:
        began_s = time.monotonic()
        ledger.whole(f"gen-{number}/1")
        slow += time.monotonic() - began_s > 0.2
        number += 1
        time.sleep(0.0005)
    # On a busy machine one or the other is held up by something else; a lock would hold up all.
    assert slow <= number // 500
    assert ledger.books.available
    other.execute("ROLLBACK")
    other.close()
    assert ledger.store.flush(WAIT_S)
    assert ledger.close()
    assert len(rows_of(ledger.path)) == number == total_of(ledger.path).attempts

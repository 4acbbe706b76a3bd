"""What the ledger adds to a request, what a note in its journal costs beside a commit; how it drains and reports."""

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench.figures import Judgement
from bench.generated_ledger import DAYS, fill
from gateway.ledger.books import FOLDER_NAME, Books
from gateway.ledger.costs import Ending, settlement_of, tariff_of
from gateway.ledger.entry import Intent, head_of, row_of
from gateway.ledger.journal import INTENT, Journal
from gateway.state.blocks import Packed
from gateway.state.connection import FILE_NAME, open_writer
from gateway.state.entries import Batch, Row
from gateway.state.ledger_reader import BYS, Filter, LedgerReader
from gateway.state.store import Store
from gateway.state.writer import Writer
from providers.base import Price
from providers.messages import Usage

REPEATS = 12
"""The fastest of so many runs counts: whatever disturbs a run only makes it slower."""
REQUESTS = 2500
"""In one run."""
ROWS = 1_000_000
"""Of the ledger that reports are made from; 10 million is what the bar is for."""
QUICK_ROWS = 50_000
WRITTEN_ROWS = 50_000
"""As the gateway writes them, to see how long one takes; those of a large ledger are generated."""
LOOP_MAX_US = 15.0
ALL_MAX_US = 25.0
JOURNAL_MAX_US = 3.0
REPORT_MAX_MS = 300.0
BATCH_ROWS = 1000
HOUR_US = 3_600_000_000
START_US = 1_790_000_000_000_000
COMMITS = 200
SYNCHRONOUS = ("NORMAL", "FULL")
WAIT_S = 60.0
TOP_PER_S = 4000
"""More requests than a gateway of one process answers in a second."""
TOP_FOR_S = 30.0
EMPTIED_MAX_S = 1.0
PAGE_MAX_MS = 500.0
LOOKED_FOR = {
    "a key": Filter(key_id="key5"),
    "a model": Filter(model="vendor/model-7"),
    "an endpoint": Filter(endpoint="p3/model-7"),
    "a tag": Filter(tag="blue"),
    "what is not there": Filter(model="none"),
    "a user": Filter(user="user77"),
    "a user who is not there, page by page": Filter(user="none"),
}
TARIFF = tariff_of("mistral/open-mixtral-8x7b", Price(700_000, 700_000), ())
USAGE = Usage(input_tokens=1200, output_tokens=300, cached_input_tokens=128)


def measure_ledger(repeats: int = REPEATS, rows: int = ROWS) -> tuple[list[Judgement], dict[str, float]]:
    """Each figure against its bar; and others, in microseconds, to compare them with."""
    with tempfile.TemporaryDirectory(prefix="mixgate-ledger-") as folder:
        home = Path(folder)
        loop_us, all_us = _requests(home / "requests", repeats)
        judged = [
            _judge("begin and settle, on the loop's thread", "us", LOOP_MAX_US, loop_us),
            _judge("begin, settle and write, all threads", "us", ALL_MAX_US, all_us),
            _judge("one intent in the journal", "us", JOURNAL_MAX_US, _journal(home / "journal", repeats)),
        ]
        beside = {f"one intent in a commit of its own, synchronous={how}": _commit(home, how) for how in SYNCHRONOUS}
        emptied_s, sync_us = _empty(home / "top", TOP_FOR_S if rows > QUICK_ROWS else TOP_FOR_S / 10)
        judged.append(_judge(f"backlog empty after {TOP_PER_S:,} requests a second", "s", EMPTIED_MAX_S, emptied_s))
        beside[f"one fsync of this disk, which takes {1e6 / sync_us:,.0f} a second"] = sync_us
        written = min(rows, WRITTEN_ROWS)
        beside[f"one of {written:,} rows, with its sums, in commits of {BATCH_ROWS:,}"] = write(home / "w.db", written)
        path = home / FILE_NAME
        fill(path, rows, since_unix_s=START_US // 10**6)
        return judged + _reports(path, rows) + _pages(path, rows), beside


def _judge(name: str, unit: str, limit: float, value: float) -> Judgement:
    return Judgement(name, unit, limit, None, value, "PASS" if value <= limit else "FAIL")


def intent(number: int) -> Intent:
    """One of many: callers, applications and Endpoints come in turn."""
    return Intent(
        f"gen-01KC{number:022d}/1",
        START_US + number * (DAYS * 24 * HOUR_US // ROWS) % (DAYS * 24 * HOUR_US),
        f"k{number % 97:07d}",
        f"route-{number % 7}",
        f"model-{number % 31}",
        f"provider-{number % 11}/model-{number % 31}",
        f"provider-{number % 11}",
        "chat",
        number % 5 > 0,
        TARIFF.snapshot.price_id,
        1234,
        500,
        1_000_000,
        f"An application {number % 23}",
        "https://example.org/",
        f"user-{number % 1009}",
        f"session-{number % 2003}",
        (f"tag-{number % 13}",) if number % 3 == 0 else (),
    )


def ending(number: int) -> Ending:
    """How it ended."""
    return Ending(
        unix_us=START_US + number,
        outcome="ok",
        usage=USAGE,
        ttft_ms=312,
        duration_ms=1834,
        upstream_id="cmpl-5f4dcc3b5aa765d61d8327de",
    )


def _pack(record: Any) -> Packed:
    raise AssertionError(f"nothing else is written here: {record}")


def _requests(home: Path, repeats: int) -> tuple[float, float]:
    """CPU of one request: of the loop's thread, and of all, the store's and the journal's included."""
    store = Store.open(home / FILE_NAME, _pack)
    books = Books.open(home, store)
    books.wait_recovered(WAIT_S)
    loop_ns = all_ns = float("inf")
    for run in range(repeats):
        made = [(intent(run * REQUESTS + number), ending(number)) for number in range(REQUESTS)]
        thread_ns, process_ns = time.thread_time_ns(), time.process_time_ns()
        for one, end in made:
            books.begin(head_of(one), one.tags, TARIFF)
            books.end(one.attempt_id, end)
        loop_ns = min(loop_ns, time.thread_time_ns() - thread_ns)
        store.flush(WAIT_S)
        all_ns = min(all_ns, time.process_time_ns() - process_ns)
    store.close()
    books.close()
    return loop_ns / REQUESTS / 1000, all_ns / REQUESTS / 1000


def _journal(home: Path, repeats: int) -> float:
    journal = Journal(home / FOLDER_NAME)
    journal.open()
    encode, one = msgspec.msgpack.Encoder().encode, intent(1)
    best_ns = min(_time_ns(lambda: journal.append(INTENT, encode(one)), REQUESTS) for _ in range(repeats))
    journal.close()
    return best_ns / 1000


def _empty(home: Path, for_s: float) -> tuple[float, float]:
    """How long the store takes to have everything after a time at top speed; and one fsync, in microseconds."""
    store = Store.open(home / FILE_NAME, _pack)
    books = Books.open(home, store)
    books.wait_recovered(WAIT_S)
    started_s, number = time.monotonic(), 0
    while (past_s := time.monotonic() - started_s) < for_s:
        while number < past_s * TOP_PER_S:
            number += 1
            one = intent(number)
            books.begin(head_of(one), one.tags, TARIFF)
            books.end(one.attempt_id, ending(number))
        time.sleep(0.001)
    ended_s = time.monotonic()
    while books.behind:
        time.sleep(0.005)
    emptied_s = time.monotonic() - ended_s
    store.close()
    books.close()
    with (home / "sync").open("wb", buffering=0) as file:
        started_s = time.monotonic()
        for _ in range(COMMITS):
            file.write(b"x")
            os.fsync(file.fileno())
    return emptied_s, (time.monotonic() - started_s) / COMMITS * 1e6


def _commit(home: Path, synchronous: str) -> float:
    """What the same note would cost the loop if it were a commit: time, since most of it is waiting."""
    connection = sqlite3.connect(home / f"{synchronous}.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("CREATE TABLE intent (attempt_id TEXT PRIMARY KEY, data BLOB) STRICT")
    data = bytes(200)
    started_ns = time.perf_counter_ns()
    for number in range(COMMITS):
        connection.execute("INSERT INTO intent VALUES (?, ?)", (f"gen-{number}/1", data))
    taken_ns = time.perf_counter_ns() - started_ns
    connection.close()
    return taken_ns / COMMITS / 1000


def _time_ns(work: Callable[[], object], times: int) -> float:
    started_ns = time.process_time_ns()
    for _ in range(times):
        work()
    return (time.process_time_ns() - started_ns) / times


def rows_of_many(count: int) -> Iterator[list[Row]]:
    """So many rows of DAYS days, as batches."""
    step_us = DAYS * 24 * HOUR_US // count
    settled = settlement_of(START_US, ending(0), TARIFF)
    at = Intent.__struct_fields__.index("unix_us")
    for start in range(0, count, BATCH_ROWS):
        batch: list[Row] = []
        for number in range(start, min(start + BATCH_ROWS, count)):
            row = list(row_of(intent(number), settled))
            row[at] = START_US + number * step_us
            batch.append(row)
        yield batch


def write(path: Path, count: int) -> float:
    """So many rows as a gateway writes them, in microseconds a row."""
    writer = Writer(open_writer(path))
    taken_ns = 0
    for batch in rows_of_many(count):
        started_ns = time.perf_counter_ns()
        writer.write_ledger(Batch(batch, (TARIFF.snapshot,)))
        taken_ns += time.perf_counter_ns() - started_ns
    writer.close()
    return taken_ns / count / 1000


def _reports(path: Path, count: int) -> list[Judgement]:
    """Every report over all of it and over its middle, each by a connection of its own."""
    judged: list[Judgement] = []
    spans = ((0, 1 << 60), (START_US + 10 * HOUR_US, START_US + DAYS * 20 * HOUR_US))
    for by in BYS:
        worst_ns = 0
        for since_us, until_us in spans:
            started_ns = time.perf_counter_ns()
            with LedgerReader(path) as reader:
                reader.spend(by, since_us, until_us)
            worst_ns = max(worst_ns, time.perf_counter_ns() - started_ns)
        judged.append(_judge(f"report by {by} over {count:,} rows", "ms", REPORT_MAX_MS, worst_ns / 1_000_000))
    return judged


def _pages(path: Path, count: int) -> list[Judgement]:
    """The first page of rows by one filter, and by several within a day in the middle."""
    middle_us = START_US + DAYS * 12 * HOUR_US
    day = Filter(since_unix_us=middle_us, until_unix_us=middle_us + 24 * HOUR_US)
    several = msgspec.structs.replace(day, key_id="key5", model="vendor/model-7", outcome="ok")
    judged: list[Judgement] = []
    for what, wanted in (LOOKED_FOR | {"several within a day": several}).items():
        with LedgerReader(path) as reader:
            started_ns = time.perf_counter_ns()
            reader.entries(wanted)
            taken_ms = (time.perf_counter_ns() - started_ns) / 1_000_000
        judged.append(_judge(f"a page by {what} of {count:,} rows", "ms", PAGE_MAX_MS, taken_ms))
    return judged

"""Minutes of Endpoints and changes of their standing: added up, kept while the file is away, rolled up with age."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.observation import TTFT_BUCKETS, TTFT_HISTOGRAM_BYTES, MinuteRow, ttft_bucket, ttft_bucket_end_s
from gateway.state.connection import FILE_NAME
from gateway.state.histogram import add_histograms, read_histogram
from gateway.state.pending import EVENTS_MAX, MINUTES_MAX, Pending, add_rows
from gateway.state.reader import Reader, Uptime
from gateway.state.schema import COUNT_COLUMNS
from gateway.state.store import Store
from gateway.state.writer import EVENTS_FOR_S, HOURS_FOR_S, MINUTES_FOR_S, EndpointEvent

WAIT_S = 30.0
DAY = 1440
START = 20_000 * DAY
"""A midnight, in minutes of Unix time."""

histograms = st.lists(st.integers(0, 1 << 20), min_size=TTFT_BUCKETS, max_size=TTFT_BUCKETS).map(
    lambda counts: b"".join(count.to_bytes(4, "little") for count in counts)
) | st.just(b"")


@contextlib.contextmanager
def opened(path: Path, minute: int = START, **settings: Any) -> Iterator[Store]:
    store = Store.open(path, lambda record: record, unix_time_s=lambda: minute * 60.0, **settings)
    try:
        yield store
        assert store.flush(WAIT_S)
    finally:
        store.close()


def histogram(bucket: int, count: int) -> bytes:
    return b"".join((count if one == bucket else 0).to_bytes(4, "little") for one in range(TTFT_BUCKETS))


def total(rows: list[MinuteRow]) -> dict[str, int]:
    return {name: sum(getattr(row, name) for row in rows) for name in COUNT_COLUMNS}


def test_the_row_has_the_columns_of_the_table_and_counts_what_failed():
    row = MinuteRow(endpoint_id="a", minute=1, fail_connect=1, fail_server=2, fail_timeout=3, fail_mid=4, geo=50)
    assert row.failed == 10
    assert len(COUNT_COLUMNS) == 14


def test_rows_of_one_minute_add_up_over_writes_and_restarts(tmp_path: Path):
    path = tmp_path / FILE_NAME
    row = MinuteRow(endpoint_id="a/b", minute=START, ok=3, fail_mid=1, tok_in=10, ttft_hist=histogram(4, 3))
    for _ in range(2):
        with opened(path) as store:
            store.write_minutes([row, MinuteRow(endpoint_id="other", minute=START, ok=1)])
            assert store.flush(WAIT_S)
            store.write_minutes([row])
    with Reader(path) as reader:
        (found,) = reader.read_minutes("a/b", START, START + 1)
        assert (found.ok, found.fail_mid, found.tok_in) == (12, 4, 40)
        assert found.ttft_hist == histogram(4, 12)
        assert len(reader.read_minutes(None, START, START + 1)) == 2
        assert reader.read_minutes("a/b", START + 1, START + 9) == []


def test_uptime_is_over_the_window_and_unknown_without_traffic(tmp_path: Path):
    path = tmp_path / FILE_NAME
    with opened(path) as store:
        store.write_minutes(
            MinuteRow(endpoint_id="a", minute=START - age, ok=9, fail_server=1, client_err=5, rate_limited=7)
            for age in (0, 3, 20)
        )
    now_unix_s = START * 60.0 + 30
    with Reader(path) as reader:
        assert reader.read_uptime("a", 300, now_unix_s=now_unix_s) == Uptime(18, 2)
        assert reader.read_uptime("a", 1800, now_unix_s=now_unix_s).ratio == pytest.approx(0.9)
        assert reader.read_uptime("b", 1800, now_unix_s=now_unix_s).ratio is None


def test_old_minutes_become_hours_and_old_hours_days_and_nothing_is_lost(tmp_path: Path):
    path = tmp_path / FILE_NAME
    rows = [
        MinuteRow(endpoint_id=name, minute=START + minute, ok=1 + minute % 3, fail_mid=1, ttft_hist=histogram(7, 1))
        for name in ("a", "b")
        for minute in range(0, 3 * DAY, 7)
    ]
    with opened(path) as store:
        store.write_minutes(rows)
    sizes: list[int] = []
    for later_s in (MINUTES_FOR_S + 86_400, MINUTES_FOR_S + HOURS_FOR_S + 86_400):
        for _ in range(3):
            with opened(path, START + later_s // 60) as store:
                assert store.flush(WAIT_S)
        with Reader(path) as reader:
            found = reader.read_minutes(None, START, START + 3 * DAY)
        assert total(found) == total(rows)
        assert sum(read_histogram(row.ttft_hist)[7] for row in found) == len(rows)
        sizes.append(len(found))
    assert sizes[0] < len(rows)
    assert sizes[1] == 6
    assert {row.minute % DAY for row in found} == {0}


def test_changes_of_standing_are_kept_in_order_and_not_for_ever(tmp_path: Path):
    path = tmp_path / FILE_NAME
    events = [EndpointEvent(START * 60.0 + age, name, "open", "three failures") for age in range(3) for name in "ab"]
    with opened(path) as store:
        for event in events:
            store.write_event(event)
    with Reader(path) as reader:
        assert reader.events(None, 0) == events
        assert reader.events("a", START * 60.0 + 1) == [events[2], events[4]]
    with opened(path, START + EVENTS_FOR_S // 60 + 10) as store:
        assert store.flush(WAIT_S)
    with Reader(path) as reader:
        assert reader.events(None, 0) == []


def test_what_could_not_be_written_waits_within_bounds():
    pending = Pending()
    pending.add_minutes(MinuteRow(endpoint_id="a", minute=minute, ok=1) for minute in range(MINUTES_MAX + 5))
    assert pending.dropped == 5
    for second in range(EVENTS_MAX + 2):
        pending.add_event(EndpointEvent(float(second), "a", "open", ""))
    assert pending.dropped == 7
    with contextlib.suppress(OSError), pending.minutes():
        pending.add_minutes([MinuteRow(endpoint_id="a", minute=1, ok=1)])
        raise OSError("full")
    with contextlib.suppress(OSError), pending.events():
        raise OSError("full")
    with pending.minutes() as rows, pending.events() as events:
        assert len(rows) == MINUTES_MAX
        assert next(row.ok for row in rows if row.minute == 1) == 2
        assert len(events) == EVENTS_MAX
    with pending.minutes() as rows, pending.events() as events:
        assert rows == events == []


@given(histograms, histograms, histograms)
def test_histograms_add_up_in_any_order(one: bytes, two: bytes, three: bytes):
    assert add_histograms(one, two) == add_histograms(two, one)
    assert add_histograms(add_histograms(one, two), three) == add_histograms(one, add_histograms(two, three))
    pairs = zip(read_histogram(one), read_histogram(two), strict=True)
    assert read_histogram(add_histograms(one, two)) == tuple(map(sum, pairs))


def test_a_histogram_of_another_length_adds_nothing():
    good = histogram(0, 1)
    assert len(good) == TTFT_HISTOGRAM_BYTES
    assert add_histograms(good, b"x") == add_histograms(b"x", good) == good
    assert add_histograms(histogram(0, (1 << 32) - 1), good) == histogram(0, (1 << 32) - 1)


@given(st.floats(0, 1e6))
def test_every_time_has_the_bucket_that_ends_behind_it(ttft_s: float):
    bucket = ttft_bucket(ttft_s)
    assert 0 <= bucket < TTFT_BUCKETS
    if bucket < TTFT_BUCKETS - 1:
        assert ttft_s <= ttft_bucket_end_s(bucket) * (1 + 1e-12)
    if bucket > 0:
        assert ttft_s >= ttft_bucket_end_s(bucket - 1) * (1 - 1e-12)


@given(st.integers(0, 100), st.integers(0, 100))
def test_two_rows_are_one(left: int, right: int):
    row = add_rows(MinuteRow(endpoint_id="a", minute=1, ok=left), MinuteRow(endpoint_id="a", minute=1, ok=right, geo=1))
    assert row == MinuteRow(endpoint_id="a", minute=1, ok=left + right, geo=1)

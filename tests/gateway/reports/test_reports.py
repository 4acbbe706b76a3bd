"""What the reports say of a store whose content is known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.explain.record import Rescued
from gateway.observation import MinuteRow, ttft_bucket
from gateway.reports.activity import CELLS, read_activity
from gateway.reports.money import usd, usd_or_none
from gateway.reports.reader import BlockIndex, ReportReader, split_id
from gateway.reports.requests import Wanted, read_requests
from gateway.reports.sparkline import sparkline
from gateway.reports.spending import curve, read_points, start_of
from gateway.reports.uptime import DAYS, read_uptime
from gateway.state.histogram import read_histogram
from gateway.state.ledger_reader import Filter
from gateway.state.writer import EndpointEvent
from tests.fakes.catalogues import catalogue, endpoint, route
from tests.fakes.scripted_day import DAY_S, START_S, US, Day

A, B = endpoint("a/m", 1.0), endpoint("b/m", 2.0)
HOUR_S = 3600


@pytest.fixture
def day(tmp_path):
    made = Day(tmp_path, catalogue([A, B], [route([A, B], policy="ordered")]))
    yield made
    made.close()


def histogram(ttft_s, count):
    counts = [0] * 32
    counts[ttft_bucket(ttft_s)] = count
    return b"".join(one.to_bytes(4, "little") for one in counts)


def test_a_curve_is_as_high_as_its_numbers():
    assert sparkline([0, 1, None, 4, 8]) == "▁▂ ▅█"
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([0.5, 0.9, 0.97, 1.0], low=0.9, high=1.0) == "▁▁▆█"


def test_money_is_exact_and_unknown_is_not_zero():
    assert (usd(-1), usd(10**9), usd_or_none(None), usd_or_none(0)) == ("-0.000000001", "1.00", None, "0.00")


def test_steps_begin_where_the_calendar_says():
    # 2024-10-04 was a Friday.
    assert start_of(START_S + 3600 + 5, "hour") == START_S + 3600
    assert start_of(START_S + 3605, "day") == START_S
    assert start_of(START_S + 5, "week") == START_S - 4 * DAY_S
    assert start_of(START_S + 5, "month") == START_S - 3 * DAY_S


def test_steps_add_up_to_the_ledger(day):
    for hour in (0, 1, 1, 26, 50):
        day.ask(START_S + hour * HOUR_S, [("a/m", {})])
    since, until = START_S * US, (START_S + 3 * DAY_S) * US
    with ReportReader(day.path) as reader:
        days = read_points(reader, "model", since, until, "day")
        hours = read_points(reader, "model", since, until, "hour")
        whole = reader.spend("all", since, until)[0]
    assert [(one.start_unix_s - START_S) // DAY_S for one in days] == [0, 1, 2]
    assert [one.requests for one in days] == [3, 1, 1]
    assert sum(one.cost_in_nusd for one in days) == sum(one.cost_in_nusd for one in hours) == whole.cost_in_nusd
    assert curve(hours, "m", since, until, 3) == [450_000.0, 150_000.0, 150_000.0]


def test_a_walk_gives_every_request_once_and_newest_first(day):
    cut = {"outcome": "failed", "code": "provider_error"}
    names = [
        day.ask(START_S + number, [("a/m", cut), ("b/m", {})] if number % 3 else [("a/m", {})]) for number in range(9)
    ]
    with ReportReader(day.path) as reader:
        found = list(reader.walk(Filter(), rows_max=1000))
        part = list(reader.walk(Filter(since_unix_us=(START_S + 5) * US), rows_max=1000))
    assert [one.id for one in found] == names[::-1]
    assert [len(one.entries) for one in found] == [2, 2, 1, 2, 2, 1, 2, 2, 1]
    # The second Attempt of the fifth request began in the window, though its first did not.
    assert [split_id(one.entries[0].attempt_id)[1] for one in part] == [1, 1, 1, 1, 2]


def test_the_explorer_lists_each_request_once_over_all_pages(day):
    refused = {"outcome": "failed", "code": "provider_error"}
    for number in range(7):
        day.ask(START_S + number, [("a/m", refused), ("b/m", {})] if number % 2 else [("b/m", {})])
    with ReportReader(day.path) as reader:
        seen, before = [], None
        while True:
            page = read_requests(reader, Wanted(), before=before, count=2)
            seen += page.requests
            before = page.before
            if before is None:
                break
        at_a = read_requests(reader, Wanted(rows=Filter(endpoint="a/m")))
    assert len({one.id for one in seen}) == len(seen) == 7
    assert [one.unix_us for one in seen] == sorted((one.unix_us for one in seen), reverse=True)
    assert [one.attempts for one in at_a.requests] == [2, 2, 2]
    assert {one.endpoint for one in at_a.requests} == {"b/m"}


def test_the_explorer_finds_what_failed_what_was_rescued_and_what_was_dear(day):
    refused = {"outcome": "failed", "code": "provider_error"}
    failed = day.ask(START_S, [("a/m", refused), ("b/m", refused)])
    over = day.ask(START_S + 10, [("a/m", refused), ("b/m", {})])
    saved = day.ask(
        START_S + 20,
        [("a/m", {"outcome": "failed", "cut": True, "output": 20}), ("b/m", {"output": 400})],
        rescued=Rescued(by="prefill", cut="a/m", continued="b/m", after_chars=80),
    )
    plain = day.ask(START_S + 30, [("a/m", {})])

    def ids(**wanted):
        with ReportReader(day.path) as reader:
            return [one.id for one in read_requests(reader, Wanted(**wanted)).requests]

    assert ids() == [plain, saved, over, failed]
    assert ids(failed=True) == [failed]
    assert ids(failed_over=True) == [saved, over]
    assert ids(rescued=True) == [saved]
    # 100 + 20 tokens at 1 USD per million, and 100 + 400 at 2: 0.00112 USD.
    assert ids(min_cost_in_nusd=1_120_000) == [saved]
    assert ids(min_cost_in_nusd=1_120_001) == []


spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=12)


@given(spans, st.integers(0, 60))
def test_the_index_of_blocks_finds_just_those_that_can_have_a_record(spans, wanted):
    rows = [(number, f"{low:03}", f"{low + width:03}") for number, (low, width) in enumerate(spans)]
    can = {number for number, low, high in rows if low <= f"{wanted:03}" <= high}
    assert set(BlockIndex(rows).find(f"{wanted:03}")) == can


def test_records_are_found_after_many_that_are_not_there(day, monkeypatch):
    monkeypatch.setattr("gateway.reports.reader.MISSES_MAX", 2)
    names = [day.ask(START_S + number, [("a/m", {})], record=number % 3 == 0) for number in range(12)]
    with ReportReader(day.path) as reader:
        assert [reader.record(name) is not None for name in names] == [number % 3 == 0 for number in range(12)]


def test_uptime_counts_good_ones_and_failures_by_window_and_day(day):
    now_minute = START_S // 60 + 600
    rows = [
        MinuteRow(endpoint_id="a/m", minute=now_minute, ok=3, fail_server=1, ttft_hist=histogram(0.4, 3)),
        MinuteRow(endpoint_id="a/m", minute=now_minute - 10, ok=6, rate_limited=5, client_err=2),
        MinuteRow(endpoint_id="a/m", minute=now_minute - 1440, ok=0, fail_connect=10),
    ]
    day.minutes(*rows)
    day.events(
        EndpointEvent(START_S + 100.0, "a/m", "open", "connect"),
        EndpointEvent(START_S + 200.0, "a/m", "healthy", "closed"),
    )
    day.ask(START_S + 35_990, [("a/m", {"output": 50, "ttft_ms": 400, "duration_ms": 1400})])
    with ReportReader(day.path) as reader:
        (found,) = read_uptime(reader, now_minute * 60.0, DAY_S)
    assert found.uptime == {"5m": 0.75, "30m": 0.9, "1d": 0.9, "30d": 0.45}
    assert len(found.days) == DAYS
    assert found.days[-2:] == (0.0, 0.9)
    assert found.days[0] is None
    assert (found.standing, found.cause, found.since_unix_s) == ("healthy", "closed", START_S + 200.0)
    assert (found.ok, found.failed, found.rate_limited) == (9, 1, 5)
    assert found.ttft_s.count == 3
    assert 0.28 < found.ttft_s.p50 < 0.45
    assert sum(read_histogram(rows[0].ttft_hist)) == 3
    # 50 tokens in one second; a bucket is half an octave wide.
    assert 35 < found.tokens_per_s.p50 < 71
    assert found.tokens_per_s.p99 <= found.tokens_per_s.p50


def test_activity_says_who_spends_and_who_answers(day):
    now_s = START_S + 300
    day.ask(START_S + 10, [("a/m", {})], key_id="one")
    day.ask(START_S + 299, [("a/m", {"outcome": "failed"}), ("b/m", {})], key_id="two")
    day.ask(START_S - 10, [("a/m", {})], key_id="old")
    with ReportReader(day.path) as reader:
        found = read_activity(reader, "key", now_s * US, 300)
    told = [(one.name, one.requests, one.attempts, one.failed, one.cost_in_nusd) for one in found.names]
    assert told == [("two", 1, 2, 1, 300_000), ("one", 1, 1, 0, 150_000)]
    assert [one.name for one in found.endpoints] == ["a/m", "b/m"]
    assert len(found.names[0].curve) == CELLS
    assert found.complete

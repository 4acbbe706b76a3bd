"""Windows of budgets, and what is left of them affords."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.keys.budget import SPANS_KEPT, Account, Offer, afford, span_end, span_start, span_starts
from gateway.keys.key import WINDOWS, KeyLimits


def unix(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("window", "at", "start", "end"),
    [
        ("day", "2026-11-22T23:59:59.999", "2026-11-22", "2026-11-23"),
        ("day", "2026-11-23T00:00:00", "2026-11-23", "2026-11-24"),
        ("week", "2026-11-22T23:59:59", "2026-11-16", "2026-11-23"),  # a Sunday
        ("week", "2026-11-23T00:00:00", "2026-11-23", "2026-11-30"),  # a Monday
        ("week", "2027-01-01T12:00:00", "2026-12-28", "2027-01-04"),
        ("month", "2026-11-30T23:59:59", "2026-11-01", "2026-12-01"),
        ("month", "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T00:00:00", "2028-02-01", "2028-03-01"),
        # Where clocks are set forward and back in Europe and America, the day in UTC has 24 hours all the same.
        ("day", "2026-03-29T01:30:00", "2026-03-29", "2026-03-30"),
        ("day", "2026-10-25T01:30:00", "2026-10-25", "2026-10-26"),
        ("day", "2026-11-01T06:30:00", "2026-11-01", "2026-11-02"),
    ],
)
def test_a_window_begins_and_ends_by_utc(window, at, start, end, monkeypatch):
    for zone in ("UTC", "Europe/Berlin", "America/New_York", "Pacific/Kiritimati"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert span_start(window, unix(at)) == unix(start)
        assert span_end(window, unix(at)) == unix(end)
    monkeypatch.undo()
    time.tzset()


@given(st.floats(0, 4e9))
def test_every_moment_lies_in_the_span_that_it_is_said_to(unix_s):
    assert span_starts(unix_s) == tuple(span_start(window, unix_s) for window in WINDOWS)
    for window in ("day", "week", "month"):
        start, end = span_start(window, unix_s), span_end(window, unix_s)
        assert start <= unix_s < end
        assert span_start(window, start) == start
        assert span_start(window, end) == end
        assert span_start(window, end - 1) == start
    assert datetime.fromtimestamp(span_start("week", unix_s), UTC).weekday() == 0
    assert span_end("ever", unix_s) is None


offers = st.lists(
    st.builds(
        Offer,
        st.sampled_from(["a", "b", "c", "d"]),
        st.one_of(st.none(), st.integers(0, 10**7)),
        st.integers(0, 10**6),
        st.integers(0, 100_000),
    ),
    max_size=5,
)


@given(offers, st.integers(-(10**6), 10**9))
def test_what_is_afforded_costs_no_more_than_is_left(offers, left):
    found = afford(offers, left)
    if found is None:
        return
    assert found.amount_in_nusd <= max(0, left)
    for offer in offers:
        if offer.endpoint in found.endpoints and sum(one.endpoint == offer.endpoint for one in offers) == 1:
            assert offer.worst_in_nusd(found.output_tokens) <= found.amount_in_nusd


@given(offers, st.integers(0, 10**9))
def test_nobody_is_refused_who_could_pay_for_sixteen_tokens(offers, left):
    payable = [
        one for one in offers if one.fixed_in_pusd is not None and one.worst_in_nusd(min(16, one.output_tokens)) <= left
    ]
    assert (afford(offers, left) is not None) == bool(payable)


def test_an_answer_is_cut_to_what_is_left():
    found = afford([Offer("a", 1_000, 2_000, 4_096)], 1_000)
    assert found is not None
    assert (found.output_tokens, found.clamped, found.amount_in_nusd) == (499, True, 999)


def test_what_costs_nothing_can_be_had_with_debts():
    found = afford([Offer("dear", 1, 1, 100), Offer("free", 0, 0, 100)], -5)
    assert found is not None
    assert (found.endpoints, found.amount_in_nusd, found.clamped) == (("free",), 0, False)


def test_what_nobody_knows_the_price_of_is_not_affordable():
    assert afford([Offer("a", None, 0, 100)], 10**18) is None


def test_a_dear_fallback_does_not_shorten_the_answer_of_a_cheap_endpoint():
    found = afford([Offer("cheap", 0, 1_000, 100), Offer("dear", 0, 1_000_000, 100)], 100)
    assert found is not None
    assert (found.output_tokens, found.endpoints) == (100, ("cheap",))


def test_a_clock_that_is_set_back_finds_what_was_spent():
    account, now = Account(), unix("2026-11-22T12:00:00")
    limits = KeyLimits(day_in_nusd=100)
    account.add(60, span_starts(now))
    later = span_starts(now + 86_400)
    assert account.tightest("k", limits, later).left_in_nusd == 100
    account.add(10, later)
    assert account.tightest("k", limits, span_starts(now)).left_in_nusd == 40
    assert account.tightest("k", limits, later).left_in_nusd == 90


def test_a_clock_set_back_further_than_anything_remembered_gives_nobody_a_new_budget():
    account, now = Account(), unix("2026-11-22T12:00:00")
    for days in range(SPANS_KEPT + 5):
        account.add(100, span_starts(now + timedelta(days=days).total_seconds()))
    past = span_starts(now - 365 * 86_400)
    assert account.spent("day", past) == 100
    account.add(1, past)
    assert account.spent("day", past) == 101

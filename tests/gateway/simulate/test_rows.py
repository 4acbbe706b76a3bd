"""Rows of the reliability table that need minutes of traffic: in virtual time they take a second."""

import os

import pytest

from gateway.simulate.world import Behaviour, Trouble
from tests.gateway.simulate.scenes import SOUND, calls_of, play, seen_between, shares

FULL = os.environ.get("MIXGATE_TEST_FULL") == "1"
FLAKY_REQUESTS = 20_000 if FULL else 1_000


def behaves(**more):
    return Behaviour(ttft_s=0.2, spread=0.1, tokens_per_s=100, **more)


@pytest.mark.parametrize(
    "faults",
    [
        (("http500", 0.3),),
        (("http503", 0.3),),
        (("refused", 0.3),),
        (("reset", 0.1), ("http502", 0.1), ("empty", 0.1)),
        (("cut", 0.15), ("error_midway", 0.15)),
    ],
    ids=lambda faults: "+".join(name for name, _ in faults),
)
def test_a_primary_that_fails_three_times_in_ten_is_noticed_by_no_client(faults):
    outcome = play({"a/m": behaves(faults=faults), "b/m": SOUND}, requests=FLAKY_REQUESTS, gap_s=0.5)
    assert [seen.job.number for seen in outcome.seen if seen.ending != "answered"] == []
    repeats = sum(attempt.why == "again" for seen in outcome.seen for attempt in seen.answer.attempts)
    assert repeats <= 0.2 * FLAKY_REQUESTS
    demoted = [
        trace.now_s - outcome.seen[0].started_s
        for trace in outcome.traces.values()
        if trace.observations["a/m"].standing != "healthy"
    ]
    assert min(demoted) <= 60


def test_an_outage_of_five_minutes_is_over_half_a_minute_after_it_is_over():
    down_s, healed_s = 20.0, 320.0
    primary = behaves(troubles=(Trouble("errors", down_s, healed_s),))
    outcome = play({"a/m": primary, "b/m": SOUND}, requests=1_600, gap_s=0.25)
    assert [seen.job.number for seen in outcome.seen if seen.ending != "answered"] == []
    # Three failures open it; then one trial request for each period, of which there are 5, 10 and 20 s +- a fifth.
    assert len(calls_of(outcome, "a/m", down_s, healed_s)) <= 5 + 300 / 16
    answered = [one for one in calls_of(outcome, "a/m", healed_s) if one.fate == "answered"]
    start_s = outcome.seen[0].started_s - outcome.seen[0].job.at_s
    assert answered[2].at_s - start_s <= healed_s + 30, "two trial requests and the first ordinary one"
    assert len(calls_of(outcome, "b/m", healed_s + 30)) == 0


def test_who_was_down_gets_its_share_back_slowly():
    primary = behaves(troubles=(Trouble("errors", 0.0, 60.0),))
    outcome = play({"a/m": primary, "b/m": SOUND}, requests=4_000, gap_s=0.05, policy="balanced")
    share = shares(outcome, "a/m", 10)
    closed = next(span for span in range(6, 12) if share[span] > 0.01)
    early, middle, late = share[closed], share[closed + 3], share[closed + 8]
    assert early < 0.35, share
    assert early < middle < late + 0.05, share
    assert late == pytest.approx(0.5, abs=0.1), share


def test_when_all_are_down_clients_are_told_at_once_and_nobody_is_stormed():
    down = behaves(troubles=(Trouble("down", 0.0, 1e9),))
    outcome = play({"a/m": down, "b/m": down, "c/m": down}, requests=1_200, gap_s=0.25)
    later = seen_between(outcome, 10)
    assert {seen.ending for seen in later} == {"failed"}
    assert max(seen.ended_s - seen.started_s for seen in later) <= 0.1
    assert len(outcome.received) <= 1.2 * len(outcome.seen)
    assert {seen.error.status for seen in later} == {503}
    assert all(seen.error.retry_after_s is not None and 1 <= seen.error.retry_after_s <= 60 for seen in later)


def test_capacity_is_learnt_from_refusals_without_a_word():
    capacity = 20
    primary = behaves(concurrency=capacity)
    # 8 requests a second of 5 s each: twice what the primary bears.
    outcome = play({"a/m": primary, "b/m": SOUND}, requests=2_400, gap_s=0.125, output_tokens=480)
    assert [seen.job.number for seen in outcome.seen if seen.ending != "answered"] == []
    later = calls_of(outcome, "a/m", 60)
    assert sum(one.cause == "429" for one in later) < 0.05 * len(later)
    start_s = outcome.seen[0].started_s
    moments = [start_s + 60 + step for step in range(0, 230, 5)]
    busy = [sum(1 for one in outcome.received if _runs(one, at_s)) for at_s in moments]
    assert sum(busy) / len(busy) == pytest.approx(capacity, rel=0.2)


def _runs(one, at_s):
    return one.endpoint == "a/m" and one.served and one.at_s <= at_s < one.ended_s


@pytest.mark.parametrize("form", ["seconds", "milliseconds", "date", "garbage", "past", "absurd", "none"])
def test_nobody_is_asked_before_its_retry_after_is_over(form):
    primary = behaves(requests_per_min=10, retry_after=form)
    outcome = play({"a/m": primary, "b/m": SOUND}, requests=600, gap_s=0.5)
    assert [seen.job.number for seen in outcome.seen if seen.ending != "answered"] == []
    refused = sum(one.cause == "429" for one in calls_of(outcome, "a/m"))
    assert 0 < refused < 100


def test_a_hedge_halves_the_slow_tail_and_costs_one_in_twenty():
    # Five answers in a hundred take 4 s to begin, at either; the rest take a fifth of one.
    slow = behaves(slow_share=0.05, slow_ttft_s=4.0)
    plain, hedged = (
        play({"a/m": slow, "b/m": slow}, requests=3_000, gap_s=0.2, route={"hedge": hedge}) for hedge in (False, True)
    )
    assert {seen.ending for seen in hedged.seen} == {"answered"}
    assert ttft_p99_s(hedged) <= 0.5 * ttft_p99_s(plain)
    extra = len(hedged.received) - len(hedged.seen)
    assert 0 < extra <= 0.05 * len(hedged.seen) + 1
    for seen in hedged.seen:
        for attempt in seen.answer.attempts:
            if attempt.outcome == "cancelled":
                assert attempt.started_s + attempt.duration_s <= seen.first_s + 0.25


def ttft_p99_s(outcome):
    times = sorted(seen.first_s - seen.started_s for seen in outcome.seen)
    return times[int(0.99 * len(times))]

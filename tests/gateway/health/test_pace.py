import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.health import Health, Result
from gateway.health.histogram import BUCKETS, TTFT_FLOOR_S, bucket_of, merge, pack, quantiles, unpack
from gateway.health.pace import Pace
from gateway.observation import TTFT_HISTOGRAM_BYTES, ttft_bucket, ttft_bucket_end_s

HALF_OCTAVE = 2**0.5


def answered(ttft_s=None, duration_s=1.0, tokens=None, **more):
    return Result(ttft_s=ttft_s, duration_s=duration_s, output_tokens=tokens, **more)


def test_nothing_measured_is_nothing_known():
    pace = Pace()
    assert pace.ttft_s(1.0) is pace.tokens_per_s(1.0) is pace.latency(1.0) is pace.throughput(1.0) is None
    assert pace.ttft_p95_s() is pace.expected_whole_s(100) is None


def test_the_means_follow_what_is_measured():
    pace = Pace()
    for second in range(300):
        pace.add(answered(ttft_s=0.5, duration_s=2.5, tokens=100), float(second))
    assert pace.ttft_s(300.0) == pytest.approx(0.5)
    assert pace.tokens_per_s(300.0) == pytest.approx(50.0)
    for second in range(300, 420):
        pace.add(answered(ttft_s=2.0, duration_s=3.0, tokens=100), float(second))
    assert pace.ttft_s(420.0) == pytest.approx(2.0, rel=0.01)
    assert pace.tokens_per_s(420.0) == pytest.approx(100.0, rel=0.01)


def test_a_burst_weighs_too():
    pace = Pace()
    pace.add(answered(ttft_s=1.0), 0.0)
    for _ in range(50):
        pace.add(answered(ttft_s=3.0), 0.0)
    assert pace.ttft_s(0.0) == pytest.approx(3.0, rel=0.01)


def test_who_was_slow_long_ago_gets_another_chance():
    pace = Pace()
    pace.add(answered(ttft_s=60.0, duration_s=90.0, tokens=10), 0.0)
    assert pace.ttft_s(299.0) == 60.0
    assert pace.ttft_s(300.0) is None
    assert pace.tokens_per_s(300.0) is None


def test_a_whole_answer_has_a_speed_without_a_first_token():
    pace = Pace()
    pace.add(answered(duration_s=4.0, tokens=100, streamed=False), 0.0)
    assert pace.ttft_s(0.0) is None
    assert pace.tokens_per_s(0.0) == pytest.approx(25.0)
    assert pace.expected_whole_s(50) == pytest.approx(2.0)
    assert pace.expected_whole_s() == pytest.approx(4.0)


def test_a_failed_attempt_has_a_first_token_but_no_speed():
    pace = Pace()
    pace.add(answered(ttft_s=0.5, duration_s=9.0, tokens=3, failure="midstream"), 0.0)
    assert pace.ttft_s(0.0) == 0.5
    assert pace.tokens_per_s(0.0) is None


@pytest.mark.parametrize(("tokens", "duration_s"), [(None, 5.0), (0, 5.0), (1, 5.0), (50, 0.5), (50, 0.0)])
def test_what_cannot_be_divided_is_no_speed(tokens, duration_s):
    pace = Pace()
    pace.add(answered(ttft_s=0.5, duration_s=duration_s, tokens=tokens), 0.0)
    assert pace.tokens_per_s(0.0) is None


def test_a_timeout_follows_from_twenty_samples_not_from_nineteen():
    pace = Pace()
    for place in range(20):
        assert pace.ttft_p95_s() is None
        pace.add(answered(ttft_s=1.0), float(place))
    assert 1.0 / HALF_OCTAVE <= pace.ttft_p95_s() <= 1.0 * HALF_OCTAVE


def test_the_long_histogram_follows_a_change():
    pace = Pace()
    for place in range(2000):
        pace.add(answered(ttft_s=0.5), float(place))
    for place in range(2000, 6000):
        pace.add(answered(ttft_s=8.0), float(place))
    assert pace.ttft_p95_s() == pytest.approx(8.0, rel=0.42)


def test_quantiles_are_of_the_last_five_minutes():
    pace = Pace()
    pace.add(answered(ttft_s=30.0, duration_s=31.0, tokens=100), 0.0)
    for second in range(400, 500):
        pace.add(answered(ttft_s=0.5, duration_s=1.5, tokens=100), float(second))
    latency, throughput = pace.latency(500.0), pace.throughput(500.0)
    assert latency.p50 <= latency.p75 <= latency.p90 <= latency.p99 <= 0.5 * HALF_OCTAVE
    assert throughput.p50 >= throughput.p75 >= throughput.p90 >= throughput.p99 >= 100.0 / HALF_OCTAVE
    assert pace.latency(1000.0) is None


def test_quantiles_are_computed_once_a_second():
    health = Health(lambda: 0.5).of("a")

    def answer(now_s, ttft_s):
        health.leave(health.enter(now_s), answered(ttft_s=ttft_s), now_s)
        return health.observe(now_s).latency

    first = answer(10.0, 0.1)
    assert all(answer(10.0 + 0.01 * place, 5.0) is first for place in range(90))
    assert answer(11.0, 5.0).p50 > first.p50


@given(st.floats(0.0, 1e9, allow_nan=False))
def test_buckets_are_those_that_minutes_are_kept_in(value):
    bucket = bucket_of(value, TTFT_FLOOR_S)
    assert bucket == ttft_bucket(value)
    if 0 < bucket < BUCKETS - 1:
        assert ttft_bucket_end_s(bucket - 1) <= value * 1.000001
        assert value <= ttft_bucket_end_s(bucket) * 1.000001


@given(st.lists(st.floats(0.011, 300.0), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_lies_within_half_an_octave(values, share):
    counts = [0] * BUCKETS
    for value in values:
        counts[bucket_of(value, TTFT_FLOOR_S)] += 1
    rank = share * len(values)
    exact = next(value for place, value in enumerate(sorted(values), 1) if place >= rank - 1e-9)
    (found,) = quantiles(counts, (share,), TTFT_FLOOR_S)
    assert exact / HALF_OCTAVE * 0.999 <= found <= exact * HALF_OCTAVE * 1.001


@given(st.lists(st.lists(st.integers(0, 1000), min_size=BUCKETS, max_size=BUCKETS), max_size=5))
def test_histograms_add_up_and_survive_being_kept(histograms):
    merged = merge(histograms)
    assert sum(merged) == sum(map(sum, histograms))
    assert unpack(pack(merged)) == merged
    assert len(pack(merged)) in (0, TTFT_HISTOGRAM_BYTES)


def test_a_histogram_of_another_size_is_empty():
    assert unpack(b"12345") == [0] * BUCKETS
    assert quantiles(unpack(b""), (0.5,), TTFT_FLOOR_S) is None


def test_merging_the_minutes_gives_the_quantile_of_all():
    draw = random.Random(7)
    values = [draw.lognormvariate(0.0, 1.0) for _ in range(5000)]
    minutes = [[0] * BUCKETS for _ in range(5)]
    for place, value in enumerate(values):
        minutes[place % 5][bucket_of(value, TTFT_FLOOR_S)] += 1
    (p90,) = quantiles(merge(minutes), (0.9,), TTFT_FLOOR_S)
    assert p90 == pytest.approx(sorted(values)[4500], rel=0.1)

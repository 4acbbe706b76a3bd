"""Requests and tokens per minute, and requests at the same time."""

import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.keys.key import KeyLimits, KeyRecord
from gateway.keys.limits import Bucket, Limited, Limiter, Pass, rate_headers
from gateway.keys.ring import KeyRing


def limiter_of(*limits, parents=None):
    names = "abcdefgh"
    records = [
        KeyRecord(
            id=names[place],
            name=names[place],
            digest=b"",
            created_us=1,
            updated_us=1,
            limits=one,
            parent=(parents or {}).get(names[place]),
        )
        for place, one in enumerate(limits)
    ]
    return Limiter(KeyRing(b"p", records).chain)


@given(
    st.integers(1, 600),
    st.lists(st.tuples(st.floats(0, 20), st.integers(1, 50)), max_size=60),
)
def test_no_stretch_of_time_gets_more_than_a_minutes_worth_and_what_flowed_in(per_min, steps):
    bucket, now_s, taken = Bucket(per_min, 0.0), 0.0, []
    for wait_s, amount in steps:
        now_s += wait_s
        if bucket.wait_s(amount, now_s) == 0.0:
            bucket.take(amount, now_s)
            taken.append((now_s, amount))
    for start, _ in taken:
        for end, _ in taken:
            if end >= start:
                inside = sum(amount for at, amount in taken if start <= at <= end)
                assert inside <= per_min + (end - start) * per_min / 60 + 1e-6


@given(st.integers(1, 600), st.integers(1, 600))
def test_whoever_waits_as_long_as_told_is_let_in(per_min, amount):
    bucket = Bucket(per_min, 0.0)
    bucket.take(per_min, 0.0)
    wait_s = bucket.wait_s(amount, 0.0)
    assert math.isinf(wait_s) == (amount > per_min)
    if not math.isinf(wait_s):
        assert bucket.wait_s(amount, wait_s + 1e-6) == 0.0


def test_the_sixty_first_request_of_a_minute_waits_a_second():
    limiter = limiter_of(KeyLimits(requests_per_min=60))
    for _ in range(60):
        limiter.leave(limiter.enter("a", 0, 0.0), None, 0.0)
    found = limiter.enter("a", 0, 0.0)
    assert isinstance(found, Limited)
    assert (found.kind, found.limit, found.retry_after_s) == ("requests", 60, 1.0)
    assert isinstance(limiter.enter("a", 0, 1.0), Pass)


def test_tokens_are_taken_as_estimated_and_settled_as_counted():
    limiter = limiter_of(KeyLimits(tokens_per_min=1_000))
    held = limiter.enter("a", 900, 0.0)
    assert isinstance(limiter.enter("a", 200, 0.0), Limited)
    limiter.leave(held, 100, 0.0)
    limiter.leave(held, 100, 0.0)
    assert limiter.allowances("a", 0.0)["tokens"].remaining == 900
    held = limiter.enter("a", 900, 0.0)
    limiter.leave(held, 2_000, 0.0)
    assert limiter.allowances("a", 0.0)["tokens"].remaining == 0
    found = limiter.enter("a", 1, 0.0)
    assert isinstance(found, Limited)
    assert round(found.retry_after_s, 3) == 66.06


def test_a_request_larger_than_a_minutes_worth_never_comes_in():
    found = limiter_of(KeyLimits(tokens_per_min=100)).enter("a", 101, 0.0)
    assert isinstance(found, Limited)
    assert found.retry_after_s is None


def test_as_many_run_at_once_as_may():
    limiter = limiter_of(KeyLimits(concurrency=2))
    one, _ = limiter.enter("a", 0, 0.0), limiter.enter("a", 0, 0.0)
    assert limiter.enter("a", 0, 0.0).kind == "concurrency"
    limiter.leave(one, None, 0.0)
    assert isinstance(limiter.enter("a", 0, 0.0), Pass)


def test_a_refused_request_takes_nothing_from_anybody():
    limiter = limiter_of(KeyLimits(requests_per_min=1), KeyLimits(requests_per_min=10), parents={"b": "a"})
    limiter.leave(limiter.enter("b", 0, 0.0), None, 0.0)
    for _ in range(5):
        found = limiter.enter("b", 0, 0.0)
        assert isinstance(found, Limited)
        assert found.key_id == "a"
    assert limiter.running("a") == limiter.running("b") == 0
    assert limiter._paces["b"].requests.level(0.0) == 9


def test_a_change_of_limits_takes_effect_at_once():
    limits = [KeyLimits(requests_per_min=10)]
    record = KeyRecord(id="a", name="a", digest=b"", created_us=1, updated_us=1)
    ring = KeyRing(b"p", [record])
    limiter = Limiter(ring.chain)
    for one, left in ((limits[0], 9), (KeyLimits(requests_per_min=5), 3), (KeyLimits(), None)):
        ring.put(KeyRecord(id="a", name="a", digest=b"", created_us=1, updated_us=1, limits=one))
        limiter.leave(limiter.enter("a", 0, 0.0), None, 0.0)
        assert left == (limiter.allowances("a", 0.0)["requests"].remaining if left is not None else None)


def test_headers_are_openais():
    limiter = limiter_of(KeyLimits(requests_per_min=60, tokens_per_min=6_000))
    limiter.enter("a", 150, 0.0)
    assert rate_headers(limiter.allowances("a", 0.0)) == [
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"59"),
        (b"x-ratelimit-reset-requests", b"1s"),
        (b"x-ratelimit-limit-tokens", b"6000"),
        (b"x-ratelimit-remaining-tokens", b"5850"),
        (b"x-ratelimit-reset-tokens", b"2s"),
    ]

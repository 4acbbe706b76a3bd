import heapq
import random
from email.utils import formatdate
from itertools import count

import pytest

from gateway.health import Health, Permit, Result
from gateway.health.parking import Cap
from providers.retry_after import parse_retry_after

GOOD = Result(ttft_s=0.2, duration_s=1.0, output_tokens=10)
UNIX_S = 1_800_000_000.0
HOUR_S = 3600.0

SPELLINGS = {
    "seconds": ({"retry-after": "7"}, 7.0),
    "fraction": ({"retry-after": "0.5"}, 0.5),
    "milliseconds": ({"retry-after-ms": "1500", "retry-after": "99"}, 1.5),
    "date": ({"retry-after": formatdate(UNIX_S + 12, usegmt=True)}, 12.0),
    "date in the past": ({"retry-after": formatdate(UNIX_S - 12, usegmt=True)}, 0.0),
    "negative": ({"retry-after": "-1"}, 0.0),
    "beyond belief": ({"retry-after": "1e9"}, 300.0),
    "garbage": ({"retry-after": "soon"}, None),
    "not a number": ({"retry-after": "nan"}, None),
    "none at all": ({}, None),
    "duration": ({"x-ratelimit-reset-requests": "1m30.5s"}, 90.5),
    "unix milliseconds": ({"x-ratelimit-reset": str(int((UNIX_S + 20) * 1000))}, 20.0),
    "unix seconds": ({"x-ratelimit-reset": str(int(UNIX_S + 20))}, 20.0),
}


def limited(retry_after_s=None):
    return Result(failure="rate_limit", retry_after_s=retry_after_s)


def ask(health, result, now_s):
    permit = health.enter(now_s)
    if permit is not Permit.REFUSED:
        health.leave(permit, result, now_s)
    return permit


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_nobody_asks_before_it_wants_to_be_asked(spelling):
    headers, wait_s = SPELLINGS[spelling]
    read_s = parse_retry_after(headers, UNIX_S)
    assert read_s == wait_s if wait_s is None else read_s == pytest.approx(wait_s)
    health, now_s = Health(lambda: 0.5).of("a"), 50.0
    ask(health, limited(read_s), now_s)
    wait_s = 1.0 if wait_s is None else wait_s
    if wait_s:
        assert health.observe(now_s).standing == "parked"
        assert health.observe(now_s).until_s == pytest.approx(now_s + wait_s)
        assert ask(health, GOOD, now_s + wait_s - 0.1) is Permit.REFUSED
    assert ask(health, GOOD, now_s + wait_s + 0.001) is Permit.NORMAL
    assert health.observe(now_s + wait_s + 0.001).standing == "healthy"


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
def test_a_jump_of_the_wall_clock_parks_nobody_for_longer(jump_s):
    """A date is read against the clock of that moment; from then on only the monotonic clock counts."""
    health = Health(lambda: 0.5).of("a")
    date = {"retry-after": formatdate(UNIX_S + 12, usegmt=True)}
    read_s = parse_retry_after(date, UNIX_S + jump_s)
    ask(health, limited(read_s), 50.0)
    assert health.observe(50.0).until_s <= 50.0 + 300.0
    health = Health(lambda: 0.5).of("a")
    ask(health, limited(parse_retry_after(date, UNIX_S)), 50.0)
    assert health.observe(62.1).standing == "healthy"


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0])
def test_who_says_nothing_is_left_alone_for_longer_each_time(draw):
    health, now_s = Health(lambda: draw).of("a"), 0.0
    for usual_s in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 32.0):
        ask(health, limited(), now_s)
        wait_s = health.observe(now_s).until_s - now_s
        assert wait_s == pytest.approx(usual_s * (0.8 + 0.4 * draw))
        now_s += wait_s + 0.001
    ask(health, GOOD, now_s)
    ask(health, limited(), now_s)
    assert health.observe(now_s).until_s - now_s == pytest.approx(0.8 + 0.4 * draw)


def test_a_burst_of_refusals_is_one_wait():
    health = Health(lambda: 0.5).of("a")
    permits = [health.enter(0.0) for _ in range(20)]
    for place, permit in enumerate(permits):
        health.leave(permit, limited(), 0.01 * place)
    assert health.observe(0.5).until_s == pytest.approx(1.0)


def test_the_longest_wait_that_was_asked_for_holds():
    health = Health(lambda: 0.5).of("a")
    permits = [health.enter(0.0) for _ in range(3)]
    for permit, wait_s in zip(permits, (5.0, 20.0, 1.0), strict=True):
        health.leave(permit, limited(wait_s), 0.0)
    assert health.observe(0.0).until_s == 20.0


def test_the_first_refusal_sets_a_cap_and_quiet_raises_it():
    health = Health(lambda: 0.5).of("a")
    permits = [health.enter(0.0) for _ in range(10)]
    health.leave(permits.pop(), limited(0.0), 0.0)
    assert health.observe(0.0).cap == 7
    assert health.enter(1.0) is Permit.REFUSED
    assert health.observe(1.0).standing == "healthy"
    assert health.observe(1.0).weight == 0.0
    for permit in permits[:5]:
        health.leave(permit, GOOD, 1.0)
    assert health.observe(1.0).weight == pytest.approx(3 / 7)
    assert health.observe(9.9).cap == 7
    assert health.observe(10.0).cap == 8
    assert health.observe(30.0).cap == 10


def test_no_wait_is_believed_once():
    health = Health(lambda: 0.5).of("a")
    ask(health, limited(0.0), 0.0)
    assert ask(health, limited(0.0), 1.0) is Permit.NORMAL
    assert ask(health, limited(0.0), 2.9) is Permit.REFUSED
    assert ask(health, limited(0.0), 3.1) is Permit.NORMAL
    assert ask(health, GOOD, 7.0) is Permit.REFUSED
    assert ask(health, GOOD, 7.2) is Permit.NORMAL
    ask(health, limited(0.0), 8.0)
    assert ask(health, GOOD, 8.1) is Permit.NORMAL


def test_a_cap_is_one_at_least():
    health, now_s = Health(lambda: 0.5).of("a"), 0.0
    for _ in range(10):
        assert ask(health, limited(0.5), now_s) is Permit.NORMAL
        now_s += 2.0
    assert health.observe(now_s).cap == 1


def test_a_cap_far_above_what_is_used_is_forgotten():
    health = Health(lambda: 0.5).of("a")
    ask(health, limited(0.0), 0.0)
    assert health.observe(100.0).cap == 11
    assert health.observe(300.0).cap is None
    assert health.observe(300.0).weight == 1.0


def test_overload_lowers_a_cap_but_sets_none():
    cap_of = Health(lambda: 0.5).of("a")
    ask(cap_of, Result(failure="overload"), 0.0)
    assert cap_of.observe(0.0).cap is None
    permits = [cap_of.enter(0.0) for _ in range(30)]
    cap_of.leave(permits.pop(), limited(0.0), 1.0)
    cap_of.leave(permits.pop(), Result(failure="overload"), 3.0)
    assert cap_of.observe(3.0).cap == 18


def simulate(capacity, seed, until_s=180.0):
    """Twice what it bears is wanted of a provider that answers 429 to whatever is above it. (429s, asked, caps)."""
    draw, order, now_s = random.Random(seed), count(), 0.0
    health, running, taken = Health(draw.random).of("a"), [], 0
    refused = asked = 0
    caps = []
    wanted_per_s = 2.0 * capacity
    while now_s < until_s:
        now_s += draw.expovariate(wanted_per_s)
        while running and running[0][0] <= now_s:
            at_s, _, permit, result = heapq.heappop(running)
            taken -= result is GOOD
            health.leave(permit, result, at_s)
        permit = health.enter(now_s)
        if permit is not Permit.REFUSED:
            fits = taken < capacity
            taken += fits
            lasts_s = draw.uniform(0.5, 1.5) if fits else 0.02
            heapq.heappush(running, (now_s + lasts_s, next(order), permit, GOOD if fits else limited()))
        if now_s > 60.0:
            refused += permit is not Permit.REFUSED and not fits
            asked += permit is not Permit.REFUSED
            caps.append(health.observe(now_s).cap)
    return refused, asked, caps


@pytest.mark.parametrize("capacity", [1, 2, 3, 5, 10, 20, 50])
def test_the_cap_settles_near_what_it_bears(capacity):
    for seed in range(3):
        refused, asked, caps = simulate(capacity, seed)
        assert refused < 0.05 * asked
        mean = sum(caps) / len(caps)
        assert 0.8 * capacity <= mean <= 1.2 * capacity


def test_a_burst_leaves_what_was_taken():
    cap = Cap()
    for in_flight in range(50, 20, -1):
        cap.lower(in_flight, 0.0)
    assert cap.limit == 20

import random

from hypothesis import given
from hypothesis import strategies as st

from gateway.health.ring import Ring

EVENTS = st.lists(st.tuples(st.sampled_from([0.0, 0.2, 1.0, 4.9, 7.0, 30.0, 59.0, 1e5]), st.sampled_from("ob?")))


@given(EVENTS, st.sampled_from([(12, 5.0), (30, 1.0), (1, 2.0)]))
def test_it_counts_exactly_what_its_buckets_cover(events, shape):
    buckets, width_s = shape
    ring, now_s, added = Ring(buckets, width_s), 17.3, []
    for step_s, what in events:
        now_s += step_s
        if what == "?":
            ring.advance(now_s)
        else:
            added.append((now_s // width_s, what))
            (ring.add_ok if what == "o" else ring.add_bad)(now_s)
        covered = [kind for at, kind in added if now_s // width_s - at < buckets]
        assert (ring.ok, ring.bad) == (covered.count("o"), covered.count("b"))


def test_silence_expires_it():
    ring = Ring(12, 5.0)
    for _ in range(10):
        ring.add_bad(100.0)
    assert ring.is_bad(159.9, least=10, share=0.5)
    assert not ring.is_bad(160.0, least=10, share=0.5)


def test_a_clock_that_goes_back_breaks_nothing():
    ring, draw = Ring(6, 1.0), random.Random(1)
    for _ in range(1000):
        ring.add_ok(100.0 + draw.uniform(-2.0, 2.0))
    ring.advance(200.0)
    assert (ring.ok, ring.bad) == (0, 0)


def test_cleared_is_as_new():
    ring = Ring(4, 1.0)
    ring.add_bad(1.0)
    ring.clear()
    ring.add_ok(2.0)
    assert (ring.ok, ring.bad) == (1, 0)

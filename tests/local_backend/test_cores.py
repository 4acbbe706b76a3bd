"""A single engine thread keeps off the gateway's core, but never where that would starve it."""

import os
import threading
import time

import pytest

from local_backend.cores import FREE_S, JUDGED_S, SHARE_MIN, Cores
from local_backend.threads import Threads

FOUR = frozenset({0, 1, 2, 3})


def test_a_single_thread_keeps_off_the_lowest_core():
    assert Cores(FOUR, threads=1).choose(1, 0.0) == {1, 2, 3}
    assert Cores(frozenset({2, 5}), threads=1).choose(1, 0.0) == {5}


def test_two_threads_may_go_everywhere():
    assert Cores(FOUR, threads=1).choose(2, 0.0) == FOUR


def test_with_several_threads_the_kernel_decides():
    assert Cores(FOUR, threads=3).choose(3, 0.0) == FOUR


@pytest.mark.parametrize("allowed", [frozenset({0}), frozenset()])
def test_where_there_is_no_other_core_all_stays_as_it_is(allowed):
    assert Cores(allowed, threads=1).choose(1, 0.0) == allowed


def test_a_thread_that_gets_too_little_may_go_everywhere_for_a_while():
    cores = Cores(FOUR, threads=1)
    cores.learn(JUDGED_S, JUDGED_S * (SHARE_MIN - 0.01), 10.0)
    assert cores.choose(1, 10.0) == FOUR
    assert cores.choose(1, 10.0 + FREE_S - 0.01) == FOUR
    assert cores.choose(1, 10.0 + FREE_S) == {1, 2, 3}


def test_a_share_that_will_do_changes_nothing():
    cores = Cores(FOUR, threads=1)
    for step in range(1000):
        cores.learn(0.001, 0.001 * (SHARE_MIN + 0.01), step / 1000)
        assert cores.choose(1, step / 1000) == {1, 2, 3}


def test_it_is_judged_by_many_steps_and_not_by_one():
    cores = Cores(FOUR, threads=1)
    cores.learn(JUDGED_S / 10, 0.0, 1.0)
    assert cores.choose(1, 1.0) == {1, 2, 3}
    cores.learn(JUDGED_S, JUDGED_S, 1.1)
    assert cores.choose(1, 1.1) == {1, 2, 3}


def test_what_happens_while_it_is_free_says_nothing_of_the_cores_it_is_kept_to():
    cores = Cores(FOUR, threads=1)
    cores.learn(JUDGED_S, 0.0, 1.0)
    for step in range(100):
        cores.learn(JUDGED_S, 0.0, 1.0 + step * FREE_S / 200)
    assert cores.choose(1, 1.0 + FREE_S) == {1, 2, 3}


def in_a_thread(work):
    """What comes of it in a thread of its own: where that may run is forgotten with it."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core")
def test_the_calling_thread_is_kept_there_and_no_other():
    allowed = os.sched_getaffinity(0)

    def steps():
        threads = Threads(1, second_thread=False)
        assert threads.begin(1, time.monotonic()) == 1
        return os.sched_getaffinity(0)

    assert in_a_thread(steps) == allowed - {min(allowed)}
    assert os.sched_getaffinity(0) == allowed


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core")
def test_a_step_with_a_second_thread_is_computed_anywhere():
    allowed = os.sched_getaffinity(0)

    def steps():
        threads = Threads(1, second_thread=True)
        seen = []
        for now_s in range(3):
            count = threads.begin(8, now_s)
            seen.append((count, os.sched_getaffinity(0)))
            threads.end(8, 0.001, now_s)
        return seen

    seen = in_a_thread(steps)
    assert [count for count, _ in seen] == [1, 2, 2]
    assert [on for _, on in seen] == [allowed - {min(allowed)}, allowed, allowed]


def test_where_it_is_forbidden_the_engine_computes_all_the_same(monkeypatch):
    def forbidden(_pid, _cores):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    assert in_a_thread(lambda: Threads(1, second_thread=False).begin(1, 0.0)) == 1

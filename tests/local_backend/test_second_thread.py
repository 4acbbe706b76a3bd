"""A second thread is used where it makes steps shorter, and only for as long as it does."""

import pytest

from local_backend.second_thread import GAIN_MAX, ROWS_MIN, TRIAL_EVERY_S, TRIAL_STEPS, SecondThread


class Machine:
    """A clock, and how long a step of eight rows takes with one thread and with two."""

    def __init__(self, one_s, two_s):
        self.costs_s = {1: one_s, 2: two_s}
        self.now_s = 100.0
        self.second = SecondThread(1, wanted=True)

    def run(self, seconds, rows=8):
        end_s = self.now_s + seconds
        used = []
        while self.now_s < end_s:
            threads = self.second.choose(rows, self.now_s)
            self.now_s += self.costs_s[threads]
            self.second.learn(rows, self.costs_s[threads], self.now_s)
            used.append(threads)
        return used


def test_two_threads_are_used_where_they_are_faster():
    used = Machine(0.0005, 0.0003).run(2.0)
    assert used[0] == 1, "nothing was timed yet"
    assert used.count(2) / len(used) > 0.9


def test_one_thread_stays_where_the_other_core_is_busy():
    used = Machine(0.0005, 0.001).run(2.0)
    assert 0 < used.count(2) / len(used) < 0.03, "it is tried now and then"


def test_a_gain_too_small_is_not_worth_a_core():
    used = Machine(0.0005, 0.0005 * (GAIN_MAX + 0.02)).run(2.0)
    assert used.count(2) / len(used) < 0.03


def test_it_notices_within_a_few_trials_that_the_machine_has_changed():
    machine = Machine(0.0005, 0.0003)
    machine.run(1.0)
    machine.costs_s[2] = 0.0012
    machine.run(2 * TRIAL_EVERY_S)
    assert machine.run(1.0).count(2) < 5 * TRIAL_STEPS * 2
    machine.costs_s[2] = 0.0003
    machine.run(2 * TRIAL_EVERY_S)
    used = machine.run(1.0)
    assert used.count(2) / len(used) > 0.9


def test_the_first_step_of_a_trial_makes_the_thread_and_does_not_count():
    machine = Machine(0.0005, 0.0003)
    assert machine.run(0.0004) == [1]
    assert machine.second.choose(8, machine.now_s) == 2
    machine.second.learn(8, 0.5, machine.now_s)
    used = machine.run(1.0)
    assert used.count(2) / len(used) > 0.9


@pytest.mark.parametrize("rows", range(1, ROWS_MIN))
def test_few_rows_take_one_thread_and_teach_nothing(rows):
    machine = Machine(0.0005, 0.0003)
    assert set(machine.run(1.0, rows=rows)) == {1}
    assert machine.run(0.0004) == [1], "still nothing timed"


def test_where_it_is_not_wanted_the_threads_are_as_given():
    second = SecondThread(7, wanted=False)
    for _ in range(50):
        assert second.choose(8, 1.0) == 7
        second.learn(8, 0.001, 1.0)

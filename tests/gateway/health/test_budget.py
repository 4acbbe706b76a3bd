import random

from hypothesis import given
from hypothesis import strategies as st

from gateway.health import HedgeBudget, RetryBudget


def take_all(budget, now_s):
    taken = 0
    while budget.take(now_s):
        budget.give_back()
        taken += 1
    return taken


def test_one_repeat_a_second_is_there_in_any_case():
    budget = RetryBudget()
    assert take_all(budget, 1000.0) == 60
    assert take_all(budget, 1059.9) == 0
    assert take_all(budget, 1060.0) == 60


def test_five_requests_pay_for_a_repeat():
    budget = RetryBudget()
    for _ in range(500):
        budget.begin(1000.0)
    assert take_all(budget, 1000.0) == 100 + 60


def test_what_was_paid_in_expires_after_a_minute():
    budget = RetryBudget()
    for _ in range(500):
        budget.begin(1000.0)
    assert take_all(budget, 1060.0) == 60


def test_three_repeats_at_once_or_a_fifth_of_what_is_on_its_way():
    for in_flight, most in ((0, 3), (1, 3), (15, 3), (20, 4), (100, 20)):
        budget = RetryBudget()
        for _ in range(in_flight):
            budget.begin(1000.0)
        assert sum(budget.take(1000.0) for _ in range(200)) == most
        budget.give_back()
        assert budget.take(1000.0)
        assert not budget.take(1000.0)


def test_no_repeat_outlives_its_request():
    budget = RetryBudget()
    budget.begin(1.0)
    assert [budget.take(1.0) for _ in range(4)] == [True, True, True, False]
    budget.end()
    assert budget.take(1.0)


def test_the_wider_budget_has_to_agree():
    everything = RetryBudget()
    one, two = RetryBudget(everything), RetryBudget(everything)
    assert take_all(one, 1000.0) == 60
    assert take_all(two, 1000.0) == 0
    assert everything.retrying == one.retrying == 0


def test_a_refused_repeat_costs_nothing():
    everything = RetryBudget()
    one = RetryBudget(everything)
    for _ in range(3):
        assert everything.take(1000.0)
    assert not one.take(1000.0)
    assert one.retrying == 0
    everything.give_back()
    assert one.take(1000.0)


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=200))
def test_repeats_never_exceed_what_was_paid_for(events):
    budget, now_s, requests, taken = RetryBudget(), 500.0, [], []
    for step_s, begins in events:
        now_s += step_s
        if begins:
            budget.begin(now_s)
            requests.append(now_s)
        elif budget.take(now_s):
            budget.give_back()
            taken.append(now_s)
        recent = [at_s for at_s in taken if int(at_s) > int(now_s) - 60]
        assert len(recent) <= 60 + 0.2 * len([at_s for at_s in requests if int(at_s) > int(now_s) - 60]) + 60


def test_one_hedge_for_twenty_requests_and_none_before():
    budget = HedgeBudget()
    assert not budget.take(1000.0)
    hedged = 0
    draw = random.Random(3)
    for place in range(1, 2001):
        budget.begin(1000.0 + place / 50)
        if draw.random() < 0.2:
            hedged += budget.take(1000.0 + place / 50)
        assert hedged <= 0.05 * place
    assert hedged >= 95


def test_hedges_that_nobody_needed_expire():
    budget = HedgeBudget()
    for _ in range(100):
        budget.begin(1000.0)
    assert not budget.take(1301.0)

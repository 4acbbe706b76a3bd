"""The pure scheduler: nobody starves, nobody gets more than a share, nothing is lost, bounds are kept."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from local_backend.fair_queue import LEAD_MIN_COUNT, QUANTUM_TOKENS, FairQueue

CALLERS = st.sampled_from("abcd")
COSTS = st.integers(1, 3000)
LANES = st.dictionaries(CALLERS, st.lists(COSTS, min_size=1, max_size=12), min_size=1)


def filled(lanes):
    queue = FairQueue()
    for caller, costs in lanes.items():
        for place, cost in enumerate(costs):
            queue.push(caller, (caller, place, cost), cost)
    return queue


def drained(queue):
    taken = []
    while (item := queue.pop()) is not None:
        taken.append(item)
    return taken


def test_callers_take_turns_however_much_one_of_them_asks():
    queue = filled({"noisy": [100] * 10, "quiet": [100] * 2})
    assert [caller for caller, _, _ in drained(queue)][:4] == ["noisy", "quiet", "noisy", "quiet"]


def test_turns_are_of_tokens_not_of_requests():
    taken = drained(filled({"long": [1000] * 5, "short": [100] * 30}))[:22]
    tokens = Counter()
    for caller, _, cost in taken:
        tokens[caller] += cost
    assert abs(tokens["long"] - tokens["short"]) <= 1000 + QUANTUM_TOKENS


def test_a_newcomer_is_not_behind_what_another_has_piled_up():
    queue = filled({"noisy": [200] * 16})
    for _ in range(3):
        queue.pop()
    queue.push("new", ("new", 0, 200), 200)
    assert "new" in [queue.pop()[0] for _ in range(2)]


def test_an_answer_that_was_longer_than_estimated_is_paid_for():
    queue = filled({"a": [100] * 10, "b": [100] * 10})
    assert queue.pop()[0] == "a"
    queue.charge("a", 400)
    assert [queue.pop()[0] for _ in range(5)].count("b") >= 4
    queue.charge("nobody", 400)


def test_a_full_queue_takes_from_whoever_has_most_and_refuses_whoever_is_no_better():
    queue = filled({"noisy": [10] * 14, "other": [10] * 2})
    assert queue.give_way("noisy") is None
    assert queue.give_way("other") == ("noisy", 13, 10)
    assert queue.give_way("new") == ("noisy", 12, 10)
    even = filled({"a": [10] * 8, "b": [10] * 7})
    assert even.give_way("a") is None
    assert even.give_way("b") is None
    assert FairQueue().give_way("a") is None


def test_what_is_ahead_of_a_newcomer_is_its_own_and_as_much_of_the_others():
    queue = filled({"noisy": [100] * 10, "quiet": [100]})
    assert len(list(queue.ahead_of("noisy", 100))) == 11
    assert [item[0] for item in queue.ahead_of("quiet", 100)] == ["noisy", "noisy", "quiet"]
    assert len(list(queue.ahead_of("new", 100))) == 2


@given(LANES)
def test_everybody_is_served_once_and_in_the_order_in_which_each_asked(lanes):
    taken = drained(filled(lanes))
    for caller, costs in lanes.items():
        assert [(place, cost) for who, place, cost in taken if who == caller] == list(enumerate(costs))
    assert len(taken) == sum(map(len, lanes.values()))


@given(LANES)
def test_as_long_as_two_wait_neither_gets_more_tokens_than_the_other_and_one_request(lanes):
    queue, left, got = filled(lanes), {caller: len(costs) for caller, costs in lanes.items()}, Counter()
    largest = max(cost for costs in lanes.values() for cost in costs)
    while all(left.values()):
        caller, _, cost = queue.pop()
        left[caller] -= 1
        got[caller] += cost
        for other in lanes:
            assert got[caller] - got[other] <= largest + 2 * QUANTUM_TOKENS


@given(LANES, st.integers(0, 40))
def test_a_newcomer_waits_for_a_bounded_number_of_tokens(lanes, before):
    queue = filled(lanes)
    for _ in range(before):
        queue.pop()
    queue.push("new", ("new", 0, 50), 50)
    waited = 0
    while (item := queue.pop())[0] != "new":
        waited += item[2]
    largest = max(cost for costs in lanes.values() for cost in costs)
    assert waited <= len(lanes) * (largest + 50 + 2 * QUANTUM_TOKENS)


class AgainstAModel(RuleBasedStateMachine):
    """Counts, order within a lane and removal, against plain lists."""

    def __init__(self):
        super().__init__()
        self.queue = FairQueue()
        self.model = {}
        self.number = 0

    @rule(caller=CALLERS, cost=COSTS)
    def push(self, caller, cost):
        self.number += 1
        self.queue.push(caller, (caller, self.number, cost), cost)
        self.model.setdefault(caller, []).append(self.number)

    @rule()
    def pop(self):
        item = self.queue.pop()
        assert (item is None) == (not any(self.model.values()))
        if item is not None:
            assert self.model[item[0]].pop(0) == item[1]

    @rule(caller=CALLERS, tokens=st.integers(-3000, 3000))
    def charge(self, caller, tokens):
        self.queue.charge(caller, tokens)

    @rule(caller=CALLERS)
    def give_way(self, caller):
        counts = {name: len(waiting) for name, waiting in self.model.items()}
        item = self.queue.give_way(caller)
        most = max(counts.values(), default=0)
        assert (item is None) == (most - counts.get(caller, 0) < LEAD_MIN_COUNT)
        if item is not None:
            assert counts[item[0]] == most
            assert self.model[item[0]].pop() == item[1]

    @precondition(lambda self: any(self.model.values()))
    @rule(data=st.data())
    def leave(self, data):
        number = data.draw(st.sampled_from([one for waiting in self.model.values() for one in waiting]))
        assert self.queue.remove(lambda item: item[1] == number)[1] == number
        assert self.queue.remove(lambda item: item[1] == number) is None
        for waiting in self.model.values():
            if number in waiting:
                waiting.remove(number)

    @invariant()
    def counts_agree(self):
        assert len(self.queue) == sum(map(len, self.model.values()))
        assert sorted(item[1] for item in self.queue) == sorted(one for each in self.model.values() for one in each)
        for caller in "abcd":
            assert self.queue.count_of(caller) == len(self.model.get(caller, ()))


AgainstAModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAgainstAModel = AgainstAModel.TestCase

import random
from collections import Counter
from itertools import permutations
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.catalogue import ScoreWeights
from gateway.config.schema import Policy
from gateway.observation import Observation
from gateway.routing.ask import Ask, Sort
from gateway.routing.policies import POLICIES, Draws
from tests.fakes.catalogues import decided, endpoint, names, priced, route, table

DRAWS = 20_000
CHI_SQUARE_MAX = {1: 10.83, 2: 13.82, 3: 16.27, 5: 20.52}
"""Passed by chance once in a thousand; the seeds are fixed, so it either always passes or never."""


def orders(prepared, seen=None, ask=None, draws=DRAWS):
    """How often each order of ids came up."""
    chance = random.Random(4)
    counted = Counter()
    for _ in range(draws):
        plan = decided(prepared, ask, seen, draw=chance.random())
        counted[tuple(names(plan.candidates))] += 1
    return counted


def firsts(counted):
    first = Counter()
    for order, times in counted.items():
        first[order[0]] += times
    return first


def assert_distributed(counted, shares):
    """Pearson's chi-square against the closed form."""
    total, whole = sum(counted.values()), sum(shares.values())
    assert set(counted) <= set(shares)
    expected = {name: total * share / whole for name, share in shares.items()}
    distance = sum((counted[name] - each) ** 2 / each for name, each in expected.items())
    assert distance < CHI_SQUARE_MAX[len(shares) - 1], (counted, expected)


def drawn_without_replacement(weights):
    """The probability of each order."""
    shares = {}
    for order in permutations(weights):
        left, share = sum(weights.values()), 1.0
        for name in order:
            share *= weights[name] / left
            left -= weights[name]
        shares[order] = share
    return shares


def in_order(policy, endpoints, seen=None, **keys):
    return names(decided(table(endpoints, policy=policy, **keys), seen=seen or {}).candidates)


def test_every_policy_of_the_file_and_every_sort_of_a_request_is_there():
    assert {*get_args(Policy), *get_args(Sort)} <= set(POLICIES)


class TestBalanced:
    def test_the_documented_example_one_dollar_is_drawn_nine_times_as_often_as_three(self):
        prepared = table([endpoint("a/x", 1), endpoint("b/x", 2), endpoint("c/x", 3)])
        counted = orders(prepared, {"b/x": Observation(outage=True)})
        assert_distributed(counted, {("a/x", "c/x", "b/x"): 9, ("c/x", "a/x", "b/x"): 1})

    def test_orders_are_drawn_without_replacement_by_the_inverse_square_of_the_cost(self):
        prepared = table([endpoint("a/x", 1), endpoint("b/x", 2), endpoint("c/x", 3)])
        weights = {"a/x": 1, "b/x": 1 / 4, "c/x": 1 / 9}
        assert_distributed(orders(prepared), drawn_without_replacement(weights))

    def test_the_cost_is_that_of_this_request_not_a_price(self):
        dear_prompts, dear_answers = endpoint("a/x", price=priced(3, 1)), endpoint("b/x", price=priced(1, 9))
        prepared = table([dear_prompts, dear_answers])
        ask = Ask(prompt_tokens=300, expected_output_tokens=100)
        # 3 * 300 + 100 against 300 + 9 * 100.
        assert_distributed(firsts(orders(prepared, ask=ask)), {"a/x": 1 / 1000**2, "b/x": 1 / 1200**2})
        short = Ask(prompt_tokens=300, expected_output_tokens=100, output_tokens=50)
        assert_distributed(firsts(orders(prepared, ask=short)), {"a/x": 1 / 950**2, "b/x": 1 / 750**2})

    def test_a_weight_slows_the_start_after_a_recovery(self):
        seen = {"a/x": Observation(weight=0.1)}
        prepared = table([endpoint("a/x", 1), endpoint("b/x", 1)])
        assert_distributed(firsts(orders(prepared, seen)), {"a/x": 0.1, "b/x": 1})

    def test_no_weight_at_all_is_last_but_there(self):
        counted = orders(table([endpoint("a/x", 1), endpoint("b/x", 9)]), {"a/x": Observation(weight=0)}, draws=500)
        assert set(counted) == {("b/x", "a/x")}

    def test_free_ones_come_first_the_least_busy_before_the_others_and_unknown_prices_last(self):
        endpoints = [endpoint("unknown/x", None), endpoint("paid/x", 1), endpoint("f/1", 0), endpoint("f/2", 0)]
        seen = {"f/1": Observation(in_flight=3), "f/2": Observation(in_flight=2)}
        assert set(orders(table(endpoints), seen, draws=200)) == {("f/2", "f/1", "paid/x", "unknown/x")}

    def test_equally_busy_free_ones_and_equally_unknown_ones_are_drawn_evenly(self):
        for usd in (0, None):
            prepared = table([endpoint("a/x", usd), endpoint("b/x", usd), endpoint("c/x", usd)])
            assert_distributed(firsts(orders(prepared)), {"a/x": 1, "b/x": 1, "c/x": 1})

    def test_weights_count_among_unknown_prices_too(self):
        prepared = table([endpoint("a/x", None), endpoint("b/x", None)])
        counted = firsts(orders(prepared, {"a/x": Observation(weight=0.2)}))
        assert_distributed(counted, {"a/x": 0.2, "b/x": 1})

    def test_those_with_an_outage_follow_the_same_rule_among_themselves(self):
        out = Observation(outage=True)
        prepared = table([endpoint("a/x", 1), endpoint("b/x", 2), endpoint("c/x", None), endpoint("d/x", None)])
        counted = orders(prepared, {"a/x": out, "b/x": out, "c/x": out})
        assert_distributed(counted, {("d/x", "a/x", "b/x", "c/x"): 4, ("d/x", "b/x", "a/x", "c/x"): 1})

    def test_two_stages_are_drawn_independently(self):
        second = [endpoint("c/x", 1), endpoint("d/x", 1)]
        prepared = table(
            [endpoint("a/x", 1), endpoint("b/x", 1)], others=(*second, route(second, "second")), fallback=("second",)
        )
        evenly = dict.fromkeys(
            (*first, *last) for first in permutations(("a/x", "b/x")) for last in permutations(("c/x", "d/x"))
        )
        assert_distributed(orders(prepared), dict.fromkeys(evenly, 1))

    def test_draws_close_to_each_other_lead_far_apart(self):
        prepared = table([endpoint("a/x", 1), endpoint("b/x", 1)])
        counted = Counter(names(decided(prepared, draw=0.25 + n * 2**-53).candidates)[0] for n in range(2000))
        assert_distributed(counted, {"a/x": 1, "b/x": 1})


def test_price_asks_the_cheapest_first_and_unknown_ones_last():
    endpoints = [endpoint("u/x", None), endpoint("c/x", 3), endpoint("a/x", 1), endpoint("f/x", 0), endpoint("b/x", 2)]
    assert in_order("price", endpoints) == ["f/x", "a/x", "b/x", "c/x", "u/x"]


@pytest.mark.parametrize(
    ("policy", "fast", "slow"),
    [
        ("latency", Observation(ttft_s=0.2), Observation(ttft_s=0.9)),
        ("throughput", Observation(tokens_per_s=90), Observation(tokens_per_s=20)),
    ],
)
def test_the_fastest_is_first_and_who_was_never_measured_gets_one_request_at_a_time(policy, fast, slow):
    endpoints = [endpoint("s/x"), endpoint("n/x"), endpoint("f/x")]
    seen = {"s/x": slow, "f/x": fast}
    assert in_order(policy, endpoints, seen) == ["n/x", "f/x", "s/x"]
    for unmeasured in (Observation(in_flight=1), Observation(outage=True)):
        assert in_order(policy, endpoints, {**seen, "n/x": unmeasured}) == ["f/x", "s/x", "n/x"]


def test_ordered_is_the_order_of_the_file_whatever_it_costs():
    endpoints = [endpoint("c/x", 3), endpoint("l/x", 0, local=True), endpoint("a/x", 1, state="unverified")]
    assert in_order("ordered", endpoints, local="by_policy") == ["c/x", "l/x", "a/x"]


def test_weights_are_shares_and_nobody_without_one_comes_before_one_with():
    prepared = table(
        [endpoint("a/x"), endpoint("z/x"), endpoint("b/x")], policy="weighted", weights={"a/x": 3, "b/x": 1, "z/x": 0}
    )
    shares = {("a/x", "b/x", "z/x"): 3, ("b/x", "a/x", "z/x"): 1}
    assert_distributed(orders(prepared), shares)


def test_least_busy_is_relative_to_what_each_bears_and_equals_are_drawn():
    endpoints = [endpoint("a/x"), endpoint("b/x"), endpoint("c/x")]
    seen = {
        "a/x": Observation(in_flight=4, cap=8),
        "b/x": Observation(in_flight=10, cap=100),
        "c/x": Observation(in_flight=32),
    }
    prepared = table(endpoints, policy="least_busy")
    assert set(firsts(orders(prepared, seen, draws=300))) == {"b/x"}
    assert_distributed(
        orders(prepared, seen), {("b/x", "a/x", "c/x"): 1, ("b/x", "c/x", "a/x"): 1}
    )  # 4 of 8 and 32 of the assumed 64


def test_score_is_the_weighted_mean_of_shares_of_the_best():
    endpoints = [endpoint("a/x", 1), endpoint("b/x", 4)]
    seen = {
        "a/x": Observation(ttft_s=2.0, tokens_per_s=25, uptime=0.9, in_flight=32),
        "b/x": Observation(ttft_s=0.5, tokens_per_s=100, uptime=1.0, in_flight=0),
    }

    def scores(**weights):
        weights = ScoreWeights(**{**dict.fromkeys(ScoreWeights.__struct_fields__, 0.0), **weights})
        plan = decided(table(endpoints, policy="score", score=weights), seen=seen)
        return {one.endpoint.provider: round(one.score, 6) for one in plan.candidates}

    assert scores(cost=1) == {"a": 1, "b": 0.25}
    assert scores(ttft=1) == {"b": 1, "a": 0.25}
    assert scores(throughput=1) == {"b": 1, "a": 0.25}
    assert scores(uptime=1) == {"b": 1, "a": 0.9}
    assert scores(queue=1) == {"b": 1, "a": 0.5}
    assert scores(cost=3, queue=1) == {"a": 0.875, "b": 0.4375}
    assert list(scores(cost=3, queue=1)) == ["a", "b"]
    assert list(scores(cost=1, ttft=2)) == ["b", "a"]


def test_score_knows_free_unknown_and_unmeasured():
    endpoints = [endpoint("u/x", None), endpoint("p/x", 1), endpoint("f/x", 0)]
    weights = ScoreWeights(cost=1, ttft=0, throughput=0, uptime=0, queue=0)
    plan = decided(table(endpoints, policy="score", score=weights))
    assert [one.score for one in plan.candidates] == [1, 1, 0]
    plan = decided(table([endpoint("a/x")], policy="score"))
    assert plan.candidates[0].score == 1


def test_exacto_prefers_what_answers_well():
    endpoints = [endpoint("a/x", 1), endpoint("b/x", 9)]
    seen = {"a/x": Observation(uptime=0.7, tokens_per_s=60), "b/x": Observation(uptime=1.0, tokens_per_s=50)}
    assert in_order("exacto", endpoints, seen) == ["b/x", "a/x"]


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 300))
def test_draws_are_those_of_a_64_bit_generator(draw, stage):
    mask = (1 << 64) - 1
    state = (int(draw * (1 << 53)) + (stage + 1) * 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    state ^= state >> 31
    draws = Draws(draw, stage)
    for _ in range(4):
        state = (state * 6364136223846793005 + 1442695040888963407) & mask
        assert draws.next() == (state >> 11 | 1) * 2.0**-53

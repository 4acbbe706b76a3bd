from datetime import UTC, datetime

import pytest

from gateway.observation import Observation, Quantiles
from gateway.routing.ask import Ask, Cutoffs, Preferences
from gateway.routing.table import prepare
from providers.base import Capabilities, Price, PriceOverride
from tests.fakes.catalogues import USD, catalogue, codes, decided, endpoint, names, priced, route, table

NOW_S = 100.0
A, B, C, D = endpoint("a/x", 1), endpoint("b/x", 2), endpoint("c/x", 3), endpoint("d/x", 4)
DEGRADED, PROBING = Observation("degraded"), Observation("probing")


def resting(standing, until_s=NOW_S + 1):
    return Observation(standing, until_s)


def plan(endpoints, seen=None, ask=None, **keys):
    return decided(table(endpoints, **{"policy": "price", **keys}), ask, seen, now_s=NOW_S)


def two_stages(policy="price"):
    return {"others": (C, D, route([C, D], "second", policy=policy)), "fallback": ("second",), "policy": policy}


class TestStanding:
    @pytest.mark.parametrize("policy", ["price", "ordered"])
    def test_healthy_ones_of_every_stage_come_before_degraded_ones(self, policy):
        made = plan([A, B], {"a/x": DEGRADED, "c/x": DEGRADED}, **two_stages(policy))
        assert names(made.candidates) == ["b/x", "d/x", "a/x", "c/x"]
        assert [candidate.stage for candidate in made.candidates] == [0, 1, 0, 1]

    def test_who_recovers_is_asked_first_among_its_equals_once_per_stage(self):
        seen = {"b/x": PROBING, "c/x": PROBING, "d/x": PROBING}
        assert names(plan([A, B], seen, **two_stages()).candidates) == ["b/x", "a/x", "c/x", "d/x"]
        assert names(plan([A, B, C, D], seen).candidates) == ["b/x", "a/x", "c/x", "d/x"]
        assert names(plan([D, C, B, A], seen, policy="ordered").candidates) == ["d/x", "a/x", "c/x", "b/x"]
        assert names(plan([D], seen).candidates) == ["d/x"]

    def test_who_recovers_does_not_overtake_whom_the_client_named(self):
        ask = Ask(preferences=Preferences(order=("a",)))
        assert names(plan([A, B, C], {"c/x": PROBING}, ask).candidates) == ["a/x", "c/x", "b/x"]

    def test_a_local_one_that_recovers_waits_its_turn(self):
        local = endpoint("l/x", 0, local=True)
        assert names(plan([A, B, local], {"l/x": PROBING}).candidates) == ["a/x", "b/x", "l/x"]
        made = plan([A, local], {"l/x": PROBING}, policy="ordered", local="by_policy")
        assert names(made.candidates) == ["a/x", "l/x"]

    def test_parked_and_open_ones_rest_the_soonest_back_first(self):
        seen = {"a/x": resting("open", 130.0), "b/x": resting("parked", 110.0), "d/x": resting("open", 101.0)}
        made = plan([A, B], seen, **two_stages())
        assert (names(made.candidates), names(made.resting)) == (["c/x"], ["d/x", "b/x", "a/x"])
        assert not made.excluded
        assert made.resting[0].expected_cost_in_pusd == 300 * 4 * USD
        assert made.resting[0].stage == 1

    def test_a_time_that_has_passed_lets_it_be_tried(self):
        past = NOW_S
        seen = {"a/x": resting("parked", past), "b/x": resting("open", past), "c/x": resting("disabled", past)}
        made = plan([A, B, C, D], {**seen, "d/x": DEGRADED})
        assert names(made.candidates) == ["b/x", "a/x", "d/x", "c/x"]
        assert not made.resting
        assert not made.excluded

    def test_a_disabled_one_that_is_due_comes_after_everybody_of_all_stages(self):
        made = plan([A, B], {"a/x": resting("disabled", NOW_S), "d/x": DEGRADED}, **two_stages())
        assert names(made.candidates) == ["b/x", "c/x", "d/x", "a/x"]

    def test_a_disabled_one_is_excluded_until_it_may_be_looked_at(self):
        made = plan([A, B], {"a/x": resting("disabled")})
        assert (names(made.candidates), codes(made)) == (["b/x"], {"a/x": "disabled"})

    def test_an_outage_counts_under_balanced_alone(self):
        assert names(plan([A, B], {"a/x": Observation(outage=True)}).candidates) == ["a/x", "b/x"]


class TestHandicaps:
    LOCAL = endpoint("l/x", 0, local=True)

    def test_unverified_come_after_verified_and_local_ones_last(self):
        unverified = endpoint("u/x", 0, state="unverified")
        for policy in ("price", "balanced", "latency", "throughput", "least_busy", "score"):
            made = plan([unverified, self.LOCAL, A], policy=policy)
            assert names(made.candidates) == ["a/x", "u/x", "l/x"], policy

    def test_a_route_may_put_local_ones_first_or_anywhere(self):
        assert names(plan([A, self.LOCAL], local="first").candidates) == ["l/x", "a/x"]
        assert names(plan([A, self.LOCAL], local="by_policy").candidates) == ["l/x", "a/x"]
        dear = endpoint("l/x", 9, local=True)
        assert names(plan([A, dear], local="by_policy").candidates) == ["a/x", "l/x"]
        assert names(plan([A, dear], local="first").candidates) == ["l/x", "a/x"]

    @pytest.mark.parametrize("policy", ["price", "ordered"])
    def test_who_can_natively_comes_before_who_has_to_be_asked_in_words(self, policy):
        tools = endpoint("t/x", 5, capabilities=Capabilities(tools=True))
        both = endpoint("z/x", 9, capabilities=Capabilities(tools=True, json_object=True))
        made = plan([A, tools, both], ask=Ask(needed=("tools", "json_object")), policy=policy)
        assert names(made.candidates) == ["z/x", "t/x", "a/x"]

    def test_parameters_that_are_asked_are_preferred_not_required(self):
        knows, lacks, unknown = (
            endpoint("k/x", 9, parameters=frozenset({"seed", "tools"})),
            endpoint("n/x", 1, parameters=frozenset({"tools"})),
            endpoint("u/x", 5),
        )
        made = plan([lacks, knows, unknown], ask=Ask(parameters=("seed",)))
        assert names(made.candidates) == ["u/x", "k/x", "n/x"]

    def test_who_just_meets_a_cutoff_meets_it(self):
        exactly = Quantiles(20, 20, 20, 20)
        seen = {"a/x": Observation(throughput=exactly, latency=exactly)}
        for wish in ({"min_throughput": Cutoffs(p50=20)}, {"max_latency": Cutoffs(p99=20)}):
            made = plan([A, B], seen, Ask(preferences=Preferences(**wish)))
            assert names(made.candidates) == ["a/x", "b/x"]

    def test_cutoffs_put_back_and_never_exclude(self):
        slow, quick = Quantiles(20, 18, 15, 10), Quantiles(90, 80, 70, 60)
        seen = {"a/x": Observation(throughput=slow), "b/x": Observation(throughput=quick), "c/x": Observation()}
        wish = Preferences(min_throughput=Cutoffs(p50=50, p90=60))
        assert names(plan([A, B, C], seen, Ask(preferences=wish)).candidates) == ["b/x", "c/x", "a/x"]
        seen = {"a/x": Observation(latency=quick), "b/x": Observation(latency=slow)}
        wish = Preferences(max_latency=Cutoffs(p75=30))
        assert names(plan([A, B, C], seen, Ask(preferences=wish)).candidates) == ["b/x", "c/x", "a/x"]


class TestPreferences:
    def test_a_sort_overrides_every_policy(self):
        prepared = table([C, B, A], policy="ordered", others=(D,), fallback=("d/x",))
        made = decided(prepared, Ask(preferences=Preferences(sort="price")))
        assert names(made.candidates) == ["a/x", "b/x", "c/x", "d/x"]
        assert (made.policy, made.explicit) == ("price", False)

    def test_across_models_all_are_sorted_together(self):
        routes = [route([C, A], "one"), route([D, B], "two")]
        prepared = prepare(routes, catalogue([A, B, C, D], routes), {})
        within = decided(prepared, Ask(preferences=Preferences(sort="price")))
        assert names(within.candidates) == ["a/x", "c/x", "b/x", "d/x"]
        assert (within.route, within.explicit) == ("one", True)
        across = decided(prepared, Ask(preferences=Preferences(sort="price", across_models=True)))
        assert names(across.candidates) == ["a/x", "b/x", "c/x", "d/x"]
        assert [candidate.stage for candidate in across.candidates] == [0, 1, 0, 1]

    def test_one_slug_of_an_order_may_mean_several_and_the_policy_orders_them(self):
        endpoints = [endpoint("p/dear", 9), endpoint("q/x", 1), endpoint("p/cheap", 2)]
        ask = Ask(preferences=Preferences(order=("p", "q")))
        assert names(plan(endpoints, ask=ask).candidates) == ["p/cheap", "p/dear", "q/x"]

    def test_no_fallbacks_with_everybody_resting_leaves_the_provider_that_is_back_first(self):
        seen = {"a/x": resting("parked", 150.0), "b/x": resting("parked", 120.0)}
        made = plan([A, B], seen, Ask(preferences=Preferences(allow_fallbacks=False)))
        assert (names(made.resting), codes(made)) == (["b/x"], {"a/x": "no_fallbacks"})

    def test_no_fallbacks_of_two_models_leaves_each_its_first_provider(self):
        routes = [route([B, A], "one", policy="price", fallback=("c/x",)), route([D], "two")]
        prepared = prepare(routes, catalogue([A, B, C, D], routes), {})
        made = decided(prepared, Ask(preferences=Preferences(allow_fallbacks=False)))
        assert names(made.candidates) == ["a/x", "d/x"]
        assert codes(made) == {"b/x": "no_fallbacks", "c/x": "no_fallbacks"}
        assert (made.rescue, made.hedge) == (False, False)


class TestWarmth:
    """1,000 tokens of prompt, 900 of them warm at B: 100 * 2 + 900 * 0.2 = 380 against 1,000 at A."""

    ASK = Ask(prompt_tokens=500, expected_output_tokens=0, warm_endpoint="b/x", warm_tokens=450)
    WARM = endpoint("b/x", price=priced(2, cache_read_in_pusd=USD // 5))

    def test_who_holds_the_conversation_goes_first_where_that_is_cheaper(self):
        made = plan([A, self.WARM], ask=self.ASK, policy="latency")
        assert names(made.candidates) == ["b/x", "a/x"]
        assert made.candidates[0].expected_cost_in_pusd == 190 * USD
        assert made.candidates[1].expected_cost_in_pusd == 500 * USD

    @pytest.mark.parametrize(
        ("warm", "seen", "ask", "policy"),
        [
            (endpoint("b/x", 2), {}, ASK, "latency"),  # no price of its own for what is cached: dearer than A
            (WARM, {"b/x": DEGRADED}, ASK, "price"),
            (WARM, {"b/x": Observation(outage=True)}, ASK, "latency"),
            (WARM, {"b/x": resting("open")}, ASK, "price"),
            (WARM, {}, ASK, "ordered"),
            (endpoint("b/x", price=WARM.price, state="unverified"), {}, ASK, "latency"),
            (WARM, {}, Ask(prompt_tokens=500, warm_endpoint="nobody", warm_tokens=400), "latency"),
        ],
    )
    def test_else_nothing_changes(self, warm, seen, ask, policy):
        assert names(plan([A, warm], seen, ask, policy=policy).candidates)[0] == "a/x"

    def test_an_order_of_the_client_stands(self):
        ask = Ask(prompt_tokens=500, warm_endpoint="b/x", warm_tokens=450, preferences=Preferences(order=("a",)))
        assert names(plan([A, self.WARM], ask=ask).candidates) == ["a/x", "b/x"]

    def test_among_unknown_prices_the_warm_one_is_first(self):
        made = plan([endpoint("a/x", None), endpoint("b/x", None)], ask=self.ASK)
        assert names(made.candidates) == ["b/x", "a/x"]


class TestCosts:
    def test_the_expected_cost_has_prompt_answer_request_and_images(self):
        dear = endpoint("a/x", price=priced(1, 2, request_in_pusd=7, image_in_pusd=11))
        (candidate,) = plan([dear], ask=Ask(prompt_tokens=10, expected_output_tokens=20, images=3)).candidates
        assert candidate.expected_cost_in_pusd == 10 * USD + 20 * 2 * USD + 7 + 33
        (candidate,) = plan([dear], ask=Ask(prompt_tokens=10, expected_output_tokens=20, output_tokens=5)).candidates
        assert candidate.expected_cost_in_pusd == 10 * USD + 5 * 2 * USD + 7
        (candidate,) = plan([endpoint("a/x", None)]).candidates
        assert candidate.expected_cost_in_pusd is None

    @pytest.mark.parametrize("price", [Price(input_in_pusd=1), Price(output_in_pusd=1), Price(request_in_pusd=1)])
    def test_a_price_that_is_known_in_part_gives_no_cost(self, price):
        made = plan([endpoint("a/x", price=price), B])
        assert [one.expected_cost_in_pusd for one in made.candidates] == [300 * 2 * USD, None]

    def test_prices_for_long_prompts_and_times_of_day_hold_when_they_do(self):
        overrides = (
            PriceOverride(price=Price(input_in_pusd=3 * USD), min_prompt_tokens=200),
            PriceOverride(price=Price(input_in_pusd=5 * USD), utc_start="00:00", utc_end="06:00"),
        )
        prepared = table(
            [endpoint("a/x", price=priced(1, request_in_pusd=7, image_in_pusd=11))], overrides={"a/x": overrides}
        )

        def cost(prompt_tokens, hour=None, images=0):
            now_utc = None if hour is None else datetime(2026, 11, 22, hour, tzinfo=UTC)
            ask = Ask(prompt_tokens=prompt_tokens, expected_output_tokens=0, images=images)
            return decided(prepared, ask, now_utc=now_utc).candidates[0].expected_cost_in_pusd

        assert cost(100) == 100 * USD + 7
        assert cost(200) == 600 * USD + 7
        assert cost(200, images=2) == 600 * USD + 7 + 22
        assert cost(200, 12) == 600 * USD + 7
        assert cost(200, 3) == 1000 * USD + 7


def test_with_nobody_left_the_plan_says_why_of_each():
    made = plan([A, B], ask=Ask(prompt_tokens=5000))
    assert (made.candidates, made.resting) == ((), ())
    assert [(one.code, one.wanted, one.limit) for one in made.excluded] == [("context", 5016, 1000)] * 2
    assert "5000" in made.excluded[0].reason

from datetime import UTC, datetime

import pytest

from gateway.routing.ask import Ask, Preferences, PriceLimit
from providers.base import Capabilities, DataPolicy, Price, PriceOverride
from providers.quirks import Quirks
from tests.fakes.catalogues import USD, codes, decided, endpoint, names, priced, route, table

OTHER = endpoint("other/x", context_tokens=None, max_output_tokens=None)


def only(facts, ask, usd=1.0):
    """The exclusion of one Endpoint, or None."""
    excluded = decided(table([endpoint("a/x", usd, **facts)]), ask).excluded
    return (excluded[0].code, excluded[0].wanted, excluded[0].limit) if excluded else None


def wish(**preferences):
    return Ask(preferences=Preferences(**preferences))


@pytest.mark.parametrize(
    ("facts", "ask", "expected"),
    [
        ({}, Ask(prompt_tokens=500, output_tokens=500), None),
        ({}, Ask(prompt_tokens=501, output_tokens=500), ("context", 1001, 1000)),
        ({}, Ask(prompt_tokens=984), None),
        ({}, Ask(prompt_tokens=985), ("context", 1001, 1000)),
        ({"context_tokens": None}, Ask(prompt_tokens=10**9), None),
        ({}, Ask(output_tokens=501), ("output_limit", 501, 500)),
        ({}, Ask(prompt_tokens=499, output_tokens=501), ("output_limit", 501, 500)),
        ({"max_output_tokens": None}, Ask(output_tokens=900), None),
        ({}, Ask(needed=("vision",)), ("no_vision", None, None)),
        ({}, Ask(needed=("logprobs",)), ("no_logprobs", None, None)),
        ({}, Ask(needed=("prefill",)), ("no_prefill", None, None)),
        ({"capabilities": Capabilities(vision=True)}, Ask(needed=("vision",)), None),
        ({}, Ask(needed=("tools", "json_schema", "json_object")), None),
    ],
)
def test_sizes_and_abilities(facts, ask, expected):
    assert only(facts, ask) == expected


def test_every_capability_that_is_needed_counts():
    seeing, both = Capabilities(vision=True), Capabilities(vision=True, logprobs=True)
    every = [endpoint("a/x", capabilities=seeing), endpoint("b/x", capabilities=both), endpoint("c/x")]
    plan = decided(table(every), Ask(needed=("vision", "logprobs")))
    assert (names(plan.candidates), codes(plan)) == (["b/x"], {"a/x": "no_logprobs", "c/x": "no_vision"})


def test_without_emulation_tools_are_needed_like_anything_else():
    able = endpoint("b/x", capabilities=Capabilities(tools=True))
    plan = decided(table([endpoint("a/x"), able], emulate=False), Ask(needed=("tools",)))
    assert (names(plan.candidates), codes(plan)) == (["b/x"], {"a/x": "no_tools"})


def test_fallbacks_are_checked_exactly_like_first_choices():
    small, large = endpoint("s/x", context_tokens=10), endpoint("l/x", context_tokens=10_000)
    first = endpoint("a/x")
    prepared = table([first], others=(small, large, route([large], "large")), fallback=("s/x", "large"))
    plan = decided(prepared, Ask(prompt_tokens=5000))
    assert (names(plan.candidates), codes(plan)) == (["l/x"], {"a/x": "context", "s/x": "context"})
    plan = decided(prepared, Ask(needed=("vision",)))
    assert set(codes(plan).values()) == {"no_vision"}
    assert len(plan.excluded) == 3


@pytest.mark.parametrize(
    ("facts", "preferences", "expected"),
    [
        ({}, {"data_collection": "deny"}, "data_collection"),
        ({"data": DataPolicy(collects=True)}, {"data_collection": "deny"}, "data_collection"),
        ({"data": DataPolicy(collects=False)}, {"data_collection": "deny"}, None),
        ({"quirks": Quirks(router_fields=True)}, {"data_collection": "deny"}, None),
        (
            {"quirks": Quirks(router_fields=True), "data": DataPolicy(collects=True)},
            {"data_collection": "deny"},
            "data_collection",
        ),
        ({}, {"zdr": True}, "zdr"),
        ({"data": DataPolicy(retains=True)}, {"zdr": True}, "zdr"),
        ({"data": DataPolicy(collects=True, retains=False)}, {"zdr": True}, None),
        ({}, {"distillable": True}, "distillable"),
        ({"distillable": False}, {"distillable": True}, "distillable"),
        ({"distillable": True}, {"distillable": True}, None),
        ({"quantization": "fp8"}, {"quantizations": ("fp8", "bf16")}, None),
        ({"quantization": "int4"}, {"quantizations": ("fp8", "bf16")}, "quantization"),
        ({}, {"quantizations": ("fp8",)}, "quantization"),
        ({}, {"quantizations": ("fp8", "unknown")}, None),
        ({"quirks": Quirks(router_fields=True)}, {"quantizations": ("fp8",)}, None),
        ({}, {"free_only": True}, "not_free"),
        ({"price": None}, {"free_only": True}, "not_free"),
        ({"price": priced(0)}, {"free_only": True}, None),
        ({"price": priced(0, request_in_pusd=1)}, {"free_only": True}, "not_free"),
    ],
)
def test_what_a_client_insists_on_is_not_satisfied_by_what_nobody_knows(facts, preferences, expected):
    found = only(facts, wish(**preferences))
    assert (found and found[0]) == expected


@pytest.mark.parametrize(
    ("parameters", "insists", "expected"),
    [
        (frozenset({"seed"}), True, None),
        (frozenset(), True, "parameters"),
        (frozenset(), False, None),
        (None, True, None),
    ],
)
def test_parameters_are_insisted_on_where_it_is_known_which_are_taken(parameters, insists, expected):
    ask = Ask(parameters=("seed",), preferences=Preferences(require_parameters=insists))
    found = only({"parameters": parameters}, ask)
    assert (found and found[0]) == expected


def test_the_reason_names_the_parameters_that_are_not_taken():
    ask = Ask(parameters=("seed", "top_k", "stop"), preferences=Preferences(require_parameters=True))
    (one,) = decided(table([endpoint("a/x", parameters=frozenset({"top_k"}))]), ask).excluded
    assert one.reason == "it does not take seed, stop"


@pytest.mark.parametrize(
    ("price", "limit", "expected"),
    [
        (priced(2), {"input_in_pusd": 2 * USD}, None),
        (priced(2), {"input_in_pusd": 2 * USD - 1}, ("max_price", 2 * USD - 1, 2 * USD)),
        (priced(1, 5), {"output_in_pusd": 4 * USD}, ("max_price", 4 * USD, 5 * USD)),
        (priced(1, request_in_pusd=7), {"request_in_pusd": 6}, ("max_price", 6, 7)),
        (priced(1), {"request_in_pusd": 0, "image_in_pusd": 0}, None),
        (priced(1, image_in_pusd=7), {"image_in_pusd": 6}, ("max_price", 6, 7)),
        (None, {"input_in_pusd": 9 * USD}, ("max_price", 9 * USD, None)),
        (Price(input_in_pusd=1), {"input_in_pusd": 1}, None),
        (Price(input_in_pusd=1), {"output_in_pusd": 1}, ("max_price", 1, None)),
    ],
)
def test_a_price_above_the_limit_or_unknown_is_too_much(price, limit, expected):
    assert only({"price": price}, wish(max_price=PriceLimit(**limit))) == expected


def test_a_budget_is_held_against_what_an_answer_can_cost_at_worst():
    # 100 tokens and an answer of up to 500 at 1 USD per million are 600,000 nano-USD; the Endpoint itself stops at 500.
    ask = {"prompt_tokens": 100, "expected_output_tokens": 10}
    assert only({}, Ask(**ask, budget_in_nusd=600_000)) is None
    assert only({}, Ask(**ask, budget_in_nusd=599_999)) == ("budget", 600_000, 599_999)
    assert only({}, Ask(**ask, output_tokens=50, budget_in_nusd=150_000)) is None
    assert only({"max_output_tokens": None}, Ask(**ask, budget_in_nusd=10**9)) is None
    assert only({"max_output_tokens": None}, Ask(**ask, budget_in_nusd=999_999)) == ("budget", 1_000_000, 999_999)
    unbounded = {"max_output_tokens": None, "context_tokens": None}
    assert only(unbounded, Ask(**ask, budget_in_nusd=1)) == ("budget", 4_196_000, 1)
    assert only({}, Ask(**ask, budget_in_nusd=10**12), usd=None) == ("budget", None, 10**12)
    assert only({"price": priced(0)}, Ask(**ask, budget_in_nusd=0)) is None


def test_prices_that_hold_at_some_times_count_at_those_times():
    night = PriceOverride(price=Price(input_in_pusd=1), utc_start="22:00", utc_end="06:00")
    prepared = table([endpoint("a/x", 5)], overrides={"a/x": (night,)})
    ask = Ask(preferences=Preferences(max_price=PriceLimit(input_in_pusd=1)))
    assert not decided(prepared, ask, now_utc=datetime(2026, 11, 22, 23, tzinfo=UTC)).excluded
    assert decided(prepared, ask, now_utc=datetime(2026, 11, 22, 12, tzinfo=UTC)).excluded
    assert decided(prepared, ask).excluded


@pytest.mark.parametrize(
    ("permitted", "expected"),
    [
        (None, ["a/x", "other/x"]),
        (("m",), ["a/x", "other/x"]),
        (("a",), ["a/x"]),
        (("other/x",), ["other/x"]),
        ((), []),
        (("n", "nobody"), []),
    ],
)
def test_a_key_reaches_what_it_is_permitted(permitted, expected):
    plan = decided(table([endpoint("a/x"), OTHER], policy="ordered"), Ask(permitted=permitted))
    assert names(plan.candidates) == expected
    assert set(codes(plan).values()) <= {"not_permitted"}


class TestLists:
    """`only`, `ignore`, `order` and `allow_fallbacks`."""

    EU = endpoint("cloud/m-eu", region="eu-west-3")
    US = endpoint("cloud/m-us", region="us-east5")
    ELSEWHERE = endpoint("else/m")
    ROUTER = endpoint("router/m", quirks=Quirks(router_fields=True))

    def plan(self, **preferences):
        prepared = table(
            [self.EU, self.US, self.ELSEWHERE], others=(self.ROUTER,), policy="price", fallback=("router/m",)
        )
        return decided(prepared, wish(**preferences))

    @pytest.mark.parametrize(
        ("slugs", "expected"),
        [
            (("cloud",), ["cloud/m-eu", "cloud/m-us"]),
            (("Cloud",), ["cloud/m-eu", "cloud/m-us"]),
            (("cloud/us-east5",), ["cloud/m-us"]),
            (("cloud/m-eu", "else"), ["cloud/m-eu", "else/m"]),
            (("router",), ["router/m"]),
            # A name that nobody here has may be one that the router further on knows: it is passed on.
            (("stranger",), ["router/m"]),
            (("clou",), ["router/m"]),
        ],
    )
    def test_an_allow_list_leaves_whom_it_names(self, slugs, expected):
        assert names(self.plan(only=slugs).candidates) == expected

    def test_another_region_of_a_provider_is_told_apart_from_another_provider(self):
        assert codes(self.plan(only=("cloud/us-east5",))) == {
            "cloud/m-eu": "region",
            "else/m": "only",
            "router/m": "only",
        }

    def test_a_deny_list_takes_whom_it_names(self):
        plan = self.plan(ignore=("cloud/us-east5", "else", "stranger"))
        assert names(plan.candidates) == ["cloud/m-eu", "router/m"]
        assert codes(plan) == {"cloud/m-us": "ignored", "else/m": "ignored"}

    def test_an_order_comes_first_and_the_rest_after(self):
        plan = self.plan(order=("else", "nobody", "cloud/us-east5"))
        # `nobody` may be the router's, but the router is a fallback: it comes after the Route's own.
        assert names(plan.candidates) == ["else/m", "cloud/m-us", "cloud/m-eu", "router/m"]
        assert plan.explicit

    def test_without_fallbacks_only_those_that_the_order_names_are_asked(self):
        plan = self.plan(order=("cloud/us-east5", "else"), allow_fallbacks=False)
        assert names(plan.candidates) == ["cloud/m-us", "else/m"]
        assert set(codes(plan).values()) == {"no_fallbacks"}
        assert not plan.rescue

    def test_without_fallbacks_and_order_only_the_first_provider_is_asked(self):
        plan = self.plan(allow_fallbacks=False)
        assert names(plan.candidates) == ["cloud/m-eu", "cloud/m-us"]
        assert codes(plan) == {"else/m": "no_fallbacks", "router/m": "no_fallbacks"}
        assert not plan.rescue

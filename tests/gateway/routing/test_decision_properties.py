"""What holds of every decision, whatever is asked of whomever."""

import math
import os
import random
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.schema import Policy
from gateway.observation import UNOBSERVED, Observation, Quantiles, Standing
from gateway.routing.ask import Ask, Cutoffs, Preferences, PriceLimit, Sort
from gateway.routing.decide import decide
from gateway.routing.eligible import demand_of, judge
from gateway.routing.table import prepare
from providers.base import Capabilities, DataPolicy, Endpoint, Price, PriceOverride
from providers.quirks import Quirks
from tests.fakes.catalogues import USD, catalogue, route

MANY = settings(max_examples=2000 if os.environ.get("MIXGATE_TEST_FULL") else 200, deadline=None)
NOW_S = 1000.0

sizes = st.none() | st.integers(1, 4000)
prices = st.none() | st.integers(0, 9 * USD)
flags = st.none() | st.booleans()
positive = st.floats(0.001, 1000, allow_nan=False)
quantiles = st.none() | st.builds(Quantiles, positive, positive, positive, positive)
cutoffs = st.none() | st.builds(Cutoffs, p50=st.none() | positive, p99=st.none() | positive)
names_of_needs = st.sampled_from(["tools", "json_schema", "vision", "logprobs", "prefill"])
parameters = st.sampled_from(["seed", "tools", "top_k"])
slugs = st.lists(st.sampled_from(["p0", "p1", "P2", "p1/eu", "p0/m3", "stranger"]), max_size=3, unique=True).map(tuple)

observations = st.builds(
    Observation,
    standing=st.sampled_from(get_args(Standing)),
    until_s=st.floats(NOW_S - 10, NOW_S + 10),
    outage=st.booleans(),
    weight=st.floats(0, 1),
    in_flight=st.integers(0, 50),
    cap=st.none() | st.integers(1, 40),
    ttft_s=st.none() | positive,
    tokens_per_s=st.none() | positive,
    uptime=st.none() | st.floats(0, 1),
    latency=quantiles,
    throughput=quantiles,
)
preferences = st.builds(
    Preferences,
    order=slugs,
    allow_fallbacks=st.booleans(),
    require_parameters=st.booleans(),
    data_collection=st.sampled_from(["allow", "deny"]),
    zdr=st.booleans(),
    distillable=st.booleans(),
    only=slugs,
    ignore=slugs,
    quantizations=st.sampled_from([(), ("fp8", "unknown")]),
    sort=st.none() | st.sampled_from(get_args(Sort)),
    across_models=st.booleans(),
    free_only=st.booleans(),
    min_throughput=cutoffs,
    max_latency=cutoffs,
    max_price=st.none() | st.builds(PriceLimit, input_in_pusd=prices, request_in_pusd=prices),
)
asks = st.builds(
    Ask,
    needed=st.lists(names_of_needs, max_size=2, unique=True).map(tuple),
    prompt_tokens=st.integers(0, 3000),
    output_tokens=st.none() | st.integers(1, 1000),
    expected_output_tokens=st.integers(0, 600),
    images=st.integers(0, 2),
    stream=st.booleans(),
    parameters=st.lists(parameters, max_size=2, unique=True).map(tuple),
    losses=st.sampled_from([(), (("p0/m0", ("seed",)), ("p2/m2", ("top_k", "logit_bias")))]),
    preferences=st.just(Preferences()) | preferences,
    warm_endpoint=st.none() | st.sampled_from(["p0/m0", "p1/m1", "p9/m9"]),
    warm_tokens=st.integers(0, 2000),
    permitted=st.none() | st.just(("m", "p1")) | st.just(("p0", "second")),
    budget_in_nusd=st.none() | st.integers(0, 10**7),
)


@st.composite
def endpoints(draw):
    made = []
    for number in range(draw(st.integers(1, 7))):
        provider = f"p{number % 3}"
        price = st.none() | st.builds(Price, prices, prices, prices, prices, prices, prices)
        made.append(
            Endpoint(
                id=f"{provider}/m{number}",
                provider=provider,
                model=draw(st.sampled_from(["m", "n"])),
                upstream_model=f"m{number}",
                base_url="",
                context_tokens=draw(sizes),
                max_output_tokens=draw(sizes),
                price=draw(price),
                capabilities=Capabilities(tools=draw(st.booleans()), vision=draw(st.booleans())),
                quirks=Quirks(router_fields=draw(st.booleans())),
                state=draw(st.sampled_from(["live", "live", "unverified", "retired"])),
                local=draw(st.booleans()),
                quantization=draw(st.none() | st.sampled_from(["fp8", "int4"])),
                region=draw(st.none() | st.sampled_from(["eu", "us"])),
                data=DataPolicy(draw(flags), draw(flags)),
                distillable=draw(flags),
                parameters=draw(st.none() | st.frozensets(parameters)),
            )
        )
    return made


@st.composite
def situations(draw):
    """A Table, an Ask and Observations."""
    every = draw(endpoints())
    ids = [one.id for one in every]
    chosen = st.lists(st.sampled_from(ids), min_size=1, max_size=7, unique=True)
    weights = dict(zip(ids, draw(st.lists(st.floats(0, 10), min_size=len(ids), max_size=len(ids))), strict=True))
    keys = {"weights": weights, "emulate": draw(st.booleans()), "rescue": draw(st.booleans())}
    policies = st.sampled_from(get_args(Policy))
    places = st.sampled_from(["last", "first", "by_policy"])
    routes = [
        route(draw(chosen), "m", policy=draw(policies), local=draw(places), fallback=("second", ids[0]), **keys),
        route(draw(chosen), "second", policy=draw(policies), local=draw(places), **keys),
        route(draw(chosen), "third", policy=draw(policies), fallback=("second",), **keys),
    ]
    long = PriceOverride(price=Price(input_in_pusd=draw(prices)), min_prompt_tokens=100)
    found = catalogue(every, routes, {ids[0]: (long,)} if draw(st.booleans()) else None)
    off = dict.fromkeys(draw(st.lists(st.sampled_from(ids), max_size=2)), "off")
    prepared = prepare(draw(st.sampled_from([routes[:1], [routes[2], routes[0]]])), found, off)
    seen = draw(st.dictionaries(st.sampled_from(ids), observations))
    return prepared, draw(asks), seen, draw(st.floats(0, 1, exclude_max=True))


def plan_of(prepared, ask, seen, draw):
    return decide(prepared, ask, seen, now_s=NOW_S, draw=draw)


@MANY
@given(situations())
def test_every_endpoint_has_exactly_one_place(situation):
    prepared, *_ = situation
    plan = plan_of(*situation)
    places = [
        *(one.endpoint.id for one in plan.candidates),
        *(one.endpoint.id for one in plan.resting),
        *(one.endpoint for one in plan.excluded),
    ]
    everybody = [row.id for stage in prepared.stages for row in stage.rows] + [
        one.endpoint for one in prepared.excluded
    ]
    assert sorted(places) == sorted(everybody)
    assert len(set(places)) == len(places)


@MANY
@given(situations())
def test_nobody_is_asked_who_may_not_be_first_choice_or_fallback(situation):
    prepared, ask, seen, _ = situation
    plan = plan_of(*situation)
    rows = {row.id: row for stage in prepared.stages for row in stage.rows}
    demand = demand_of(prepared, ask, None)
    for one in (*plan.candidates, *plan.resting):
        row = rows[one.endpoint.id]
        assert judge(row, demand) is None
        assert ask.prompt_tokens + (ask.output_tokens or 16) <= row.context_tokens
        assert one.endpoint.state != "retired"
    for one in plan.candidates:
        observed = seen.get(one.endpoint.id, UNOBSERVED)
        assert observed.standing in ("healthy", "degraded", "probing") or observed.until_s <= NOW_S
    for one in plan.resting:
        assert one.observation.standing in ("parked", "open")
        assert one.observation.until_s > NOW_S


@MANY
@given(situations())
def test_the_same_inputs_give_the_same_plan_even_after_they_were_written_down(situation):
    prepared, ask, seen, draw = situation
    plan = plan_of(*situation)
    assert plan_of(*situation) == plan
    again = msgspec.json.decode(msgspec.json.encode(ask), type=Ask)
    seen_again = msgspec.json.decode(msgspec.json.encode(seen), type=dict[str, Observation])
    draw_again = msgspec.json.decode(msgspec.json.encode(draw), type=float)
    assert plan_of(prepared, again, seen_again, draw_again) == plan


@MANY
@given(situations(), st.randoms(use_true_random=False))
def test_the_order_of_mappings_does_not_matter(situation, chance):
    prepared, ask, seen, draw = situation
    shuffled = list(seen.items())
    chance.shuffle(shuffled)
    assert plan_of(prepared, ask, dict(shuffled), draw) == plan_of(*situation)


@MANY
@given(situations())
def test_healthy_ones_come_before_degraded_ones_of_all_stages(situation):
    ranks = {"healthy": 0, "parked": 0, "degraded": 1, "disabled": 2}
    standings = [one.observation.standing for one in plan_of(*situation).candidates]
    order = [ranks[standing] for standing in standings if standing in ranks]
    assert order == sorted(order)


@MANY
@given(situations())
def test_stages_follow_each_other_among_the_healthy(situation):
    prepared, ask, seen, draw = situation
    if not ask.preferences.across_models:
        plan = plan_of(prepared, ask, seen, draw)
        stages = [one.stage for one in plan.candidates if one.observation.standing == "healthy"]
        assert stages == sorted(stages)


@MANY
@given(endpoints(), asks, st.dictionaries(st.sampled_from(["p0/m0", "p1/m1", "p2/m2"]), observations))
def test_price_is_never_dearer_than_the_cheapest_feasible(every, ask, seen):
    plain = msgspec.structs.replace(ask, parameters=(), needed=(), warm_endpoint=None, preferences=Preferences())
    only = route(every, "m", policy="price")
    plan = plan_of(prepare([only], catalogue(every, [only]), {}), plain, seen, 0.5)
    feasible = [
        math.inf if one.expected_cost_in_pusd is None else one.expected_cost_in_pusd
        for one in plan.candidates
        if one.observation.standing == "healthy" and one.endpoint.state == "live" and not one.endpoint.local
    ]
    assert feasible == sorted(feasible)


@MANY
@given(situations())
def test_scores_and_costs_can_be_written_down(situation):
    plan = plan_of(*situation)
    encoded = msgspec.json.decode(msgspec.json.encode([one.score for one in plan.candidates]))
    assert all(isinstance(score, (int, float)) for score in encoded)


@pytest.mark.parametrize("policy", get_args(Policy))
def test_a_thousand_endpoints_are_ordered_too(policy):
    chance = random.Random(1)
    every = [
        Endpoint(
            id=f"p{n}/m",
            provider=f"p{n}",
            model="m",
            upstream_model="m",
            base_url="",
            price=Price(input_in_pusd=chance.randrange(9 * USD), output_in_pusd=USD),
        )
        for n in range(1000)
    ]
    keys = {"policy": policy, "weights": {one.id: chance.random() for one in every}}
    only = route(every, "m", **keys)
    prepared = prepare([only], catalogue(every, [only]), {})
    seen = {one.id: Observation(ttft_s=chance.random(), in_flight=chance.randrange(9)) for one in every}
    plan = plan_of(prepared, Ask(prompt_tokens=100), seen, 0.25)
    assert {one.endpoint.id for one in plan.candidates} == {one.id for one in every}

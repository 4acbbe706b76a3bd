"""The decision for the usual request is the general one's, and it is what usual requests get."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.observation import Observation
from gateway.routing import decide as general
from gateway.routing.ask import NO_PREFERENCES, Ask, Preferences
from gateway.routing.table import prepare
from gateway.routing.usual import usual_of
from providers.base import Capabilities, Endpoint, Price
from tests.fakes.catalogues import catalogue, route
from tests.gateway.routing.test_decision_properties import MANY, NOW_S

sizes = st.none() | st.integers(500, 4000)
prices = st.sampled_from([0, 1, 10**5, 10**5 + 1, 10**9])
seldom = st.sampled_from([False] * 15 + [True])


def endpoint(number: int, **facts) -> Endpoint:
    known = {"price": Price(10**5, 3 * 10**5), "capabilities": Capabilities(tools=True)} | facts
    return Endpoint(id=f"p{number}/m", provider=f"p{number}", model="m", upstream_model="m", base_url="", **known)


@st.composite
def nearly_usual(draw):
    """A Table, an Ask, Observations and a draw with at most little out of the usual."""
    every = [
        endpoint(
            number,
            context_tokens=draw(sizes),
            max_output_tokens=draw(sizes),
            price=draw(st.builds(Price, prices, prices, request_in_pusd=st.none() | prices, image_in_pusd=prices)),
            capabilities=Capabilities(tools=not draw(seldom)),
            local=draw(seldom),
            state="unverified" if draw(seldom) else "live",
        )
        for number in range(draw(st.integers(1, 5)))
    ]
    ids = [one.id for one in every]
    routes = [
        route(ids[:3], "m", local=draw(st.sampled_from(["last", "first", "by_policy"])), fallback=("second",)),
        route(ids[1:] or ids, "second", policy="price" if draw(seldom) else "balanced"),
    ]
    off = {ids[0]: "off"} if draw(seldom) else {}
    table = prepare(draw(st.sampled_from([routes[:1], routes])), catalogue(every, routes), off)
    healthy = st.builds(
        Observation,
        weight=st.floats(0, 1),
        in_flight=st.integers(0, 9),
        outage=seldom,
        standing=seldom.map(lambda odd: "degraded" if odd else "healthy"),
    )
    ask = Ask(
        needed=("tools",) if draw(st.booleans()) else (),
        prompt_tokens=draw(st.integers(0, 600)),
        output_tokens=draw(st.none() | st.integers(1, 600)),
        expected_output_tokens=draw(st.integers(0, 600)),
        images=draw(st.integers(0, 2)),
        budget_in_nusd=10**9 if draw(seldom) else None,
    )
    return table, ask, draw(st.dictionaries(st.sampled_from(ids), healthy)), draw(st.floats(0, 1, exclude_max=True))


@settings(MANY)
@given(nearly_usual())
def test_the_usual_decision_is_the_general_one(situation):
    table, ask, seen, draw = situation
    prepared = usual_of(table)
    usual = prepared and prepared.decide(ask, seen, draw)
    if usual is not None:
        assert usual == general._decide(table, ask, seen, NOW_S, draw, None)


def usual(ask: Ask, *, facts=(), seen=None, **how):
    every = [endpoint(0, **dict(facts)), endpoint(1), endpoint(2)]
    asked = route([one.id for one in every], "m", **how)
    prepared = usual_of(prepare([asked], catalogue(every, [asked]), {}))
    return prepared and prepared.decide(ask, seen or {}, 0.4)


def test_a_request_without_wishes_is_usual():
    assert usual(Ask(needed=("tools",), prompt_tokens=10, output_tokens=10)) is not None
    assert usual(Ask(), seen={"p0/m": Observation(in_flight=3, weight=0.5, uptime=0.9)}) is not None


@pytest.mark.parametrize(
    "ask",
    [
        Ask(preferences=Preferences(ignore=("p0",))),
        Ask(needed=("vision",)),
        Ask(permitted=("m",)),
        Ask(budget_in_nusd=1),
        Ask(warm_endpoint="p0/m"),
        Ask(parameters=("seed",)),
        Ask(prompt_tokens=1000),
        Ask(output_tokens=1000),
    ],
)
def test_a_request_with_wishes_is_not_usual(ask):
    assert usual(ask, facts={"context_tokens": 500, "max_output_tokens": 400}) is None


@pytest.mark.parametrize("seen", [Observation("degraded"), Observation("parked", 9.0), Observation(outage=True)])
def test_an_endpoint_that_does_badly_is_not_usual(seen):
    assert usual(Ask(), seen={"p1/m": seen}) is None


@pytest.mark.parametrize("price", [None, Price(0, 0), Price(1, None)])
def test_an_endpoint_without_a_price_is_not_usual(price):
    assert usual(Ask(), facts={"price": price}) is None


def test_another_policy_is_not_usual():
    assert usual(Ask(), policy="price") is None


def test_no_preferences_are_the_same_object_when_they_were_stored():
    assert Ask().preferences is NO_PREFERENCES

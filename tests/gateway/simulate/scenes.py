"""Worlds for one claim each: a few Endpoints that behave in a known way, and evenly spaced requests."""

from collections import defaultdict
from pathlib import Path

from gateway.config.catalogue import Catalogue, GatewaySettings, ProviderEntry, Route
from gateway.simulate.invariants import check
from gateway.simulate.running import run_world
from gateway.simulate.world import Behaviour, Job, World
from providers.base import Capabilities, Endpoint, Price

PRICE = Price(input_in_pusd=1_000_000, output_in_pusd=1_000_000)


def world(behaviours, *, requests, gap_s, policy="ordered", seed=1, prices=None, route=None, **job):
    """Endpoints `a/m`, `b/m`, ... in that order, behind one Route, and a request every `gap_s`."""
    endpoints = {}
    for place, (name, _) in enumerate(behaviours.items()):
        endpoints[name] = Endpoint(
            id=name,
            provider=name.partition("/")[0],
            model="main",
            upstream_model="m",
            base_url="http://pretended.invalid",
            context_tokens=32_768,
            price=PRICE if prices is None else prices[place],
            capabilities=Capabilities(system=True, prefill=True),
        )
    routes = {"main": Route(name="main", endpoints=tuple(endpoints), policy=policy, **(route or {}))}
    providers = {
        one.provider: ProviderEntry(name=one.provider, dialect="openai", base_url=one.base_url)
        for one in endpoints.values()
    }
    catalogue = Catalogue(
        gateway=GatewaySettings(),
        providers=providers,
        endpoints=endpoints,
        routes=routes,
        aliases={},
        local_models=(),
        price_overrides={},
        warnings=(),
        path=Path("simulated.yaml"),
        digest="scene",
        watched=(),
    )
    told = {"caller": 0, "model": "main", "prompt_chars": 200, "output_tokens": 40} | job
    jobs = tuple(Job(number=number, at_s=(number + 1) * gap_s, **told) for number in range(requests))
    return World(seed=seed, catalogue=catalogue, behaviours=behaviours, jobs=jobs)


def play(*args, **more):
    """Run a scene; every invariant must hold."""
    outcome = run_world(world(*args, **more))
    assert [str(one) for one in check(outcome)] == []
    return outcome


def calls_of(outcome, name, since_s=0.0, until_s=float("inf")):
    """What an Endpoint was sent in a span of the run."""
    start_s = outcome.seen[0].started_s - outcome.seen[0].job.at_s
    return [one for one in outcome.received if one.endpoint == name and since_s <= one.at_s - start_s < until_s]


def seen_between(outcome, since_s, until_s=float("inf")):
    """The clients that came in a span of the run."""
    return [seen for seen in outcome.seen if since_s <= seen.job.at_s < until_s]


def shares(outcome, name, width_s):
    """Which share of the requests to providers this Endpoint got, by spans of that width."""
    own, total = defaultdict(int), defaultdict(int)
    start_s = outcome.seen[0].started_s - outcome.seen[0].job.at_s
    for one in outcome.received:
        span = int((one.at_s - start_s) // width_s)
        total[span] += 1
        own[span] += one.endpoint == name
    return {span: own[span] / total[span] for span in total}


SOUND = Behaviour(ttft_s=0.2, spread=0.1, tokens_per_s=100)

"""Small Catalogues for what decides and reads no file: Endpoints by name, and the Routes over them."""

from pathlib import Path

from gateway.config.catalogue import Catalogue, GatewaySettings, Route
from gateway.observation import UNOBSERVED
from gateway.routing.ask import Ask
from gateway.routing.decide import decide
from gateway.routing.table import prepare
from providers.base import Endpoint, Price

USD = 10**6
"""One USD per million tokens, in pico-USD per token."""


def endpoint(name, usd=1.0, **facts):
    """`provider/model` with this price for input and for output; None: no price is known."""
    price = facts.pop("price", None if usd is None else priced(usd))
    return Endpoint(
        id=name,
        provider=name.partition("/")[0],
        upstream_model=name.partition("/")[2],
        base_url="http://127.0.0.1:1/v1",
        price=price,
        **{"model": "m", "context_tokens": 1000, "max_output_tokens": 500, **facts},
    )


def priced(usd, output=None, **others):
    return Price(input_in_pusd=int(usd * USD), output_in_pusd=int((usd if output is None else output) * USD), **others)


def catalogue(endpoints, routes=(), overrides=None):
    """Every Route given, by name."""
    return Catalogue(
        gateway=GatewaySettings(),
        providers={},
        endpoints={one.id: one for one in endpoints},
        routes={one.name: one for one in routes},
        aliases={alias: one.name for one in routes for alias in one.aliases},
        local_models=(),
        price_overrides=overrides or {},
        warnings=(),
        path=Path("providers.yaml"),
        digest="",
        watched=(),
    )


def route(endpoints, name="m", **keys):
    return Route(name=name, endpoints=tuple(one if isinstance(one, str) else one.id for one in endpoints), **keys)


def table(endpoints, off=None, others=(), overrides=None, **keys):
    """One Route `m` over all Endpoints, and whatever else there is."""
    first = route(endpoints, **keys)
    every = [*endpoints, *(one for one in others if isinstance(one, Endpoint))]
    routes = [first, *(one for one in others if isinstance(one, Route))]
    return prepare([first], catalogue(every, routes, overrides), off or {})


def decided(prepared, ask=None, seen=None, *, now_s=100.0, draw=0.5, now_utc=None):
    """The Plan, for an Ask of nothing special where none is given."""
    return decide(prepared, ask or Ask(), seen or {}, now_s=now_s, draw=draw, now_utc=now_utc)


def names(candidates):
    return [candidate.endpoint.id for candidate in candidates]


def codes(plan):
    return {exclusion.endpoint: exclusion.code for exclusion in plan.excluded}


def observed(ids, seen=UNOBSERVED):
    return dict.fromkeys(ids, seen)

"""Draws a world from a seed: who serves, at what price, how well, and what goes wrong when."""

from pathlib import Path
from typing import Final, get_args

from msgspec.structs import replace

from gateway.config.catalogue import Catalogue, GatewaySettings, ProviderEntry, Route
from gateway.config.schema import DEFAULT_POLICY, Policy
from gateway.simulate.dice import Dice
from gateway.simulate.texts import VARIANTS
from gateway.simulate.traffic import draw_jobs
from gateway.simulate.world import Behaviour, Fault, RetryAfter, Trouble, TroubleKind, World
from providers.base import Capabilities, Endpoint, Price

MODEL: Final = "main"
SPARE: Final = "spare"
REQUESTS: Final = 80
ENDPOINTS_MAX: Final = 8
LEAST_CONTEXT_TOKENS: Final = 4_096
PLAIN_PROMPT_TOKENS: Final = 4_096
"""About the longest prompt of a world in which policies are compared."""
FAULTS_MAX: Final = 0.3
"""How often an Endpoint fails at any time, at most."""
PICO_PER_USD_PER_MILLION: Final = 1_000_000
"""1 USD per million tokens is that many pico-USD per token."""

_FAULTS: tuple[Fault, ...] = (
    "refused",
    "reset",
    "http500",
    "http502",
    "http503",
    "http529",
    "page",
    "empty",
    "error_inside",
    "silent",
    "cut",
    "stall",
    "error_midway",
    "garbled",
    "twice_garbled",
)
_TROUBLES: tuple[TroubleKind, ...] = (
    "down",
    "down",
    "errors",
    "errors",
    "overload",
    "silent",
    "slow",
    "brownout",
    "unauthorised",
    "gone",
    "cuts",
)
_POLICIES: tuple[Policy, ...] = get_args(Policy)
_RETRY_AFTER: tuple[RetryAfter, ...] = ("none", "seconds", "milliseconds", "date", "garbage", "past", "absurd")
_CONTEXTS: Final = (4_096, 8_192, 16_384, 32_768, 65_536)


def draw_world(seed: int, requests: int = REQUESTS, *, plain: bool = False) -> World:
    """The world of a seed: always the same one.

    Args:
        seed: Which one.
        requests: How many requests clients make.
        plain: A world in which policies can be compared: every request is for text and is waited for to its end, and
            the last Endpoint never fails, so that whoever loses a request has only itself to blame.
    """
    dice = Dice(seed, 1)
    count = dice.whole(2, ENDPOINTS_MAX)
    providers = dice.whole(1, count)
    span_s = requests * 2.0
    endpoints: dict[str, Endpoint] = {}
    behaviours: dict[str, Behaviour] = {}
    joint = _draw_troubles(dice, span_s) if dice.chance(0.3) else ()
    for place in range(count):
        endpoint = _draw_endpoint(dice, f"p{place % providers}", place)
        behaviour = _draw_behaviour(dice, span_s)
        if joint and place % 2 == 0:  # an outage that several have at the same time
            behaviour = replace(behaviour, troubles=(*behaviour.troubles, *joint))
        if dice.chance(0.1):  # nobody knows what it charges
            endpoint = replace(endpoint, price=None)
            behaviour = replace(behaviour, price=_draw_price(dice))
        if plain:
            endpoint, behaviour = _fit_to_compare(endpoint, behaviour, last=place == count - 1)
        endpoints[endpoint.id] = endpoint
        behaviours[endpoint.id] = behaviour
    if not plain and dice.chance(0.25):
        local = _local_endpoint()
        endpoints[local.id] = local
        behaviours[local.id] = Behaviour(ttft_s=0.8, tokens_per_s=15.0, concurrency=4, retry_after="seconds")
    catalogue = _catalogue(dice, endpoints, plain=plain)
    # One enormous prompt that is cut and asked again would outweigh all the others.
    widest = PLAIN_PROMPT_TOKENS if plain else max(one.context_tokens or 0 for one in endpoints.values())
    models = (MODEL,) if plain else (MODEL, SPARE, next(iter(endpoints)), "unheard-of")
    jobs = draw_jobs(Dice(seed, 2), models, requests, widest_tokens=widest, plain=plain)
    return World(seed=seed, catalogue=catalogue, behaviours=behaviours, jobs=jobs)


def world_of(catalogue: Catalogue, seed: int, requests: int = REQUESTS) -> World:
    """A world of somebody's own Endpoints, prices and Routes; how they behave is drawn.

    Raises:
        ValueError: Nothing in it could be asked.
    """
    dice = Dice(seed, 1)
    live = [endpoint for endpoint in catalogue.endpoints.values() if endpoint.state != "retired"]
    models = [route.name for route in catalogue.routes.values() if not route.implicit]
    models = models or list(catalogue.routes)
    if not live or not models:
        raise ValueError("the configuration has no endpoint that could be asked")
    widest = max(endpoint.context_tokens or LEAST_CONTEXT_TOKENS for endpoint in live)
    return World(
        seed=seed,
        catalogue=catalogue,
        behaviours={endpoint.id: _draw_behaviour(dice, requests * 2.0) for endpoint in live},
        jobs=draw_jobs(Dice(seed, 2), models, requests, widest_tokens=widest, plain=False),
    )


def _draw_price(dice: Dice) -> Price:
    """Free, or as far apart as real prices are: 0.05 to 12 USD per million tokens."""
    if dice.chance(0.08):
        return Price(input_in_pusd=0, output_in_pusd=0)
    read = round(min(12.0, max(0.05, dice.around(0.5, 0.9))) * PICO_PER_USD_PER_MILLION)
    written = round(read * dice.pick((1, 1, 2, 3, 4)))
    cached = read // 10 if dice.chance(0.3) else None
    return Price(input_in_pusd=read, output_in_pusd=written, cache_read_in_pusd=cached)


def _draw_endpoint(dice: Dice, provider: str, place: int) -> Endpoint:
    able = dice.chance(0.6)
    return Endpoint(
        id=f"{provider}/m{place}",
        provider=provider,
        model=MODEL,
        upstream_model=f"m{place}",
        base_url=f"http://{provider}.invalid/v1",
        context_tokens=dice.pick(_CONTEXTS),
        max_output_tokens=dice.pick((None, None, 256, 1024)),
        price=_draw_price(dice),
        capabilities=Capabilities(
            system=True,
            tools=able,
            json_object=able,
            json_schema=able and dice.chance(0.7),
            prefill=dice.chance(0.5),
        ),
    )


def _local_endpoint() -> Endpoint:
    return Endpoint(
        id="local/small",
        provider="local",
        model=MODEL,
        upstream_model="small",
        base_url="",
        context_tokens=4_096,
        price=Price(input_in_pusd=0, output_in_pusd=0),
        capabilities=Capabilities(system=True, prefill=True),
        local=True,
    )


def _draw_behaviour(dice: Dice, span_s: float) -> Behaviour:
    sound = dice.chance(0.4)
    faults: tuple[tuple[Fault, float], ...] = ()
    if not sound:
        rate = dice.between(0.0, FAULTS_MAX)
        kinds: list[Fault] = [dice.pick(_FAULTS) for _ in range(dice.whole(1, 4))]
        faults = tuple((kind, rate / len(kinds)) for kind in kinds)
    return Behaviour(
        ttft_s=min(6.0, dice.around(0.4, 0.7)),
        spread=dice.between(0.1, 0.6),
        tokens_per_s=min(400.0, max(10.0, dice.around(70.0, 0.6))),
        slow_share=dice.between(0.0, 0.1) if dice.chance(0.3) else 0.0,
        slow_ttft_s=dice.between(2.0, 15.0),
        concurrency=dice.whole(1, 12) if dice.chance(0.3) else None,
        requests_per_min=dice.whole(5, 120) if dice.chance(0.25) else None,
        retry_after=dice.pick(_RETRY_AFTER),
        faults=faults,
        troubles=_draw_troubles(dice, span_s) if dice.chance(0.4) else (),
        refuses_prefill=dice.chance(0.2),
        variant=dice.whole(1, VARIANTS - 1) if dice.chance(0.2) else 0,
        says_done=not dice.chance(0.1),
    )


def _draw_troubles(dice: Dice, span_s: float) -> tuple[Trouble, ...]:
    troubles: list[Trouble] = []
    for _ in range(dice.whole(1, 3)):
        start_s = dice.between(0.0, span_s)
        troubles.append(Trouble(dice.pick(_TROUBLES), start_s, start_s + dice.waiting(span_s / 6)))
    return tuple(troubles)


def _fit_to_compare(endpoint: Endpoint, behaviour: Behaviour, *, last: bool) -> tuple[Endpoint, Behaviour]:
    """Alike but for price, speed and failures; the last one has neither faults nor limits, and is never slow."""
    endpoint = replace(endpoint, context_tokens=65_536, max_output_tokens=None)
    if last:
        behaviour = replace(behaviour, faults=(), troubles=(), concurrency=None, requests_per_min=None)
        behaviour = replace(behaviour, slow_share=0.0, ttft_s=min(behaviour.ttft_s, 1.0), spread=0.3)
    return endpoint, replace(behaviour, variant=0)


def _catalogue(dice: Dice, endpoints: dict[str, Endpoint], *, plain: bool) -> Catalogue:
    names = list(endpoints)
    split = len(names) if plain or dice.chance(0.5) else dice.whole(1, len(names))
    own, others = names[:split], names[split:]
    spare = tuple(others or names[-1:])
    shares = {name: dice.between(0.0, 1.0) for name in endpoints}
    routes = {
        MODEL: Route(
            name=MODEL,
            endpoints=tuple(own),
            policy=DEFAULT_POLICY if plain else dice.pick(_POLICIES),
            weights={name: shares[name] for name in own},
            fallback=(SPARE,) if others else (),
            upcast=not plain and dice.chance(0.1),
            rescue=plain or dice.chance(0.9),
            hedge=not plain and dice.chance(0.3),
            compress=not plain and dice.chance(0.1),
        ),
        SPARE: Route(name=SPARE, endpoints=spare, weights={name: shares[name] for name in spare}),
    }
    return Catalogue(
        gateway=GatewaySettings(),
        providers={
            endpoint.provider: ProviderEntry(
                name=endpoint.provider, dialect="openai", base_url=endpoint.base_url, local=endpoint.local
            )
            for endpoint in endpoints.values()
        },
        endpoints=endpoints,
        routes=routes,
        aliases={},
        local_models=(),
        price_overrides={},
        warnings=(),
        path=Path("simulated.yaml"),
        digest="simulated",
        watched=(),
    )

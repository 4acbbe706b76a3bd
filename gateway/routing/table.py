"""All that does not change between two requests for the same models, worked out once: who could answer, and how.

A Table is made per models asked for, Catalogue and state of the keys, and kept; `decide` reads it for each request.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct

from gateway.config.catalogue import Catalogue, Route, ScoreWeights
from gateway.config.schema import ORDERED
from gateway.routing.exclusion import Exclusion
from gateway.routing.tariff import Tariff, tariff_of
from providers.base import Capabilities, Endpoint

BALANCED: Final = "balanced"
UNBOUNDED: Final = 1 << 62
"""The size of what nobody knows the size of: nothing is too long for it."""
ABILITIES: Final = {name: 1 << position for position, name in enumerate(Capabilities.__struct_fields__)}
"""Each capability's bit."""
ASSURANCES: Final = {"data_collection": 1, "zdr": 2, "distillable": 4}
"""Each promise about data that a client may insist on, and its bit."""

UNVERIFIED: Final = 1
LOCAL: Final = 1 << 12
"""Handicaps: whoever has the larger sum stands behind. The others are in `gateway.routing.decide`."""


class Row(Struct, frozen=True):
    """An Endpoint, as decisions look at it."""

    endpoint: Endpoint
    id: str
    provider: str
    stage: int
    fallback: bool
    """It is there because providers.yaml says so, not because the client asked for its Model."""
    context_tokens: int
    output_max_tokens: int
    abilities: int
    tariff: Tariff
    names: frozenset[str]
    """What a key may be permitted that includes this Endpoint."""
    slugs: frozenset[str]
    """What a preference may call it, in lower case."""
    relays: bool
    """A router itself: preferences are passed on to it, so what we don't know of it, it looks after."""
    assured: int
    """Bits of `ASSURANCES`: what is known of it, or left to it."""


class Stage(Struct, frozen=True):
    """The Endpoints of one Model asked for, or of one fallback."""

    policy: str
    rows: tuple[Row, ...]
    handicaps: tuple[int, ...]
    """Of each row, under a policy that chooses."""
    ordered_handicaps: tuple[int, ...]
    """Of each row, under `ordered`."""
    weights: Mapping[str, float]
    score: ScoreWeights


class Table(Struct, frozen=True):
    """Whoever could answer for the models asked for, in the order of the configuration."""

    route: str
    stages: tuple[Stage, ...]
    merged: Stage
    """All of them as one, for preferences that sort over all models."""
    excluded: tuple[Exclusion, ...]
    """Who cannot be asked whatever the request says."""
    slugs: frozenset[str]
    """Every name by which a preference can mean one of ours, in lower case."""
    explicit: bool
    emulate: bool
    rescue: bool
    upcast: bool
    hedge: bool
    usual: bool = False
    """Everybody has plain prices, and every stage is `balanced`: what `gateway.routing.usual` is for."""
    roomy_tokens: int = 0
    """Of a prompt and its answer with no more tokens than this, only the expected price depends on their number."""


def prepare(routes: Sequence[Route], catalogue: Catalogue, off: Mapping[str, str]) -> Table:
    """The Table of the models asked for, at least one, in order.

    Each model is followed by its own fallbacks, one level deep. An Endpoint that comes up again keeps its first place.

    Args:
        routes: What the client asked for.
        catalogue: All that is configured.
        off: Endpoints that cannot answer now, by id, with the reason in words.
    """
    excluded: dict[str, Exclusion] = {}
    taken: set[str] = set()
    stages: list[Stage] = []
    for route, fallback in _with_fallbacks(routes, catalogue):
        endpoints: list[Endpoint] = []
        for endpoint in (catalogue.endpoints[name] for name in route.endpoints if name not in taken):
            taken.add(endpoint.id)
            gone = _gone(endpoint, off)
            if gone is None:
                endpoints.append(endpoint)
            else:
                excluded[endpoint.id] = gone
        rows = tuple(_row(endpoint, route, catalogue, len(stages), fallback=fallback) for endpoint in endpoints)
        stages.append(_stage(route, rows))
    first = routes[0]
    everybody = [row for stage in stages for row in stage.rows]
    return Table(
        route=first.name,
        stages=tuple(stages),
        merged=stages[0] if len(stages) == 1 else _merge(stages),
        excluded=tuple(excluded.values()),
        slugs=frozenset(slug for endpoint in catalogue.endpoints.values() for slug in _slugs(endpoint)),
        explicit=len(routes) > 1,
        emulate=first.emulate,
        rescue=first.rescue,
        upcast=first.upcast,
        hedge=first.hedge,
        usual=all(stage.policy == BALANCED for stage in stages) and all(row.tariff.plain for row in everybody),
        roomy_tokens=min(map(_roomy_tokens, everybody), default=0),
    )


def _roomy_tokens(row: Row) -> int:
    """No prompt is too long for it that is shorter; for the local worker the length decides how long to wait, too."""
    return 0 if row.endpoint.local or not row.tariff.plain else row.context_tokens


def _with_fallbacks(routes: Sequence[Route], catalogue: Catalogue) -> Iterator[tuple[Route, bool]]:
    for route in routes:
        yield route, False
        for name in route.fallback:
            fallback = catalogue.find_route(name)
            if fallback is not None:
                yield fallback, True


def _gone(endpoint: Endpoint, off: Mapping[str, str]) -> Exclusion | None:
    if endpoint.state == "retired":
        return Exclusion(endpoint.id, "retired", "the provider has retired it")
    reason = off.get(endpoint.id)
    return None if reason is None else Exclusion(endpoint.id, "off", reason)


def _row(endpoint: Endpoint, route: Route, catalogue: Catalogue, stage: int, *, fallback: bool) -> Row:
    return Row(
        endpoint=endpoint,
        id=endpoint.id,
        provider=endpoint.provider,
        stage=stage,
        fallback=fallback,
        context_tokens=UNBOUNDED if endpoint.context_tokens is None else endpoint.context_tokens,
        output_max_tokens=UNBOUNDED if endpoint.max_output_tokens is None else endpoint.max_output_tokens,
        abilities=sum(bit for name, bit in ABILITIES.items() if getattr(endpoint.capabilities, name)),
        tariff=tariff_of(endpoint.price, catalogue.price_overrides.get(endpoint.id, ())),
        names=frozenset((route.name, endpoint.model, endpoint.provider, endpoint.id)),
        slugs=frozenset(_slugs(endpoint)),
        relays=endpoint.quirks.router_fields,
        assured=_assured(endpoint),
    )


def _assured(endpoint: Endpoint) -> int:
    """What nobody knows is not assured, but where a router looks after it that is told what the client wants."""
    answers = {
        "data_collection": (endpoint.data.collects, False),
        "zdr": (endpoint.data.retains, False),
        "distillable": (endpoint.distillable, True),
    }
    relays = endpoint.quirks.router_fields
    return sum(
        ASSURANCES[name] for name, (known, wanted) in answers.items() if (relays if known is None else known is wanted)
    )


def _slugs(endpoint: Endpoint) -> Iterator[str]:
    """Its provider, its provider in its region, and the Endpoint itself."""
    yield endpoint.provider.lower()
    if endpoint.region is not None:
        yield f"{endpoint.provider}/{endpoint.region}".lower()
    yield endpoint.id.lower()


def _stage(route: Route, rows: tuple[Row, ...]) -> Stage:
    by_policy = route.local == "by_policy"
    # A route in explicit order says nothing of where local ones stand when a client wants it sorted after all.
    place = "last" if by_policy and route.policy == ORDERED else route.local
    return Stage(
        policy=route.policy,
        rows=rows,
        handicaps=tuple(
            _local_handicap(row.endpoint, place) + UNVERIFIED * (row.endpoint.state == "unverified") for row in rows
        ),
        ordered_handicaps=tuple(_local_handicap(row.endpoint, route.local) for row in rows),
        weights=route.weights,
        score=route.score,
    )


def _local_handicap(endpoint: Endpoint, place: str) -> int:
    behind = (place == "last" and endpoint.local) or (place == "first" and not endpoint.local)
    return LOCAL if behind else 0


def _merge(stages: Sequence[Stage]) -> Stage:
    weights: dict[str, float] = {}
    for stage in reversed(stages):
        weights |= stage.weights
    return Stage(
        policy=stages[0].policy,
        rows=tuple(row for stage in stages for row in stage.rows),
        handicaps=tuple(handicap for stage in stages for handicap in stage.handicaps),
        ordered_handicaps=tuple(handicap for stage in stages for handicap in stage.ordered_handicaps),
        weights=weights,
        score=stages[0].score,
    )

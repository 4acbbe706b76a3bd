"""Names: which Routes there are, what they and their aliases mean, and every way in which two of them collide."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from gateway.config.catalogue import EVEN_SCORE, USUAL_TIMEOUTS, Route, ScoreWeights, Timeouts
from gateway.config.complaints import Located, did_you_mean, spell_fix
from gateway.config.schema import ORDERED, LocalPlace, RouteSection
from gateway.config.source import Path
from gateway.errors import ConfigProblem
from providers.base import Endpoint

LAST: Final = "last"
BY_POLICY: Final = "by_policy"
_NOTHING_COUNTS: Final = dict.fromkeys(ScoreWeights.__struct_fields__, 0.0)


class Names(Struct, frozen=True):
    """Every Route by name, what each alias stands for, and what is wrong or odd."""

    routes: dict[str, Route]
    aliases: dict[str, str]
    problems: tuple[ConfigProblem, ...]
    warnings: tuple[ConfigProblem, ...]


def settle_names(located: Located, sections: Mapping[str, RouteSection], endpoints: Mapping[str, Endpoint]) -> Names:
    """Resolve the `routes` section against the Endpoints, and add the implicit Routes."""
    return _Settling(located, sections, endpoints).settle()


class _Settling:
    """One pass over the names; complaints gather as it goes."""

    def __init__(
        self, located: Located, sections: Mapping[str, RouteSection], endpoints: Mapping[str, Endpoint]
    ) -> None:
        self._located = located
        self._sections = sections
        self._endpoints = endpoints
        self._problems: list[ConfigProblem] = []
        self._warnings: list[ConfigProblem] = []
        self._served: dict[str, list[str]] = {}
        for endpoint in endpoints.values():
            self._served.setdefault(endpoint.model, []).append(endpoint.id)
        self._aliases: dict[str, str] = {}

    def settle(self) -> Names:
        for model, served_by in self._served.items():
            if model in self._endpoints:
                self._complain(
                    _row(self._endpoints[served_by[0]]),
                    f'the served Model "{model}" is also the id of an Endpoint',
                    "give the Model another name with `serves:`",
                )
        for name, section in self._sections.items():
            self._claim_name(name)
            self._claim_aliases(name, section)
        routes = {name: self._route(name, section) for name, section in self._sections.items()}
        for model in self._served:
            if model not in routes and model not in self._aliases:
                routes[model] = Route(name=model, endpoints=self._serving(model), implicit=True)
        for name, route in routes.items():
            self._compare_sizes(name, route, routes)
        return Names(routes, self._aliases, tuple(self._problems), tuple(self._warnings))

    def _claim_name(self, name: str) -> None:
        if name in self._endpoints:
            self._complain(
                ("routes", name),
                f'the Route "{name}" has the id of an Endpoint',
                "give the Route another name: an Endpoint's id already reaches that Endpoint",
            )

    def _claim_aliases(self, name: str, section: RouteSection) -> None:
        for position, alias in enumerate(section.aliases):
            taken = self._taken_by(alias, name)
            if taken is None:
                self._aliases[alias] = name
            else:
                path = ("routes", name, "aliases", position)
                self._complain(path, f'duplicate name: the alias "{alias}" is {taken}', "keep one of the two")

    def _taken_by(self, alias: str, name: str) -> str | None:
        if alias == name:
            return "the Route's own name"
        if alias in self._sections:
            line = self._located.root.line_of(("routes", alias))
            return f"the name of a Route (line {line})"
        if alias in self._aliases:
            return f'an alias of the Route "{self._aliases[alias]}" already'
        if alias in self._endpoints:
            return "the id of an Endpoint"
        if alias in self._served:
            return f"the name of a Model that {self._served[alias][0]} serves"
        return None

    def _route(self, name: str, section: RouteSection) -> Route:
        place = section.local or (BY_POLICY if section.policy == ORDERED else LAST)
        endpoints = self._route_endpoints(name, section, place)
        return Route(
            name=name,
            endpoints=endpoints,
            aliases=tuple(section.aliases),
            policy=section.policy,
            weights=self._weights(name, section, endpoints),
            score=self._score(name, section),
            local=place,
            fallback=self._fallback(name, section),
            upcast=section.upcast,
            emulate=section.emulate,
            rescue=section.rescue,
            hedge=section.hedge,
            compress=section.overflow is not None and section.overflow.compress,
            cache_ttl_s=None if section.cache is None else section.cache.ttl_s,
            timeouts=USUAL_TIMEOUTS if section.timeouts is None else Timeouts(**section.timeouts.written()),
        )

    def _weights(self, name: str, section: RouteSection, endpoints: tuple[str, ...]) -> dict[str, float]:
        path: Path = ("routes", name, "weights")
        written = section.weights
        if (written is None) != (section.policy != "weighted"):
            if written is None:
                message = f'routes.{name}: `policy: weighted` needs "weights"'
                self._complain(("routes", name, "policy"), message, "add `weights: {provider/model-id: number, ...}`")
            else:
                message = f"routes.{name}: only `policy: weighted` has weights, this is `{section.policy}`"
                self._complain(path, message, "write `policy: weighted`, or take the weights out")
            return {}
        if written is None:
            return {}
        for endpoint in written:
            if endpoint not in endpoints:
                known = did_you_mean(endpoint, endpoints)
                message = f'the Route "{name}" has no Endpoint "{endpoint}" to weigh{known}'
                fix = spell_fix(endpoint, endpoints, "name Endpoints of this Route, as provider/model-id")
                self._complain((*path, endpoint), message, fix)
        if not any(written.values()):
            self._complain(path, f"routes.{name}: no weight is above 0", "give at least one Endpoint a weight above 0")
        return {endpoint: written.get(endpoint, 0.0) for endpoint in endpoints}

    def _score(self, name: str, section: RouteSection) -> ScoreWeights:
        if section.score is None:
            return EVEN_SCORE
        if section.policy != "score":
            message = f"routes.{name}: only `policy: score` has a score, this is `{section.policy}`"
            self._complain(("routes", name, "score"), message, "write `policy: score`, or take the score out")
        return ScoreWeights(**{**_NOTHING_COUNTS, **section.score.written()})

    def _route_endpoints(self, name: str, section: RouteSection, place: LocalPlace) -> tuple[str, ...]:
        if section.endpoints is None:
            if name not in self._served:
                fix = "name them under `endpoints:`, or give a row `serves:` with this name"
                near = did_you_mean(name, self._served)
                self._complain(("routes", name), f'no model serves "{name}", so this Route has no Endpoints{near}', fix)
            return self._serving(name, place)
        chosen: list[str] = []
        for position, endpoint in enumerate(section.endpoints):
            path = ("routes", name, "endpoints", position)
            if endpoint in chosen:
                self._complain(path, f'the Endpoint "{endpoint}" is named twice', "keep one of the two")
            elif endpoint in self._endpoints:
                chosen.append(endpoint)
            else:
                near = did_you_mean(endpoint, self._endpoints)
                fix = spell_fix(endpoint, [*self._endpoints], "write provider/model-id of a row under `providers`")
                self._complain(path, f'there is no Endpoint "{endpoint}"{near}', fix)
        return self._placed(chosen, place)

    def _fallback(self, name: str, section: RouteSection) -> tuple[str, ...]:
        chosen: list[str] = []
        known = [*self._sections, *self._served, *self._endpoints]
        for position, target in enumerate(section.fallback):
            path = ("routes", name, "fallback", position)
            meant = self._aliases.get(target, target)
            if meant == name:
                self._complain(path, f'the Route "{name}" falls back on itself', "name another Route or an Endpoint")
            elif meant in chosen:
                self._complain(path, f'the fallback "{target}" is named twice', "keep one of the two")
            elif meant in known:
                chosen.append(meant)
            else:
                fix = spell_fix(target, known, "name a Route, a served Model or an Endpoint (provider/model-id)")
                self._complain(path, f'the fallback "{target}" names nothing{did_you_mean(target, known)}', fix)
        return tuple(chosen)

    def _serving(self, model: str, place: LocalPlace = LAST) -> tuple[str, ...]:
        return self._placed(self._served.get(model, []), place)

    def _placed(self, ids: list[str], place: LocalPlace) -> tuple[str, ...]:
        """In the order written, with local ones moved to the place that they were given."""
        if place == BY_POLICY:
            return tuple(ids)
        return tuple(sorted(ids, key=lambda endpoint: self._endpoints[endpoint].local == (place == LAST)))

    def _compare_sizes(self, name: str, route: Route, routes: Mapping[str, Route]) -> None:
        """Warn of a fallback that cannot take every prompt that its Route takes."""
        ours = self._largest(route.endpoints)
        for position, target in enumerate(route.fallback):
            theirs = self._largest(routes[target].endpoints if target in routes else (target,))
            if ours and theirs and theirs < ours:
                self._warnings.append(
                    self._located.complaint(
                        ("routes", name, "fallback", position),
                        f'the fallback "{target}" takes {theirs} tokens, its Route "{name}" takes {ours}',
                        "longer prompts have no fallback here: add a larger one if they need it",
                    )
                )

    def _largest(self, ids: tuple[str, ...]) -> int | None:
        sizes = [self._endpoints[endpoint].context_tokens for endpoint in ids if endpoint in self._endpoints]
        return max((size for size in sizes if size is not None), default=None)

    def _complain(self, path: Path, message: str, fix: str) -> None:
        self._problems.append(self._located.complaint(path, message, fix))


def _row(endpoint: Endpoint) -> Path:
    return ("providers", endpoint.provider, "models", endpoint.upstream_model, "serves")

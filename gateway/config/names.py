"""Names: which Routes there are, what they and their aliases mean, and every way in which two of them collide."""

from collections.abc import Mapping

from msgspec import Struct

from gateway.config.catalogue import Route
from gateway.config.complaints import Located, did_you_mean, spell_fix
from gateway.config.schema import ORDERED, RouteSection
from gateway.config.source import Path
from gateway.errors import ConfigProblem
from providers.base import Endpoint


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
        return Route(
            name=name,
            endpoints=self._route_endpoints(name, section),
            aliases=tuple(section.aliases),
            policy=section.policy,
            fallback=self._fallback(name, section),
            upcast=section.upcast,
            emulate=section.emulate,
        )

    def _route_endpoints(self, name: str, section: RouteSection) -> tuple[str, ...]:
        if section.endpoints is None:
            if name not in self._served:
                fix = "name them under `endpoints:`, or give a row `serves:` with this name"
                near = did_you_mean(name, self._served)
                self._complain(("routes", name), f'no model serves "{name}", so this Route has no Endpoints{near}', fix)
            return self._serving(name, ordered=section.policy == ORDERED)
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
        return tuple(chosen) if section.policy == ORDERED else self._local_last(chosen)

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

    def _serving(self, model: str, *, ordered: bool = False) -> tuple[str, ...]:
        served_by = self._served.get(model, [])
        return tuple(served_by) if ordered else self._local_last(served_by)

    def _local_last(self, ids: list[str]) -> tuple[str, ...]:
        return tuple(sorted(ids, key=lambda endpoint: self._endpoints[endpoint].local))

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

"""From a Route to a Plan: which Endpoints are eligible for this request, in order, and why the others are not."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct

from gateway.config.catalogue import Catalogue, Route
from gateway.config.schema import ORDERED
from providers.base import Adaptation, Endpoint
from providers.messages import ChatRequest, Message

EMULATED = frozenset({"tools", "json_object", "json_schema"})
"""Capabilities that any model can be given in words (providers/emulation.py)."""


class Exclusion(Struct, frozen=True, gc=False):
    """An Endpoint that was not considered, and why. `code` is stable, `reason` is for people."""

    endpoint: str
    code: str
    reason: str


class Plan(Struct, frozen=True):
    """Candidates in the order in which they are to be tried."""

    route: str
    candidates: tuple[Endpoint, ...]
    excluded: tuple[Exclusion, ...]
    emulate: bool = True
    """Whether what an Endpoint lacks of tools and JSON is asked for in words and read out of its text."""


def needs(request: ChatRequest) -> tuple[str, ...]:
    """The capabilities without which this request cannot be served, by their field names."""
    wanted: list[str] = []
    if (request.tools or request.functions) and request.tool_choice != "none":
        wanted.append("tools")
    form = request.response_format
    if form is not None and form.type in ("json_object", "json_schema"):
        wanted.append(form.type)
    if request.logprobs:
        wanted.append("logprobs")
    if any(_has_image(message) for message in request.messages):
        wanted.append("vision")
    return tuple(wanted)


def _has_image(message: Message) -> bool:
    content = message.content
    if content is None or isinstance(content, str):
        return False
    return any(part.type == "image_url" for part in content)


class Planner:
    """`plan`, kept for as long as nothing it depends on changes."""

    __slots__ = ("_catalogue", "_off", "_plans")

    def __init__(self) -> None:
        self._catalogue: Catalogue | None = None
        self._off: Mapping[str, str] = {}
        self._plans: dict[tuple[str, tuple[str, ...]], Plan] = {}

    def plan(self, route: Route, needed: tuple[str, ...], catalogue: Catalogue, off: Mapping[str, str]) -> Plan:
        """As the function of that name. Bounded by the Routes and Endpoints there are, times what can be needed."""
        if catalogue is not self._catalogue or off is not self._off:
            self._catalogue, self._off = catalogue, off
            self._plans.clear()
        key = (route.name, needed)
        known = self._plans.get(key)
        if known is None:
            known = self._plans[key] = plan(route, needed, catalogue, off)
        return known


def plan(route: Route, needed: tuple[str, ...], catalogue: Catalogue, off: Mapping[str, str]) -> Plan:
    """The Endpoints that may serve a request, best first.

    Args:
        route: What the client asked for.
        needed: What `needs` says of the request.
        catalogue: All that is configured.
        off: Endpoints that cannot answer now, by id, with the reason in words.
    """
    candidates: list[Endpoint] = []
    excluded: list[Exclusion] = []
    hard = tuple(capability for capability in needed if not (route.emulate and capability in EMULATED))
    for stage in _stages(route, catalogue):
        eligible: list[Endpoint] = []
        for endpoint in stage:
            exclusion = _exclude(endpoint, hard, off)
            if exclusion is not None:
                excluded.append(exclusion)
            elif endpoint not in candidates:
                eligible.append(endpoint)
        # A stable sort: who can do all of it without emulation first.
        eligible.sort(key=lambda endpoint: sum(not getattr(endpoint.capabilities, name) for name in needed))
        candidates.extend(eligible)
    return Plan(route.name, tuple(candidates), tuple(excluded), route.emulate)


def _stages(route: Route, catalogue: Catalogue) -> Iterator[list[Endpoint]]:
    """The Route's own Endpoints, then those of each fallback, each by its own policy."""
    yield _in_order(route, catalogue)
    for name in route.fallback:
        fallback = catalogue.find_route(name)
        if fallback is not None:
            yield _in_order(fallback, catalogue)


def _in_order(route: Route, catalogue: Catalogue) -> list[Endpoint]:
    """As the Catalogue lists them, but for the unverified, which go behind the verified of their kind."""
    endpoints = [catalogue.endpoints[name] for name in route.endpoints]
    if route.policy != ORDERED and any(endpoint.state == "unverified" for endpoint in endpoints):
        endpoints.sort(key=lambda endpoint: (endpoint.local, endpoint.state == "unverified"))
    return endpoints


def _exclude(endpoint: Endpoint, needed: tuple[str, ...], off: Mapping[str, str]) -> Exclusion | None:
    if endpoint.state == "retired":
        return Exclusion(endpoint.id, "retired", "the provider has retired it")
    reason = off.get(endpoint.id)
    if reason is not None:
        return Exclusion(endpoint.id, "off", reason)
    for capability in needed:
        if not getattr(endpoint.capabilities, capability):
            return Exclusion(endpoint.id, f"no_{capability}", f"it is not known to do {capability}")
    return None


def keeping_parameters(planned: Plan, adaptations: Callable[[Endpoint], Sequence[Adaptation]]) -> Plan:
    """The Plan without Endpoints that would not get all that was asked (`provider.require_parameters`).

    Args:
        planned: What there is to choose from.
        adaptations: What would become of the request at an Endpoint.
    """
    kept: list[Endpoint] = []
    excluded = list(planned.excluded)
    for endpoint in planned.candidates:
        lost = [one.param for one in adaptations(endpoint) if one.action in ("dropped", "clamped")]
        if lost:
            excluded.append(Exclusion(endpoint.id, "parameters", f"it does not take {', '.join(lost[:8])} as asked"))
        else:
            kept.append(endpoint)
    return Plan(planned.route, tuple(kept), tuple(excluded), planned.emulate)

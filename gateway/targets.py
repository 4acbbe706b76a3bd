"""What the names in a request stand for: Routes and their Table, worked out once and kept while nothing changes."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from gateway.attempts import Limits
from gateway.config.catalogue import Catalogue, Route
from gateway.fleet import Fleet
from gateway.routing.preferences import requested_names, split_suffix
from gateway.routing.resolve import resolve
from gateway.routing.table import Table, prepare
from gateway.routing.usual import Usual, usual_of
from providers.messages import ChatRequest

TARGETS_MAX: Final = 4096
"""Combinations of names asked for that are kept."""


class Target(Struct, frozen=True):
    """What a combination of names stands for."""

    names: tuple[str, ...]
    routes: tuple[Route, ...]
    suffix: str | None
    table: Table
    ids: tuple[str, ...]
    """Of the Table's Endpoints."""
    limits: Limits
    route: str
    """The name of the first Route."""
    timed: bool
    """Whether a price depends on the time of day."""
    roomy_tokens: int
    """Of the Table."""
    usual: Usual | None
    """The Table, as requests without wishes need it."""


class Targets:
    """Finds Targets.

    Args:
        limits: How long Attempts may take, where a Route does not say.
    """

    __slots__ = ("_known", "_limits", "_off", "catalogue")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._off: Mapping[str, str] = {}
        self._known: dict[str | tuple[str, ...], Target] = {}
        self.catalogue: Catalogue | None = None
        """That of the last request."""

    def find(self, request: ChatRequest, fleet: Fleet) -> Target:
        """The Target of a request.

        Raises:
            MixgateError: No model is named, or one that is not known.
        """
        if fleet.catalogue is not self.catalogue or fleet.off is not self._off:
            self.catalogue, self._off = fleet.catalogue, fleet.off
            self._known.clear()
        key = request.model if not request.models else (request.model, *request.models)
        target = self._known.get(key)
        if target is None:
            target = self._find(requested_names(request), fleet)
            if len(self._known) >= TARGETS_MAX:
                self._known.clear()
            self._known[key] = target
        return target

    def _find(self, names: tuple[str, ...], fleet: Fleet) -> Target:
        catalogue = fleet.catalogue
        routes = tuple(resolve(name, catalogue) for name in names)
        base, suffix = split_suffix(names[0])
        if suffix is not None and catalogue.find_route(base) != routes[0]:
            suffix = None  # it is a part of the name after all
        table = prepare(routes, catalogue, fleet.off)
        rows = table.merged.rows
        return Target(
            names,
            routes,
            suffix,
            table,
            tuple(row.id for row in rows),
            self._limits.under(routes[0].timeouts),
            table.route,
            timed=any(row.tariff.overrides != row.tariff.timeless for row in rows),
            roomy_tokens=table.roomy_tokens,
            usual=usual_of(table),
        )

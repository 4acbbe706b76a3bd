"""A providers.yaml in the making: what a source says in our words, and notes on what it says that we have no word for.

Nothing that stood in a source as a key may reach a Draft: keys become references, values never become notes.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct, field

from gateway.config.fields import NAME_MAX_CHARS, PRICE_MAX_IN_USD
from gateway.config.secrets import looks_like_key, show

NOTES_MAX: Final = 200
"""Notes on one file; more are counted."""

_NAME = re.compile(rf"[\x21-\x7e]{{1,{NAME_MAX_CHARS}}}")


class ImportSourceError(Exception):
    """A source that cannot be converted: what is wrong with it, and what to do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class RowDraft(Struct):
    """A model at a provider: the keys of its row in the order in which they are written."""

    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: list[str] = field(default_factory=list[str])


class ProviderDraft(Struct):
    """A provider: its own keys, and its rows by the id that it knows."""

    facts: dict[str, Any]
    models: dict[str, RowDraft] = field(default_factory=dict[str, RowDraft])
    notes: list[str] = field(default_factory=list[str])

    def row(self, upstream: str) -> RowDraft:
        """The row of a model, a new one where there is none."""
        return self.models.setdefault(upstream, RowDraft())


class RouteDraft(Struct):
    """A Route: its keys in the order in which they are written."""

    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: list[str] = field(default_factory=list[str])


class Draft(Struct):
    """A whole file: where it is from, what it holds, and what could not be carried over."""

    title: str
    providers: dict[str, ProviderDraft] = field(default_factory=dict[str, ProviderDraft])
    routes: dict[str, RouteDraft] = field(default_factory=dict[str, RouteDraft])
    notes: list[str] = field(default_factory=list[str])

    def note(self, text: str) -> None:
        """Say something at the top of the file, once."""
        if text not in self.notes:
            self.notes.append(text)


def is_name(value: object) -> bool:
    """Whether it may name a model or a Route in providers.yaml."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None and not looks_like_key(value)


def named(value: object) -> str:
    """A name out of a source, fit for a note: short, on one line, masked where it could be a credential."""
    return show(value) if isinstance(value, str) else "something that is not text"


def fields_of(values: Iterable[object]) -> str:
    """The names of a source's members, fit for a note. Only ever names: values may be keys."""
    names = sorted({named(value).strip('"') for value in values})
    shown = ", ".join(names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown


def settle(draft: Draft) -> Draft:
    """Make the names of a Draft fit together, as the loader wants them.

    A served Model may not have the id of an Endpoint; a Route that says nothing new need not be written.
    """
    if not any(provider.models for provider in draft.providers.values()):
        raise ImportSourceError(
            "nothing in it could be carried over" + "".join(f"\n    {note}" for note in draft.notes[:20]),
            "compare it with docs/how-to/come-from-another-gateway.md",
        )
    draft.providers = {name: provider for name, provider in draft.providers.items() if provider.models}
    rows = {
        f"{name}/{upstream}": (upstream, row)
        for name, provider in draft.providers.items()
        for upstream, row in provider.models.items()
    }
    for upstream, row in rows.values():
        served = row.facts.get("serves", upstream)
        steps = 0
        while served in rows and steps <= len(rows):
            other, meant = rows[served]
            served, steps = meant.facts.get("serves", other), steps + 1
        if served in rows:  # names that go round in a circle
            served = f"{served}-model"
        if served == upstream:
            row.facts.pop("serves", None)
        else:
            row.facts = {"serves": served, **{key: value for key, value in row.facts.items() if key != "serves"}}
    _drop_needless_routes(draft, rows)
    return draft


def _drop_needless_routes(draft: Draft, rows: Mapping[str, tuple[str, RowDraft]]) -> None:
    serving: dict[str, list[str]] = {}
    for endpoint, (upstream, row) in rows.items():
        serving.setdefault(row.facts.get("serves", upstream), []).append(endpoint)
    for name, route in [*draft.routes.items()]:
        if route.facts.get("endpoints") == serving.get(name):
            del route.facts["endpoints"]
        if not route.facts and not route.notes and name in serving:
            del draft.routes[name]


def too_dear(amount: Any) -> bool:
    """Whether a price per million tokens is beyond what the loader believes."""
    return bool(amount > PRICE_MAX_IN_USD)

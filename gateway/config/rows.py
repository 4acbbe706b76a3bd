"""Model rows become Endpoints.

Facts that a user left out come from the shipped catalogue; only what nobody knows stays unknown.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from gateway.config.catalogue import BUNDLED_FILE, DEMO_MODEL, Catalogue, LocalModel, ProviderEntry
from gateway.config.complaints import Located, did_you_mean, spell_fix
from gateway.config.dialects import default_quirks
from gateway.config.refreshed import merge_facts
from gateway.config.schema import (
    CLAIMABLE,
    LOCAL_ONLY,
    PRICE_KEYS,
    ClaimSection,
    ModelSection,
    PricesSection,
    ProviderSection,
)
from gateway.errors import ConfigProblem
from providers.base import Capabilities, Endpoint, Price, PriceOverride
from providers.quirks import Quirks

SLOTS_DEFAULT = 4
DEMO_SLOTS_DEFAULT = 8
LOCAL_CONTEXT_TOKENS_DEFAULT = 4096

FactKey: TypeAlias = tuple[str, str, str]
Facts: TypeAlias = Mapping[FactKey, ModelSection]
"""Rows of the shipped catalogue by dialect, base URL and upstream id (of a local model: its file)."""

_FREE = Price(input_in_pusd=0, output_in_pusd=0, request_in_pusd=0)
_ORIGIN = ("source", "as_of")
_FACTS = (
    "context_tokens",
    "max_output_tokens",
    "price",
    "capabilities",
    "quantization",
    "parameters",
    "distillable",
    "state",
    "ends_on",
    "description",
    "claims",
)


class Known(Struct, frozen=True):
    """What fills the gaps of a file: first what was learned since, then what is shipped."""

    shipped: Facts
    refreshed: Facts
    rows_are_shipped: bool = False
    """The file is the shipped one: nobody wrote its figures for this installation, so what was learned since wins."""


class Rows(Struct, frozen=True):
    """Every Endpoint by id, in file order, and what goes with them."""

    endpoints: dict[str, Endpoint]
    local_models: tuple[LocalModel, ...]
    price_overrides: dict[str, tuple[PriceOverride, ...]]
    problems: tuple[ConfigProblem, ...]


def facts_of(
    sections: Mapping[str, ProviderSection], entries: Mapping[str, ProviderEntry]
) -> dict[FactKey, ModelSection]:
    """What a catalogue file knows, to fill the gaps of another one."""
    return {
        _fact_key(entries[name], upstream, row): row
        for name, section in sections.items()
        for upstream, row in section.models.items()
    }


def fact_keys(sections: Mapping[str, ProviderSection], entries: Mapping[str, ProviderEntry]) -> list[FactKey]:
    """The keys by which facts for the rows of a file are found."""
    return [
        _fact_key(entries[name], upstream, row)
        for name, section in sections.items()
        for upstream, row in section.models.items()
    ]


def read_rows(
    located: Located,
    sections: Mapping[str, ProviderSection],
    entries: Mapping[str, ProviderEntry],
    known: Known,
    today: date,
) -> Rows:
    """Turn every model row into an Endpoint."""
    endpoints: dict[str, Endpoint] = {}
    local_models: list[LocalModel] = []
    overrides: dict[str, tuple[PriceOverride, ...]] = {}
    problems: list[ConfigProblem] = []
    our_names = frozenset(map(str.lower, sections))
    for name, section in sections.items():
        entry = entries[name]
        quirks = default_quirks(section.dialect, section.quirks.written() if section.quirks else {})
        for upstream, written in section.models.items():
            problems += _misfits(located, entry, upstream, written)
            row, borrowed = _settle(written, _fact_key(entry, upstream, written), known)
            endpoint = _endpoint(entry, upstream, row, quirks, today, borrowed)
            if quirks.router_fields:
                endpoint = replace(endpoint, our_names=our_names)
            endpoints[endpoint.id] = endpoint
            if row.price is not None and row.price.overrides:
                overrides[endpoint.id] = _overrides(row)
            if entry.local:
                local_models.append(_local_model(endpoint, row))
    return Rows(endpoints, tuple(local_models), overrides, tuple(problems))


def retire_ended(catalogue: Catalogue, today: date) -> Catalogue:
    """The Catalogue of that day, on which more models may be past their last one than when its file was read.

    The same object where nothing ended since.
    """
    over = {
        name: replace(endpoint, state="retired")
        for name, endpoint in catalogue.endpoints.items()
        if endpoint.state != "retired" and _is_over(endpoint.details.get("ends_on"), today)
    }
    return replace(catalogue, endpoints={**catalogue.endpoints, **over}) if over else catalogue


def _is_over(ends_on: str | None, today: date) -> bool:
    """Whether a last day, as ISO writes it, has passed."""
    return ends_on is not None and ends_on < today.isoformat()


def _fact_key(entry: ProviderEntry, upstream: str, row: ModelSection) -> FactKey:
    return (entry.dialect, entry.base_url, row.file or "" if entry.local else upstream)


def _settle(row: ModelSection, key: FactKey, known: Known) -> tuple[ModelSection, tuple[str, ...]]:
    """The row with what is known where it is silent, and which of its keys came from elsewhere."""
    fresh = known.refreshed.get(key)
    if fresh is None:
        return _with_facts(row, known.shipped.get(key))
    if known.rows_are_shipped:
        learned = tuple(name for name in _FACTS if name in fresh.model_fields_set)
        return merge_facts(row, fresh), learned
    return _with_facts(row, merge_facts(known.shipped.get(key), fresh))


def _with_facts(row: ModelSection, fact: ModelSection | None) -> tuple[ModelSection, tuple[str, ...]]:
    """The row with what the catalogue knows where it is silent, and which keys came from there."""
    if fact is None or fact is row:
        return row, ()
    missing = [key for key in _FACTS if key not in row.model_fields_set and key in fact.model_fields_set]
    if not missing:
        return row, ()
    # Source and date go with the figures: they are borrowed only where the user gave none of their own.
    keys = missing if set(_ORIGIN) & row.model_fields_set else [*missing, *_ORIGIN]
    return row.model_copy(update={key: getattr(fact, key) for key in keys}), tuple(missing)


def _misfits(located: Located, entry: ProviderEntry, upstream: str, row: ModelSection) -> list[ConfigProblem]:
    path = ("providers", entry.name, "models", upstream)
    place = ".".join(path)
    problems: list[ConfigProblem] = []
    if entry.local and row.file is None:
        fix = "add `file: NAME.gguf`, the name of a pulled file in the models folder"
        problems.append(located.complaint(path, f'{place} needs "file"', fix))
    if not entry.local:
        for key in LOCAL_ONLY:
            if getattr(row, key) is not None:
                fix = "take it out, or move the row under a provider of `dialect: local`"
                problems.append(located.complaint((*path, key), f"{place}: only local models have {key}", fix))
    if row.file == BUNDLED_FILE and row.serves != DEMO_MODEL:
        message = f"{place}: the bundled demonstration model answers only to its own name, {DEMO_MODEL}"
        fix = f"write `serves: {DEMO_MODEL}`; to have it stand in for a Model, name it in that Route's `fallback`"
        at = (*path, "serves") if row.serves else path
        problems.append(located.complaint(at, message, fix))
    if row.context_tokens and row.max_output_tokens and row.max_output_tokens > row.context_tokens:
        message = f"{place}: max_output_tokens {row.max_output_tokens} is over context_tokens {row.context_tokens}"
        fix = "context_tokens holds prompt and answer together: correct one of the two"
        problems.append(located.complaint((*path, "max_output_tokens"), message, fix))
    for position, claim in enumerate(row.claims):
        if claim.field not in CLAIMABLE:
            message = (
                f'{place}.claims[{position}]: there is no figure "{claim.field}"{did_you_mean(claim.field, CLAIMABLE)}'
            )
            fix = spell_fix(claim.field, CLAIMABLE, "name it as in this file: context_tokens, price.input, ...")
            problems.append(located.complaint((*path, "claims", position, "field"), message, fix))
    return problems


def _endpoint(
    entry: ProviderEntry, upstream: str, row: ModelSection, quirks: Quirks, today: date, borrowed: tuple[str, ...]
) -> Endpoint:
    ended = _is_over(_iso(row.ends_on), today)
    context = row.context_tokens or (LOCAL_CONTEXT_TOKENS_DEFAULT if entry.local else None)
    price = None if row.price is None else _price(row.price)
    flags = row.capabilities.written() if row.capabilities else {}
    return Endpoint(
        id=f"{entry.name}/{upstream}",
        provider=entry.name,
        model=row.serves or upstream,
        upstream_model=upstream,
        base_url=entry.base_url,
        context_tokens=context,
        max_output_tokens=row.max_output_tokens,
        price=_FREE if price is None and entry.local else price,
        capabilities=Capabilities(**flags),
        quirks=quirks,
        state="retired" if ended else row.state or "live",
        local=entry.local,
        quantization=row.quantization,
        region=entry.region,
        data=entry.data,
        distillable=row.distillable,
        parameters=None if row.parameters is None else frozenset(row.parameters),
        description=row.description,
        details=_details(row, borrowed),
    )


def _price(section: PricesSection) -> Price:
    return Price(**{f"{key}_in_pusd": getattr(section, key) for key in PRICE_KEYS})


def _overrides(row: ModelSection) -> tuple[PriceOverride, ...]:
    sections = row.price.overrides if row.price else []
    return tuple(
        PriceOverride(
            price=_price(section),
            min_prompt_tokens=section.min_prompt_tokens,
            utc_start=section.utc_start,
            utc_end=section.utc_end,
            from_day=section.from_,
            until_day=section.until,
        )
        for section in sections
    )


def _local_model(endpoint: Endpoint, row: ModelSection) -> LocalModel:
    bundled = row.file == BUNDLED_FILE
    return LocalModel(
        name=endpoint.upstream_model,
        endpoint=endpoint.id,
        file=row.file or "",
        slots=row.slots or (DEMO_SLOTS_DEFAULT if bundled else SLOTS_DEFAULT),
        context_tokens=endpoint.context_tokens or LOCAL_CONTEXT_TOKENS_DEFAULT,
        threads=row.threads,
        load=row.load or "boot",
        description=row.description,
    )


def _details(row: ModelSection, borrowed: tuple[str, ...]) -> dict[str, Any]:
    """Facts for people, fit for JSON: dates and decimals as text."""
    details: dict[str, Any] = {
        "source": row.source,
        "as_of": row.as_of,
        "ends_on": _iso(row.ends_on),
        "claims": list(_claims(row.claims)) or None,
        "from_catalogue": list(borrowed) or None,
    }
    return {key: value for key, value in details.items() if value is not None}


def _claims(sections: Iterable[ClaimSection]) -> Iterable[dict[str, Any]]:
    for section in sections:
        value = str(section.value) if isinstance(section.value, Decimal) else section.value
        claim = {"field": section.field, "value": value, "source": section.source, "as_of": section.as_of}
        yield {key: item for key, item in claim.items() if item is not None}


def _iso(day: date | None) -> str | None:
    return None if day is None else day.isoformat()

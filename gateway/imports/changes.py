"""What a vendor says now beside what a file says, figure by figure, and the row that would say the same."""

from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct

from gateway.config.schema import PRICE_KEYS, ModelSection, PriceOverrideSection, PricesSection
from gateway.imports.yaml_text import flow_text, mapping_lines, scalar_text

GONE: Final = "unverified"
"""The state of a model that is on no list any more: it may be gone, or the list may be short of it."""

_PICO_PER_USD_MTOK: Final = Decimal(10**6)
_PICO_PER_USD: Final = Decimal(10**12)
_UNITS: Final = ("request", "image")
_PLAIN: Final = ("context_tokens", "max_output_tokens", "state", "ends_on")


class Change(Struct, frozen=True):
    """A figure on which a file and a vendor differ, as text. An empty `ours`: the file has none."""

    endpoint: str
    field: str
    ours: str
    theirs: str


def changes_of(written: ModelSection | None, fresh: ModelSection, endpoint: str) -> list[Change]:
    """What a vendor says that a row does not say. What the vendor is silent about is no change."""
    ours = {} if written is None else dict(_figures(written))
    return [
        Change(endpoint, field, ours.get(field, ""), theirs)
        for field, theirs in _figures(fresh)
        if ours.get(field, "") != theirs and not (field == "state" and field not in ours and theirs == "live")
    ]


def paste_lines(rows: Mapping[str, tuple[ModelSection, ModelSection]]) -> Iterator[str]:
    """Rows as a providers.yaml has them: the file's own, with the vendor's figures where it has any."""
    for upstream, (written, fresh) in rows.items():
        facts = {**_facts(written), **_facts(fresh)}
        if "capabilities" in facts:
            facts["capabilities"] = {**_facts(written).get("capabilities", {}), **_facts(fresh).get("capabilities", {})}
        yield f"      {scalar_text(upstream)}:"
        yield from mapping_lines(facts, 8)


def _figures(row: ModelSection) -> Iterator[tuple[str, str]]:
    facts = _facts(row)
    for field in _PLAIN:
        if field in facts:
            yield field, str(facts[field])
    price: Mapping[str, Any] = facts.get("price", {})
    for key, value in price.items():
        yield f"price.{key}", flow_text(value)
    for key, value in facts.get("capabilities", {}).items():
        yield f"capabilities.{key}", flow_text(value)


def _facts(row: ModelSection) -> dict[str, Any]:
    """The keys of a row as they are written, in the file's order and units."""
    facts: dict[str, Any] = {}
    for key in ModelSection.model_fields:
        value = getattr(row, key)
        if key not in row.model_fields_set or value is None or key == "claims":
            continue
        if key == "price":
            value = _prices(value)
        elif key == "capabilities":
            value = value.written()
        facts[key] = value.isoformat() if isinstance(value, date) else value
    return facts


def _prices(section: PricesSection) -> dict[str, Any]:
    prices: dict[str, Any] = {}
    for key in PRICE_KEYS:
        value = getattr(section, key)
        if value is not None:
            prices[key] = Decimal(value) / (_PICO_PER_USD if key in _UNITS else _PICO_PER_USD_MTOK)
    if isinstance(section, PriceOverrideSection):
        conditions: dict[str, Any] = {"min_prompt_tokens": section.min_prompt_tokens, "utc_start": section.utc_start}
        conditions |= {"utc_end": section.utc_end, "from": section.from_, "until": section.until}
        for key, value in conditions.items():
            if value is not None:
                prices[key] = value.isoformat() if isinstance(value, date) else value
    elif overrides := [_prices(one) for one in getattr(section, "overrides", [])]:
        prices["overrides"] = overrides
    return prices

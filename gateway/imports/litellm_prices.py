"""LiteLLM's price list (`model_prices_and_context_window.json`): prices, limits and flags of thousands of models.

Costs there are USD per token as floats; here they are decimal text from the first to the last.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from gateway.config.fields import TEXT_MAX_CHARS
from gateway.config.secrets import looks_like_key
from gateway.imports.amounts import day, per_mtok, per_unit, read_json, token_count
from gateway.imports.blocks import BRIDGE_NOTE
from gateway.imports.draft import Draft, ImportSourceError, ProviderDraft, fields_of, is_name, settle
from gateway.imports.vendors import BRIDGE, Vendor, bridged, find_vendor
from providers.json_values import elements, members

ONLY_MAX: Final = 64
ONLY_MAX_CHARS: Final = 256

_MODES = ("chat", "completion", "responses")
_PRICES: Final = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
}
_UNITS: Final = {"input_cost_per_request": "request", "input_cost_per_image": "image"}
_TIER = re.compile(rf"({'|'.join(_PRICES)})_above_([1-9][0-9]{{0,5}})k_tokens")
_FLAGS: Final = {
    "supports_native_streaming": ("streaming",),
    "supports_system_messages": ("system",),
    "supports_function_calling": ("tools",),
    "supports_response_schema": ("json_object", "json_schema"),
    "supports_assistant_prefill": ("prefill",),
    "supports_vision": ("vision",),
    "supports_reasoning": ("reasoning",),
}
_READ: Final = {
    *_PRICES,
    *_UNITS,
    *_FLAGS,
    *("litellm_provider", "mode", "max_tokens", "max_input_tokens", "max_output_tokens", "deprecation_date", "source"),
}
_ON_BEDROCK = re.compile(r"bedrock/(?:(?P<region>[a-z]{2}(?:-[a-z]+)+-[0-9])/)?(?:converse/|invoke/)?(?P<model>[^/]+)")


def is_price_list(content: object) -> bool:
    """Whether decoded JSON is this kind of file."""
    return any("litellm_provider" in members(row) for row in members(content).values())


def from_price_list(text: bytes, *, as_of: str, only: Sequence[str] = ()) -> Draft:
    """Convert a price list.

    Args:
        text: The file.
        as_of: The day on which it is read, for the rows.
        only: Patterns as of a shell; a model is taken when its name fits one. None: all models of vendors that are
            spoken to directly. Models that only the litellm library reaches are taken where a pattern names them.

    Raises:
        ImportSourceError: It is something else, or holds nothing that can be used.
    """
    content = members(read_json(text))
    if not is_price_list(content):
        raise ImportSourceError(
            "it is not LiteLLM's price list", "name a model_prices_and_context_window.json, or say what it is: --from"
        )
    draft = Draft(
        f"Converted from LiteLLM's price list on {as_of}. Figures are LiteLLM's, not checked against vendors."
    )
    left: Counter[str] = Counter()
    unspoken: Counter[str] = Counter()
    misfits: list[str] = []
    for key, value in content.items():
        model = members(value)
        if key == "sample_spec" or model.get("mode") not in _MODES or not _wanted(key, only):
            continue
        vendor = find_vendor(str(model.get("litellm_provider", "")))
        if vendor is None and not only:
            unspoken[str(model.get("litellm_provider", ""))] += 1
            continue
        place = _place(key, vendor or bridged(str(model.get("litellm_provider", ""))))
        if place is None or not is_name(place[1]):
            misfits.append(key)
            continue
        row = _provider(draft, place[0], place[2]).row(place[1])
        row.facts, row.notes = facts_of_model(model, as_of)
        left.update(field for field in model if field not in _READ and not _TIER.fullmatch(field) and _is_price(field))
    if misfits:
        draft.note(f"{len(misfits)} of provisioned capacity, or of names that no row can have: {fields_of(misfits)}")
    _explain(draft, left, unspoken)
    return settle(draft)


def facts_of_model(model: Mapping[str, Any], as_of: str) -> tuple[dict[str, Any], list[str]]:
    """The keys of a row that one model of the list gives, and notes on what is odd about it."""
    facts: dict[str, Any] = {}
    notes: list[str] = []
    context, output = token_count(model.get("max_input_tokens")), token_count(model.get("max_output_tokens"))
    if context is None and output is None:
        context = token_count(model.get("max_tokens"))  # of old rows: the one bound that they know
    if context is not None and output is not None and output > context:
        notes.append(f"said to write {output} tokens in a window of {context}: the former is left out")
        output = None
    price = prices_of_model(model, notes)
    flags = {name: model[flag] for flag, names in _FLAGS.items() if isinstance(model.get(flag), bool) for name in names}
    found: dict[str, Any] = {
        "context_tokens": context,
        "max_output_tokens": output,
        "price": price or None,
        "capabilities": flags or None,
        "ends_on": day(model.get("deprecation_date")),
    }
    facts.update((key, value) for key, value in found.items() if value is not None)
    cited = model.get("source")
    good = isinstance(cited, str) and len(cited) <= TEXT_MAX_CHARS // 2 and not looks_like_key(cited)
    facts["source"] = f"LiteLLM's price list, which cites {cited}" if good else "LiteLLM's price list"
    facts["as_of"] = as_of
    return facts, notes


def prices_of_model(model: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The `price` of a row, with an override for each size of prompt that costs otherwise."""
    price: dict[str, Any] = {}
    for field, name in _PRICES.items():
        _take(price, name, model.get(field), notes)
    if "cache_read" not in price:
        _take(price, "cache_read", model.get("input_cost_per_token_cache_hit"), notes)
    for field, name in _UNITS.items():
        _take(price, name, model.get(field), notes, unit=True)
    tiers: dict[int, dict[str, Any]] = {}
    for field, value in model.items():
        if match := _TIER.fullmatch(field):
            # Above 200,000 is from 200,001 on.
            _take(tiers.setdefault(int(match[2]) * 1000 + 1, {}), _PRICES[match[1]], value, notes)
    for start, prices in _ranges(model.get("tiered_pricing")):
        target = tiers.setdefault(start, {}) if start else price
        for field, name in _PRICES.items():
            _take(target, name, prices.get(field), notes)
    overrides = [{**prices, "min_prompt_tokens": start} for start, prices in sorted(tiers.items()) if prices]
    if overrides:
        price["overrides"] = overrides
    return price


def _ranges(tiers: object) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The first prompt size of each tier, 0 of the first, and its prices."""
    for tier in elements(tiers)[:32]:
        prices = members(tier)
        first = next(iter(elements(prices.get("range"))), None)
        start = token_count(first)
        if start is not None or first == 0:
            yield (start + 1 if start else 0), prices


def _take(price: dict[str, Any], name: str, value: object, notes: list[str], *, unit: bool = False) -> None:
    if value is None:
        return
    amount = per_unit(value) if unit else per_mtok(value)
    if amount is None:
        notes.append(f"its price for {name} is none that can be meant, and is left out")
        return
    price[name] = amount.usd
    if amount.rounded:
        notes.append(f"its price for {name} was finer than a millionth of a USD per million tokens, and is rounded")


def _wanted(key: str, only: Sequence[str]) -> bool:
    return not only or any(fnmatchcase(key, pattern) for pattern in only)


def _place(key: str, vendor: Vendor) -> tuple[Vendor, str, str | None] | None:
    """Which block a model belongs to: the vendor, the id that it knows, the region."""
    if vendor.name == "bedrock":
        match = _ON_BEDROCK.fullmatch(key if key.startswith("bedrock/") else f"bedrock/{key}")
        return None if match is None else (vendor, match["model"], match["region"])
    if vendor.dialect == BRIDGE:
        return vendor, key, None
    for prefix in (vendor.name, *vendor.aliases):
        if key.startswith(f"{prefix}/"):
            return vendor, key[len(prefix) + 1 :], None
    return vendor, key, None


def _provider(draft: Draft, vendor: Vendor, region: str | None) -> ProviderDraft:
    name = f"{vendor.name}-{region}" if region else vendor.name
    if name not in draft.providers:
        facts: dict[str, Any] = {"dialect": vendor.dialect}
        if vendor.base_url is not None:
            facts["base_url"] = vendor.base_url
        if vendor.variable is not None:
            facts["api_key"] = f"env:{vendor.variable}"
        if region is not None:
            facts["region"] = region
        draft.providers[name] = ProviderDraft(facts)
    return draft.providers[name]


def _is_price(field: str) -> bool:
    return "cost" in field or "pricing" in field or field.endswith("_multiplier")


def _explain(draft: Draft, left: Counter[str], unspoken: Counter[str]) -> None:
    if left:
        draft.note(f"prices that no row has a key for, on {max(left.values())} models or fewer: {fields_of(left)}")
    if unspoken:
        draft.note(
            f"{sum(unspoken.values())} models of vendors that only the litellm library reaches; name them with --only "
            f"to have them. Vendors: {fields_of(unspoken)}"
        )
    if any(provider.facts["dialect"] == BRIDGE for provider in draft.providers.values()):
        draft.note(BRIDGE_NOTE)

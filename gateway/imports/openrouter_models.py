"""OpenRouter's list of models, and of the endpoints behind one, as figures of providers.yaml.

https://openrouter.ai/docs/api-reference/list-available-models; prices there are decimal text, USD per token.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct

from gateway.config.refreshed import Figure
from gateway.imports.amounts import day, per_mtok, per_unit, read_json, token_count
from gateway.imports.draft import ImportSourceError, is_name
from gateway.imports.yaml_text import decimal_text
from providers.json_values import elements, members

MODELS_MAX: Final = 20_000
OVERRIDES_MAX: Final = 32

_PRICES: Final = {
    "prompt": "input",
    "completion": "output",
    "input_cache_read": "cache_read",
    "input_cache_write": "cache_write",
}
_UNITS: Final = {"request": "request", "image": "image"}
_PARAMETERS: Final = {
    "tools": "tools",
    "json_object": "response_format",
    "json_schema": "structured_outputs",
    "logprobs": "logprobs",
    "seed": "seed",
    "reasoning": "reasoning",
}


class Listing(Struct, frozen=True):
    """One page of the list."""

    models: Mapping[str, Mapping[str, Any]]
    """Facts of rows, by the id that OpenRouter knows."""
    next_url: str | None
    """The next page, wherever it is said to be."""


class Behind(Struct, frozen=True):
    """What stands behind one model there, in a line for people."""

    endpoints: int
    context_tokens: tuple[int, ...]
    input_in_usd: tuple[Decimal, ...]

    def words(self) -> str:
        """As in `3 endpoints, 32768 to 65536 tokens, input 0.90 to 2`."""
        if not self.endpoints:
            return "no endpoint answers for it"
        spans = [f"{self.endpoints} endpoint{'s' if self.endpoints > 1 else ''}"]
        if self.context_tokens:
            spans.append(f"{_span([str(one) for one in self.context_tokens])} tokens")
        if self.input_in_usd:
            spans.append(f"input {_span([decimal_text(one) for one in self.input_in_usd])}")
        return ", ".join(spans)


def read_listing(text: bytes) -> Listing:
    """Read a page of `GET /models`.

    Raises:
        ImportSourceError: It is something else.
    """
    content = members(read_json(text))
    if not isinstance(content.get("data"), list):
        raise ImportSourceError("it is no list of models", "check the provider's base_url")
    models = {
        model["id"]: facts_of_model(model)
        for model in map(members, elements(content["data"])[:MODELS_MAX])
        if is_name(model.get("id"))
    }
    following = members(content.get("links")).get("next")
    return Listing(models, following if isinstance(following, str) and following else None)


def read_endpoints(text: bytes) -> Behind:
    """Read `GET /models/{id}/endpoints`.

    Raises:
        ImportSourceError: It is something else.
    """
    data = members(members(read_json(text)).get("data"))
    if not isinstance(data.get("endpoints"), list):
        raise ImportSourceError("it is no list of endpoints", "check the provider's base_url")
    listed = [members(endpoint) for endpoint in elements(data["endpoints"])[:MODELS_MAX]]
    contexts = [token_count(endpoint.get("context_length")) for endpoint in listed]
    prices = [per_mtok(members(endpoint.get("pricing")).get("prompt")) for endpoint in listed]
    return Behind(
        len(listed),
        tuple(sorted(context for context in contexts if context is not None)),
        tuple(sorted(price.usd for price in prices if price is not None)),
    )


def facts_of_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a row that one model of the list gives. Prices are decimal text; the list of parameters is whole."""
    context = token_count(model.get("context_length"))
    output = token_count(members(model.get("top_provider")).get("max_completion_tokens"))
    if context is not None and output is not None and output > context:
        output = None
    found: dict[str, Any] = {
        "context_tokens": context,
        "max_output_tokens": output,
        "price": _price(members(model.get("pricing"))) or None,
        "capabilities": _capabilities(model),
        "state": "live",
        "ends_on": day(model.get("expiration_date")),
    }
    return {name: value for name, value in found.items() if value is not None}


def with_origin(facts: Mapping[str, Any], source: str, as_of: str) -> dict[str, Figure]:
    """Each fact with where it is from."""
    return {name: Figure(value=value, source=source, as_of=as_of) for name, value in facts.items()}


def _price(pricing: Mapping[str, Any]) -> dict[str, Any]:
    price = _figures(pricing)
    overrides: list[dict[str, Any]] = []
    for entry in map(members, elements(pricing.get("overrides"))[:OVERRIDES_MAX]):
        figures, when = _figures(entry), _condition(entry)
        if figures and when:
            overrides.append({**figures, **when})
    if overrides:
        price["overrides"] = overrides
    return price


def _figures(pricing: Mapping[str, Any]) -> dict[str, Any]:
    """Prices that are some: routers among the models say -1, and what is free of charge need not be said twice."""
    tokens = {name: per_mtok(pricing.get(field)) for field, name in _PRICES.items()}
    units = {name: per_unit(pricing.get(field)) for field, name in _UNITS.items()}
    charged = {name: amount for name, amount in units.items() if amount is not None and amount.usd}
    return {name: decimal_text(amount.usd) for name, amount in {**tokens, **charged}.items() if amount is not None}


def _condition(entry: Mapping[str, Any]) -> dict[str, Any]:
    """When an override holds; nothing where that cannot be said here."""
    when: dict[str, Any] = {}
    if "min_prompt_tokens" in entry:
        above = token_count(entry["min_prompt_tokens"])
        if above is None:
            return {}
        when["min_prompt_tokens"] = above + 1  # there: strictly more than this many
    clocks = [_clock(entry.get(name)) for name in ("utc_start", "utc_end")]
    if "utc_start" in entry or "utc_end" in entry:
        if None in clocks:
            return {}
        when["utc_start"], when["utc_end"] = clocks
    return when


def _clock(value: object) -> str | None:
    """1030 is 10:30."""
    number = value if isinstance(value, int | Decimal) and not isinstance(value, bool) else -1
    if number != int(number) or not 0 <= number < 2400 or int(number) % 100 > 59:
        return None
    return f"{int(number) // 100:02}:{int(number) % 100:02}"


def _capabilities(model: Mapping[str, Any]) -> dict[str, bool] | None:
    found: dict[str, bool] = {}
    if listed := elements(model.get("supported_parameters")):
        found |= {name: parameter in listed for name, parameter in _PARAMETERS.items()}
    if modes := elements(members(model.get("architecture")).get("input_modalities")):
        found["vision"] = "image" in modes
    return found or None


def _span(ordered: Sequence[str]) -> str:
    return ordered[0] if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"

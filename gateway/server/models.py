"""What `GET /models` says: the names that can answer now, with what is known of each."""

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.config.catalogue import DEMO_MODEL, Catalogue, Route
from gateway.routing.table import prepare
from providers.base import Endpoint, Price

CREATED_UNIX_S = 0
"""OpenAI's `created`: when a model was made is not something that a gateway knows."""
PICO_PER_USD = 10**12


def list_models(catalogue: Catalogue, off: Mapping[str, str]) -> dict[str, Any]:
    """Every Route that something can answer for at this moment."""
    return {"object": "list", "data": list(_entries(catalogue, off))}


def _entries(catalogue: Catalogue, off: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for route in catalogue.routes.values():
        entry = model_entry(route, catalogue, off)
        if entry is not None:
            yield entry


def model_entry(route: Route, catalogue: Catalogue, off: Mapping[str, str]) -> dict[str, Any] | None:
    """One model card, or None when nothing can answer for it now."""
    endpoints = [row.endpoint for row in prepare((route,), catalogue, off).merged.rows]
    if not endpoints:
        return None
    first = endpoints[0]
    contexts = [endpoint.context_tokens for endpoint in endpoints if endpoint.context_tokens is not None]
    entry: dict[str, Any] = {
        "id": route.name,
        "object": "model",
        "created": CREATED_UNIX_S,
        "owned_by": first.provider,
        "name": route.name,
        "description": first.description,
        "context_length": max(contexts) if contexts else None,
        "pricing": _pricing(first.price),
        "endpoints": [_endpoint(endpoint) for endpoint in endpoints],
    }
    if first.model == DEMO_MODEL:
        entry["demonstration"] = True
    return entry


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "context_length": endpoint.context_tokens,
        "max_completion_tokens": endpoint.max_output_tokens,
        "pricing": _pricing(endpoint.price),
        "state": endpoint.state,
        "local": endpoint.local,
    }


def _pricing(price: Price | None) -> dict[str, str] | None:
    """USD per token as decimal strings, OpenRouter's form; None where nobody knows."""
    if price is None or price.input_in_pusd is None or price.output_in_pusd is None:
        return None
    return {"prompt": usd_per_token(price.input_in_pusd), "completion": usd_per_token(price.output_in_pusd)}


def usd_per_token(price_in_pusd: int) -> str:
    """A price in pico-USD as a decimal USD string without an exponent or trailing zeros."""
    whole, rest = divmod(price_in_pusd, PICO_PER_USD)
    return f"{whole}.{rest:012d}".rstrip("0").rstrip(".")

"""`GET /models/{name}/endpoints`: who can answer for a Model, at what price, and how well each of them did of late.

The shape is OpenRouter's, whose own clients read it: https://openrouter.ai/docs/api-reference/list-endpoints-for-a-model
They refuse a whole list for one null where their schema has none, so an unknown context is 0 there, and an unknown
price -1, which is what OpenRouter itself says of prices that cannot be told beforehand.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from gateway.config.catalogue import Catalogue, Route
from gateway.health import Health
from gateway.observation import Quantiles, Standing
from gateway.routing.table import prepare
from gateway.server.models import CREATED_UNIX_S, usd_per_token
from providers.base import Endpoint, Price, PriceOverride

UNKNOWN_CONTEXT: Final = 0
UNKNOWN_PRICE: Final = "-1"
UNKNOWN_QUANTIZATION: Final = "unknown"
MS_PER_S: Final = 1000
PERCENT: Final = 100
PACE_MINUTES: Final = 30
UPTIME_MINUTES: Final[Mapping[str, int]] = {"uptime_last_5m": 5, "uptime_last_30m": 30, "uptime_last_1d": 1440}
STATUSES: Final[Mapping[Standing, int]] = {
    "healthy": 0,
    "probing": 0,
    "degraded": -1,
    "parked": -2,
    "open": -3,
    "disabled": -5,
}
"""OpenRouter's `status`: 0 is asked as usual, anything below is not, or later than others."""
_ANYWHERE: Final = ("max_tokens", "stop", "temperature", "top_p")
"""Every dialect has words for these."""
_BY_CAPABILITY: Final[Mapping[str, tuple[str, ...]]] = {
    "tools": ("tools", "tool_choice"),
    "json_object": ("response_format",),
    "json_schema": ("structured_outputs",),
    "logprobs": ("logprobs", "top_logprobs"),
    "reasoning": ("reasoning",),
    "seed": ("seed",),
    "multiple_choices": ("n",),
}


def list_endpoints(
    route: Route, catalogue: Catalogue, off: Mapping[str, str], health: Health, now_s: float
) -> dict[str, Any]:
    """The Endpoints of a Route that can answer now, in its own order and without its fallbacks; maybe none.

    Args:
        route: The Model asked for.
        catalogue: All that is configured.
        off: Endpoints that cannot answer now, by id.
        health: How all of them are doing.
        now_s: The monotonic clock.
    """
    rows = prepare((route,), catalogue, off).merged.rows
    endpoints = [row.endpoint for row in rows if not row.fallback]
    vision = any(endpoint.capabilities.vision for endpoint in endpoints)
    return {
        "data": {
            "id": route.name,
            "name": route.name,
            "created": CREATED_UNIX_S,
            "description": (endpoints[0].description if endpoints else None) or "",
            "architecture": {
                "modality": "text+image->text" if vision else "text->text",
                "input_modalities": ["text", "image"] if vision else ["text"],
                "output_modalities": ["text"],
                "tokenizer": None,
                "instruct_type": None,
            },
            "endpoints": [
                {
                    **_facts(endpoint, _tag(endpoint, endpoints), catalogue.price_overrides.get(endpoint.id, ())),
                    **_measured(endpoint.id, health, now_s),
                }
                for endpoint in endpoints
            ],
        }
    }


def _facts(endpoint: Endpoint, tag: str, overrides: Sequence[PriceOverride]) -> dict[str, Any]:
    tools = endpoint.capabilities.tools
    return {
        "name": f"{endpoint.provider}: {endpoint.model}",
        "model_id": endpoint.model,
        "model_name": endpoint.model,
        "provider_name": endpoint.provider,
        "tag": tag,
        "quantization": endpoint.quantization or UNKNOWN_QUANTIZATION,
        "context_length": endpoint.context_tokens or UNKNOWN_CONTEXT,
        "max_completion_tokens": endpoint.max_output_tokens,
        "max_prompt_tokens": endpoint.context_tokens,
        "pricing": _pricing(endpoint.price, overrides),
        "supported_parameters": _parameters(endpoint),
        "supports_implicit_caching": False,
        "supports_tool_choice": dict.fromkeys(("auto", "none", "required", "function"), tools),
        "supports_diarization": False,
        "native_tools": {},
        "service_tier": None,
    }


def _tag(endpoint: Endpoint, endpoints: Iterable[Endpoint]) -> str:
    """What `provider.order` may call it: its provider, or its id where the provider has more than one of these."""
    alike = sum(1 for one in endpoints if one.provider == endpoint.provider)
    return endpoint.provider if alike == 1 else endpoint.id


def _measured(endpoint_id: str, health: Health, now_s: float) -> dict[str, Any]:
    known = health.of(endpoint_id)
    shares = {name: known.share(now_s, minutes).uptime for name, minutes in UPTIME_MINUTES.items()}
    return {
        "status": STATUSES[known.observe(now_s).standing],
        **{name: None if share is None else round(share * PERCENT, 2) for name, share in shares.items()},
        "latency_last_30m": _quantiles(known.pace.latency(now_s, PACE_MINUTES), MS_PER_S),
        "throughput_last_30m": _quantiles(known.pace.throughput(now_s, PACE_MINUTES), 1),
    }


def _quantiles(found: Quantiles | None, times: int) -> dict[str, float] | None:
    if found is None:
        return None
    figures = {"p50": found.p50, "p75": found.p75, "p90": found.p90, "p99": found.p99}
    return {name: round(figure * times, 2) for name, figure in figures.items()}


def _parameters(endpoint: Endpoint) -> list[str]:
    """Those that it is known to honour; where nobody says, what follows from its capabilities."""
    if endpoint.parameters is not None:
        return sorted(endpoint.parameters)
    able = (names for flag, names in _BY_CAPABILITY.items() if getattr(endpoint.capabilities, flag))
    return sorted({*_ANYWHERE, *(name for names in able for name in names)})


def _pricing(price: Price | None, overrides: Sequence[PriceOverride]) -> dict[str, Any]:
    """USD per token, request or image, as decimal text."""
    known = {} if price is None else _amounts(price)
    pricing: dict[str, Any] = {"prompt": UNKNOWN_PRICE, "completion": UNKNOWN_PRICE, **known}
    # There is no word for a span of days, so what holds on some days only is left out.
    told = [_override(one) for one in overrides if one.from_day is None and one.until_day is None]
    return {**pricing, "overrides": told} if told else pricing


def _amounts(price: Price) -> dict[str, str]:
    amounts = {
        "prompt": price.input_in_pusd,
        "completion": price.output_in_pusd,
        "input_cache_read": price.cache_read_in_pusd,
        "input_cache_write": price.cache_write_in_pusd,
        "request": price.request_in_pusd,
        "image": price.image_in_pusd,
    }
    return {name: usd_per_token(amount) for name, amount in amounts.items() if amount is not None}


def _override(override: PriceOverride) -> dict[str, Any]:
    """Prices under a condition. Theirs is more tokens than so many and ours so many and more; times are HHMM."""
    said: dict[str, Any] = dict(_amounts(override.price))
    if override.min_prompt_tokens is not None:
        said["min_prompt_tokens"] = override.min_prompt_tokens - 1
    if override.utc_start is not None and override.utc_end is not None:
        said["utc_start"] = int(override.utc_start.replace(":", ""))
        said["utc_end"] = int(override.utc_end.replace(":", ""))
    return said

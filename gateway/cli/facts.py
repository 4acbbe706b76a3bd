"""What the commands say about a Catalogue: who is on and why not, which Models can answer, at what price."""

from collections.abc import Mapping
from decimal import Decimal

from gateway.config.catalogue import BUNDLED_FILE, DEMO_MODEL, Catalogue, ProviderEntry
from gateway.config.locations import home_folder, model_file
from local_backend.preflight import check_package
from providers.base import Endpoint

PICO_PER_USD_MTOK = 10**6
"""Pico-USD per token in one USD per million tokens."""
UNKNOWN = "?"


def provider_rows(catalogue: Catalogue, env: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
    """Name, dialect, on or off, and the reason with its remedy."""
    return [
        (entry.name, entry.dialect, "on" if entry.on else "off", _why(entry, catalogue, env))
        for entry in catalogue.providers.values()
    ]


def route_rows(catalogue: Catalogue, env: Mapping[str, str]) -> list[tuple[str, ...]]:
    """For every Route its Endpoints: Model, Endpoint, on or off, context, price in and out, remark."""
    rows: list[tuple[str, ...]] = []
    for route in catalogue.routes.values():
        for position, endpoint_id in enumerate(route.endpoints):
            endpoint = catalogue.endpoints[endpoint_id]
            reason = off_reason(catalogue, endpoint, env)
            rows.append(
                (
                    route.name if position == 0 else "",
                    endpoint.id,
                    "off" if reason else "on",
                    UNKNOWN if endpoint.context_tokens is None else str(endpoint.context_tokens),
                    usd_per_mtok(endpoint.price.input_in_pusd if endpoint.price else None),
                    usd_per_mtok(endpoint.price.output_in_pusd if endpoint.price else None),
                    reason or ("unverified" if endpoint.state == "unverified" else ""),
                )
            )
        if route.fallback:
            rows.append(("", "then " + ", ".join(route.fallback), "", "", "", "", ""))
    return rows


def off_reason(catalogue: Catalogue, endpoint: Endpoint, env: Mapping[str, str]) -> str:
    """Why an Endpoint cannot answer, or nothing."""
    entry = catalogue.providers[endpoint.provider]
    if endpoint.state == "retired":
        return "retired"
    if not entry.on:
        return entry.off_reason or "off"
    if endpoint.local and (complaint := check_package()) is not None:
        return complaint.partition(",")[0]
    file = next((model.file for model in catalogue.local_models if model.endpoint == endpoint.id), BUNDLED_FILE)
    if file != BUNDLED_FILE and not model_file(file, home_folder(env)).is_file():
        return "not pulled"
    return ""


def answering(catalogue: Catalogue, env: Mapping[str, str]) -> list[str]:
    """The names of Routes that can answer now, the demonstration model last."""
    names = [
        route.name
        for route in catalogue.routes.values()
        if any(not off_reason(catalogue, catalogue.endpoints[endpoint], env) for endpoint in route.endpoints)
    ]
    return sorted(names, key=lambda name: name == DEMO_MODEL)


def usd_per_mtok(price_in_pusd: int | None) -> str:
    """A price as the file has it: decimal USD per million tokens, `?` where unknown."""
    if price_in_pusd is None:
        return UNKNOWN
    whole, fraction = divmod(Decimal(price_in_pusd) / PICO_PER_USD_MTOK, 1)
    return f"{whole}.{str(fraction)[2:].rstrip('0').ljust(2, '0')}" if fraction else f"{whole}"


def _why(entry: ProviderEntry, catalogue: Catalogue, env: Mapping[str, str]) -> str:
    if not entry.on:
        return f"{entry.off_reason}; {entry.fix}"
    own = [endpoint for endpoint in catalogue.endpoints.values() if endpoint.provider == entry.name]
    ready = sum(not off_reason(catalogue, endpoint, env) for endpoint in own)
    return f"{ready} of {len(own)} models"

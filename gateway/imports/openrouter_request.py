"""A request, or a preset, for OpenRouter: which models in which order, and what `provider` asks of its routing.

https://openrouter.ai/docs/features/provider-routing
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from gateway.imports.amounts import read_json
from gateway.imports.draft import Draft, ImportSourceError, ProviderDraft, RouteDraft, fields_of, is_name, named, settle
from gateway.imports.vendors import find_vendor
from providers.json_values import elements, members

MODELS_MAX: Final = 64
SUFFIXES: Final = {":nitro": "throughput", ":floor": "price"}

_SORTS: Final = {"price": "price", "throughput": "throughput", "latency": "latency"}
_READ_PROVIDER: Final = {"order", "only", "ignore", "sort", "allow_fallbacks"}
_READ: Final = {"model", "models", "provider", "messages", "route"}


class Sibling(Struct, frozen=True):
    """Another way to a model that OpenRouter has too: a row of the shipped catalogue."""

    endpoint: str
    provider: str
    facts: Mapping[str, Any]
    """The provider's own keys, without its rows."""
    upstream: str


def is_openrouter_request(content: object) -> bool:
    """Whether decoded JSON is this kind of file."""
    return bool(_models(members(content)))


def from_openrouter_request(
    text: bytes, name: str | None, *, siblings: Mapping[str, Sequence[Sibling]], as_of: str
) -> Draft:
    """Convert a request's routing.

    Args:
        text: The file.
        name: What the Route is to be called. None: as its first model.
        siblings: By OpenRouter's model id, other Endpoints that are known to serve the same model, for
            `provider.order` and `provider.only`.
        as_of: The day on which it is read.

    Raises:
        ImportSourceError: It is something else, or holds nothing that can be used.
    """
    content = members(read_json(text))
    models = _models(content)
    if not models:
        raise ImportSourceError("it names no model", "name a request or a preset for OpenRouter, or say what it is")
    draft = Draft(f"Converted from a request for OpenRouter on {as_of}.")
    suffix = next((one for one in SUFFIXES if models[0].endswith(one)), "")
    ids = list(dict.fromkeys(_without_suffix(model) for model in models if is_name(model)))[:MODELS_MAX]
    if len(ids) < len(models):
        draft.note("models that no row can stand for, or that came twice")
    if not ids:
        raise ImportSourceError("none of its models is one", "compare them with https://openrouter.ai/models")
    wishes = members(content.get("provider"))
    public = name or ids[0]
    if not is_name(public):
        raise ImportSourceError(f"{named(public)} is no name for a Model", "give one with --name")
    routes = dict(zip(dict.fromkeys([public, *ids[1:]]), ids, strict=False))
    sort = _sort(wishes.get("sort"))
    policy = SUFFIXES.get(suffix) or (_SORTS.get(sort) if isinstance(sort, str) else None)
    for route, model in routes.items():
        endpoints = _endpoints(draft, model, wishes, siblings, (route, tuple(routes)))
        draft.routes[route] = RouteDraft({"policy": policy or "ordered"} if len(endpoints) > 1 else {})
        draft.routes[route].facts["endpoints"] = endpoints
    if len(routes) > 1:
        draft.routes[public].facts["fallback"] = [route for route in routes if route != public]
    _explain(draft, content, wishes)
    return settle(draft)


def _models(content: Mapping[str, Any]) -> list[str]:
    models = [content.get("model"), *elements(content.get("models"))[:MODELS_MAX]]
    return [model for model in models if isinstance(model, str) and model]


def _without_suffix(model: str) -> str:
    return next((model.removesuffix(suffix) for suffix in SUFFIXES if model.endswith(suffix)), model)


def _endpoints(
    draft: Draft,
    model: str,
    wishes: Mapping[str, Any],
    siblings: Mapping[str, Sequence[Sibling]],
    names: tuple[str, Sequence[str]],
) -> list[str]:
    """Endpoint ids of one model in order: first those whom `order` or `only` name, then OpenRouter itself.

    `names` are the Route's own, and those of all Routes.
    """
    order, only, ignore = (_slugs(wishes.get(key)) for key in ("order", "only", "ignore"))
    wanted = [slug for slug in dict.fromkeys([*order, *only]) if slug not in ignore and (not only or slug in only)]
    endpoints: list[str] = []
    for slug in wanted:
        for sibling in siblings.get(model, ()):
            if _same_vendor(slug, sibling.provider):
                provider = draft.providers.setdefault(sibling.provider, ProviderDraft(dict(sibling.facts)))
                provider.row(sibling.upstream).facts.setdefault("serves", names[0])
                endpoints.append(sibling.endpoint)
    home = "openrouter-2" if any(name.startswith("openrouter/") for name in names[1]) else "openrouter"
    router = draft.providers.setdefault(
        home, ProviderDraft({"dialect": "openrouter", "api_key": "env:OPENROUTER_API_KEY"})
    )
    router.row(model).facts.setdefault("serves", names[0])
    return list(dict.fromkeys([*endpoints, f"{home}/{model}"]))


def _same_vendor(slug: str, provider: str) -> bool:
    vendor = find_vendor(slug.partition("/")[0])
    return vendor is not None and (provider == vendor.name or provider.startswith(f"{vendor.name}-"))


def _slugs(value: object) -> list[str]:
    return [slug for slug in elements(value)[:MODELS_MAX] if isinstance(slug, str)]


def _sort(value: object) -> object:
    return members(value).get("by", value)


def _explain(draft: Draft, content: Mapping[str, Any], wishes: Mapping[str, Any]) -> None:
    kept = [key for key in ("order", "only", "ignore", "allow_fallbacks") if key in wishes]
    if kept:
        draft.note(
            f"provider.{{{', '.join(kept)}}}: which of its own providers OpenRouter asks is told with each request, "
            "and no row can hold it. Whom they name and the shipped catalogue knows stands before OpenRouter here; "
            "go on sending the member, it is passed on"
        )
    sort = _sort(wishes.get("sort"))
    if sort is not None and not (isinstance(sort, str) and sort in _SORTS):
        draft.note(f"provider.sort, which is none of {', '.join(_SORTS)}")
    left = [f"provider.{key}" for key in wishes if key not in _READ_PROVIDER]
    if left:
        draft.note(f"to be sent with each request: {fields_of(left)}")
    left = [key for key in content if key not in _READ]
    if left:
        draft.note(f"not about routing, to be sent with each request: {fields_of(left)}")

"""OpenRouter: the OpenAI codec plus its own members.

Routing preferences pass through as far as they are meant for it, usage with its cost always comes, comments keep a
stream alive, and an error may arrive inside a 200 (the shared decoder knows all of these).
https://openrouter.ai/docs/api-reference/overview
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from providers.base import NO_HEADERS, Decoder, Endpoint, WireRequest
from providers.errors import ProviderError
from providers.json_values import members
from providers.messages import ChatRequest
from providers.openai import OpenAi
from providers.parameters import COMPRESSION

_CODEC = OpenAi()


_NAMED_PROVIDERS = ("order", "only", "ignore")


def forwarded_preferences(wishes: Mapping[str, Any], endpoint: Endpoint) -> dict[str, Any] | None:
    """What of a request's `provider` is meant for the router behind an Endpoint; None: nothing.

    Our own providers' names are not: whom we ask was decided by them already. Data policy, price limit, quantizations,
    sorting, names that are not ours and whatever else it may know pass as they are.
    """
    kept = dict(wishes)
    for member in _NAMED_PROVIDERS:
        if isinstance(kept.get(member), list):
            # Whoever names this provider among those it wants wants all that is behind it.
            whole = member == "only" and any(_base(name) == endpoint.provider.lower() for name in kept[member])
            kept[member] = [] if whole else [name for name in kept[member] if _base(name) not in endpoint.our_names]
    if wishes.get("order") and not kept["order"]:
        kept.pop("allow_fallbacks", None)  # it was about an order of ours
    return {member: value for member, value in kept.items() if value is not None and value != []} or None


def _base(name: object) -> str:
    """A provider's name without variant and region."""
    return name.partition("/")[0].lower() if isinstance(name, str) else ""


class OpenRouter:
    """Speaks to openrouter.ai, or to anything that is a drop-in for it."""

    name = "openrouter"

    def encode(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> WireRequest:
        """The request with OpenRouter's own members kept and silent prompt cutting switched off.

        OpenRouter compresses prompts on small-context endpoints unless told not to. Who asks for that gets it from the
        gateway, which says what it cut; a second cut behind its back would be told to nobody.
        """
        others = [plugin for plugin in request.plugins or () if members(plugin).get("id") != COMPRESSION]
        asked = msgspec.structs.replace(
            request,
            plugins=[*others, {"id": COMPRESSION, "enabled": False}],
            provider=forwarded_preferences(request.provider, endpoint) if request.provider else None,
            # `models` is our own routing by now: this Endpoint is one model, and another one would be booked wrongly.
            models=None,
        )
        return _CODEC.encode(asked, endpoint, stream=stream)

    def decoder(
        self,
        endpoint: Endpoint,
        *,
        stream: bool,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Decoder:
        """The shared codec's decoder."""
        return _CODEC.decoder(endpoint, stream=stream, headers=headers)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, *, now_unix_s: float) -> ProviderError:
        """The shared table knows OpenRouter's error_type vocabulary."""
        return _CODEC.error(status, headers, body, now_unix_s=now_unix_s)

    def authorize(self, api_key: str) -> Mapping[str, str]:
        """A bearer token."""
        return _CODEC.authorize(api_key)

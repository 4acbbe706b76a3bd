"""OpenRouter: the OpenAI codec plus its own members.

Routing preferences pass through, usage with its cost always comes, comments keep a stream alive, and an error may
arrive inside a 200 (the shared decoder knows all of these). https://openrouter.ai/docs/api-reference/overview
"""

from collections.abc import Mapping

import msgspec

from providers.base import NO_HEADERS, Decoder, Endpoint, WireRequest
from providers.errors import ProviderError
from providers.json_values import members
from providers.messages import ChatRequest
from providers.openai import OpenAi

_CODEC = OpenAi()

COMPRESSION = "context-compression"
"""The plugin by which OpenRouter cuts the middle out of a prompt that does not fit."""


class OpenRouter:
    """Speaks to openrouter.ai, or to anything that is a drop-in for it."""

    name = "openrouter"

    def encode(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> WireRequest:
        """The request with OpenRouter's own members kept and silent prompt cutting switched off.

        OpenRouter compresses prompts on small-context endpoints unless told not to; we promise to say what happened
        to a prompt, so it is off unless the client asks.
        """
        plugins = request.plugins
        if not any(members(plugin).get("id") == COMPRESSION for plugin in plugins or ()):
            asked = bool(request.transforms)
            plugins = [*(plugins or ()), {"id": COMPRESSION, "enabled": asked}]
        # `models` is our own routing by now: this Endpoint is one model, and another one would be booked wrongly.
        return _CODEC.encode(msgspec.structs.replace(request, plugins=plugins, models=None), endpoint, stream=stream)

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

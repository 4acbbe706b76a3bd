"""The dialects that a provider in providers.yaml may name, and what each takes for granted."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from providers.quirks import Quirks


class DialectDefaults(Struct, frozen=True, kw_only=True):
    """What need not be written for a provider of this dialect."""

    base_url: str | None = None
    """Where the vendor itself answers. None: every provider has to say."""
    api_key: str | None = None
    """The reference that is used when none is written. None: no key is needed."""
    quirks: Mapping[str, Any] = {}
    """Answers to the questions of `providers.quirks` that differ from the safe ones."""
    aws: bool = False
    """Reached with AWS credentials: regions, profiles, and a key only where one is written."""
    library: str | None = None
    """Carried by a call of this optional package, by the transport of that name. None: by HTTP."""
    local: bool = False
    """Served by the worker on this machine: rows name files, there is no URL and no key."""


DIALECTS: Mapping[str, DialectDefaults] = {
    "openai": DialectDefaults(),
    "openrouter": DialectDefaults(
        base_url="https://openrouter.ai/api/v1",
        api_key="env:OPENROUTER_API_KEY",
        quirks={"router_fields": True},
    ),
    "mistral": DialectDefaults(base_url="https://api.mistral.ai/v1", api_key="env:MISTRAL_API_KEY"),
    "anthropic": DialectDefaults(base_url="https://api.anthropic.com/v1", api_key="env:ANTHROPIC_API_KEY"),
    "bedrock_converse": DialectDefaults(aws=True),
    "bedrock_invoke": DialectDefaults(aws=True),
    "mindstudio": DialectDefaults(
        base_url="https://v1.mindstudio-api.com/developer/v2", api_key="env:MINDSTUDIO_API_KEY"
    ),
    # Whoever the library knows, under its own names; it knows where they are, and the usual variables for keys.
    "litellm": DialectDefaults(base_url="", library="litellm"),
    "local": DialectDefaults(local=True),
}
"""Every dialect there is. One list: the schema, the complaints and the documentation read it."""


def default_quirks(dialect: str, overrides: Mapping[str, Any]) -> Quirks:
    """The dialect's quirks with those of one provider on top."""
    return Quirks(**{**DIALECTS[dialect].quirks, **overrides})

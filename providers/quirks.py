"""Declared differences between servers that speak the same dialect.

Each is a question with a safe default; a row of providers.yaml answers it differently under `quirks:`. Code asks the
field, never who the vendor is.
"""

from typing import Literal

from msgspec import Struct


class Quirks(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """How one server differs from the dialect it speaks."""

    unknown_fields: bool = True
    """Does it tolerate request members it does not know? vLLM logs and ignores them; a strict server answers 400."""

    stream_usage: bool = True
    """Does it take `stream_options.include_usage`? Servers that do not know it may refuse the request."""

    output_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Which member limits the answer? OpenAI's newer models take only max_completion_tokens."""

    developer_role: bool = False
    """Does it know the role `developer`? Otherwise such messages go as `system`."""

    router_fields: bool = False
    """Does it read `models`, `provider`, `plugins` and the like? Only OpenRouter does."""

    sampling: bool = True
    """Does it take temperature, top_p and top_k? Anthropic's models from Opus 4.7 on refuse them whatever the value."""

    thinking: Literal["budget", "effort"] = "budget"
    """Is an Anthropic model told how many tokens it may think, or how hard it should try? Newer ones take only that."""

    late_system: bool = False
    """Does it take system messages in mid-conversation? Otherwise they move to the top."""

    answer_origins: list[str] = []
    """Where may it leave answers and hand us their URL, besides its own base_url? As in https://bucket.example.com."""

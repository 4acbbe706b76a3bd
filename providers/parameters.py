"""Names on the wire: the members of a chat request that an Endpoint may or may not honour, and a plugin.

A configuration lists them (`parameters:` of a model), a client may insist on them (`provider.require_parameters`).
The names are those of OpenRouter's `supported_parameters`: https://openrouter.ai/docs/api-reference/parameters
"""

from typing import Final

COMPRESSION: Final = "context-compression"
"""The plugin by which the middle is cut out of a prompt that does not fit."""

PARAMETERS: Final = (
    "max_tokens",
    "n",
    "stop",
    "seed",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "top_a",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "response_format",
    "structured_outputs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning",
    "verbosity",
    "modalities",
    "audio",
    "prediction",
    "web_search_options",
)
"""`max_tokens` stands for `max_completion_tokens` too, `tools` for `functions`, `reasoning` for `reasoning_effort`,
and `structured_outputs` for a `response_format` with a JSON Schema."""

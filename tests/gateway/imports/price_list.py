"""A price list in LiteLLM's format, of our own making: published figures of models that a judge knows too."""

from typing import Any

MILLIONTH = 1e-06


def model(provider: str, in_usd: float, out_usd: float, **more: Any) -> dict[str, Any]:
    """A row with prices given per million tokens, kept as the floats per token that the format has."""
    costs = {key: value * MILLIONTH if "cost" in key else value for key, value in more.items()}
    return {
        "litellm_provider": provider,
        "mode": "chat",
        "input_cost_per_token": in_usd * MILLIONTH,
        "output_cost_per_token": out_usd * MILLIONTH,
        "max_input_tokens": 128_000,
        "max_output_tokens": 16_384,
        **costs,
    }


READ, WRITE = "cache_read_input_token_cost", "cache_creation_input_token_cost"
PRICE_LIST: dict[str, Any] = {
    "sample_spec": {"litellm_provider": "one of https://docs.litellm.ai/docs/providers", "mode": "one of: chat"},
    "gpt-4o": model("openai", 2.5, 10, **{READ: 1.25}),
    "gpt-4o-mini": model("openai", 0.15, 0.6, **{READ: 0.075}),
    "gpt-4.1": model("openai", 2, 8, **{READ: 0.5}),
    "o3-mini": model("openai", 1.1, 4.4, **{READ: 0.55}),
    "claude-3-5-haiku-latest": model("anthropic", 0.8, 4, **{READ: 0.08, WRITE: 1}),
    "claude-sonnet-4-20250514": model("anthropic", 3, 15, **{READ: 0.3, WRITE: 3.75}),
    "claude-opus-4-20250514": model("anthropic", 15, 75, **{READ: 1.5, WRITE: 18.75}),
    "mistral/open-mixtral-8x22b": model("mistral", 2, 6),
    "mistral/open-mixtral-8x7b": model("mistral", 0.7, 0.7),
    "groq/llama-3.3-70b-versatile": model("groq", 0.59, 0.79),
    "xai/grok-4": model("xai", 3, 15, **{READ: 0.75}),
    "together_ai/mistralai/Mixtral-8x7B-Instruct-v0.1": model("together_ai", 0.9, 0.9),
    "mistral.mixtral-8x7b-instruct-v0:1": model("bedrock", 0.45, 0.7, deprecation_date="2027-03-30"),
    "gemini/gemini-2.5-pro": model(
        "gemini",
        1.25,
        10,
        **{
            READ: 0.125,
            "input_cost_per_token_above_200k_tokens": 2.5,
            "output_cost_per_token_above_200k_tokens": 15,
            f"{READ}_above_200k_tokens": 0.25,
        },
    ),
}
"""By LiteLLM's keys."""

JUDGED = {
    "openai/gpt-4o": ("openai", "gpt-4o"),
    "openai/gpt-4o-mini": ("openai", "gpt-4o-mini"),
    "openai/gpt-4.1": ("openai", "gpt-4.1"),
    "openai/o3-mini": ("openai", "o3-mini"),
    "anthropic/claude-3-5-haiku-latest": ("anthropic", "claude-3-5-haiku-latest"),
    "anthropic/claude-sonnet-4-20250514": ("anthropic", "claude-sonnet-4-20250514"),
    "anthropic/claude-opus-4-20250514": ("anthropic", "claude-opus-4-20250514"),
    "mistral/open-mixtral-8x22b": ("mistral", "open-mixtral-8x22b"),
    "mistral/open-mixtral-8x7b": ("mistral", "open-mixtral-8x7b"),
    "groq/llama-3.3-70b-versatile": ("groq", "llama-3.3-70b-versatile"),
    "xai/grok-4": ("x-ai", "grok-4"),
    "together/mistralai/Mixtral-8x7B-Instruct-v0.1": ("together", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
    "bedrock/mistral.mixtral-8x7b-instruct-v0:1": ("aws", "mistral.mixtral-8x7b-instruct-v0:1"),
    "gemini/gemini-2.5-pro": ("google", "gemini-2.5-pro"),
}
"""Our Endpoint ids for them, and what genai-prices calls them."""

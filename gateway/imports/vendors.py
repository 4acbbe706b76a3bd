"""Whom other gateways know under which name, and how we reach the same vendor."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

BRIDGE: Final = "litellm"
"""The dialect of vendors that we only reach through the litellm library."""


class Vendor(Struct, frozen=True):
    """A vendor in our words."""

    name: str
    """What its block is called."""
    dialect: str
    base_url: str | None = None
    """None: what the dialect takes for granted."""
    variable: str | None = None
    """The environment variable that its key is read from. None: it needs no key, or has other credentials."""
    aliases: tuple[str, ...] = ()
    """What LiteLLM, Portkey and OpenRouter call it, where that differs."""
    path: str = ""
    """What our base_url ends in, where other gateways leave that off."""
    own_server: bool = False
    """Has no home of its own: every block says where it is."""
    bridge: str = ""
    """The litellm library's name for it, where that is who reaches it."""


OPENAI: Final = Vendor("openai", "openai", "https://api.openai.com/v1", "OPENAI_API_KEY", ("custom_openai",))

_VENDORS: Final = (
    OPENAI,
    Vendor("mistral", "mistral", None, "MISTRAL_API_KEY", ("mistral-ai", "mistralai")),
    Vendor("anthropic", "anthropic", None, "ANTHROPIC_API_KEY", path="/v1"),
    Vendor("openrouter", "openrouter", None, "OPENROUTER_API_KEY"),
    Vendor("bedrock", "bedrock_converse", aliases=("bedrock_converse", "aws", "amazon-bedrock")),
    Vendor("groq", "openai", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    Vendor("deepseek", "openai", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    Vendor(
        "together",
        "openai",
        "https://api.together.xyz/v1",
        "TOGETHERAI_API_KEY",
        ("together_ai", "together-ai"),
    ),
    Vendor(
        "fireworks",
        "openai",
        "https://api.fireworks.ai/inference/v1",
        "FIREWORKS_AI_API_KEY",
        ("fireworks_ai", "fireworks-ai"),
    ),
    Vendor("deepinfra", "openai", "https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    Vendor("perplexity", "openai", "https://api.perplexity.ai", "PERPLEXITYAI_API_KEY", ("perplexity-ai",)),
    Vendor("xai", "openai", "https://api.x.ai/v1", "XAI_API_KEY", ("x-ai",)),
    Vendor("cerebras", "openai", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    Vendor("sambanova", "openai", "https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    Vendor("nscale", "openai", "https://inference.api.nscale.com/v1", "NSCALE_API_KEY"),
    Vendor("novita", "openai", "https://api.novita.ai/v3/openai", "NOVITA_API_KEY", ("novita-ai",)),
    Vendor("nebius", "openai", "https://api.studio.nebius.ai/v1", "NEBIUS_API_KEY"),
    Vendor("hyperbolic", "openai", "https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY"),
    Vendor("moonshot", "openai", "https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", ("moonshotai",)),
    Vendor(
        "gemini",
        "openai",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
        ("google", "google-ai-studio"),
    ),
    Vendor("vllm", "openai", aliases=("hosted_vllm", "openai_like"), own_server=True),
    Vendor("ollama", "openai", "http://127.0.0.1:11434/v1", aliases=("ollama_chat",), path="/v1"),
    Vendor("lm-studio", "openai", "http://127.0.0.1:1234/v1", aliases=("lm_studio",)),
    Vendor("llamafile", "openai", "http://127.0.0.1:8080/v1"),
)

_BY_NAME: Final[Mapping[str, Vendor]] = {
    alias: vendor for vendor in _VENDORS for alias in (vendor.name, *vendor.aliases)
}

_BRIDGED: Final = {"azure-openai": "azure", "vertex-ai": "vertex_ai", "workers-ai": "cloudflare"}
"""Portkey's names for vendors that the litellm library knows under others."""

# Only where the name leaves no doubt; https://docs.litellm.ai/docs/providers tells of a prefix for all others.
_BY_MODEL: Final = (
    (("gpt-", "o1", "o3", "o4", "chatgpt-"), "openai"),
    (("claude-",), "anthropic"),
    (("mistral-", "open-mistral", "open-mixtral", "codestral", "ministral"), "mistral"),
    (("mistral.", "anthropic.", "amazon.", "meta.", "cohere.", "ai21.", "deepseek."), "bedrock"),
)


def find_vendor(name: str) -> Vendor | None:
    """The vendor that any of the other gateways means by `name`."""
    return _BY_NAME.get(name.lower())


def vendor_of_model(model: str) -> Vendor | None:
    """The vendor of a model that is named without one, where the name alone says it."""
    return next((_BY_NAME[vendor] for starts, vendor in _BY_MODEL if model.startswith(starts)), None)


def bridged(name: str) -> Vendor:
    """A vendor that only the litellm library reaches, under the name that it has there."""
    name = _BRIDGED.get(name, name)
    safe = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name.lower()).strip("-")
    return Vendor(safe[:48] or BRIDGE, BRIDGE, bridge=name)

"""Every Pretender by the name of the dialect it speaks: a drill may replace any provider of any configuration."""

from collections.abc import Mapping
from typing import Final

from providers.pretence import Pretender
from providers.pretend_anthropic import PretendedAnthropic
from providers.pretend_bedrock import PretendedConverse, PretendedInvoke
from providers.pretend_local import PretendedLocal
from providers.pretend_mindstudio import PretendedMindStudio
from providers.pretend_openai import MISTRAL_ERRORS, OPENROUTER_ERRORS, PretendedOpenAi

PRETENDERS: Final[Mapping[str, Pretender]] = {
    "anthropic": PretendedAnthropic(),
    "bedrock_converse": PretendedConverse(),
    "bedrock_invoke": PretendedInvoke(),
    "openai": PretendedOpenAi(),
    "openrouter": PretendedOpenAi(OPENROUTER_ERRORS),
    "mistral": PretendedOpenAi(MISTRAL_ERRORS),
    "mindstudio": PretendedMindStudio(),
    "litellm": PretendedOpenAi(),
    "local": PretendedLocal(),
}
"""As many as there are dialects; adding a dialect is a Pretender more."""

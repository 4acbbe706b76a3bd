"""What a model provider is: the shared values, the dialects, and the transports that carry them.

`DIALECTS` is the list, explicit: adding a dialect is one file and one line here.
"""

from providers.anthropic import Anthropic
from providers.base import Dialect
from providers.bedrock_converse import BedrockConverse
from providers.bedrock_invoke import BedrockInvoke
from providers.litellm import Litellm
from providers.local import Local
from providers.mindstudio import MindStudio
from providers.mistral import Mistral
from providers.openai import OpenAi
from providers.openrouter import OpenRouter

_ALL: tuple[Dialect, ...] = (
    Anthropic(),
    BedrockConverse(),
    BedrockInvoke(),
    OpenAi(),
    OpenRouter(),
    Mistral(),
    MindStudio(),
    Litellm(),
    Local(),
)

DIALECTS = {dialect.name: dialect for dialect in _ALL}
"""Every way of talking that we know, by the name providers.yaml uses."""

"""What Bedrock takes of a request's parameters: clamped to its ranges, or dropped and noted. Pure."""

from typing import Final

from msgspec import Struct

from providers.base import Adaptation, Endpoint
from providers.errors import UnsupportedError
from providers.messages import ChatRequest

TEMPERATURE_MAX: Final = 1.0
TOP_K_MAX: Final = 200
"""As Amazon documents it for Mistral's models."""

_DROPPED: Final = (
    "seed",
    "min_p",
    "top_a",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "parallel_tool_calls",
    "reasoning",
    "reasoning_effort",
    "verbosity",
    "modalities",
    "audio",
    "prediction",
    "web_search_options",
    "service_tier",
    "store",
    "metadata",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "cache_control",
)
"""Members that say something to a provider and that Bedrock has no word for, or not for every model."""
_EMPTY: Final = {
    "parallel_tool_calls": (True,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "top_a": (0,),
    "store": (False,),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
}
"""Values that ask for nothing but what happens anyway."""


class Sampling(Struct, frozen=True):
    """How the answer is to be drawn, within Bedrock's ranges."""

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    stop: tuple[str, ...]


def dropped(request: ChatRequest, *, but: frozenset[str] = frozenset()) -> list[Adaptation]:
    """A note for every parameter that does not reach Bedrock, `but` for those that the caller sends itself."""
    notes: list[Adaptation] = []
    for name in _DROPPED:
        value = getattr(request, name)
        if value is not None and name not in but and value not in _EMPTY.get(name, ()):
            notes.append(Adaptation(name, "dropped", "Bedrock has no such parameter"))
    return notes


def sampling(request: ChatRequest, endpoint: Endpoint, notes: list[Adaptation], *, stops_max: int) -> Sampling:
    """The request's sampling parameters in Bedrock's ranges; what was clamped is added to `notes`.

    Raises:
        UnsupportedError: More than one choice is wanted.
    """
    if (request.n or 1) > 1:
        raise UnsupportedError("Bedrock gives one answer to a request: ask again instead of n above 1", param="n")
    stop = (request.stop,) if isinstance(request.stop, str) else request.stop or ()
    stops = tuple(text for text in stop if text)
    if len(stops) > stops_max:
        stops = stops[:stops_max]
        notes.append(Adaptation("stop", "clamped", f"to the first {stops_max}"))
    return Sampling(
        max_tokens=_max_tokens(request, endpoint, notes),
        temperature=_temperature(request.temperature, notes),
        top_p=request.top_p,
        top_k=_top_k(request.top_k, notes),
        stop=stops,
    )


def _max_tokens(request: ChatRequest, endpoint: Endpoint, notes: list[Adaptation]) -> int | None:
    """Always sent where the limit is known: without it some models stop at a default that nobody expects (512)."""
    asked, most = request.output_limit_tokens, endpoint.max_output_tokens
    if asked is None or most is None or asked <= most:
        return most if asked is None else asked
    name = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    notes.append(Adaptation(name, "clamped", f"to {most}, the longest answer of this model"))
    return most


def _temperature(asked: float | None, notes: list[Adaptation]) -> float | None:
    if asked is None or asked <= TEMPERATURE_MAX:
        return asked
    notes.append(Adaptation("temperature", "clamped", f"to {TEMPERATURE_MAX:g}, Bedrock's highest"))
    return TEMPERATURE_MAX


def _top_k(asked: int | None, notes: list[Adaptation]) -> int | None:
    if asked is None or asked < 1:  # 0 and -1 mean: no limit, which is the default here
        return None
    if asked > TOP_K_MAX:
        notes.append(Adaptation("top_k", "clamped", f"to {TOP_K_MAX}, the highest for Mistral's models"))
        return TOP_K_MAX
    return asked

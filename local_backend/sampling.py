"""Choosing the next token: llama.cpp's own sampler chain, a grammar in front of it, and log-probabilities.

numpy is imported on first use (0.1 s), since only grammars and log-probabilities need it.
"""

import ctypes
import math
from typing import Any, Final

from msgspec import Struct

from local_backend import llama
from local_backend.errors import EngineError, InvalidRequestError

TEMPERATURE_DEFAULT: Final = 1.0
MIN_P_DEFAULT: Final = 0.05
"""Cuts the noise of a quantized model's tail when the client gave no cut of its own."""
PENALTY_WINDOW_TOKENS: Final = 256
LOGPROB_FLOOR: Final = -9999.0
"""OpenAI's stand-in for minus infinity, which JSON cannot say."""

_SEED_MASK: Final = 0xFFFF_FFFF
_RANDOM_SEED: Final = 0xFFFF_FFFF
"""What llama.cpp takes as `choose one yourself`."""


class SamplingParams(Struct, frozen=True, kw_only=True):
    """How to choose. Neutral by default, `temperature` 0 is greedy."""

    seed: int
    temperature: float = TEMPERATURE_DEFAULT
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_penalty: float = 1.0


def load_numeric() -> Any:
    """numpy, imported when first wanted."""
    import numpy  # noqa: ICN001, PLC0415  # heavy and optional: most requests never need it

    return numpy


class Grammar:
    """A compiled GBNF grammar for one answer.

    Raises:
        InvalidRequestError: llama.cpp does not accept it. It is never dropped silently.
    """

    def __init__(self, vocabulary: llama.Vocabulary, gbnf: str) -> None:
        self._sampler = llama.lib.llama_sampler_init_grammar(vocabulary.pointer, gbnf.encode(), b"root")
        if not self._sampler:
            raise InvalidRequestError(
                "the JSON schema cannot be turned into a grammar that the local engine accepts; simplify it "
                "(a reference that only points at itself is the usual cause)",
                param="response_format",
            )
        self._one = (llama.lib.llama_token_data * 1)()
        self._array = llama.lib.llama_token_data_array(data=self._one, size=1, selected=-1, sorted=False)

    def allows(self, token: int) -> bool:
        """Whether this token may come next."""
        self._one[0].id = token
        self._one[0].logit = 1.0
        self._array.size = 1
        llama.lib.llama_sampler_apply(self._sampler, ctypes.byref(self._array))
        return bool(self._one[0].logit > -math.inf)

    def restrict(self, candidates: Any) -> None:
        """Set the logit of everything that may not come next to minus infinity."""
        llama.lib.llama_sampler_apply(self._sampler, ctypes.byref(candidates))

    def accept(self, token: int) -> None:
        """The token was chosen. It must be allowed: llama.cpp ends the process otherwise."""
        llama.lib.llama_sampler_accept(self._sampler, token)

    def clone(self) -> "Grammar":
        """The same grammar for another choice."""
        twin = object.__new__(Grammar)
        twin._sampler = llama.lib.llama_sampler_clone(self._sampler)
        twin._one = (llama.lib.llama_token_data * 1)()
        twin._array = llama.lib.llama_token_data_array(data=twin._one, size=1, selected=-1, sorted=False)
        return twin

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        if self._sampler:
            llama.lib.llama_sampler_free(self._sampler)
            self._sampler = None

    def __del__(self) -> None:
        self.close()


class Sampler:
    """One answer's chain: penalties, top-k, top-p, min-p, temperature, draw.

    Args:
        vocabulary: The model's tokens.
        params: How to choose.
        prompt: The prompt's tokens, whose tail counts for the repeat penalty.
        grammar: What the answer must follow; the sampler owns it from now on.
    """

    def __init__(
        self, vocabulary: llama.Vocabulary, params: SamplingParams, prompt: list[int], grammar: Grammar | None = None
    ) -> None:
        lib = llama.lib
        self._size = vocabulary.size
        self._grammar = grammar
        self._rows: Any = None
        chain = self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for link in _links(vocabulary, params, prompt):
            lib.llama_sampler_chain_add(chain, link)

    def pick(self, context: llama.Context, row: int) -> int:
        """The next token, already accepted.

        Raises:
            EngineError: The grammar allows nothing that the vocabulary has.
        """
        if self._grammar is None:
            return int(llama.lib.llama_sampler_sample(self._chain, context.pointer, row))
        return self._pick_allowed(self._grammar, context, row)

    def _pick_allowed(self, grammar: Grammar, context: llama.Context, row: int) -> int:
        """Draw freely, and among the allowed only if that failed: testing one token is cheap, testing all is not."""
        candidates = self._candidates(context, row)
        llama.lib.llama_sampler_apply(self._chain, ctypes.byref(candidates))
        token = self._selected(candidates)
        if not grammar.allows(token):
            candidates = self._candidates(context, row)
            grammar.restrict(candidates)
            if not self._any_left():
                raise EngineError("the model's vocabulary has no token that the JSON schema allows next")
            llama.lib.llama_sampler_apply(self._chain, ctypes.byref(candidates))
            token = self._selected(candidates)
            if not grammar.allows(token):
                raise EngineError("no token that the JSON schema allows could be chosen")
        grammar.accept(token)
        llama.lib.llama_sampler_accept(self._chain, token)
        return token

    def _candidates(self, context: llama.Context, row: int) -> Any:
        np = load_numeric()
        if self._rows is None:
            self._rows = np.zeros(self._size, dtype=[("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
        self._rows["id"] = np.arange(self._size, dtype="<i4")
        self._rows["logit"] = _logits(context, row)
        data: Any = ctypes.cast(self._rows.ctypes.data, llama.lib.llama_token_data_p)
        return llama.lib.llama_token_data_array(data=data, size=self._size, selected=-1, sorted=False)

    def _any_left(self) -> bool:
        return bool((self._rows["logit"] > -math.inf).any())

    @staticmethod
    def _selected(candidates: Any) -> int:
        if not 0 <= candidates.selected < candidates.size:
            raise EngineError("the sampler chose nothing")
        return int(candidates.data[candidates.selected].id)

    def close(self) -> None:
        """Give the memory back."""
        if self._chain:
            llama.lib.llama_sampler_free(self._chain)
            self._chain = None
        if self._grammar is not None:
            self._grammar.close()


def _links(vocabulary: llama.Vocabulary, params: SamplingParams, prompt: list[int]) -> list[Any]:
    lib = llama.lib
    links: list[Any] = []
    if params.repeat_penalty != 1.0:
        repeat = lib.llama_sampler_init_penalties(
            vocabulary.size, PENALTY_WINDOW_TOKENS, params.repeat_penalty, 0.0, 0.0
        )
        for token in prompt[-PENALTY_WINDOW_TOKENS:]:
            lib.llama_sampler_accept(repeat, token)
        links.append(repeat)
    if params.presence_penalty or params.frequency_penalty:
        links.append(
            lib.llama_sampler_init_penalties(
                vocabulary.size, PENALTY_WINDOW_TOKENS, 1.0, params.frequency_penalty, params.presence_penalty
            )
        )
    if params.temperature <= 0:
        links.append(lib.llama_sampler_init_greedy())
        return links
    if params.top_k > 0:
        links.append(lib.llama_sampler_init_top_k(params.top_k))
    if params.top_p < 1.0:
        links.append(lib.llama_sampler_init_top_p(params.top_p, 1))
    if params.min_p > 0:
        links.append(lib.llama_sampler_init_min_p(params.min_p, 1))
    links.append(lib.llama_sampler_init_temp(params.temperature))
    seed = params.seed & _SEED_MASK
    links.append(lib.llama_sampler_init_dist(0 if seed == _RANDOM_SEED else seed))
    return links


def _logits(context: llama.Context, row: int) -> Any:
    return load_numeric().ctypeslib.as_array(context.logits(row), (context.vocabulary_size,))


def logprob_entry(
    vocabulary: llama.Vocabulary, context: llama.Context, row: int, token: int, top: int
) -> dict[str, Any]:
    """OpenAI's entry for a chosen token: its log-probability before temperature, and those of the `top` likeliest."""
    np = load_numeric()
    logits = _logits(context, row).astype(np.float64)
    peak = logits.max()
    logprobs = logits - (peak + np.log(np.exp(logits - peak).sum()))
    entry = _entry(vocabulary, token, float(logprobs[token]))
    likeliest: list[int] = []
    if top:
        part = np.argpartition(logprobs, -top)[-top:]
        likeliest = [int(each) for each in part[np.argsort(-logprobs[part], kind="stable")]]
    entry["top_logprobs"] = [_entry(vocabulary, each, float(logprobs[each])) for each in likeliest]
    return entry


def _entry(vocabulary: llama.Vocabulary, token: int, logprob: float) -> dict[str, Any]:
    piece = vocabulary.piece(token) or vocabulary.text(token).encode()
    return {
        "token": piece.decode("utf-8", "replace"),
        "logprob": logprob if math.isfinite(logprob) else LOGPROB_FLOOR,
        "bytes": list(piece),
    }

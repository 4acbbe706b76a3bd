"""How fast the engine is, as measured, and what follows: how much prompt fits a step, how long a wait will be. Pure."""

from collections.abc import Sequence as Sequences
from typing import Final

from local_backend.jobs import Sequence

STEP_TARGET_S: Final = 0.150
"""How long one step may take because of prompts."""
PROMPT_MIN_TOKENS: Final = 16
FIRST_PROMPT_TOKENS: Final = 128
"""How much prompt goes into a step before anything was measured."""
RETRY_AFTER_MIN_S: Final = 1.0
"""The shortest that a refused caller of the local model is told to stay away."""
RETRY_AFTER_MAX_S: Final = 60.0
"""The longest that a refused caller of the local model is told to stay away."""

_LEARNING_RATE: Final = 0.25
_LENGTH_LEARNING_RATE: Final = 0.1
_FIRST_LENGTH_TOKENS: Final = 128.0
_SAMPLE_MIN_TOKENS: Final = 8
"""Steps with fewer prompt tokens say little about a prompt token's cost."""


class Pace:
    """Running averages of what steps and answers are like."""

    def __init__(self, *, batch_max_tokens: int) -> None:
        self._batch_max_tokens = batch_max_tokens
        self._prompt_token_s = 0.0
        self._step_s = 0.0
        self._answer_tokens = _FIRST_LENGTH_TOKENS

    def learn(self, took_s: float, prompt_tokens: int, decoded_tokens: int) -> None:
        """A step took so long."""
        if prompt_tokens == 0 and decoded_tokens:
            self._step_s = _blend(self._step_s, took_s, _LEARNING_RATE)
        elif prompt_tokens >= _SAMPLE_MIN_TOKENS:
            cost_s = max(took_s - (self._step_s if decoded_tokens else 0.0), took_s / 4) / prompt_tokens
            self._prompt_token_s = _blend(self._prompt_token_s, cost_s, _LEARNING_RATE)

    def learn_length(self, output_tokens: int) -> None:
        """An answer ended after so many tokens."""
        self._answer_tokens += (output_tokens - self._answer_tokens) * _LENGTH_LEARNING_RATE

    def prompt_tokens(self, decoding: int) -> int:
        """How many prompt tokens the next step may take, with `decoding` choices running beside them."""
        if self._prompt_token_s == 0.0:
            return FIRST_PROMPT_TOKENS
        left_s = STEP_TARGET_S - (self._step_s if decoding else 0.0)
        return max(PROMPT_MIN_TOKENS, min(self._batch_max_tokens, int(left_s / self._prompt_token_s)))

    def expected_tokens(self, output_max_tokens: int) -> int:
        """How long an answer will be that may have so many tokens."""
        return round(min(float(output_max_tokens), self._answer_tokens))

    def wait_s(self, running: Sequences[Sequence], waiting: Sequences[Sequence], slots: int) -> float:
        """How long a newcomer behind all of these will wait for a slot, about. 0 before anything was measured."""
        prompt = sum(len(each.job.prompt) for each in waiting if each.leader is None)
        prompt += sum(len(each.job.prompt) for each in running if not each.prompt_done)
        output = sum(self._left_tokens(each) for each in (*running, *waiting))
        return prompt * self._prompt_token_s + output / slots * self._step_s

    def _left_tokens(self, sequence: Sequence) -> float:
        return max(1.0, min(float(sequence.job.output_max_tokens), self._answer_tokens) - sequence.output_tokens)


def bounded_wait_s(wait_s: float) -> float:
    """An estimated wait as a refused caller is told of it."""
    return min(max(wait_s, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)


def _blend(old: float, new: float, rate: float) -> float:
    return new if old == 0.0 else old + (new - old) * rate

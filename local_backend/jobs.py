"""What the engine works on: a Job is one request, a Sequence one of its choices; and what it reports back."""

from typing import TypeAlias

from msgspec import Struct

from local_backend.errors import LocalError
from local_backend.sampling import Grammar, Sampler, SamplingParams
from local_backend.text import TextAssembler


class Job(Struct, kw_only=True, eq=False, frozen=True):
    """One request, ready for the engine."""

    id: int
    prompt: list[int]
    output_max_tokens: int
    params: SamplingParams
    choices: int = 1
    stops: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    grammar: Grammar | None = None
    deadline_s: float | None = None
    """From arrival, for the decision whether waiting makes sense."""
    caller: str = ""
    """Whose it is: all Jobs of one caller wait in one lane."""


class Sequence(Struct, kw_only=True, eq=False):
    """One choice of a Job on its way through the engine. Only the engine's thread touches it once it runs."""

    job: Job
    choice: int
    assembler: TextAssembler
    leader: "Sequence | None" = None
    """The first choice of the same Job, whose prompt this one shares."""
    slot: int = -1
    sampler: Sampler | None = None
    prompt_done: bool = False
    over: bool = False
    last: int = -1
    """The token sampled last, not in the KV cache yet."""
    output_tokens: int = 0
    expected_tokens: int = 0
    """How many of them its caller was charged for when it began to wait."""
    row: int = -1
    """Where in the current batch its logits are, or -1."""
    pending: list[int] = []
    """Its tokens in the current batch."""


class Started(Struct, frozen=True, gc=False):
    """The first choice of a Job has a slot; so many of its prompt's tokens were still in the KV cache."""

    job: int
    cached_tokens: int


class TextOut(Struct, frozen=True, gc=False):
    """More text of a choice, with its logprob entries."""

    job: int
    choice: int
    text: str
    entries: list[object]


class Finished(Struct, frozen=True, gc=False):
    """A choice is complete."""

    job: int
    choice: int
    reason: str
    output_tokens: int


class Failed(Struct, frozen=True, gc=False):
    """A Job broke off; nothing of it follows."""

    job: int
    error: LocalError


Happening: TypeAlias = Started | TextOut | Finished | Failed


def sequences_of(job: Job) -> list[Sequence]:
    """A Job's choices; all but the first wait for the first one's prompt."""
    leader = Sequence(job=job, choice=0, assembler=TextAssembler(job.stops))
    return [leader] + [
        Sequence(job=job, choice=choice, assembler=TextAssembler(job.stops), leader=leader)
        for choice in range(1, job.choices)
    ]

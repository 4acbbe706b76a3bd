"""One request as it arrives in the worker: its JSON, checked, and turned into a Job for the engine."""

import secrets
import signal
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from local_backend.chat import ChatTemplate, Segment, Turn, parse_turns
from local_backend.errors import InvalidRequestError
from local_backend.grammar import schema_to_gbnf
from local_backend.jobs import Job
from local_backend.llama import Vocabulary
from local_backend.sampling import MIN_P_DEFAULT, TEMPERATURE_DEFAULT, Grammar, SamplingParams, load_numeric

RENDER_MAX_S: Final = 1.0
"""A chat template that takes longer is stuck: templates come out of downloaded files."""
STOP_MAX_CHARS: Final = 1024

_SEED_BITS: Final = 31


class ChatBody(Struct, frozen=True, kw_only=True):
    """The request's JSON. Absent means default; members unknown here are ignored."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=4096)]
    max_tokens: Annotated[int, Meta(ge=1, le=100_000_000)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=5)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Annotated[list[Annotated[str, Meta(max_length=STOP_MAX_CHARS)]], Meta(max_length=16)] | None = None
    n: Annotated[int, Meta(ge=1, le=8)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=2)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    prefill: bool | None = None
    json_schema: dict[str, Any] | bool | None = None
    json_object: bool | None = None
    deadline_s: Annotated[float, Meta(ge=0)] | None = None


_decoder = msgspec.json.Decoder(ChatBody)


def decode_body(data: bytes) -> ChatBody:
    """The request's members.

    Raises:
        InvalidRequestError: Not JSON, or a member of the wrong type or out of range.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(
            f"the local model cannot read this request: {error}", param=_member(str(error))
        ) from error


def _member(message: str) -> str | None:
    """The member that msgspec complains of (`... - at `$.top_p``)."""
    _, found, path = message.rpartition("`$.")
    return path.rstrip("`").split("[")[0].split(".")[0] if found else None


def render(body: ChatBody, template: ChatTemplate) -> list[Segment]:
    """The prompt's text. Main thread only, and cheap: what people wrote takes no part in it.

    Raises:
        InvalidRequestError: Messages that the template cannot express.
    """
    turns: list[Turn] = parse_turns(body.messages)
    with time_limit(RENDER_MAX_S):
        return template.segments(turns, continue_last=bool(body.prefill))


def wants_grammar(body: ChatBody) -> bool:
    """Whether the answer must follow a grammar."""
    return body.json_object is True or body.json_schema is not None


def build_job(
    job_id: int,
    body: ChatBody,
    prompt: list[int],
    vocabulary: Vocabulary,
    *,
    context_tokens: int,
    caller: str = "",
) -> Job:
    """The engine's Job. May take long with a schema: not for the event loop then.

    Raises:
        InvalidRequestError: A schema that no grammar can follow.
    """
    grammar = None
    if wants_grammar(body):
        grammar = Grammar(vocabulary, schema_to_gbnf(body.json_schema))
    if grammar is not None or body.logprobs:
        load_numeric()
    return Job(
        id=job_id,
        prompt=prompt,
        output_max_tokens=body.max_tokens or context_tokens - len(prompt),
        params=_sampling(body),
        choices=body.n or 1,
        stops=tuple(body.stop or ()),
        logprobs=bool(body.logprobs),
        top_logprobs=min(body.top_logprobs or 0, vocabulary.size),
        grammar=grammar,
        deadline_s=body.deadline_s,
        caller=caller,
    )


def _sampling(body: ChatBody) -> SamplingParams:
    cut = body.top_p is not None or body.top_k is not None
    return SamplingParams(
        seed=secrets.randbits(_SEED_BITS) if body.seed is None else body.seed,
        temperature=TEMPERATURE_DEFAULT if body.temperature is None else body.temperature,
        top_k=body.top_k or 0,
        top_p=1.0 if body.top_p is None else body.top_p,
        min_p=body.min_p if body.min_p is not None else 0.0 if cut else MIN_P_DEFAULT,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repeat_penalty=body.repeat_penalty or 1.0,
    )


class _TooSlowError(InvalidRequestError):
    """Raised by the alarm."""


@contextmanager
def time_limit(seconds: float) -> Generator[None]:
    """Interrupt Python code that runs longer. Main thread only, not nested."""
    signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _ring(_signal: int, _frame: object) -> None:
    raise _TooSlowError("the model's chat template took too long for this conversation", param="messages")

"""What clients say and what models answer. Every text names its caller, so that one in the wrong place is found.

A token of an answer is TOKEN_CHARS characters. Its words are numbered and never repeat, so that a character that is
lost or sent twice can not hide.
"""

from typing import Final

from gateway.simulate.world import Job
from providers.messages import (
    ChatRequest,
    Function,
    JsonSchema,
    Message,
    ResponseFormat,
    StreamOptions,
    Tool,
)

CANARY: Final = "CANARY"
"""In every prompt and every answer, and in nothing that may be kept."""
TOKEN_CHARS: Final = 7
PROMPT_CHARS_PER_TOKEN: Final = 4
MESSAGE_TOKENS: Final = 4
"""What a provider counts for each message besides its text."""
VARIANTS: Final = 3
OUTPUT_TOKENS_MAX: Final = 2000
PROMPT_CHARS_MAX: Final = 1_000_000
_TAG_TOKENS: Final = 5
_STARTS: Final = 1000
_NAMES: Final = "abcdefgh"

_WORDS: Final = tuple(
    "".join(f"{letter}{number:05} " for number in range(OUTPUT_TOKENS_MAX + _STARTS)) for letter in "wxy"
)
_PADDING: Final = "tell me more of it, " * 2000
_TOOLS: Final = (
    Tool(function=Function(name="look_up", parameters={"type": "object", "properties": {"q": {"type": "string"}}})),
)
_FORM: Final = ResponseFormat(
    type="json_schema",
    json_schema=JsonSchema(schema={"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}),
)
_WITH_USAGE: Final = StreamOptions(include_usage=True)


def canary_of(job: Job) -> str:
    """What only this caller's requests and answers have in them."""
    return f"{CANARY}-{_NAMES[job.caller]}-"


def prompt_text(job: Job) -> str:
    """What the client says. It ends its own name with a tilde, by which a provider knows the request again."""
    head = f"{canary_of(job)}{job.number:06}~"
    missing = job.prompt_chars - len(head)
    if missing <= 0:
        return head
    return head + (_PADDING * (missing // len(_PADDING) + 1))[:missing]


def number_in(body: bytes) -> int:
    """Which request a provider was sent."""
    end = body.index(b"~")
    return int(body[end - 6 : end])


def request_of(job: Job) -> ChatRequest:
    """What the client sends."""
    return ChatRequest(
        model=job.model,
        messages=(Message(role="user", content=prompt_text(job)),),
        stream=job.stream,
        stream_options=_WITH_USAGE if job.stream else None,
        max_tokens=job.limit_tokens,
        tools=_TOOLS if job.kind == "tools" else None,
        response_format=_FORM if job.kind == "json" else None,
        session_id=job.session,
        models=job.models,
        provider=job.preferences,
    )


def prompt_tokens(job: Job) -> int:
    """What a provider counts for the client's own message."""
    return MESSAGE_TOKENS + -(-max(job.prompt_chars, 1) // PROMPT_CHARS_PER_TOKEN)


def answer_text(job: Job, variant: int, tokens: int) -> str:
    """The first so many tokens of what a model of that variant answers."""
    tag = f"[{canary_of(job)}{job.number:06}] été ✓".ljust(_TAG_TOKENS * TOKEN_CHARS)
    start = (job.number * 37 % _STARTS) * TOKEN_CHARS
    return (tag + _WORDS[variant][start : start + tokens * TOKEN_CHARS])[: tokens * TOKEN_CHARS]


def json_text(text: str) -> str:
    """The same as an object of the schema that clients ask for."""
    return '{"a": "' + text + '"}'

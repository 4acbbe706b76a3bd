"""The words every dialect and the gateway share: what was asked, the steps of an answer, and what it used.

Field names follow OpenAI's chat completions where that API has the thing, so that its JSON decodes straight into
these values; everything is frozen. A member nobody here knows is kept in `ChatRequest.extra`, never lost silently.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct, field

from providers.json_values import elements, members

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool", "function"]

MESSAGES_MAX = 2048
TOOLS_MAX = 256
CHOICES_MAX = 8
STOPS_MAX = 16
TOP_LOGPROBS_MAX = 20


def _always(default: str) -> str:
    """A default that is written out too: providers insist on the member even where a client may leave it out."""
    value: str = field(default_factory=lambda: default)
    return value


class _Value(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """Frozen, and silent about what was not given."""


class Part(_Value, frozen=True):
    """One part of a message's content. `type` says which of the other members is meant."""

    type: str
    text: str | None = None
    image_url: dict[str, Any] | str | None = None
    input_audio: dict[str, Any] | None = None
    file: dict[str, Any] | None = None
    refusal: str | None = None
    cache_control: dict[str, Any] | None = None


class FunctionCall(_Value, frozen=True):
    """A function the model wants called; `arguments` is JSON text as the model wrote it, valid or not."""

    name: str
    arguments: str = _always("")


class ToolCall(_Value, frozen=True):
    """One call out of an assistant message."""

    id: str
    type: str = _always("function")
    function: FunctionCall | None = None
    index: int | None = None


class Message(_Value, frozen=True):
    """One turn of the conversation."""

    role: Role
    content: str | tuple[Part, ...] | None = None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: list[Any] | None = None
    annotations: list[Any] | None = None
    audio: dict[str, Any] | None = None
    cache_control: dict[str, Any] | None = None
    prefix: bool | None = None
    """True on a last assistant message: go on from this text (Mistral's spelling of a prefill)."""


class Function(_Value, frozen=True):
    """A function the model may call; `parameters` is a JSON Schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Value, frozen=True):
    """A tool on offer. Only `function` tools are ours to translate; other types pass through `extra`."""

    type: str = _always("function")
    function: Function | None = None
    cache_control: dict[str, Any] | None = None


class JsonSchema(_Value, frozen=True):
    """The schema an answer must satisfy."""

    name: str = _always("answer")
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(_Value, frozen=True):
    """`text`, `json_object` or `json_schema`; llama-server also takes `schema` beside `json_object`."""

    type: str
    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None


class StreamOptions(_Value, frozen=True):
    """How a stream is to be written."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
TokenCount: TypeAlias = Annotated[int, Meta(ge=1, le=100_000_000)]


class ChatRequest(_Value, frozen=True):
    """What a client asked, in the field's own words. The last place where HTTP exists is the ingress that made it."""

    messages: Annotated[tuple[Message, ...], Meta(min_length=1, max_length=MESSAGES_MAX)]
    model: Annotated[str, Meta(max_length=512)] = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    max_tokens: TokenCount | None = None
    max_completion_tokens: TokenCount | None = None
    n: Annotated[int, Meta(ge=1, le=CHOICES_MAX)] | None = None
    stop: str | Annotated[tuple[str, ...], Meta(max_length=STOPS_MAX)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Share | None = None
    top_a: Share | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=2)] | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=TOP_LOGPROBS_MAX)] | None = None

    response_format: ResponseFormat | None = None
    tools: Annotated[tuple[Tool, ...], Meta(max_length=TOOLS_MAX)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[tuple[Function, ...], Meta(max_length=TOOLS_MAX)] | None = None
    function_call: str | dict[str, Any] | None = None

    reasoning: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    service_tier: str | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    cache_control: dict[str, Any] | None = None

    models: Annotated[tuple[str, ...], Meta(max_length=64)] | None = None
    provider: dict[str, Any] | None = None
    plugins: list[Any] | None = None
    transforms: list[str] | None = None
    route: str | None = None
    session_id: Annotated[str, Meta(max_length=256)] | None = None
    trace: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    debug: dict[str, Any] | None = None

    extra: Mapping[str, Any] | None = None
    """Members no field above stands for, as a tree: `{"member": value}`, and `{"messages": {"0": {...}}}` for nested
    ones (list positions as text). Dialects whose providers accept unknown members pass them on with `merge_extra`."""

    @property
    def output_limit_tokens(self) -> int | None:
        """The most tokens the client wants back, whichever spelling it used."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class Usage(Struct, frozen=True, kw_only=True, gc=False):
    """Tokens as billed. Buckets nest: cached and cache-write tokens are part of input, reasoning is part of output.

    `None` means that the provider did not say, which is not zero.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_in_nusd: int | None = None
    """What the provider itself says that it charged, in nano-USD."""


class AnswerStarted(Struct, frozen=True, gc=False):
    """The provider began to answer. Carries no content and commits nobody to anything."""

    upstream_id: str | None = None
    upstream_model: str | None = None
    upstream_provider: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None


class TextDelta(Struct, frozen=True, gc=False):
    """More text of one choice. `logprobs` holds OpenAI's token entries for exactly this text."""

    text: str
    choice: int = 0
    logprobs: list[Any] | None = None


class ReasoningDelta(Struct, frozen=True, gc=False):
    """More thinking. `details` are a provider's blocks that must be handed back untouched in the next turn."""

    text: str
    choice: int = 0
    details: list[Any] | None = None


class RefusalDelta(Struct, frozen=True, gc=False):
    """More of a refusal."""

    text: str
    choice: int = 0


class ToolCallDelta(Struct, frozen=True, gc=False):
    """A piece of one tool call: `id` and `name` come once, `arguments` in pieces that join to JSON text."""

    index: int
    choice: int = 0
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class ExtrasDelta(Struct, frozen=True, gc=False):
    """Members of the answer's message with no step of their own: annotations, citations, images, audio."""

    members: dict[str, Any]
    choice: int = 0


class ChoiceFinished(Struct, frozen=True, gc=False):
    """One choice is complete, and why. Every choice has exactly one."""

    reason: FinishReason
    choice: int = 0
    native_reason: str | None = None


class UsageReported(Struct, frozen=True, gc=False):
    """What the answer used so far by the provider's count; a later one replaces it."""

    usage: Usage


class AnswerFailed(Struct, frozen=True, gc=False):
    """The answer broke off. Always the last event; what came before it is real and was delivered."""

    error: Exception


Event: TypeAlias = (
    AnswerStarted
    | TextDelta
    | ReasoningDelta
    | RefusalDelta
    | ToolCallDelta
    | ExtrasDelta
    | ChoiceFinished
    | UsageReported
    | AnswerFailed
)

CONTENT_EVENTS = (TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta, ExtrasDelta, ChoiceFinished)
"""Events that commit the answer to the endpoint that sent them once the client has one."""


def unknown_members(sent: Any, understood: Any) -> Any:
    """What is in the JSON `sent` but not in what was `understood` of it, as the tree `ChatRequest.extra` holds.

    Returns None where nothing was missed; nulls are not worth keeping.
    """
    missed: dict[str, Any] = {}
    known = members(understood)
    for key, value in members(sent).items():
        if (rest := unknown_members(value, known[key]) if key in known else value) is not None:
            missed[key] = rest
    for position, (value, part) in enumerate(zip(elements(sent), elements(understood), strict=False)):
        if (rest := unknown_members(value, part)) is not None:
            missed[str(position)] = rest
    return missed or None


def merge_extra(body: Any, extra: Mapping[str, Any]) -> None:
    """Put the tree of unknown members back into `body` (builtins, changed in place). What is there already stays."""
    if parts := elements(body):
        for position, rest in extra.items():
            merge_extra(parts[int(position)], rest)
        return
    known = members(body)
    for key, value in extra.items():
        if key not in known:
            known[key] = value
        elif isinstance(known[key], dict | list | tuple):
            merge_extra(known[key], members(value))

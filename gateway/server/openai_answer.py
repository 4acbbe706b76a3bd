"""OpenAI chat completions on the way out: Events to one JSON body, or to chunks of a stream.

Shapes: https://platform.openai.com/docs/api-reference/chat. `provider`, `native_finish_reason` and `mixgate` are extra
members, as OpenRouter's clients expect the first two. `system_fingerprint` is always there and always text: OpenAI's
schema knows no null there, and OpenRouter's clients refuse a body without it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.server.openai_shapes import Call, Choice, Logprobs, Message
from gateway.server.openrouter_types import ERROR_TYPES
from providers.errors import MixgateError
from providers.messages import (
    AnswerFailed,
    AnswerStarted,
    ChoiceFinished,
    Event,
    ExtrasDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReported,
)

NANO_PER_USD: Final = 10**9
DONE: Final = b"data: [DONE]\n\n"
PING: Final = b": ping\n\n"
PLAIN_EVENTS: Final = 4
"""Of an answer that is one text: its start, the text, why it ended, what it used."""
QUOTED_MAX: Final = 1024
"""Names of models and providers, and reasons for an end, whose JSON is kept."""

_encode = msgspec.json.Encoder().encode


class AnswerHead(Struct, frozen=True):
    """What every chunk of one answer repeats."""

    id: str
    created_unix_s: int
    model: str
    provider: str


def whole_answer(
    head: AnswerHead,
    events: Sequence[Event],
    notes: dict[str, Any],
    metadata: dict[str, Any] | None = None,
    cost_in_nusd: int | None = None,
) -> bytes:
    """One `chat.completion` from all events of an answer.

    Args:
        head: What names it.
        events: All of them.
        notes: What the client should know of how it came about.
        metadata: OpenRouter's account of the routing, where it was asked for.
        cost_in_nusd: What it cost by our own books; None: as far as the provider says.
    """
    told = _plain(events) or _folded(events)
    return (
        b'{"id":%b,"created":%b,"model":%b,"provider":%b,"choices":[%b],"object":"chat.completion",'
        b'"system_fingerprint":%b%b%b%b}'
        % (
            _encode(head.id),
            str(head.created_unix_s).encode(),
            _quoted(head.model),
            _quoted(head.provider),
            told.choices,
            _encode(told.fingerprint),
            b"" if told.usage is None else b',"usage":' + usage_json(told.usage, cost_in_nusd),
            b"" if not notes else b',"mixgate":' + _encode(notes),
            _metadata(metadata),
        )
    )


class _Told:
    """What an answer says, its choices as JSON."""

    __slots__ = ("choices", "fingerprint", "usage")

    def __init__(self, fingerprint: str | None, choices: bytes, usage: Usage | None) -> None:
        self.fingerprint = fingerprint or ""
        self.choices = choices
        self.usage = usage


def _plain(events: Sequence[Event]) -> _Told | None:
    """Nearly all answers are one text: the same as a fold of it, at a fraction of the cost."""
    if len(events) != PLAIN_EVENTS:
        return None
    started, text, finished, counted = events
    if not isinstance(started, AnswerStarted) or not isinstance(text, TextDelta) or text.logprobs is not None:
        return None
    if not isinstance(finished, ChoiceFinished) or not isinstance(counted, UsageReported):
        return None
    if text.choice != finished.choice:
        return None
    choice = (
        b'{"index":%b,"message":{"role":"assistant","content":%b,"refusal":null},"logprobs":null,'
        b'"finish_reason":%b,"native_finish_reason":%b}'
        % (
            str(text.choice).encode(),
            _encode(text.text),
            _quoted(finished.reason),
            _quoted(finished.native_reason),
        )
    )
    return _Told(started.system_fingerprint, choice, counted.usage)


def _folded(events: Sequence[Event]) -> _Told:
    told = _Told(None, b"", None)
    folds: dict[int, _Fold] = {}
    for event in events:
        if isinstance(event, AnswerStarted):
            told.fingerprint = event.system_fingerprint or ""
        elif isinstance(event, UsageReported):
            told.usage = event.usage
        elif not isinstance(event, AnswerFailed):
            fold = folds.get(event.choice)
            if fold is None:
                fold = folds[event.choice] = _Fold(event.choice)
            fold.add(event)
    told.choices = b",".join([_encode(folds[index].choice()) for index in sorted(folds)])
    return told


_known_texts: dict[str | None, bytes] = {}


def _quoted(text: str | None) -> bytes:
    """A text that comes again and again, as JSON."""
    found = _known_texts.get(text)
    if found is None:
        if len(_known_texts) >= QUOTED_MAX:
            _known_texts.clear()
        found = _known_texts[text] = _encode(text)
    return found


_ChoiceEvent = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | ExtrasDelta | ChoiceFinished


class _Fold:
    """One choice while it is being put together."""

    __slots__ = ("_calls", "_choice", "_extras", "_message", "_reasoning", "_refusal", "_text")

    def __init__(self, index: int) -> None:
        self._message = Message()
        self._choice = Choice(index, self._message)
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, Call] = {}
        self._extras: dict[str, Any] = {}

    def add(self, event: _ChoiceEvent) -> None:
        """One more step of this choice."""
        if isinstance(event, TextDelta):
            self._text.append(event.text)
            if event.logprobs:
                known = self._choice.logprobs
                before = known.content if known is not None and known.content is not None else []
                self._choice.logprobs = Logprobs([*before, *event.logprobs])
        elif isinstance(event, ChoiceFinished):
            self._choice.finish_reason = event.reason
            self._choice.native_finish_reason = event.native_reason
        elif isinstance(event, ReasoningDelta):
            self._reasoning.append(event.text)
            if event.details:
                details = self._message.reasoning_details
                self._message.reasoning_details = [*(details or ()), *event.details]
        elif isinstance(event, ToolCallDelta):
            self._add_call(event)
        elif isinstance(event, RefusalDelta):
            self._refusal.append(event.text)
        else:
            self._extras.update(event.members)

    def _add_call(self, event: ToolCallDelta) -> None:
        call = self._calls.setdefault(event.index, Call())
        call.id = event.id or call.id
        call.function.name += event.name or ""
        call.function.arguments += event.arguments

    def choice(self) -> Choice:
        """The choice as it is answered."""
        message = self._message
        text = "".join(self._text)
        message.content = text if text or not (self._calls or self._refusal) else None
        if self._refusal:
            message.refusal = "".join(self._refusal)
        if self._reasoning:
            message.reasoning = "".join(self._reasoning)
        if self._calls:
            message.tool_calls = [self._calls[place] for place in sorted(self._calls)]
        if self._extras:
            self._choice.message = {**self._extras, **msgspec.to_builtins(message)}
        return self._choice


def usage_json(usage: Usage, cost_in_nusd: int | None = None) -> bytes:
    """OpenAI's `usage`: its three counts are required integers, so what a provider did not say is 0 there."""
    prompt = usage.input_tokens or 0
    completion = usage.output_tokens or 0
    details = reasoned = paid = ""
    cached, written, reasoning = usage.cached_input_tokens, usage.cache_write_tokens, usage.reasoning_tokens
    if cached is not None or written is not None:
        more = "" if written is None else f',"cache_write_tokens":{written}'
        details = f',"prompt_tokens_details":{{"cached_tokens":{cached or 0}{more}}}'
    if reasoning is not None:
        reasoned = f',"completion_tokens_details":{{"reasoning_tokens":{reasoning}}}'
    cost = usage.cost_in_nusd if cost_in_nusd is None else cost_in_nusd
    if cost is not None:
        paid = f',"cost":{_usd(cost)}'
    counts = f'"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{prompt + completion}'
    return f"{{{counts}{details}{reasoned}{paid}}}".encode()


def _usd(cost_in_nusd: int) -> str:
    """Nano-USD as a JSON number in USD, written from the integer: no float comes near money."""
    whole, rest = cost_in_nusd // NANO_PER_USD, cost_in_nusd % NANO_PER_USD
    return f"{whole}.{str(NANO_PER_USD + rest)[1:]}".rstrip("0").rstrip(".")


class ChunkEncoder:
    """Writes one stream. Text goes through a template prepared once; everything rarer through the general encoder."""

    __slots__ = ("_before", "_include_usage", "_notes", "_opened", "_prefix", "_suffix", "_tail", "usage")

    def __init__(
        self,
        head: AnswerHead,
        *,
        include_usage: bool,
        started: AnswerStarted | None,
        announce_usage: bool = True,
        notes: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """Prepare the template.

        Args:
            head: What every chunk repeats.
            include_usage: End with a chunk that holds the usage.
            started: What the provider said of itself.
            announce_usage: Then let all other chunks say `"usage": null`: OpenAI does, OpenRouter's schema forbids.
            notes: What the client should know of how its answer came about, asked for at the end of a choice.
        """
        self._notes = notes
        fingerprint = _encode((started is not None and started.system_fingerprint) or "")
        self._prefix = (
            b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"provider":%b,'
            b'"system_fingerprint":%b,"choices":['
            % (_encode(head.id), head.created_unix_s, _encode(head.model), _encode(head.provider), fingerprint)
        )
        self._tail = b'],"usage":null}\n\n' if include_usage and announce_usage else b"]}\n\n"
        self._before = self._prefix + b'{"index":0,"delta":{"content":'
        self._suffix = b'},"logprobs":null,"finish_reason":null}' + self._tail
        self._include_usage = include_usage
        self._opened: set[int] = set()
        self.usage: Usage | None = None
        """What the provider counted last."""

    def encode(self, events: Sequence[Event]) -> bytes:
        """The chunks for these events, joined; `b""` where they have nothing to show."""
        out: list[bytes] = []
        for event in events:
            if isinstance(event, TextDelta) and event.logprobs is None and event.choice == 0 and 0 in self._opened:
                out += (self._before, _encode(event.text), self._suffix)
            elif isinstance(event, UsageReported):
                self.usage = event.usage
            elif not isinstance(event, AnswerStarted):
                out.append(self._chunk(event))
        return b"".join(out)

    def end(
        self, notes: dict[str, Any], metadata: dict[str, Any] | None = None, cost_in_nusd: int | None = None
    ) -> bytes:
        """What closes a complete stream: usage and OpenRouter's metadata where asked for, and the end mark."""
        last = b""
        if self._include_usage:
            usage = usage_json(self.usage or Usage(), cost_in_nusd)
            note = b',"mixgate":%b' % _encode(notes) if notes else b""
            last = b'%b],"usage":%b%b%b}\n\n' % (self._prefix, usage, note, _metadata(metadata))
        elif metadata is not None:
            last = b"%b]%b}\n\n" % (self._prefix, _metadata(metadata))
        return last + DONE

    def _chunk(self, event: Any) -> bytes:
        delta = _delta(event)
        if event.choice not in self._opened:
            self._opened.add(event.choice)
            delta = {"role": "assistant", **({"content": ""} if "content" not in delta else {}), **delta}
        choice: dict[str, Any] = {"index": event.choice, "delta": delta, "logprobs": None, "finish_reason": None}
        if isinstance(event, TextDelta) and event.logprobs is not None:
            choice["logprobs"] = {"content": event.logprobs, "refusal": None}
        tail = self._tail
        if isinstance(event, ChoiceFinished):
            choice["finish_reason"] = event.reason
            choice["native_finish_reason"] = event.native_reason
            # Without a chunk for the usage this may be the last: a client that asked for none trips over one more.
            if not self._include_usage and (notes := self._notes()):
                tail = b'],"mixgate":%b}\n\n' % _encode(notes)
        return b"%b%b%b" % (self._prefix, _encode(choice), tail)


def _metadata(metadata: dict[str, Any] | None) -> bytes:
    return b"" if metadata is None else b',"openrouter_metadata":%b' % _encode(metadata)


def _delta(event: Event) -> dict[str, Any]:
    match event:
        case TextDelta():
            return {"content": event.text}
        case ReasoningDelta():
            details = {"reasoning_details": event.details} if event.details else {}
            return {"reasoning": event.text, **details}
        case RefusalDelta():
            return {"refusal": event.text}
        case ToolCallDelta():
            return {"tool_calls": [_call_delta(event)]}
        case ExtrasDelta():
            return event.members
        case _:
            return {}


def _call_delta(event: ToolCallDelta) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": event.arguments}
    call: dict[str, Any] = {"index": event.index, "function": function}
    if event.id is not None:
        call |= {"id": event.id, "type": "function"}
    if event.name is not None:
        function["name"] = event.name
    return call


def error_chunk(
    error: bytes, head: AnswerHead | None, failure: MixgateError, metadata: dict[str, Any] | None = None
) -> bytes:
    """How a stream ends that broke off: OpenAI's form has no `choices`, OpenRouter's (with `head`) has.

    Args:
        error: The body of the error, complete: all that OpenAI's form has.
        head: What every chunk of the stream repeats.
        failure: What went wrong.
        metadata: OpenRouter's account of the routing, where it was asked for.
    """
    if head is None:
        return b"data: %b\n\n%b" % (error, DONE)
    body: dict[str, Any] = {
        "id": head.id,
        "object": "chat.completion.chunk",
        "created": head.created_unix_s,
        "model": head.model,
        "provider": head.provider,
        "error": {
            "code": failure.status,
            "message": failure.message,
            "metadata": {
                "error_type": ERROR_TYPES.get(failure.code, "unmapped"),
                "code": failure.code,
                "source": failure.source,
            },
        },
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
    }
    if metadata is not None:
        body["openrouter_metadata"] = metadata
    return b"data: %b\n\n%b" % (_encode(body), DONE)

"""OpenAI chat completions on the way out: Events to one JSON body, or to chunks of a stream.

Shapes: https://platform.openai.com/docs/api-reference/chat. `provider`, `native_finish_reason` and `mixgate` are extra
members, as OpenRouter's clients expect the first two.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from providers.errors import MixgateError
from providers.messages import (
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

DONE: Final = b"data: [DONE]\n\n"
PING: Final = b": ping\n\n"

_encode = msgspec.json.Encoder().encode


class AnswerHead(Struct, frozen=True):
    """What every chunk of one answer repeats."""

    id: str
    created_unix_s: int
    model: str
    provider: str


class _Choice(Struct):
    """One choice while it is being put together."""

    text: list[str] = []
    reasoning: list[str] = []
    details: list[Any] = []
    refusal: list[str] = []
    logprobs: list[Any] | None = None
    calls: dict[int, dict[str, Any]] = {}
    extras: dict[str, Any] = {}
    finish_reason: str | None = None
    native_reason: str | None = None


def whole_answer(head: AnswerHead, events: Sequence[Event], skipped_chunks: int) -> bytes:
    """One `chat.completion`: a fold over all events of an answer."""
    choices: dict[int, _Choice] = {}
    started = AnswerStarted()
    usage: Usage | None = None
    for event in events:
        if isinstance(event, AnswerStarted):
            started = event
        elif isinstance(event, UsageReported):
            usage = event.usage
        else:
            _fold(event, choices)
    body: dict[str, Any] = {
        "id": head.id,
        "object": "chat.completion",
        "created": head.created_unix_s,
        "model": head.model,
        "provider": head.provider,
        "system_fingerprint": started.system_fingerprint,
        "choices": [_choice_body(index, choices[index]) for index in sorted(choices)],
    }
    if usage is not None:
        body["usage"] = usage_body(usage)
    if skipped_chunks:
        body["mixgate"] = {"skipped_chunks": skipped_chunks}
    return _encode(body)


def _fold(event: Any, choices: dict[int, _Choice]) -> None:
    choice = choices.get(event.choice)
    if choice is None:
        choice = choices[event.choice] = _Choice()
    match event:
        case TextDelta():
            choice.text.append(event.text)
            if event.logprobs:
                choice.logprobs = [*(choice.logprobs or ()), *event.logprobs]
        case ReasoningDelta():
            choice.reasoning.append(event.text)
            choice.details.extend(event.details or ())
        case RefusalDelta():
            choice.refusal.append(event.text)
        case ToolCallDelta():
            call = choice.calls.setdefault(event.index, {"id": "", "name": "", "arguments": []})
            call["id"] = event.id or call["id"]
            call["name"] += event.name or ""
            call["arguments"].append(event.arguments)
        case ExtrasDelta():
            choice.extras.update(event.members)
        case ChoiceFinished():
            choice.finish_reason = event.reason
            choice.native_reason = event.native_reason
        case _:
            pass


def _choice_body(index: int, choice: _Choice) -> dict[str, Any]:
    text = "".join(choice.text)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text if text or not (choice.calls or choice.refusal) else None,
        "refusal": "".join(choice.refusal) or None,
    }
    if choice.reasoning or choice.details:
        message["reasoning"] = "".join(choice.reasoning)
    if choice.details:
        message["reasoning_details"] = choice.details
    if choice.calls:
        message["tool_calls"] = [_call_body(choice.calls[place]) for place in sorted(choice.calls)]
    if choice.extras:
        message.update(choice.extras)
    return {
        "index": index,
        "message": message,
        "logprobs": None if choice.logprobs is None else {"content": choice.logprobs, "refusal": None},
        "finish_reason": choice.finish_reason,
        "native_finish_reason": choice.native_reason,
    }


def _call_body(call: dict[str, Any]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": "".join(call["arguments"])}
    return {"id": call["id"], "type": "function", "function": function}


def usage_body(usage: Usage) -> dict[str, Any]:
    """OpenAI's `usage`: its three counts are required integers, so what a provider did not say is 0 there."""
    prompt = usage.input_tokens or 0
    completion = usage.output_tokens or 0
    body: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if usage.cached_input_tokens is not None or usage.cache_write_tokens is not None:
        details: dict[str, int] = {"cached_tokens": usage.cached_input_tokens or 0}
        if usage.cache_write_tokens is not None:
            details["cache_write_tokens"] = usage.cache_write_tokens
        body["prompt_tokens_details"] = details
    if usage.reasoning_tokens is not None:
        body["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return body


class ChunkEncoder:
    """Writes one stream. Text goes through a template prepared once; everything rarer through the general encoder."""

    __slots__ = ("_before", "_include_usage", "_native", "_opened", "_prefix", "_suffix", "_tail", "_usage")

    def __init__(self, head: AnswerHead, *, include_usage: bool, started: AnswerStarted | None) -> None:
        fingerprint = _encode(started.system_fingerprint if started is not None else None)
        self._prefix = (
            b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"provider":%b,'
            b'"system_fingerprint":%b,"choices":['
            % (_encode(head.id), head.created_unix_s, _encode(head.model), _encode(head.provider), fingerprint)
        )
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._before = self._prefix + b'{"index":0,"delta":{"content":'
        self._suffix = b'},"logprobs":null,"finish_reason":null}' + self._tail
        self._include_usage = include_usage
        self._opened: set[int] = set()
        self._usage: Usage | None = None

    def encode(self, events: Sequence[Event]) -> bytes:
        """The chunks for these events, joined; `b""` where they have nothing to show."""
        out: list[bytes] = []
        for event in events:
            if isinstance(event, TextDelta) and event.logprobs is None and event.choice == 0 and self._opened:
                out += (self._before, _encode(event.text), self._suffix)
            elif isinstance(event, UsageReported):
                self._usage = event.usage
            elif not isinstance(event, AnswerStarted):
                out.append(self._chunk(event))
        return b"".join(out)

    def end(self, skipped_chunks: int) -> bytes:
        """What closes a complete stream: usage where it was asked for, and the end mark."""
        last = b""
        if self._include_usage:
            usage = usage_body(self._usage or Usage())
            note = b',"mixgate":%b' % _encode({"skipped_chunks": skipped_chunks}) if skipped_chunks else b""
            last = b'%b],"usage":%b%b}\n\n' % (self._prefix, _encode(usage), note)
        return last + DONE

    def _chunk(self, event: Any) -> bytes:
        delta = _delta(event)
        if event.choice not in self._opened:
            self._opened.add(event.choice)
            delta = {"role": "assistant", **({"content": ""} if "content" not in delta else {}), **delta}
        choice: dict[str, Any] = {"index": event.choice, "delta": delta, "logprobs": None, "finish_reason": None}
        if isinstance(event, TextDelta) and event.logprobs is not None:
            choice["logprobs"] = {"content": event.logprobs, "refusal": None}
        if isinstance(event, ChoiceFinished):
            choice["finish_reason"] = event.reason
            choice["native_finish_reason"] = event.native_reason
        return b"%b%b%b" % (self._prefix, _encode(choice), self._tail)


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


def error_chunk(error: bytes, head: AnswerHead | None, failure: MixgateError) -> bytes:
    """How a stream ends that broke off: OpenAI's form has no `choices`, OpenRouter's (with `head`) has."""
    if head is None:
        return b"data: %b\n\n%b" % (error, DONE)
    body = {
        "id": head.id,
        "object": "chat.completion.chunk",
        "created": head.created_unix_s,
        "model": head.model,
        "provider": head.provider,
        "error": {
            "code": failure.status,
            "message": failure.message,
            "metadata": {"error_type": failure.code, "source": failure.source},
        },
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
    }
    return b"data: %b\n\n%b" % (_encode(body), DONE)

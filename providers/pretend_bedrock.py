"""How Amazon Bedrock talks: Converse and InvokeModel, whole and as a binary event stream.

https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html has the frames; the checksums are CRC-32.
"""

import binascii
import struct
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from providers.json_values import members
from providers.messages import FinishReason
from providers.pretence import JSON_HEADERS, Reply, Said, Spoken, Trouble
from providers.pretend_openai import last_assistant_text

_encoder = msgspec.json.Encoder()
_REQUEST_ID: Final = "00000000-0000-4000-8000-000000000000"
_STREAM_HEADERS: Final[Mapping[str, str]] = {
    "content-type": "application/vnd.amazon.eventstream",
    "x-amzn-requestid": _REQUEST_ID,
}
_REASONS: Final[Mapping[FinishReason, str]] = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_PRELUDE_AND_SUMS_BYTES: Final = 16
_TEXT_HEADER: Final = 7
"""The number that says of a frame's header that its value is text."""
_INSTRUCTION_END: Final = "[/INST]"
_ERRORS: Final[Mapping[Trouble, tuple[int, str, str]]] = {
    "rate_limit": (429, "ThrottlingException", "Too many requests, please wait before trying again."),
    "server": (500, "InternalServerException", "The system encountered an unexpected error."),
    "overloaded": (503, "ServiceUnavailableException", "Bedrock is unable to process your request."),
    "context": (400, "ValidationException", "Input is too long for requested model."),
    "policy": (400, "ValidationException", "The request was blocked by our content filters."),
    "prefill": (400, "ValidationException", "A conversation must end with a user message."),
}


def frame(payload: bytes, **headers: str) -> bytes:
    """One message of an event stream; `message_type="event"` becomes the header `:message-type`."""
    head = b""
    for name, value in headers.items():
        key, text = b":" + name.replace("_", "-").encode(), value.encode()
        head += struct.pack("!B", len(key)) + key + struct.pack("!BH", _TEXT_HEADER, len(text)) + text
    prelude = struct.pack("!II", _PRELUDE_AND_SUMS_BYTES + len(head) + len(payload), len(head))
    message = prelude + struct.pack("!I", binascii.crc32(prelude)) + head + payload
    return message + struct.pack("!I", binascii.crc32(message))


def _event(name: str, payload: Any) -> bytes:
    data: bytes = payload if isinstance(payload, bytes) else _encoder.encode(payload)
    return frame(data, event_type=name, content_type="application/json", message_type="event")


class _PretendedBedrock:
    """What both operations share."""

    streams = True
    counts = True

    def refuse(self, trouble: Trouble) -> Reply | None:
        """An exception's status, name and message."""
        status, name, message = _ERRORS[trouble]
        headers = {**JSON_HEADERS, "x-amzn-requestid": _REQUEST_ID, "x-amzn-errortype": f"{name}:http://pretended/"}
        return Reply(status, headers, _encoder.encode({"message": message}))

    def fail_inside(self, *, stream: bool) -> bytes:
        """An exception instead of an event, or a message instead of an answer."""
        body = _encoder.encode({"message": "The model broke."})
        if not stream:
            return body
        kind = "modelStreamErrorException"
        return frame(body, exception_type=kind, content_type="application/json", message_type="exception")


class PretendedConverse(_PretendedBedrock):
    """Converse and ConverseStream."""

    def whole(self, said: Said) -> Reply:
        """One Converse answer."""
        content: list[dict[str, Any]] = [{"text": "".join(said.pieces)}] if said.pieces else []
        for call in said.calls:
            arguments: Any = msgspec.json.decode(call.arguments)
            content.append({"toolUse": {"toolUseId": call.id, "name": call.name, "input": arguments}})
        body = {
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": _REASONS.get(said.reason, "end_turn"),
            "usage": _usage(said),
            "metrics": {"latencyMs": 1},
        }
        return Reply(200, {**JSON_HEADERS, "x-amzn-requestid": _REQUEST_ID}, _encoder.encode(body))

    def stream(self, said: Said) -> Spoken:
        """Events: the message's start, text, calls, the message's end, metadata."""
        closing = [_event("contentBlockStop", {"contentBlockIndex": 0})] if said.pieces else []
        for place, call in enumerate(said.calls, len(closing)):
            start = {"toolUse": {"toolUseId": call.id, "name": call.name}}
            delta = {"toolUse": {"input": call.arguments}}
            closing.append(_event("contentBlockStart", {"contentBlockIndex": place, "start": start}))
            closing.append(_event("contentBlockDelta", {"contentBlockIndex": place, "delta": delta}))
            closing.append(_event("contentBlockStop", {"contentBlockIndex": place}))
        closing.append(_event("messageStop", {"stopReason": _REASONS.get(said.reason, "end_turn")}))
        closing.append(_event("metadata", {"usage": _usage(said), "metrics": {"latencyMs": 1}}))
        return Spoken(
            headers=_STREAM_HEADERS,
            opening=_event("messageStart", {"role": "assistant"}),
            pieces=tuple(
                _event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": piece}}) for piece in said.pieces
            ),
            closing=b"".join(closing),
        )

    def garble(self) -> bytes | None:
        """A sound frame around JSON that stops in the middle."""
        return _event("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"te')

    def prefill(self, body: bytes) -> str:
        """The content of a last message of the assistant's."""
        return last_assistant_text(body)


class PretendedInvoke(_PretendedBedrock):
    """InvokeModel with the format of Mistral's first models: they know no tools."""

    def whole(self, said: Said) -> Reply:
        """One answer; its token counts are in the headers."""
        headers = {
            **JSON_HEADERS,
            "x-amzn-requestid": _REQUEST_ID,
            "x-amzn-bedrock-input-token-count": str(said.input_tokens),
            "x-amzn-bedrock-output-token-count": str(said.output_tokens),
        }
        return Reply(200, headers, _encoder.encode(_outputs("".join(said.pieces), said.reason)))

    def stream(self, said: Said) -> Spoken:
        """Chunks of text; the last one has the reason and the counts."""
        counts = {"inputTokenCount": said.input_tokens, "outputTokenCount": said.output_tokens}
        last = {**_outputs("", said.reason), "amazon-bedrock-invocationMetrics": counts}
        return Spoken(
            headers=_STREAM_HEADERS,
            pieces=tuple(_wrapped(_encoder.encode(_outputs(piece, None))) for piece in said.pieces),
            closing=_wrapped(_encoder.encode(last)),
        )

    def garble(self) -> bytes | None:
        """A sound frame around JSON that stops in the middle."""
        return _wrapped(b'{"outputs":[{"te')

    def prefill(self, body: bytes) -> str:
        """What stands behind the last instruction of the prompt."""
        prompt = members(msgspec.json.decode(body)).get("prompt")
        text = prompt.rpartition(_INSTRUCTION_END)[2] if isinstance(prompt, str) else ""
        return text.removeprefix(" ")


def _usage(said: Said) -> dict[str, int]:
    return {
        "inputTokens": said.input_tokens,
        "outputTokens": said.output_tokens,
        "totalTokens": said.input_tokens + said.output_tokens,
    }


def _outputs(text: str, reason: str | None) -> dict[str, Any]:
    return {"outputs": [{"text": text, "stop_reason": reason}]}


def _wrapped(chunk: bytes) -> bytes:
    return _event("chunk", {"bytes": binascii.b2a_base64(chunk, newline=False).decode()})

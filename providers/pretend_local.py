"""How the llama.cpp worker on this machine talks: JSON lines, the same for both ways of asking."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from providers.base import NO_HEADERS
from providers.json_values import members
from providers.pretence import JSON_HEADERS, Reply, Said, Spoken, Trouble
from providers.pretend_openai import last_assistant_text

_encoder = msgspec.json.Encoder()
_ERRORS: Final[Mapping[Trouble, tuple[int, str, str]]] = {
    "rate_limit": (503, "local_queue_full", "the local queue is full"),
    "server": (503, "local_worker_crashed", "the local worker crashed"),
    "overloaded": (503, "local_queue_full", "the local queue is full"),
    "context": (400, "context_length_exceeded", "the prompt has 40 tokens, a slot has 32"),
    "prefill": (400, "invalid_request", "the last message must not be from the assistant"),
}
"""It judges nobody's words."""


class PretendedLocal:
    """A worker with one model."""

    streams = True
    counts = True

    def whole(self, said: Said) -> Reply:
        """All lines at once."""
        return Reply(200, NO_HEADERS, self.stream(said).whole)

    def stream(self, said: Said) -> Spoken:
        """A line for each piece of text, then the reason and the usage."""
        usage = {"input_tokens": said.input_tokens, "output_tokens": said.output_tokens, "cached_input_tokens": 0}
        return Spoken(
            headers=NO_HEADERS,
            pieces=tuple(_line(t="text", choice=0, text=piece) for piece in said.pieces),
            closing=_line(t="finish", choice=0, reason=said.reason) + _line(t="usage", **usage),
        )

    def refuse(self, trouble: Trouble) -> Reply | None:
        """An error's status and body."""
        if trouble not in _ERRORS:
            return None
        status, code, message = _ERRORS[trouble]
        error = {"message": message, "code": code, "param": None}
        return Reply(status, JSON_HEADERS, _encoder.encode({"error": error}))

    def fail_inside(self, *, stream: bool) -> bytes:  # noqa: ARG002 (the same lines for both)
        """A line that says so."""
        return _line(t="error", status=503, code="local_worker_crashed", message="the local worker crashed")

    def garble(self) -> bytes | None:
        """It is ours, on the same machine: its lines are whole, or its worker has crashed."""
        return None

    def prefill(self, body: bytes) -> str:
        """The last message, where the request says that it is to be gone on from."""
        asked = members(msgspec.json.decode(body)).get("prefill") is True
        return last_assistant_text(body) if asked else ""


def _line(**members_of: Any) -> bytes:
    return _encoder.encode(members_of) + b"\n"

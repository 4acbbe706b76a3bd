"""How MindStudio talks: one text in, one text out, never in pieces. It counts no tokens."""

from collections.abc import Mapping
from typing import Final

import msgspec

from providers.json_values import members
from providers.pretence import JSON_HEADERS, Reply, Said, Spoken, Trouble

_encoder = msgspec.json.Encoder()
_SPEAKER: Final = "\n\nAssistant:"
"""What a turn of the assistant's begins with in the one text that a dialogue becomes."""
_ERRORS: Final[Mapping[Trouble, tuple[int, str, str]]] = {
    "rate_limit": (429, "rate_limit_exceeded", "Too many requests"),
    "server": (500, "internal", "Something broke"),
    "overloaded": (503, "unavailable", "Try again later"),
    "context": (413, "too_large", "The prompt is too large for this model"),
}
"""It has no word for a refusal of what was said, and reads any text, a prefilled one too."""


class PretendedMindStudio:
    """The `generateText` step."""

    streams = False
    counts = False

    def whole(self, said: Said) -> Reply:
        """The result of a step."""
        return Reply(200, JSON_HEADERS, _encoder.encode({"output": {"content": "".join(said.pieces)}}))

    def stream(self, said: Said) -> Spoken:
        """All at once."""
        return Spoken(headers=JSON_HEADERS, closing=self.whole(said).body)

    def refuse(self, trouble: Trouble) -> Reply | None:
        """An error's status and body."""
        if trouble not in _ERRORS:
            return None
        status, code, message = _ERRORS[trouble]
        return Reply(status, JSON_HEADERS, _encoder.encode({"code": code, "message": message}))

    def fail_inside(self, *, stream: bool) -> bytes:  # noqa: ARG002 (it never streams)
        """An error where the output should be."""
        return _encoder.encode({"code": "internal", "message": "Something broke"})

    def garble(self) -> bytes | None:
        """There are no chunks."""
        return None

    def prefill(self, body: bytes) -> str:
        """What the last turn of the one text says, if it is the assistant's."""
        step = members(members(msgspec.json.decode(body)).get("step"))
        message = step.get("message")
        turn = message.rpartition(_SPEAKER) if isinstance(message, str) else ("", "", "")
        return turn[2].removeprefix(" ") if turn[1] else ""

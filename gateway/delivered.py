"""What a client has of an answer, for whoever may have to go on with it. Pure."""

from collections.abc import Sequence
from typing import Final

from providers.messages import AnswerStarted, ChatRequest, Event, TextDelta, UsageReported

DELIVERED_MAX_CHARS: Final = 32_000
"""About 8,000 tokens: longer answers are not worth sending all over again."""
_TEXT: Final = TextDelta  # looked up by name less often


def is_plain(request: ChatRequest) -> bool:
    """Whether an answer to this request is text and nothing else, so that another may go on with it."""
    form = request.response_format
    return (
        not request.tools
        and not request.functions
        and not request.logprobs
        and (request.n or 1) == 1
        and (form is None or form.type == "text")
        and not request.audio
        and not request.modalities
    )


class Delivered:
    """What the client has of an answer, as far as going on with it needs to know."""

    __slots__ = ("_chars", "_parts", "plain", "tokens")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._chars = 0
        self.plain = True
        """Nothing but text of one choice, and not its end."""
        self.tokens = 0
        """Pieces of text: most providers send one for each token."""

    @property
    def text(self) -> str:
        """All of it, while it can be gone on from."""
        return "".join(self._parts)

    def add(self, events: Sequence[Event]) -> None:
        """These go to the client."""
        for event in events:
            if type(event) is _TEXT:
                self._chars += len(event.text)
                if self._chars > DELIVERED_MAX_CHARS:
                    self._parts.clear()  # nobody will go on from here any more
                    continue
                self._parts.append(event.text)
                self.tokens += bool(event.text)
            elif type(event) is not AnswerStarted and type(event) is not UsageReported:
                self.plain = False

    @property
    def can_go_on(self) -> bool:
        """Whether another Endpoint could go on from here."""
        return self.plain and 0 < self._chars <= DELIVERED_MAX_CHARS

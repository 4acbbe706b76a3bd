"""Going on with an answer that was cut, on another Endpoint, without a lost or repeated character.

Where the other Endpoint is known to continue an assistant message, it is given the text so far (`prefill`). Else the
question is asked again and exactly what was delivered is dropped from the new answer, which must begin with it. Pure.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from gateway.delivered import Delivered
from gateway.health import FailureKind
from providers.base import Endpoint
from providers.errors import BadRequestError, ProviderError, TruncatedError, UnsupportedError
from providers.messages import (
    AnswerFailed,
    AnswerStarted,
    ChatRequest,
    ChoiceFinished,
    Event,
    Message,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from providers.tokens import estimate_text

ECHO_MIN_CHARS: Final = 16
"""A new answer that repeats at least so much, and all of it, echoes what it was given; less may be chance."""

By = Literal["prefill", "again"]

_NO_PREFILL: Final = (BadRequestError, UnsupportedError)
"""How a provider refuses to go on with an assistant message."""
_CANNOT_JOIN: Final = (RefusalDelta, ToolCallDelta)
"""Content that never goes on with a text."""


class DivergedError(TruncatedError):
    """Asked again, an Endpoint gave another answer: it cannot be joined to what was delivered."""


class RescueNote(Struct, frozen=True):
    """What a client is told of a rescue."""

    by: By
    cut: str
    """The Endpoint whose answer broke off."""
    continued: str
    """The Endpoint that went on."""
    after_chars: int
    code: str
    """How it broke off."""


class Rescue:
    """One rescue: from the cut to the first new text."""

    __slots__ = ("_given", "_joined", "_repeated", "by", "error", "flowing", "refused", "text", "tokens")

    def __init__(self, delivered: Delivered, error: ProviderError) -> None:
        self.text = delivered.text
        self.tokens = min(delivered.tokens, estimate_text(self.text)) or 1
        """About how many tokens were delivered before the cut."""
        self.error = error
        """What the client gets if nobody can go on."""
        self.by: By = "again"
        self.refused: set[str] = set()
        """Endpoints that took no prefill after all."""
        self.flowing = False
        """Something new has gone to the client: from here on there is no second rescue."""
        self._joined = False
        self._repeated = ""
        self._given = self.text
        """What the new answer may repeat: all of it, or what the Endpoint was given."""

    def ask(self, request: ChatRequest, endpoint: Endpoint) -> ChatRequest:
        """The request by which this Endpoint is to go on."""
        self._joined = False
        self._repeated = ""
        # Some refuse, or trim, blanks at the end of what they are to go on with, and say them themselves then.
        given = self.text.rstrip()
        able = given and endpoint.capabilities.prefill and endpoint.id not in self.refused
        self.by = "prefill" if able else "again"
        self._given = given if able else self.text
        if self.by == "again":
            return request
        last = request.messages[-1]
        before = request.messages
        said = self._given
        if last.role == "assistant" and isinstance(last.content, str | None):  # the client's own prefill goes first
            before = request.messages[:-1]
            said = (last.content or "") + said
        changes: dict[str, Any] = {"messages": (*before, Message(role="assistant", content=said, prefix=True))}
        limit = request.output_limit_tokens
        if limit is not None:
            left = max(1, limit - self.tokens)
            name = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
            changes[name] = left
        return msgspec.structs.replace(request, **changes)

    def join(self, events: Sequence[Event]) -> list[Event]:
        """What of the new answer's events the client does not have yet.

        Gives an AnswerFailed last where the new answer is not the old one's continuation.
        """
        out: list[Event] = []
        for event in events:
            kind = type(event)
            if kind is AnswerStarted or kind is ReasoningDelta:
                continue  # the client has its start, and thoughts belong before the text
            if isinstance(event, TextDelta) and not self._joined:
                text = self._meet(event.text)
            elif kind is ChoiceFinished and not self._joined:
                text = self._meet("", ended=True)
            elif kind in _CANNOT_JOIN and not self._joined:
                return [_diverged()]
            else:
                out.append(self._usage(event) if isinstance(event, UsageReported) else event)
                continue
            if text is None:
                return [_diverged()]
            if text:
                out.append(TextDelta(text))
            if kind is ChoiceFinished:
                out.append(event)
        self.flowing = self.flowing or any(_is_seen(event) for event in out)
        return out

    def is_refusal(self, error: ProviderError) -> bool:
        """Whether the Endpoint will not go on with an assistant message, so that it has to be asked again instead."""
        return self.by == "prefill" and not self.flowing and isinstance(error, _NO_PREFILL)

    def blame(self, error: ProviderError) -> FailureKind | None:
        """What a failed rescue says of its Endpoint, where that is not what the error says by itself.

        Another answer to the same question is a good answer, and prefill was our idea.
        """
        if isinstance(error, DivergedError):
            return "gateway"
        return "unsupported" if self.is_refusal(error) else None

    def _meet(self, text: str, *, ended: bool = False) -> str | None:
        """What of the text so far is new; None: it is not the same answer."""
        new = self._repeated + text
        given, blank = self._given, self.text[len(self._given) :]
        if self.by == "again":
            rest = new.removeprefix(given) if new.startswith(given) else None
            undecided = rest is None and given.startswith(new)
        else:
            echoes = len(given) >= ECHO_MIN_CHARS and new.startswith(given)
            rest = new[len(given) :] if echoes else new
            undecided = blank.startswith(rest) or (not echoes and given.startswith(new))
            rest = rest.removeprefix(blank)
        if undecided and not ended:
            self._repeated = new
            return ""
        self._joined = rest is not None
        return rest

    def _usage(self, event: UsageReported) -> UsageReported:
        """The usage of both parts, where the second was not asked to write the first again."""
        usage = event.usage
        if self.by == "again" or usage.output_tokens is None:
            return event
        return UsageReported(msgspec.structs.replace(usage, output_tokens=usage.output_tokens + self.tokens))


def _is_seen(event: Event) -> bool:
    return bool(event.text) if isinstance(event, TextDelta) else type(event) is ChoiceFinished


def _diverged() -> AnswerFailed:
    return AnswerFailed(DivergedError("the answer broke off, and asking again gave another answer"))

"""The other side of a dialect: how a provider would say something, in its own bytes. For drills and simulations.

A Pretender is pure, as a Dialect is: what to say goes in, bytes come out. Whoever carries them decides when they come,
and where they break off. What a Pretender says, its dialect's Decoder reads back: a contract test sees to that.
"""

from collections.abc import Mapping
from typing import Literal, Protocol

from msgspec import Struct

from providers.base import NO_HEADERS
from providers.messages import FinishReason

Trouble = Literal["rate_limit", "server", "overloaded", "context", "policy", "prefill"]
"""rate_limit: asked too often. server: it broke. overloaded: too busy. context: the prompt does not fit. policy: it
refuses what was said. prefill: it does not go on from a last message of the assistant's."""


class SaidCall(Struct, frozen=True, gc=False):
    """A function that the pretended model wants called; `arguments` is JSON text of an object."""

    id: str
    name: str
    arguments: str


class Said(Struct, frozen=True, kw_only=True):
    """What a pretended model says."""

    pieces: tuple[str, ...]
    """Its text, token by token."""
    calls: tuple[SaidCall, ...] = ()
    reason: FinishReason = "stop"
    input_tokens: int = 0
    output_tokens: int = 0
    model: str = "pretended"


class Reply(Struct, frozen=True):
    """An answer in one piece."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Spoken(Struct, frozen=True, kw_only=True):
    """A streamed answer of status 200, in the order in which it is sent."""

    headers: Mapping[str, str]
    opening: bytes = b""
    """What comes before any text: nobody may take it for an answer."""
    pieces: tuple[bytes, ...] = ()
    """One for each piece of text."""
    closing: bytes = b""
    """Calls, the finish reason and the usage."""
    end: bytes = b""
    """The mark that this was all; empty where the end of the connection is the mark."""

    @property
    def whole(self) -> bytes:
        """All of it."""
        return b"".join((self.opening, *self.pieces, self.closing, self.end))


class Pretender(Protocol):
    """Says what a provider of one dialect would say. Stateless and pure."""

    streams: bool
    """Whether it ever answers in pieces."""
    counts: bool
    """Whether it says how many tokens an answer took."""

    def whole(self, said: Said) -> Reply:
        """An answer in one piece."""
        ...

    def stream(self, said: Said) -> Spoken:
        """The same as it comes."""
        ...

    def refuse(self, trouble: Trouble) -> Reply | None:
        """An answer that is an error; None where no provider of this dialect says that."""
        ...

    def fail_inside(self, *, stream: bool) -> bytes:
        """The body of a 200 that holds an error and nothing else."""
        ...

    def garble(self) -> bytes | None:
        """One chunk of a stream that nobody can read, with whole ones before and behind it; None: it has none."""
        ...

    def prefill(self, body: bytes) -> str:
        """The text that a request wants gone on from; empty where it ends with somebody else's turn."""
        ...


JSON_HEADERS: Mapping[str, str] = {"content-type": "application/json"}
EVENT_HEADERS: Mapping[str, str] = {"content-type": "text/event-stream"}
PAGE = Reply(200, {"content-type": "text/html"}, b"<!doctype html><html><body>We will be back soon.</body></html>")
"""What a proxy in between says: every dialect may meet it."""
EMPTY = Reply(200, NO_HEADERS, b"")

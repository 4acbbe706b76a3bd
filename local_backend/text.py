"""From token bytes to text that may be shown: UTF-8 never split, stop strings found across token borders. Sans I/O.

Text that could still turn out to be the beginning of a stop string is held back until it cannot be one any more.
"""

import codecs
from collections import deque
from collections.abc import Sequence
from typing import Any

from msgspec import Struct


class Released(Struct, frozen=True, gc=False):
    """Text that is safe to send, and the logprob entries of the tokens that begin in it."""

    text: str
    entries: list[Any]
    stopped: bool = False
    """A stop string was met: nothing follows."""


class TextAssembler:
    """Turns the pieces of one answer into text.

    Args:
        stops: Strings that end the answer and are not part of it.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = tuple(stop for stop in stops if stop)
        self._longest = max((len(stop) for stop in self._stops), default=0)
        self._held = ""
        self._held_starts_at = 0
        self._entries: deque[tuple[int, Any]] = deque()

    def push(self, piece: bytes, entry: Any = None) -> Released:
        """Take one token's bytes and, if asked for, its logprob entry."""
        if entry is not None:
            self._entries.append((self._held_starts_at + len(self._held), entry))
        return self._settle(self._decoder.decode(piece), final=False)

    def finish(self) -> Released:
        """The answer is complete: whatever was held back is text after all; half a character becomes U+FFFD."""
        return self._settle(self._decoder.decode(b"", final=True), final=True)

    def _settle(self, text: str, *, final: bool) -> Released:
        if not self._stops:
            self._held_starts_at += len(text)
            return Released(text, self._take_entries(final=final))
        held = self._held + text
        cut = min((at for at in map(held.find, self._stops) if at >= 0), default=-1)
        if cut >= 0:
            self._held = ""
            self._held_starts_at += cut
            return Released(held[:cut], self._take_entries(final=False), stopped=True)
        keep = 0 if final else self._undecided(held)
        self._held = held[len(held) - keep :]
        self._held_starts_at += len(held) - keep
        return Released(held[: len(held) - keep], self._take_entries(final=final))

    def _undecided(self, held: str) -> int:
        """How many of the last characters may be the beginning of a stop string."""
        for keep in range(min(self._longest - 1, len(held)), 0, -1):
            tail = held[len(held) - keep :]
            if any(stop.startswith(tail) for stop in self._stops):
                return keep
        return 0

    def _take_entries(self, *, final: bool) -> list[Any]:
        entries = self._entries
        taken: list[Any] = []
        while entries and (final or entries[0][0] < self._held_starts_at):
            taken.append(entries.popleft()[1])
        return taken

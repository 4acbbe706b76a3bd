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


class _Watch:
    """Looks for one stop string, a character at a time (Knuth-Morris-Pratt: no character is looked at twice)."""

    __slots__ = ("_fallback", "begun", "stop")

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.begun = 0
        """How many characters at the end of the text are the beginning of the stop string."""
        self._fallback = [0] * len(stop)
        for at in range(1, len(stop)):
            length = self._fallback[at - 1]
            while length and stop[at] != stop[length]:
                length = self._fallback[length - 1]
            self._fallback[at] = length + (stop[at] == stop[length])

    def sees(self, character: str) -> bool:
        """Take the next character. True when it completes the stop string."""
        while self.begun and self.stop[self.begun] != character:
            self.begun = self._fallback[self.begun - 1]
        self.begun += self.stop[self.begun] == character
        return self.begun == len(self.stop)


class TextAssembler:
    """Turns the pieces of one answer into text.

    Args:
        stops: Strings that end the answer and are not part of it.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._watches = [_Watch(stop) for stop in stops if stop]
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
        held = self._held + text
        for at, character in enumerate(text if self._watches else "", len(self._held) + 1):
            completed = [len(watch.stop) for watch in self._watches if watch.sees(character)]
            if completed:
                cut = at - max(completed)
                self._held = ""
                self._held_starts_at += cut
                return Released(held[:cut], self._take_entries(final=False), stopped=True)
        keep = 0 if final else max((watch.begun for watch in self._watches), default=0)
        self._held = held[len(held) - keep :]
        self._held_starts_at += len(held) - keep
        return Released(held[: len(held) - keep], self._take_entries(final=final))

    def _take_entries(self, *, final: bool) -> list[Any]:
        entries = self._entries
        taken: list[Any] = []
        while entries and (final or entries[0][0] < self._held_starts_at):
            taken.append(entries.popleft()[1])
        return taken

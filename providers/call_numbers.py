"""The numbers of the tool calls in a stream, made sense of where servers make none. Pure."""

from typing import Final

CALLS_MAX: Final = 1024
"""Calls of one answer; every one is remembered."""


class CallNumbers:
    """Numbers the tool calls of one answer from 0, whatever the server numbers them by.

    Seen: every call under index 0 or none at all, a first index of 1, and the id or the name repeated with every piece.
    """

    __slots__ = ("_counts", "_known")

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[int, str | None, str | None]] = {}
        self._counts: dict[int, int] = {}

    @property
    def too_many(self) -> bool:
        """Whether there are more calls than any answer makes."""
        return len(self._known) > CALLS_MAX

    def place(self, sent_index: int, choice: int, call_id: str | None, name: str | None) -> tuple[int, bool]:
        """Our number for the call that a piece belongs to, and whether the piece is its first."""
        known = self._known.get((choice, sent_index))
        if known is not None and not (name and (name != known[2] or (call_id and call_id != known[1]))):
            return known[0], False
        place = self._counts.get(choice, 0)
        self._counts[choice] = place + 1
        self._known[choice, sent_index] = (place, call_id, name)
        return place, True

"""What keys spent as a worker shows it: the sums are the owner's, and are fetched when somebody looks."""

from collections.abc import Mapping
from typing import Final

from gateway.keys.purse import Purse, Usage

NOTHING: Final = Usage(0, 0, 0, 0, 0)


class SeenPurse(Purse):
    """A Purse to look at. Nothing is reserved in it."""

    seen: Mapping[str, Usage] = {}

    def see(self, usage: Mapping[str, Usage]) -> None:
        """The owner's sums, a moment ago."""
        self.seen = usage

    def usage(self, key_id: str, unix_s: float) -> Usage:  # noqa: ARG002 (as of the moment in which it was fetched)
        """What was spent and is reserved."""
        return self.seen.get(key_id, NOTHING)

"""Slots: one KV sequence each, and the reuse of what an earlier prompt left in them. Bookkeeping only."""

from collections.abc import Sequence

from msgspec import Struct


class Slot(Struct, eq=False):
    """One KV sequence: what is in it, and whether a choice is running in it."""

    id: int
    tokens: list[int]
    """The tokens whose KV cells it holds, in order."""
    busy: bool = False
    used_at: int = 0
    """When it was last given away, as a counter."""


class Placement(Struct, frozen=True):
    """Where a prompt goes and what of it is there already."""

    slot: int
    donor: int
    """The slot whose first `shared_tokens` cells are used; the same slot means in place."""
    shared_tokens: int


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike, by bisection over slices (which compare at C speed)."""
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def place(prompt: Sequence[int], slots: Sequence[Slot]) -> Placement | None:
    """The slot for a prompt, or None when all are busy.

    The last prompt token is always computed anew, since its logits are wanted. A kept conversation is only overwritten
    by one that continues most of it, or when it is the one unused for longest.
    """
    free = [slot for slot in slots if not slot.busy]
    if not free:
        return None
    oldest = min(free, key=lambda slot: slot.used_at)
    shared = {slot.id: common_prefix(prompt[:-1], slot.tokens) for slot in slots}
    donor = max(slots, key=lambda slot: (shared[slot.id], not slot.busy))
    count = shared[donor.id]
    continues = not donor.busy and 2 * count >= len(donor.tokens)
    target = donor if continues or donor is oldest else oldest
    return Placement(slot=target.id, donor=donor.id, shared_tokens=count)

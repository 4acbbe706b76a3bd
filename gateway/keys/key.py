"""An issued client key as it is kept: whose it is, how long it is good, and what it may do. Pure values."""

from hashlib import sha256
from typing import Final, Literal

from msgspec import Struct

DataWish = Literal["any", "no_training", "nothing_kept"]
"""Endpoints that a key may use by what becomes of its prompts: any, none that trains on them, none that keeps them."""
Window = Literal["day", "week", "month", "ever"]
WINDOWS: Final[tuple[Window, ...]] = ("day", "week", "month", "ever")
ANCESTORS_MAX: Final = 4
"""Teams above a key, one inside the other."""
KEYS_MAX: Final = 100_000
"""Issued keys, deleted ones too: all of them are in memory."""
NAME_MAX_CHARS: Final = 100
PERMITTED_MAX: Final = 256
"""Models, or providers, that one key names."""
STRICTNESS: Final[dict[DataWish, int]] = {"any": 0, "no_training": 1, "nothing_kept": 2}


class KeyLimits(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What a key may do. None: no such limit."""

    models: tuple[str, ...] | None = None
    """Routes, Models or Endpoints."""
    providers: tuple[str, ...] | None = None
    day_in_nusd: int | None = None
    """To spend from one midnight UTC to the next, in nano-USD."""
    week_in_nusd: int | None = None
    """From Monday to Sunday, UTC."""
    month_in_nusd: int | None = None
    ever_in_nusd: int | None = None
    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    concurrency: int | None = None
    """Requests at the same time."""
    input_max_in_pusd: int | None = None
    """The most an Endpoint may charge, in pico-USD per token."""
    output_max_in_pusd: int | None = None
    data: DataWish = "any"

    def budget(self, window: Window) -> int | None:
        """What may be spent in one window, in nano-USD."""
        budget: int | None = getattr(self, f"{window}_in_nusd")
        return budget

    @property
    def has_budget(self) -> bool:
        """Whether there is one in any window."""
        return (
            self.ever_in_nusd is not None
            or self.month_in_nusd is not None
            or self.day_in_nusd is not None
            or self.week_in_nusd is not None
        )

    @property
    def has_rate(self) -> bool:
        """Whether there is a limit on how often, or how much at once."""
        return not (self.requests_per_min is None and self.tokens_per_min is None and self.concurrency is None)


NO_LIMITS: Final = KeyLimits()


class KeyRecord(Struct, frozen=True, kw_only=True):
    """One issued key. Times are microseconds of Unix time."""

    id: str
    """Public: it is in the key's text, in records and in logs."""
    name: str
    digest: bytes
    """HMAC of the key's text."""
    created_us: int
    updated_us: int
    previous_digest: bytes = b""
    """HMAC of the text before the last rotation."""
    previous_until_us: int = 0
    """Until when that one is still good."""
    expires_us: int | None = None
    disabled: bool = False
    deleted_us: int | None = None
    """Kept after deletion, for the ledger names it."""
    parent: str | None = None
    """Public id of the team's key, whose limits bound all its children together."""
    limits: KeyLimits = NO_LIMITS

    def __repr__(self) -> str:
        """Without digests: they are nobody's business."""
        return f"KeyRecord({self.id!r}, {self.name!r})"

    __str__ = __repr__

    @property
    def hash(self) -> str:
        """What the admin API calls it by: 64 hex digits, which say nothing of the key and work as none."""
        return hash_of(self.id)

    def why_refused(self, unix_us: int) -> str | None:
        """Why it is not good at that time; None where it is."""
        if self.deleted_us is not None:
            return "deleted"
        if self.disabled:
            return "disabled"
        if self.expires_us is not None and unix_us >= self.expires_us:
            return "expired"
        return None


def hash_of(key_id: str) -> str:
    """The admin API's name for a key, from its public id."""
    return sha256(b"mixgate client key " + key_id.encode()).hexdigest()


def is_within(child: KeyLimits, parent: KeyLimits) -> str | None:
    """The first limit of `child` that grants more than `parent` does; None where it is a subset.

    Budgets and rates need no comparing: what a child spends counts for its parent too.
    """
    for field in ("models", "providers"):
        wanted, granted = getattr(child, field), getattr(parent, field)
        if granted is not None and wanted is not None and not set(wanted) <= set(granted):
            return field
    return None

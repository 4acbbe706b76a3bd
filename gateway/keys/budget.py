"""The arithmetic of budgets: windows in UTC, what is left of them, and how long an answer that affords. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from gateway.keys.key import WINDOWS, KeyLimits, Window

PICO_PER_NANO: Final = 1000
OUTPUT_MIN_TOKENS: Final = 16
"""An answer shorter than this is not worth its prompt: then it is refused, not cut."""
AMOUNT_MAX_IN_NUSD: Final = 10**18
"""A billion dollars: no budget, and no bill, is larger."""
SPANS_KEPT: Final = 8
"""Spans of one window whose spending is remembered, for a clock that was set back."""
DAY_S: Final = 86_400
_MONDAY_OFFSET_DAYS: Final = 3
"""1970-01-01 was a Thursday."""


class Offer(Struct, frozen=True, gc=False):
    """What an answer may cost at one Endpoint, in pico-USD."""

    endpoint: str
    fixed_in_pusd: int | None
    """For the prompt, its images and the request itself. None: nobody knows its price."""
    output_in_pusd: int
    """For each token of the answer."""
    output_tokens: int
    """The longest answer it could give to this request."""

    def worst_in_nusd(self, output_tokens: int) -> int:
        """The most that an answer of up to so many tokens costs, rounded up."""
        tokens = min(output_tokens, self.output_tokens)
        return -(-((self.fixed_in_pusd or 0) + tokens * self.output_in_pusd) // PICO_PER_NANO)

    def affords(self, left_in_nusd: int) -> int:
        """How long an answer what is left pays for, in tokens; below 0 where not even the prompt."""
        if self.fixed_in_pusd is None:
            return -1
        left = left_in_nusd * PICO_PER_NANO - self.fixed_in_pusd
        if left < 0:
            # What costs nothing can be had with nothing, and with debts too.
            return self.output_tokens if not self.fixed_in_pusd and not self.output_in_pusd else -1
        return self.output_tokens if not self.output_in_pusd else min(self.output_tokens, left // self.output_in_pusd)


class Afforded(Struct, frozen=True, gc=False):
    """What can be had for what is left."""

    amount_in_nusd: int
    """To be reserved: the most that any of `endpoints` costs."""
    output_tokens: int
    """How long the answer may be."""
    clamped: bool
    """That is shorter than what was asked for."""
    endpoints: tuple[str, ...]
    """Who can be asked for it; the others cost too much."""


def afford(offers: Sequence[Offer], left_in_nusd: int) -> Afforded | None:
    """Choose how long an answer may be, and at whom. None where nobody can be afforded.

    The first Endpoint that can be afforded at all decides the length, as it is the one that will be asked; of the
    others, those stay that cost no more than is left at this length.
    """
    first = next((one for one in offers if _is_useful(one, left_in_nusd)), None)
    if first is None:
        return None
    tokens = first.affords(left_in_nusd)
    kept = [one for one in offers if one.affords(left_in_nusd) >= min(tokens, one.output_tokens)]
    return Afforded(
        max(one.worst_in_nusd(tokens) for one in kept),
        tokens,
        tokens < first.output_tokens,
        tuple([one.endpoint for one in kept]),
    )


def _is_useful(offer: Offer, left_in_nusd: int) -> bool:
    tokens = offer.affords(left_in_nusd)
    return tokens >= min(OUTPUT_MIN_TOKENS, offer.output_tokens) and tokens >= 0


def span_start(window: Window, unix_s: float) -> int:
    """When the window that a moment lies in began: Unix seconds. UTC has no daylight saving to mind."""
    day = int(unix_s // DAY_S)
    if window == "day":
        return day * DAY_S
    if window == "week":
        return (day - (day + _MONDAY_OFFSET_DAYS) % 7) * DAY_S
    if window == "month":
        return int(datetime.fromtimestamp(unix_s, UTC).replace(day=1, hour=0, minute=0, second=0).timestamp())
    return 0


def span_end(window: Window, unix_s: float) -> int | None:
    """When it ends, as the first second after it; None where it never does."""
    start = span_start(window, unix_s)
    if window == "month":
        first = datetime.fromtimestamp(start, UTC)
        return int((first.replace(day=28) + timedelta(days=4)).replace(day=1).timestamp())
    return {"day": start + DAY_S, "week": start + 7 * DAY_S}.get(window)


Starts = tuple[int, int, int, int]
"""When the spans of a moment began, in the order of WINDOWS: Unix seconds."""


def span_starts(unix_s: float) -> Starts:
    """When the spans of all windows that a moment lies in began."""
    return span_start("day", unix_s), span_start("week", unix_s), span_start("month", unix_s), 0


class Standing(Struct, frozen=True, gc=False):
    """One window of one key: what may be spent, what was, and what is spoken for."""

    key_id: str
    window: Window
    budget_in_nusd: int
    spent_in_nusd: int
    reserved_in_nusd: int

    @property
    def left_in_nusd(self) -> int:
        """Below zero where an answer cost more than its provider's prices say."""
        return self.budget_in_nusd - self.spent_in_nusd - self.reserved_in_nusd


class Account:
    """What one key and its children spent, by the span of each window, and what is reserved for them.

    A reservation counts in whatever span it is now, until it is settled; what it comes to counts in the span in which
    it was sent. So no span ever holds more than its budget, on whichever side of midnight an answer ends.
    """

    __slots__ = ("_spent", "id", "reserved_in_nusd")

    def __init__(self, key_id: str = "") -> None:
        self.id = key_id
        self.reserved_in_nusd = 0
        self._spent: tuple[dict[int, int], ...] = ({}, {}, {}, {})

    def spent(self, window: Window, starts: Starts) -> int:
        """In one window, in nano-USD."""
        place = WINDOWS.index(window)
        return self._spent[place].get(self._span(place, starts), 0)

    def add(self, amount_in_nusd: int, starts: Starts) -> None:
        """Something was spent, in the spans that began at `starts`."""
        for place, spans in enumerate(self._spent):
            span = self._span(place, starts)
            spans[span] = spans.get(span, 0) + amount_in_nusd
            if len(spans) > SPANS_KEPT:
                del spans[min(spans)]

    def load(self, window: Window, start: int, amount_in_nusd: int) -> None:
        """Something was spent in one window before this Account was made."""
        spans = self._spent[WINDOWS.index(window)]
        spans[start] = spans.get(start, 0) + amount_in_nusd

    def totals(self) -> list[tuple[int, int, int]]:
        """All that was spent: the window's place in WINDOWS, when its span began, and how much."""
        return [
            (place, span, amount) for place, spans in enumerate(self._spent) for span, amount in spans.items() if amount
        ]

    def tightest(self, key_id: str, limits: KeyLimits, starts: Starts) -> Standing | None:
        """The window with the least left; None where none has a limit."""
        found: Standing | None = None
        for window in WINDOWS:
            budget = limits.budget(window)
            if budget is None:
                continue
            one = Standing(key_id, window, budget, self.spent(window, starts), self.reserved_in_nusd)
            if found is None or one.left_in_nusd < found.left_in_nusd:
                found = one
        return found

    def _span(self, place: int, starts: Starts) -> int:
        """A span, or the oldest that is remembered where the clock was set back further than that."""
        spans, start = self._spent[place], starts[place]
        return start if start in spans or len(spans) < SPANS_KEPT else max(start, min(spans))

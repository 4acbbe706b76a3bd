"""How much more than was asked may be sent: budgets for repeats and for hedges. Pure."""

from typing import Final

BUCKETS: Final = 60
"""Of a second each: what was put in or taken out counts for a minute."""
UNIT: Final = 100
"""Tokens are counted in hundredths, so that shares add up exactly."""
RETRY_SHARE_PERCENT: Final = 20
RETRY_FLOOR: Final = 1
"""Repeats per second that need no request to pay for them."""
RETRY_CONCURRENT_MIN: Final = 3
RETRY_CONCURRENT_SHARE: Final = 0.2
HEDGE_SHARE_PERCENT: Final = 5
HEDGE_BUCKET_S: Final = 5.0
"""Slow answers come in clumps: what a hedge may be paid from is that of five minutes."""


class _Purse:
    """What requests put in over the last minute, less what was taken out in it."""

    __slots__ = ("_balance", "_epoch", "_floor", "_seconds")

    def __init__(self, floor: int) -> None:
        self._floor = floor
        self._balance = 0
        self._seconds = [0] * BUCKETS
        self._epoch = 0

    def add(self, amount: int, now_s: float) -> None:
        second = int(now_s)
        if second > self._epoch:
            self._advance(second)
        self._seconds[self._epoch % BUCKETS] += amount
        self._balance += amount

    def can_take(self, amount: int, now_s: float) -> bool:
        second = int(now_s)
        if second > self._epoch:
            self._advance(second)
        return self._balance + self._floor >= amount

    def _advance(self, second: int) -> None:
        if second - self._epoch >= BUCKETS:
            self._seconds = [0] * BUCKETS
            self._balance = 0
        else:
            for passed in range(self._epoch + 1, second + 1):
                self._balance -= self._seconds[passed % BUCKETS]
                self._seconds[passed % BUCKETS] = 0
        self._epoch = second


class RetryBudget:
    """Repeats on the same Endpoint: 0.2 for each request of the last minute, and one per second in any case.

    At the same time there are never more of them than a fifth of the requests on their way, or three.

    Args:
        parent: A wider budget that has to agree: that of a Route has the whole gateway's.
    """

    __slots__ = ("_parent", "_purse", "in_flight", "retrying")

    def __init__(self, parent: "RetryBudget | None" = None) -> None:
        self._parent = parent
        self._purse = _Purse(RETRY_FLOOR * BUCKETS * UNIT)
        self.in_flight = 0
        """Requests that began and have not ended."""
        self.retrying = 0

    def begin(self, now_s: float) -> None:
        """A request began. The parent is told too."""
        budget: RetryBudget | None = self
        while budget is not None:
            budget.in_flight += 1
            budget._purse.add(RETRY_SHARE_PERCENT, now_s)  # noqa: SLF001 (one of this class)
            budget = budget._parent  # noqa: SLF001 (one of this class)

    def end(self) -> None:
        """A request ended."""
        budget: RetryBudget | None = self
        while budget is not None:
            if budget.in_flight > 1:
                budget.in_flight -= 1
            else:
                budget.in_flight = budget.retrying = 0  # no repeat outlives its request
            budget = budget._parent  # noqa: SLF001 (one of this class)

    def take(self, now_s: float) -> bool:
        """Take out one repeat, here and at the parent. If there is one, `give_back` must follow when it is over."""
        if not self.has_room(now_s):
            return False
        budget: RetryBudget | None = self
        while budget is not None:
            budget._purse.add(-UNIT, now_s)  # noqa: SLF001 (one of this class)
            budget.retrying += 1
            budget = budget._parent  # noqa: SLF001 (one of this class)
        return True

    def has_room(self, now_s: float) -> bool:
        """Whether a repeat could be taken now."""
        if self.retrying >= max(RETRY_CONCURRENT_MIN, RETRY_CONCURRENT_SHARE * self.in_flight):
            return False
        return self._purse.can_take(UNIT, now_s) and (self._parent is None or self._parent.has_room(now_s))

    def give_back(self) -> None:
        """A repeat is over. What it took stays taken; another may be on its way."""
        self.retrying = max(0, self.retrying - 1)
        if self._parent is not None:
            self._parent.give_back()


class HedgeBudget:
    """Second requests sent on suspicion: one for twenty of the last five minutes, and none in advance."""

    __slots__ = ("_purse",)

    def __init__(self) -> None:
        self._purse = _Purse(0)

    def begin(self, now_s: float) -> None:
        """A request began that may be hedged."""
        self._purse.add(HEDGE_SHARE_PERCENT, now_s / HEDGE_BUCKET_S)

    def take(self, now_s: float) -> bool:
        """Take out one hedge, if there is one."""
        if not self._purse.can_take(UNIT, now_s / HEDGE_BUCKET_S):
            return False
        self._purse.add(-UNIT, now_s / HEDGE_BUCKET_S)
        return True

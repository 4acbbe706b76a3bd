"""Reserves what a request may cost before it is sent, and settles it after: budgets that cannot be overspent.

For one request there is one lease, for each of its Attempts a hold on it. At every moment, in every window of a key and
of every team above it, what was spent and what is reserved come to no more than the budget. All of it belongs to one
event loop, and nothing here waits, so that each step is one piece. Reads no clock.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from gateway.errors import KeysUnavailableError
from gateway.keys.budget import (
    AMOUNT_MAX_IN_NUSD,
    DAY_S,
    OUTPUT_MIN_TOKENS,
    Account,
    Offer,
    Standing,
    Starts,
    afford,
    span_starts,
)
from gateway.keys.key import WINDOWS, KeyRecord, Window

LEASE_EXTRA_S: Final = 60.0
"""How much longer than the request may take a lease lives, if nobody ends it."""
UNKNOWN_RETRY_S: Final = 5.0
"""When to come back while it is not known what was spent before."""
EXPIRED_MAX: Final = 65_536
"""Attempts of leases that expired, whose cost may still come in."""

Chain = Sequence[KeyRecord]
"""A key, and the teams above it."""


Past = Sequence[tuple[Window, int, Mapping[str, int]]]
"""By window, and when its span began: what each key itself spent in it, in nano-USD."""


def read_past(spent: Callable[[Window, int], Mapping[str, int]], unix_s: float) -> Past:
    """What was spent before this process. Blocks as long as `spent` does, which a thread may."""
    starts = span_starts(unix_s)
    return [(window, starts[place], spent(window, starts[place])) for place, window in enumerate(WINDOWS)]


class Grant(Struct, frozen=True, gc=False):
    """What a request may spend."""

    id: str
    amount_in_nusd: int
    output_tokens_max: int | None = None
    """How long the answer may be; None: as long as was asked."""
    clamped: bool = False
    """That is shorter than what was asked for."""
    left_in_nusd: int | None = None
    """What could be reserved, this amount included: routing's budget. None: unlimited."""
    endpoints: tuple[str, ...] | None = None
    """Who can be afforded; None: everybody."""


class Refusal(Struct, frozen=True, gc=False):
    """Nothing that could answer can be afforded."""

    standing: Standing
    """The window that stands in the way."""
    wanted_in_nusd: int | None
    """What the cheapest useful answer would take; None where nobody knows a price."""
    final: bool
    """It is spent; otherwise only reserved, and may be free again in a moment."""


class Usage(Struct, frozen=True, gc=False):
    """What a key and its children spent, in nano-USD."""

    day_in_nusd: int
    week_in_nusd: int
    month_in_nusd: int
    ever_in_nusd: int
    reserved_in_nusd: int


class _Lease:
    __slots__ = ("accounts", "amount", "closed", "deadline_s", "grant", "holds", "key_id")

    def __init__(self, key_id: str, accounts: tuple[Account, ...], grant: Grant, deadline_s: float) -> None:
        self.key_id = key_id
        self.accounts = accounts
        self.grant = grant
        self.deadline_s = deadline_s
        self.amount = 0
        self.holds: dict[str, tuple[int, Starts]] = {}
        self.closed = False

    def held(self) -> int:
        """By Attempts that are not settled."""
        return sum([amount for amount, _ in self.holds.values()])

    def resize(self, amount_in_nusd: int) -> None:
        change = amount_in_nusd - self.amount
        self.amount = amount_in_nusd
        for account in self.accounts:
            account.reserved_in_nusd += change


class Purse:
    """All issued keys' money. One for the life of the process.

    Args:
        chain_of: A key and the teams above it as they are now, by the key's public id.
    """

    def __init__(self, chain_of: Callable[[str], Chain]) -> None:
        self._chain_of = chain_of
        self._accounts: dict[str, Account] = {}
        self._leases: dict[str, _Lease] = {}
        self._deadlines: list[tuple[float, str]] = []
        self._expired: dict[str, tuple[tuple[Account, ...], Starts]] = {}
        self._starts: Starts = span_starts(0)
        self._until_s = 0
        self.knows_past = True
        """Whether what was spent before is known. While it is not, no key with a budget spends anything."""
        self.expired = 0
        """Leases that nobody ended."""
        self.overdrawn_in_nusd = 0
        """By how much answers cost more than the most that their prices come to."""

    def load(self, past: Past) -> None:
        """Begin with what the ledger knows. To be called once, before any key with a budget has spent anything."""
        for window, start, by_key in past:
            for key_id, amount in by_key.items():
                for account in self._accounts_of(key_id):
                    account.load(window, start, amount)
        self.knows_past = True

    def left(self, key_id: str, unix_s: float) -> int | None:
        """What can be reserved now, in nano-USD, never below 0; None: no budget. For `Ask.budget_in_nusd`."""
        standing = self._tightest(key_id, self._spans(unix_s))
        return None if standing is None else max(0, standing.left_in_nusd)

    def usage(self, key_id: str, unix_s: float) -> Usage:
        """What was spent, by window, and is reserved."""
        account, starts = self._account(key_id), self._spans(unix_s)
        day, week, month, ever = (account.spent(window, starts) for window in WINDOWS)
        return Usage(day, week, month, ever, account.reserved_in_nusd)

    def reserve(
        self, lease_id: str, key_id: str, offers: Sequence[Offer], *, unix_s: float, now_s: float, total_s: float
    ) -> Grant | Refusal:
        """Set aside the most that a request may cost, at the dearest of those who can be afforded.

        Args:
            lease_id: The request's; asked twice, it is granted once.
            key_id: Who pays: the public id of an issued key.
            offers: What it may cost, in the order in which they would be asked.
            unix_s: The wall clock, for the windows.
            now_s: The monotonic clock.
            total_s: How long the request may take.

        Raises:
            KeysUnavailableError: The key has a budget, and nobody knows what it spent before.
        """
        self.reap(now_s)
        if (known := self.find(lease_id)) is not None:
            return known
        standing = self._tightest(key_id, self._spans(unix_s))
        if standing is not None and not self.knows_past:
            raise KeysUnavailableError("what this key has spent is not known yet", retry_after_s=UNKNOWN_RETRY_S)
        if standing is None:
            grant = Grant(lease_id, max((one.worst_in_nusd(one.output_tokens) for one in offers), default=0))
        else:
            left = standing.left_in_nusd
            afforded = afford(offers, left)
            if afforded is None:
                return self._refuse(standing, offers, key_id, unix_s)
            grant = Grant(
                lease_id,
                afforded.amount_in_nusd,
                afforded.output_tokens,
                afforded.clamped,
                max(0, left),
                afforded.endpoints,
            )
        return self.admit(grant, key_id, now_s + total_s + LEASE_EXTRA_S)

    def find(self, lease_id: str) -> Grant | None:
        """What a request was granted, until it is over."""
        lease = self._leases.get(lease_id)
        return None if lease is None else lease.grant

    def admit(self, grant: Grant, key_id: str, deadline_s: float) -> Grant:
        """Begin a lease, whatever is left: for whoever has seen to that."""
        lease = _Lease(key_id, self._accounts_of(key_id), grant, deadline_s)
        lease.resize(grant.amount_in_nusd)
        self._leases[grant.id] = lease
        heapq.heappush(self._deadlines, (deadline_s, grant.id))
        return grant

    def restore(
        self,
        lease_id: str,
        key_id: str,
        amount_in_nusd: int,
        holds: Sequence[tuple[str, int, float]],
        *,
        until_s: float,
        closed: bool,
    ) -> None:
        """Take up a lease that an earlier Purse granted, whatever is left of any budget.

        Args:
            lease_id: The request's; one that is known stays as it is.
            key_id: Who pays.
            amount_in_nusd: What is reserved.
            holds: Its Attempts that are not settled: each with its worst case, and when it was held in Unix seconds.
            until_s: When it ends if nobody ends it, by the monotonic clock.
            closed: Whether the request is over.
        """
        if lease_id in self._leases:
            return
        grant = Grant(lease_id, amount_in_nusd)
        lease = self._leases[lease_id] = _Lease(key_id, self._accounts_of(key_id), grant, until_s)
        lease.holds = {attempt_id: (worst, self._spans(unix_s)) for attempt_id, worst, unix_s in holds}
        lease.closed = closed
        lease.resize(lease.held() if closed else max(amount_in_nusd, lease.held()))
        heapq.heappush(self._deadlines, (until_s, lease_id))

    def hold(self, lease_id: str, attempt_id: str, worst_in_nusd: int, *, unix_s: float) -> Refusal | None:
        """Take an Attempt's worst case out of the lease, and add to the lease what is missing. None: it may begin.

        What earlier Attempts of the request left over is used first, so a fallback costs no second reservation; one
        that runs beside another, as a hedge does, or at a dearer Endpoint, does.
        """
        lease, missing = self._missing(lease_id, attempt_id, worst_in_nusd)
        if missing > 0:
            standing = self._tightest(lease.key_id, self._spans(unix_s))
            if standing is not None and standing.left_in_nusd < missing:
                unspent = standing.left_in_nusd + standing.reserved_in_nusd
                return Refusal(standing, worst_in_nusd, final=unspent < missing)
        self._hold(lease, attempt_id, worst_in_nusd, missing, unix_s)
        return None

    def _missing(self, lease_id: str, attempt_id: str, worst_in_nusd: int) -> tuple[_Lease, int]:
        """A request's lease, and how much more it takes to hold an Attempt; 0 or less where it covers that."""
        lease = self._leases.get(lease_id)
        if lease is None:
            raise RuntimeError(f"{attempt_id} was not reserved, or took longer than it could")
        if attempt_id in lease.holds:
            return lease, 0
        return lease, lease.held() + worst_in_nusd - lease.amount

    def _hold(self, lease: _Lease, attempt_id: str, worst_in_nusd: int, missing: int, unix_s: float) -> None:
        if missing > 0:
            lease.resize(lease.amount + missing)
        if attempt_id not in lease.holds:
            lease.holds[attempt_id] = (worst_in_nusd, self._spans(unix_s))

    def settle(self, lease_id: str, attempt_id: str, cost_in_nusd: int | None) -> None:
        """An Attempt has ended and cost so much. Told twice, it counts once; what was never held counts nothing.

        It counts in the windows in which it was held, as the ledger has it by the time at which it was sent.

        Args:
            lease_id: The request's.
            attempt_id: As it was held.
            cost_in_nusd: None where nobody knows: then the worst case counts.
        """
        lease = self._leases.get(lease_id)
        if lease is None:
            accounts, starts = self._expired.pop(attempt_id, ((), self._starts))
            held = 0
        else:
            if attempt_id not in lease.holds:
                return
            (held, starts), accounts = lease.holds.pop(attempt_id), lease.accounts
        cost = held if cost_in_nusd is None else min(max(cost_in_nusd, 0), AMOUNT_MAX_IN_NUSD)
        for account in accounts:
            account.add(cost, starts)
        if lease is not None:
            self.overdrawn_in_nusd += max(0, cost - held)
            lease.resize(lease.held() if lease.closed else max(lease.amount - cost, lease.held()))
            self._drop_if_done(lease_id, lease)

    def release(self, lease_id: str) -> None:
        """The request is over: give back all but what is held for Attempts that are not settled yet. Idempotent."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            lease.closed = True
            lease.resize(lease.held())
            self._drop_if_done(lease_id, lease)

    def _drop_if_done(self, lease_id: str, lease: _Lease) -> None:
        if lease.closed and not lease.holds:
            del self._leases[lease_id]
            if len(self._deadlines) > 2 * len(self._leases) + 1024:
                self._deadlines = [(one.deadline_s, name) for name, one in self._leases.items()]
                heapq.heapify(self._deadlines)

    def _refuse(self, standing: Standing, offers: Sequence[Offer], key_id: str, unix_s: float) -> Refusal:
        starts = self._spans(unix_s)
        # What would be left if nothing were reserved.
        unspent = min(
            (one.left_in_nusd + one.reserved_in_nusd)
            for record in self._chain_of(key_id)
            if (one := self._account(record.id).tightest(record.id, record.limits, starts)) is not None
        )
        wanted = [one.worst_in_nusd(OUTPUT_MIN_TOKENS) for one in offers if one.fixed_in_pusd is not None]
        return Refusal(standing, min(wanted, default=None), final=afford(offers, unspent) is None)

    def _tightest(self, key_id: str, starts: Starts) -> Standing | None:
        found: Standing | None = None
        for record in self._chain_of(key_id):
            one = self._account(record.id).tightest(record.id, record.limits, starts)
            if one is not None and (found is None or one.left_in_nusd < found.left_in_nusd):
                found = one
        return found

    def _spans(self, unix_s: float) -> Starts:
        """The spans of a moment, worked out once a day."""
        if not self._until_s - DAY_S <= unix_s < self._until_s:
            self._starts = span_starts(unix_s)
            self._until_s = self._starts[0] + DAY_S
        return self._starts

    def _account(self, key_id: str) -> Account:
        account = self._accounts.get(key_id)
        if account is None:
            account = self._accounts[key_id] = self._open_account(key_id)
        return account

    def _open_account(self, key_id: str) -> Account:
        return Account(key_id)

    def _accounts_of(self, key_id: str) -> tuple[Account, ...]:
        return tuple([self._account(record.id) for record in self._chain_of(key_id)])

    def reap(self, now_s: float) -> None:
        """Give back what nobody ended in time. What its Attempts cost still counts, should it become known."""
        while self._deadlines and self._deadlines[0][0] <= now_s:
            _, lease_id = heapq.heappop(self._deadlines)
            lease = self._leases.get(lease_id)
            if lease is None or lease.deadline_s > now_s:
                continue
            self.expired += 1
            lease.resize(0)
            del self._leases[lease_id]
            for attempt_id, (_, starts) in lease.holds.items():
                self._expired[attempt_id] = (lease.accounts, starts)
            while len(self._expired) > EXPIRED_MAX:
                del self._expired[next(iter(self._expired))]

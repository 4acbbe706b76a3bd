"""Budgets and rates as the owner keeps them for its workers: who reserved what, so that it comes back when one dies.

All of it belongs to the owner's event loop, and each step is one piece. Reads no clock but the one it is given.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from gateway.keys.limits import Allowance, Kind, Limited, Limiter, Pass
from gateway.keys.purse import Grant, Purse, Refusal, Usage
from gateway.state.entries import ENTRY_COLUMNS, Row
from gateway.workers.messages import AllowancesAsked, Enter, Hello, Hold, Leave, OpenLease, Release, Reserve, Settle

_ATTEMPT: Final = ENTRY_COLUMNS.index("attempt_id")
_BEGAN: Final = ENTRY_COLUMNS.index("unix_us")
_COST: Final = ENTRY_COLUMNS.index("cost_in_nusd")


class _Lease:
    """What is under way, and which of its Attempts were counted."""

    __slots__ = ("closed", "counted", "held")

    def __init__(self, *, closed: bool = False) -> None:
        self.closed = closed
        self.held: set[str] = set()
        self.counted: set[str] = set()


class Counter:
    """One Purse and one Limiter for all workers.

    Args:
        purse: The keys' money.
        limiter: How often they may ask.
        now_s: The monotonic clock.
    """

    def __init__(self, purse: Purse, limiter: Limiter, now_s: Callable[[], float]) -> None:
        self.purse = purse
        self.limiter = limiter
        self._now_s = now_s
        self._leases: dict[str, dict[str, _Lease]] = {}
        self._passes: dict[str, dict[int, Pass]] = {}

    @property
    def leases(self) -> int:
        """Requests that have something reserved."""
        return sum(len(leases) for leases in self._leases.values())

    def take_up(self, worker: str, hello: Hello, in_ledger: frozenset[str] = frozenset()) -> None:
        """A worker has been at work before this owner was: what it has reserved holds on.

        Args:
            worker: Its name.
            hello: What it says.
            in_ledger: Attempts that are settled and counted by now, whatever it says.
        """
        for lease in hello.leases:
            self._restore(worker, lease, in_ledger)
        passes = self._passes.setdefault(worker, {})
        for key_id, number, _ in hello.running:
            # What it took from the buckets is forgotten with the owner that knew; how many run is not.
            entered = self.limiter.enter(key_id, 0, self._now_s())
            if isinstance(entered, Pass):
                passes[number] = entered

    def _restore(self, worker: str, lease: OpenLease, in_ledger: frozenset[str]) -> None:
        holds = [one for one in lease.holds if one.attempt_id not in in_ledger]
        if lease.closed and not holds:
            return
        self.purse.restore(
            lease.lease_id,
            lease.key_id,
            lease.amount_in_nusd,
            [(one.attempt_id, one.worst_in_nusd, one.unix_s) for one in holds],
            until_s=lease.until_s,
            closed=lease.closed,
        )
        kept = self._leases.setdefault(worker, {})[lease.lease_id] = _Lease(closed=lease.closed)
        kept.held.update(one.attempt_id for one in holds)

    def reserve(self, worker: str, asked: Reserve) -> tuple[Grant | None, Refusal | None]:
        """As `Purse.reserve`."""
        found = self.purse.reserve(
            asked.lease_id,
            asked.key_id,
            asked.offers,
            unix_s=asked.unix_s,
            now_s=asked.now_s,
            total_s=asked.total_s,
        )
        if isinstance(found, Refusal):
            return None, found
        self._leases.setdefault(worker, {}).setdefault(asked.lease_id, _Lease())
        return found, None

    def hold(self, worker: str, asked: Hold) -> Refusal | None:
        """As `Purse.hold`."""
        lease = self._leases.get(worker, {}).get(asked.lease_id)
        if lease is None:
            raise RuntimeError(f"{asked.attempt_id} was not reserved, or took longer than it could")
        refused = self.purse.hold(asked.lease_id, asked.attempt_id, asked.worst_in_nusd, unix_s=asked.unix_s)
        if refused is None:
            lease.held.add(asked.attempt_id)
        return refused

    def settle(self, worker: str, told: Settle) -> None:
        """As `Purse.settle`."""
        self.purse.settle(told.lease_id, told.attempt_id, told.cost_in_nusd)
        leases = self._leases.get(worker, {})
        lease = leases.get(told.lease_id)
        if lease is not None and told.attempt_id in lease.held:
            lease.held.discard(told.attempt_id)
            lease.counted.add(told.attempt_id)
            if lease.closed and not lease.held:
                del leases[told.lease_id]

    def release(self, worker: str, told: Release) -> None:
        """As `Purse.release`."""
        self.purse.release(told.lease_id)
        leases = self._leases.get(worker, {})
        lease = leases.get(told.lease_id)
        if lease is not None:
            lease.closed = True
            if not lease.held:
                del leases[told.lease_id]

    def usage(self, key_ids: Iterable[str], unix_s: float) -> Mapping[str, Usage]:
        """As `Budgets.usage`."""
        return {key_id: self.purse.usage(key_id, unix_s) for key_id in key_ids}

    def enter(self, worker: str, asked: Enter) -> Limited | None:
        """As `Limiter.enter`."""
        found = self.limiter.enter(asked.key_id, asked.tokens, asked.now_s)
        if isinstance(found, Limited):
            return found
        self._passes.setdefault(worker, {})[asked.held] = found
        return None

    def leave(self, worker: str, told: Leave) -> None:
        """As `Limiter.leave`."""
        held = self._passes.get(worker, {}).pop(told.held, None)
        if held is not None:
            self.limiter.leave(held, told.tokens, told.now_s)

    def allowances(self, asked: AllowancesAsked) -> dict[Kind, Allowance]:
        """As `Limiter.allowances`."""
        return self.limiter.allowances(asked.key_id, asked.now_s)

    def count_left(self, worker: str, rows: Sequence[Row]) -> None:
        """A worker is gone, and these are rows of its journal: what it did not tell before counts now."""
        leases = self._leases.get(worker, {})
        for row in rows:
            attempt_id = str(row[_ATTEMPT])
            lease_id = attempt_id.partition("/")[0]
            lease = leases.get(lease_id)
            if lease is None or attempt_id in lease.counted:
                continue
            if attempt_id not in lease.held:
                # It had told, and nobody heard it. The lease covers it; that what it cost counts is what matters.
                self.purse.hold(lease_id, attempt_id, 0, unix_s=_began_unix_s(row))
            self.purse.settle(lease_id, attempt_id, row[_COST])
            lease.held.discard(attempt_id)
            lease.counted.add(attempt_id)

    def bury(self, worker: str) -> None:
        """A worker is gone, and all of its journal is counted: nothing stays reserved for it."""
        for lease_id, lease in self._leases.pop(worker, {}).items():
            for attempt_id in lease.held:
                # It is in no journal, so it was never sent.
                self.purse.settle(lease_id, attempt_id, 0)
            self.purse.release(lease_id)
        for held in self._passes.pop(worker, {}).values():
            self.limiter.leave(held, None, self._now_s())


def _began_unix_s(row: Row) -> float:
    return int(row[_BEGAN]) / 1_000_000

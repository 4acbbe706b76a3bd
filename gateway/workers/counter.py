"""Budgets and rates as the owner keeps them for its workers: who reserved what, so that it comes back when one dies.

All of it belongs to the owner's event loop, and each step is one piece. Reads no clock but the one it is given.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from gateway.keys.limits import Allowance, Kind, Limited, Pass
from gateway.keys.purse import Grant, Purse, Refusal, Usage
from gateway.sharing.base import Later, StateStore
from gateway.state.entries import ENTRY_COLUMNS, Row
from gateway.workers.messages import (
    AllowancesAsked,
    Enter,
    Hello,
    Hold,
    Leave,
    OpenLease,
    Release,
    Reserve,
    Settle,
    UsageAsked,
)

Value = TypeVar("Value")
_ATTEMPT: Final = ENTRY_COLUMNS.index("attempt_id")
_BEGAN: Final = ENTRY_COLUMNS.index("unix_us")
_RESERVED: Final = ENTRY_COLUMNS.index("reserved_in_nusd")
_SOURCE: Final = ENTRY_COLUMNS.index("usage_source")
_COST: Final = ENTRY_COLUMNS.index("cost_in_nusd")


class _Lease:
    """What is under way, and which of its Attempts were counted."""

    __slots__ = ("closed", "counted", "held")

    def __init__(self, *, closed: bool = False) -> None:
        self.closed = closed
        self.held: set[str] = set()
        self.counted: set[str] = set()


class Counter:
    """One Purse for all workers, of this machine alone or of a fleet.

    Args:
        store: Who may spend and ask.
        purse: The keys' money, as far as this machine spends it.
        now_s: The monotonic clock.
    """

    def __init__(self, store: StateStore, purse: Purse, now_s: Callable[[], float]) -> None:
        self.store = store
        self.purse = purse
        self._now_s = now_s
        self._prompt = store.status().kind == "memory"
        self._asking: dict[tuple[str, str | int], asyncio.Task[Any]] = {}
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
            self._ask((worker, number), self._enter_again(passes, key_id, number))

    async def _enter_again(self, passes: dict[int, Pass], key_id: str, number: int) -> None:
        entered = await self.store.rates.enter(key_id, 0, self._now_s())
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

    def _ask(self, name: "tuple[str, str | int]", asking: Coroutine[Any, Any, Value]) -> "Value | asyncio.Task[Value]":
        """What is known at once, or somebody else has to be asked for: that can be given up by its name."""
        if self._prompt:
            return _now(asking)
        task = self._asking[name] = asyncio.ensure_future(asking)
        task.add_done_callback(lambda _: self._asking.pop(name, None))
        return task

    def _give_up(self, name: "tuple[str, str | int]") -> None:
        task = self._asking.pop(name, None)
        if task is not None:
            task.cancel()

    def reserve(self, worker: str, asked: Reserve) -> Any:
        """As `Budgets.reserve`: a Grant or a Refusal."""
        reserving = self._reserve(worker, asked)
        return _now(reserving) if asked.told else self._ask((worker, asked.lease_id), reserving)

    async def _reserve(self, worker: str, asked: Reserve) -> tuple[Grant | None, Refusal | None]:
        found = await self.store.budgets.reserve(
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

    def hold(self, worker: str, asked: Hold) -> Any:
        """As `Budgets.hold`: None or a Refusal."""
        lease = self._leases.get(worker, {}).get(asked.lease_id)
        if lease is None:
            raise RuntimeError(f"{asked.attempt_id} was not reserved, or took longer than it could")
        budgets = self.store.budgets
        found = budgets.hold(asked.lease_id, asked.attempt_id, asked.worst_in_nusd, unix_s=asked.unix_s)
        if isinstance(found, Later):
            return self._ask((worker, asked.attempt_id), self._hold_later(lease, asked, found))
        if found is None:
            lease.held.add(asked.attempt_id)
        return found

    async def _hold_later(self, lease: _Lease, asked: Hold, later: Later) -> Refusal | None:
        refused = await later
        if refused is None:
            lease.held.add(asked.attempt_id)
        return refused

    def settle(self, worker: str, told: Settle) -> None:
        """As `Budgets.settle`."""
        self._give_up((worker, told.attempt_id))
        self.store.budgets.settle(told.lease_id, told.attempt_id, told.cost_in_nusd)
        leases = self._leases.get(worker, {})
        lease = leases.get(told.lease_id)
        if lease is not None and told.attempt_id in lease.held:
            lease.held.discard(told.attempt_id)
            lease.counted.add(told.attempt_id)
            if lease.closed and not lease.held:
                del leases[told.lease_id]

    def release(self, worker: str, told: Release) -> None:
        """As `Budgets.release`."""
        self._give_up((worker, told.lease_id))
        self.store.budgets.release(told.lease_id)
        leases = self._leases.get(worker, {})
        lease = leases.get(told.lease_id)
        if lease is not None:
            lease.closed = True
            if not lease.held:
                del leases[told.lease_id]

    def usage(self, worker: str, asked: UsageAsked) -> Any:
        """As `Budgets.usage`."""
        return self._ask((worker, ""), self._usage(asked))

    async def _usage(self, asked: UsageAsked) -> Mapping[str, Usage]:
        return await self.store.budgets.usage(asked.key_ids, asked.unix_s)

    def enter(self, worker: str, asked: Enter) -> Any:
        """As `Rates.enter`: None or Limited."""
        return self._ask((worker, asked.held), self._enter(worker, asked))

    async def _enter(self, worker: str, asked: Enter) -> Limited | None:
        found = await self.store.rates.enter(asked.key_id, asked.tokens, asked.now_s)
        if isinstance(found, Limited):
            return found
        self._passes.setdefault(worker, {})[asked.held] = found
        return None

    def leave(self, worker: str, told: Leave) -> None:
        """As `Rates.leave`."""
        self._give_up((worker, told.held))
        held = self._passes.get(worker, {}).pop(told.held, None)
        if held is not None:
            self.store.rates.leave(held, told.tokens, told.now_s)

    async def allowances(self, asked: AllowancesAsked) -> dict[Kind, Allowance]:
        """As `Rates.allowances`."""
        return await self.store.rates.allowances(asked.key_id, asked.now_s)

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
            self.purse.settle(lease_id, attempt_id, _most(row))
            lease.held.discard(attempt_id)
            lease.counted.add(attempt_id)

    def bury(self, worker: str) -> None:
        """A worker is gone, and all of its journal is counted: nothing stays reserved for it."""
        for name in [name for name in self._asking if name[0] == worker]:
            self._give_up(name)
        for lease_id, lease in self._leases.pop(worker, {}).items():
            for attempt_id in lease.held:
                # It is in no journal, so it was never sent.
                self.purse.settle(lease_id, attempt_id, 0)
            self.purse.release(lease_id)
        for held in self._passes.pop(worker, {}).values():
            self.store.rates.leave(held, None, self._now_s())


def _most(row: Row) -> int | None:
    """What an Attempt may have cost. One that was cut is guessed in the ledger, and may be billed up to its worst."""
    if row[_SOURCE] != "recovered":
        cost: int | None = row[_COST]
        return cost
    return max(row[_COST] or 0, int(row[_RESERVED]))


def _now(asking: Coroutine[Any, Any, Value]) -> Value:
    """What nobody else has to be asked for, in one piece."""
    try:
        asking.send(None)
    except StopIteration as end:
        value: Value = end.value
        return value
    asking.close()
    raise RuntimeError("what is known here was asked for elsewhere")


def _began_unix_s(row: Row) -> float:
    return int(row[_BEGAN]) / 1_000_000

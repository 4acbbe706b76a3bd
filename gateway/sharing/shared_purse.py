"""A Purse whose accounts others draw on too: what changes in it is collected, to be told to whoever keeps the sums."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from gateway.keys.budget import Account, Standing, Starts
from gateway.keys.key import WINDOWS
from gateway.keys.purse import Chain, Grant, Past, Purse, Usage

Span = tuple[int, int]
"""A window's place in WINDOWS, and when its span began in Unix seconds."""
WINDOW_LETTERS: Final = "dwme"
"""Of the windows, in the order of WINDOWS."""


class State(Struct, frozen=True, gc=False):
    """One account as whoever keeps the sums has it. Nano-USD."""

    account: str
    reserved_in_nusd: int
    spent_in_nusd: tuple[int, ...]
    """In the order of WINDOWS."""


class SharedAccount(Account):
    """An Account that remembers what of it was not told yet."""

    __slots__ = ("landing_in_nusd", "others", "spare_in_nusd", "told_kept_in_nusd", "told_reserved_in_nusd", "untold")

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.untold: dict[Span, int] = {}
        self.told_reserved_in_nusd = 0
        """What the sums hold as reserved by this process, spares included."""
        self.told_kept_in_nusd = 0
        """And of that for requests."""
        self.spare_in_nusd = 0
        """Reserved for requests that may come while nobody can be asked."""
        self.landing_in_nusd = 0
        """Granted to requests that do not know it yet."""
        self.others: State | None = None
        """What all others have spent and reserved, as far as known."""

    def add(self, amount_in_nusd: int, starts: Starts) -> None:
        """Something was spent."""
        if amount_in_nusd:
            for place in range(len(WINDOWS)):
                span = place, self._span(place, starts)
                self.untold[span] = self.untold.get(span, 0) + amount_in_nusd
        super().add(amount_in_nusd, starts)

    @property
    def kept_in_nusd(self) -> int:
        """What requests have, or are about to."""
        return self.reserved_in_nusd + self.landing_in_nusd

    def take_changes(self) -> tuple[int, int, dict[Span, int]]:
        """What changed of reserved and kept, and was spent, since it was told last; that is now."""
        kept = self.kept_in_nusd
        reserved = kept + self.spare_in_nusd
        changes = reserved - self.told_reserved_in_nusd, kept - self.told_kept_in_nusd, self.untold
        self.told_reserved_in_nusd, self.told_kept_in_nusd, self.untold = reserved, kept, {}
        return changes

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to say of it."""
        return not (self.kept_in_nusd or self.spare_in_nusd or any(amount for _, _, amount in self.totals()))


class SharedPurse(Purse):
    """A Purse that holds what this process spent and reserves; how much it may is somebody else's to say."""

    def __init__(self, chain_of: Callable[[str], Chain]) -> None:
        super().__init__(chain_of)
        self.changed: dict[str, SharedAccount] = {}
        """Accounts that have something to be told, in order."""
        self.on_change: Callable[[], None] = _nothing

    def load(self, past: Past) -> None:
        """Begin with what the ledger knows; all of it is told when this process joins the others."""
        super().load(past)
        self.on_change()

    def account(self, key_id: str) -> SharedAccount:
        """A key's account."""
        account = self._account(key_id)
        assert isinstance(account, SharedAccount)  # noqa: S101 (see _open_account)
        return account

    def accounts(self) -> list[SharedAccount]:
        """All that there are."""
        return [one for one in self._accounts.values() if isinstance(one, SharedAccount)]

    def chain_accounts(self, key_id: str) -> tuple[SharedAccount, ...]:
        """Those of a key and of the teams above it."""
        return tuple(self.account(record.id) for record in self._chain_of(key_id))

    def starts(self, unix_s: float) -> Starts:
        """When the spans of a moment began."""
        return self._spans(unix_s)

    def note(self, accounts: Sequence[Account]) -> None:
        """These have changed."""
        for one in accounts:
            if isinstance(one, SharedAccount):
                self.changed[one.id] = one
        self.on_change()

    def admit(self, grant: Grant, key_id: str, deadline_s: float) -> Grant:
        """Begin a lease."""
        found = super().admit(grant, key_id, deadline_s)
        self.note(self._leases[grant.id].accounts)
        return found

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
        """Take up a lease that an earlier Purse granted."""
        super().restore(lease_id, key_id, amount_in_nusd, holds, until_s=until_s, closed=closed)
        self.note(self._leases[lease_id].accounts)

    def missing(self, lease_id: str, attempt_id: str, worst_in_nusd: int) -> tuple[str, int]:
        """Whose lease it is, and how much it lacks to hold an Attempt; 0 or less where it covers that."""
        lease, missing = self._missing(lease_id, attempt_id, worst_in_nusd)
        return lease.key_id, missing

    def is_open(self, lease_id: str) -> bool:
        """Whether a request goes on."""
        lease = self._leases.get(lease_id)
        return lease is not None and not lease.closed

    def take_hold(self, lease_id: str, attempt_id: str, worst_in_nusd: int, *, unix_s: float) -> None:
        """Hold an Attempt, whatever is left: for whoever has seen to that."""
        lease, missing = self._missing(lease_id, attempt_id, worst_in_nusd)
        self._hold(lease, attempt_id, worst_in_nusd, missing, unix_s)
        if missing > 0:
            self.note(lease.accounts)

    def settle(self, lease_id: str, attempt_id: str, cost_in_nusd: int | None) -> None:
        """An Attempt has ended."""
        lease = self._leases.get(lease_id)
        accounts = self._expired.get(attempt_id, ((),))[0] if lease is None else lease.accounts
        super().settle(lease_id, attempt_id, cost_in_nusd)
        self.note(accounts)

    def release(self, lease_id: str) -> None:
        """The request is over."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            super().release(lease_id)
            self.note(lease.accounts)

    def reap(self, now_s: float) -> None:
        """Give back what nobody ended in time."""
        expired = self.expired
        super().reap(now_s)
        if self.expired != expired:
            self.note(self.accounts())

    def usage(self, key_id: str, unix_s: float) -> Usage:
        """What this process spent, and the others as far as known."""
        own, others = super().usage(key_id, unix_s), self.account(key_id).others
        if others is None:
            return own
        day, week, month, ever = others.spent_in_nusd
        return Usage(
            own.day_in_nusd + day,
            own.week_in_nusd + week,
            own.month_in_nusd + month,
            own.ever_in_nusd + ever,
            own.reserved_in_nusd + others.reserved_in_nusd,
        )

    def standings(self, key_id: str, states: Mapping[str, State]) -> list[Standing]:
        """How every budget that bounds a key stands."""
        found: list[Standing] = []
        for record in self._chain_of(key_id):
            state = states.get(record.id)
            for place, window in enumerate(WINDOWS):
                budget = record.limits.budget(window)
                if budget is not None and state is not None:
                    found.append(
                        Standing(record.id, window, budget, state.spent_in_nusd[place], state.reserved_in_nusd)
                    )
        return found

    def _open_account(self, key_id: str) -> Account:
        return SharedAccount(key_id)


def _nothing() -> None:
    """Nobody wants to know."""

"""What each key of a fleet has spent, by the ledger that its gateways send their rows to."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from gateway.keys.purse import Past, read_past
from gateway.keys.storage import spending
from gateway.state.errors import StoreError

SILENT_AFTER_S: Final = 60.0
"""A gateway that has said nothing for so long may be gone, with rows that nobody else has."""


class FleetPast(Struct, frozen=True):
    """What was spent, and what is not in it yet."""

    past: Past
    rows_to_come: int
    """Of gateways that are there: rows that these have still to send."""
    silent: tuple[str, ...]
    """Hosts that have not been heard of lately, and may have more of them."""


def fleet_past(url: str, key_ids: Sequence[str], unix_s: float) -> FleetPast:
    """What keys have spent in a whole fleet. Blocks.

    It is at least that much: a row comes a moment after it was settled, and what is on its way has none. Whoever grants
    money by it waits until `rows_to_come` is 0, or holds back what its own gateway has not sent.

    Args:
        url: Of the fleet's Postgres.
        key_ids: The keys that are wanted, where a report has no room for all.
        unix_s: Now.

    Raises:
        StoreError: It cannot be asked now.
    """
    # SQLAlchemy takes a second to import, which only a fleet should pay for.
    from gateway.state.postgres_reader import open_fleet  # noqa: PLC0415

    with open_fleet(url) as fleet:
        replicas = fleet.replicas()
        past = read_past(spending(fleet, key_ids), unix_s)
    there = [one for one in replicas if one.silent_s < SILENT_AFTER_S]
    silent = tuple(one.host for one in replicas if one.silent_s >= SILENT_AFTER_S and one.waiting)
    if not replicas:
        raise StoreError("no gateway of the fleet has sent anything yet")
    return FleetPast(past, sum(one.waiting for one in there), silent)

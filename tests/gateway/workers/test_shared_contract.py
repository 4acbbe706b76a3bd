"""A worker's StateStore promises what every other does: the very same tests, asked of an owner over its socket."""

import asyncio

from tests.gateway.sharing import test_contract
from tests.gateway.workers.workers_kit import owner_of, until, worker_of

THEIR_OWN = {
    "test_before_the_past_is_known_no_budget_is_spent",
    "test_those_who_tell_hear_the_others_and_only_while_it_holds",
}
"""Of other stores."""


async def kept(promise, home):
    async with owner_of(home, *test_contract.RECORDS) as owner:
        async with worker_of(home, "w1", *test_contract.RECORDS) as state:
            await until(lambda: owner.money.whole)
            await promise(state)


async def test_a_worker_keeps_every_promise(tmp_path):
    promises = {
        name: promise
        for name, promise in vars(test_contract).items()
        if name.startswith("test_") and name not in THEIR_OWN
    }
    assert len(promises) >= 18
    # Beside one another, as most of the time is waiting for a disk.
    found = await asyncio.gather(
        *(kept(promise, tmp_path / name[-60:]) for name, promise in promises.items()), return_exceptions=True
    )
    broken = {name: error for name, error in zip(promises, found, strict=True) if error is not None}
    assert not broken

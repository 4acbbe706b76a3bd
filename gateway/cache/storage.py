"""What was saved, on its way to mixgate.db: every few seconds, and at the end."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Protocol

from gateway.cache.savings import Savings
from gateway.state.cache_rows import write_cache_rows
from gateway.state.errors import StoreError

STORE_EVERY_S: Final = 5.0
"""How often what was saved is stored. So much is lost when a process is killed; records of requests have it too."""


class Submits(Protocol):
    """The store, as far as this needs it."""

    def submit(self, work: Callable[[sqlite3.Connection], None]) -> "Future[None]":
        """Have the writer do something, in a transaction of its own."""
        ...


async def store_on(savings: Savings, store: Submits) -> None:
    """Store what was saved, again and again, until cancelled."""
    while True:
        await asyncio.sleep(STORE_EVERY_S)
        await store_savings(savings, store)


async def store_savings(savings: Savings, store: Submits) -> None:
    """Store what was saved; where that cannot be, it waits for the next time."""
    rows = savings.take()
    if not rows:
        return
    try:
        await asyncio.wrap_future(store.submit(lambda connection: write_cache_rows(connection, rows)))
    except (StoreError, asyncio.CancelledError) as error:
        savings.put_back(rows)
        if isinstance(error, asyncio.CancelledError):
            raise

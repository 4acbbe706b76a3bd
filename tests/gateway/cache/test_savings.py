"""What giving answers again has saved, on its way to the file; and what is kept in two places."""

import asyncio
from concurrent.futures import Future
from typing import Any

from gateway.cache.savings import ROWS_MAX, Savings
from gateway.cache.storage import store_savings
from gateway.cache.store import OwnFirst
from gateway.sharing.memory import MemoryAnswers
from gateway.state.cache_rows import CacheRow, read_cache_rows
from gateway.state.connection import FILE_NAME, open_reader
from gateway.state.errors import StoreError
from gateway.state.store import Store


def test_hits_of_one_hour_key_route_and_model_add_up():
    savings = Savings()
    for unix_s, saved in ((7200.0, 5), (7300.5, 7), (10800.0, 11)):
        savings.add_hit(unix_s, "k", "r", "m", saved)
    savings.add_hit(7200.0, "other", "r", "m", 1)
    rows = savings.take()
    assert sorted(rows, key=lambda row: (row.hour, row.key_id)) == [
        CacheRow(2, "k", "r", "m", 2, 12),
        CacheRow(2, "other", "r", "m", 1, 1),
        CacheRow(3, "k", "r", "m", 1, 11),
    ]
    assert savings.take() == ()
    savings.add_hit(7200.0, "k", "r", "m", 1)
    savings.put_back(rows)
    assert CacheRow(2, "k", "r", "m", 3, 13) in savings.take()


def test_what_waits_is_bounded_and_what_is_dropped_is_counted():
    savings = Savings()
    for number in range(ROWS_MAX + 3):
        savings.add_hit(0.0, str(number), "r", "m", 1)
    savings.add_hit(0.0, "0", "r", "m", 1)
    assert savings.dropped == 3
    assert len(savings.take()) == ROWS_MAX


class Refusing:
    """A store that cannot write."""

    def submit(self, _work: Any) -> "Future[None]":
        done: Future[None] = Future()
        done.set_exception(StoreError("full"))
        return done


async def test_what_cannot_be_stored_waits_and_is_added_to_what_is_there(tmp_path: Any):
    savings = Savings()
    savings.add_hit(3600.0, "k", "r", "m", 5)
    await store_savings(savings, Refusing())
    store = Store.open(tmp_path / FILE_NAME, lambda record: record)
    for _ in range(2):
        await store_savings(savings, store)
        savings.add_hit(3601.0, "k", "r", "m", 7)
    await store_savings(savings, store)
    assert await asyncio.to_thread(store.close)
    connection = open_reader(tmp_path / FILE_NAME)
    assert read_cache_rows(connection, 1, 2) == [CacheRow(1, "k", "r", "m", 3, 19)]
    assert read_cache_rows(connection, 2, 9) == []
    connection.close()


async def test_what_is_kept_in_two_places_is_found_in_either():
    own, shared = MemoryAnswers(), MemoryAnswers()
    both, alone, elsewhere = OwnFirst(own, shared), OwnFirst(MemoryAnswers(), None), OwnFirst(MemoryAnswers(), shared)
    for store in (both, alone):
        store.put("t", "d", b"x", 10, 0)
        assert await store.get("t", "d", 9) == b"x"
        assert await store.get("u", "d", 9) is None
        assert await store.get("t", "d", 10) is None
    both.put("t", "e", b"y", 10, 0)
    assert await elsewhere.get("t", "e", 1) == b"y"

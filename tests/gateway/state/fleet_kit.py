"""Rows for a fleet's Postgres, and whether it and the file agree."""

import random
import time
from pathlib import Path

import msgspec

from gateway.state.connection import open_writer
from gateway.state.entries import Batch, Entry, PriceSnapshot
from gateway.state.ledger_reader import BYS, Filter, LedgerReader
from gateway.state.writer import Writer
from tests.fakes.listener import FULL

HOUR_US = 3_600_000_000
WAIT_S = 300.0 if FULL else 20.0
PRICE = PriceSnapshot("price-1", "p/m", '{"input": "1"}')


def entry(dice: random.Random, name: str) -> Entry:
    """Everything that a row can be."""
    known = dice.random() < 0.8
    model = dice.choice(("m1", "m2", "Ü m", "a'b\"c"))
    provider = dice.choice(("p1", "P2"))
    return Entry(
        attempt_id=f"{name}/{dice.choice((1, 1, 2))}",
        unix_us=dice.randrange(60 * HOUR_US),
        key_id=dice.choice(("", "k1", "k2")),
        route=model,
        model=model,
        endpoint=f"{provider}/{model}",
        provider=provider,
        surface="chat",
        stream=dice.random() < 0.5,
        price_id=dice.choice(("", PRICE.price_id)),
        prompt_tokens=dice.randrange(1000),
        output_limit=dice.choice((None, 5)),
        reserved_in_nusd=dice.randrange(10**12),
        app=dice.choice(("", "x", "=1+1", "😀")),
        referer="",
        user=dice.choice(("", "u")),
        session="",
        tags=dice.choice(("", "", '["a"]', '["a","ü"]')),
        ended_unix_us=1,
        outcome=dice.choice(("ok", "ok", "failed", "cancelled")),
        code=None,
        input_tokens=dice.randrange(10**6) if known else None,
        output_tokens=dice.randrange(10**6) if known else None,
        cached_tokens=dice.choice((None, 3)),
        cache_write_tokens=None,
        reasoning_tokens=dice.choice((None, 7)),
        usage_source=dice.choice(("provider", "estimate", "recovered", "none")),
        cost_in_nusd=dice.randrange(10**15) if known else None,
        cost_source="price",
        ttft_ms=dice.choice((None, 12)),
        duration_ms=1,
        upstream_id=None,
    )


def entries(count: int, seed: int, name: str = "gen") -> list[Entry]:
    dice = random.Random(seed)
    return [entry(dice, f"{name}-{number:06d}") for number in range(count)]


def fill(path: Path, rows: list[Entry]) -> None:
    """Write them into a file of their own."""
    writer = Writer(open_writer(path))
    for start in range(0, len(rows), 1000):
        writer.write_ledger(Batch([msgspec.structs.astuple(row) for row in rows[start : start + 1000]], (PRICE,)))
    writer.close()


def all_entries(reader) -> dict[str, Entry]:
    found, before = [], None
    while True:
        page = reader.entries(Filter(), before=before, count=1000)
        found += page.entries
        before = page.before
        if before is None:
            break
    assert len({one.attempt_id for one in found}) == len(found)
    return {one.attempt_id: one for one in found}


def assert_equal(fleet, path: Path, since_us: int = 0, until_us: int = 1 << 60) -> None:
    """Every row and every sum is the same in both."""
    with LedgerReader(path) as own:
        assert all_entries(fleet) == all_entries(own)
        for by in BYS:
            assert fleet.spend(by, since_us, until_us) == own.spend(by, since_us, until_us), by


def assert_sound(fleet) -> None:
    """The sums are what adding all rows up gives."""
    rows = all_entries(fleet).values()
    (total,) = fleet.spend("all", 0, 1 << 60) or (None,)
    assert (total.attempts if total else 0) == len(rows)
    assert (total.cost_in_nusd if total else 0) == sum(row.cost_in_nusd or 0 for row in rows)
    for by in ("model", "provider", "endpoint", "key", "app", "route", "day"):
        assert sum(line.cost_in_nusd for line in fleet.spend(by, 0, 1 << 60)) == (total.cost_in_nusd if total else 0)


def until(holds, timeout_s: float = WAIT_S) -> None:
    """Wait for what another thread does."""
    end_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end_s, "it does not come to pass"
        time.sleep(0.02)

"""A look-up by filters finds every row that fits, newest first, page after page, and reads only where some can be."""

import random

import msgspec
import pytest

from gateway.state import ledger_reader
from gateway.state.connection import open_writer
from gateway.state.entries import Batch, Entry
from gateway.state.ledger_reader import Filter, LedgerReader
from gateway.state.stretches import NOTED_AT_ONCE, STRETCH_ROWS, note_stretches
from gateway.state.transaction import Transaction
from gateway.state.writer import Writer

ROWS = 6 * STRETCH_ROWS + 77
STEP_US = 1_000_000
CASES = 25


def entry(dice: random.Random, number: int) -> Entry:
    """Names that are everywhere, here and there, and hardly anywhere; times that are not quite in order."""
    rare = f"rare-{number // 1500}" if dice.random() < 0.002 else "usual"
    tags = msgspec.json.encode(dice.sample(["a", "b", "ü"], dice.randrange(3))).decode() if dice.random() < 0.3 else ""
    return Entry(
        attempt_id=f"gen-{number:08d}/1",
        unix_us=number * STEP_US - dice.randrange(600 * STEP_US),
        key_id=f"k{number // 2000}",
        route="r",
        model=rare,
        endpoint=f"p{number % 3}/{rare}",
        provider=f"p{number % 3}",
        surface="chat",
        stream=True,
        price_id="",
        prompt_tokens=1,
        output_limit=None,
        reserved_in_nusd=0,
        app=dice.choice(("", "x")),
        referer="",
        user=f"u{dice.randrange(50)}",
        session="",
        tags=tags,
        ended_unix_us=number * STEP_US,
        outcome="ok" if dice.random() < 0.99 else "failed",
        code=None,
        input_tokens=1,
        output_tokens=1,
        cached_tokens=None,
        cache_write_tokens=None,
        reasoning_tokens=None,
        usage_source="provider",
        cost_in_nusd=1,
        cost_source="price",
        ttft_ms=None,
        duration_ms=1,
        upstream_id=None,
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file, its rows newest first, and its connection, with nothing looked through yet."""
    path = tmp_path_factory.mktemp("pages") / "mixgate.db"
    dice = random.Random(5)
    entries = [entry(dice, number) for number in range(ROWS)]
    connection = open_writer(path)
    writer = Writer(connection)
    for start in range(0, ROWS, 1000):
        writer.write_ledger(Batch([msgspec.structs.astuple(one) for one in entries[start : start + 1000]], ()))
    yield path, entries[::-1], connection
    connection.close()


def wish(dice: random.Random) -> Filter:
    """Some filters."""
    choices = {
        "key_id": ["k0", "k2", "nobody"],
        "model": ["usual", "rare-1", "rare-3"],
        "provider": ["p0", "p1"],
        "endpoint": ["p1/usual", "p1/rare-2"],
        "app": ["", "x"],
        "tag": ["a", "ü", "%"],
        "user": ["u7"],
        "outcome": ["ok", "failed"],
        "since_unix_us": [0, 2000 * STEP_US, 5000 * STEP_US],
        "until_unix_us": [100 * STEP_US, 3000 * STEP_US],
    }
    return Filter(**{name: dice.choice(values) for name, values in choices.items() if dice.random() < 0.25})


def fits(one: Entry, wanted: Filter) -> bool:
    plain = ("key_id", "model", "provider", "endpoint", "app", "user", "outcome")
    return (
        all(getattr(wanted, name) in {None, getattr(one, name)} for name in plain)
        and (wanted.tag is None or wanted.tag in msgspec.json.decode(one.tags or "[]"))
        and (wanted.since_unix_us is None or one.unix_us >= wanted.since_unix_us)
        and (wanted.until_unix_us is None or one.unix_us < wanted.until_unix_us)
    )


def all_pages(path, wanted: Filter, count: int) -> list[Entry]:
    found, before = [], None
    with LedgerReader(path) as reader:
        while True:
            page = reader.entries(wanted, before=before, count=count)
            assert len(page.entries) <= count
            assert before is None or page.before is None or page.before < before
            found += page.entries
            if page.before is None:
                return found
            before = page.before


def note(connection, most_steps: int) -> None:
    for _ in range(most_steps):
        with Transaction(connection):
            if not note_stretches(connection):
                break


@pytest.mark.parametrize("steps", [0, 1, 100])
def test_every_row_that_fits_is_found_however_much_was_looked_through(written, steps, monkeypatch):
    path, entries, connection = written
    monkeypatch.setattr("gateway.state.stretches.NOTED_AT_ONCE", 3 if steps == 1 else NOTED_AT_ONCE)
    note(connection, steps)
    dice = random.Random(steps)
    for _ in range(CASES):
        wanted = wish(dice)
        assert all_pages(path, wanted, 700) == [one for one in entries if fits(one, wanted)], wanted


def test_a_page_ends_after_so_many_rows_and_the_next_one_goes_on(written, monkeypatch):
    path, entries, connection = written
    note(connection, 100)
    monkeypatch.setattr(ledger_reader, "SCANNED_ROWS_MAX", 2 * STRETCH_ROWS)
    wanted = Filter(user="u7", key_id="k0")
    assert all_pages(path, wanted, 1000) == [one for one in entries if fits(one, wanted)]
    with LedgerReader(path) as reader:
        page = reader.entries(Filter(user="nobody"))
    assert page.entries == ()
    assert page.before == (ROWS // STRETCH_ROWS - 1) * STRETCH_ROWS


def test_nothing_is_read_where_a_name_does_not_occur(written):
    path, entries, connection = written
    note(connection, 100)
    wanted = Filter(model="rare-1", since_unix_us=0, until_unix_us=10_000 * STEP_US)
    numbers = {ROWS - place for place, one in enumerate(entries) if fits(one, wanted)}
    with LedgerReader(path) as reader:
        unread, *spans = reader._stretches(wanted, None)
    assert unread[0] == (ROWS // STRETCH_ROWS) * STRETCH_ROWS, "nobody has looked through the last one"
    assert numbers
    assert [first // STRETCH_ROWS for first, _ in spans] == sorted({n // STRETCH_ROWS for n in numbers}, reverse=True)


def test_the_store_looks_through_what_is_full_by_itself(tmp_path, monkeypatch):
    from gateway.state import store  # noqa: PLC0415 # only its constant is wanted
    from tests.gateway.ledger.ledger_kit import Ledger  # noqa: PLC0415

    monkeypatch.setattr(store, "TIDY_EVERY_S", 0.0)
    ledger = Ledger(tmp_path)
    for number in range(STRETCH_ROWS + 10):
        ledger.whole(f"gen-{number:06d}/1")
    assert ledger.store.flush(30.0)
    assert ledger.store.flush(30.0)
    with LedgerReader(ledger.path) as reader:
        assert reader._rows("SELECT stretch FROM entry_stretch_time") == [(0,)]
        assert (0,) in reader._rows("SELECT stretch FROM entry_stretch WHERE by = 'model' AND name = 'm'")
    assert ledger.close()

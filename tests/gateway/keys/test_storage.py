"""What the ledger says of what keys have spent, and what of it is only presumed."""

import pytest

from gateway.keys.budget import span_starts
from gateway.keys.key import WINDOWS, KeyLimits, KeyRecord
from gateway.keys.purse import Purse, read_past
from gateway.keys.ring import KeyRing
from gateway.keys.storage import spending
from gateway.state.ledger_reader import LedgerReader
from gateway.state.ledger_rows import PRESUMED
from tests.gateway.ledger.ledger_kit import Ledger, rows_of, total_of

BEGAN_S = 1_700_000_000.0
"""When the kit's Attempts begin."""
WORST = 9_000_000
WAIT_S = 20.0


def past_of(path, unix_s=BEGAN_S):
    with LedgerReader(path) as reader:
        return {window: spent for window, _, spent in read_past(spending(reader, ["k"]), unix_s)}


def killed(home, *attempts):
    """Gateways that were killed one after the other in the middle of an Attempt each, and a last one that was not."""
    for attempt_id, worst in attempts:
        ledger = Ledger(home)
        assert ledger.books.wait_recovered(WAIT_S)
        ledger.begin(attempt_id, reserved_in_nusd=worst)
        assert ledger.close()
    ledger = Ledger(home)
    ledger.whole("gen-whole/1")
    assert ledger.books.wait_recovered(WAIT_S)
    assert ledger.store.flush(WAIT_S)
    assert ledger.close()
    return ledger.path


def test_what_was_cut_by_kills_counts_at_its_worst_at_every_start_and_is_an_estimate_in_the_ledger(tmp_path):
    path = killed(tmp_path, ("gen-1/1", WORST), ("gen-2/1", WORST))
    rows = rows_of(path)
    whole = rows["gen-whole/1"].cost_in_nusd
    for name in ("gen-1/1", "gen-2/1"):
        assert (rows[name].usage_source, rows[name].reserved_in_nusd) == ("recovered", WORST)
        assert 0 < rows[name].cost_in_nusd < WORST
    for _ in range(2):
        assert past_of(path) == {window: {"k": 2 * WORST + whole} for window in WINDOWS}
    assert total_of(path).cost_in_nusd == sum(row.cost_in_nusd for row in rows.values()), "reports are of the rows"


def test_an_estimate_that_is_more_than_what_was_reserved_counts_as_it_is(tmp_path):
    path = killed(tmp_path, ("gen-1/1", 1))
    assert past_of(path)["ever"] == {"k": sum(row.cost_in_nusd for row in rows_of(path).values())}


def test_it_counts_in_the_windows_in_which_the_attempt_began(tmp_path):
    path = killed(tmp_path, ("gen-1/1", WORST))
    tomorrow_s = span_starts(BEGAN_S)[0] + 86_400.0
    past = past_of(path, tomorrow_s)
    assert past["day"] == {}
    assert past["ever"]["k"] > WORST


def test_a_budget_has_nothing_left_that_a_cut_answer_may_still_be_billed(tmp_path):
    path = killed(tmp_path, ("gen-1/1", WORST))
    limits = KeyLimits(ever_in_nusd=WORST + 100_000_000)
    record = KeyRecord(id="k", name="k", digest=b"", created_us=1, updated_us=1, parent=None, limits=limits)
    purse = Purse(KeyRing(b"pepper", [record]).chain)
    with LedgerReader(path) as reader:
        purse.load(read_past(spending(reader, ["k"]), BEGAN_S))
    whole = rows_of(path)["gen-whole/1"].cost_in_nusd
    assert purse.left("k", BEGAN_S) == 100_000_000 - whole


@pytest.mark.parametrize("since", [0, int(BEGAN_S * 1e6)])
def test_only_rows_of_what_was_cut_are_looked_at(tmp_path, since):
    path = killed(tmp_path, ("gen-1/1", WORST))
    with LedgerReader(path) as reader:
        plan = reader._rows(f"EXPLAIN QUERY PLAN {PRESUMED.format(since='?')}", (since,))
    assert any("entry_recovered" in row[3] for row in plan), plan

"""What is timed of the ledger is what the gateway does."""

import json

from bench.__main__ import main
from bench.ledger import ALL_MAX_US, BATCH_ROWS, LOOP_MAX_US, REPORT_MAX_MS, measure_ledger, rows_of_many
from gateway.state.entries import ENTRY_COLUMNS


def test_the_bars_are_those_that_were_promised():
    assert (LOOP_MAX_US, ALL_MAX_US, REPORT_MAX_MS) == (15, 25, 300)


def test_generated_rows_are_rows_of_as_many_attempts_over_the_whole_time():
    rows = [row for batch in rows_of_many(2 * BATCH_ROWS) for row in batch]
    assert len({row[0] for row in rows}) == 2 * BATCH_ROWS
    assert {len(row) for row in rows} == {len(ENTRY_COLUMNS)}
    days = {row[1] // 86_400_000_000 for row in rows}
    assert 89 <= len(days) <= 91


def test_every_figure_is_measured_and_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bench.__main__.measure_ledger", lambda *_: measure_ledger(1, 3000))
    assert main(["--ledger", "--out", str(tmp_path)]) == 0
    assert "report by tag over 3,000 rows, ms" in capsys.readouterr().out
    kept = json.loads((tmp_path / "results.json").read_text())["ledger"]
    assert all(bar["value"] > 0 for bar in kept["bars"])
    assert len(kept["seen"]) == 4

"""`mixgate ledger`: its state, copies, checks, versions and rows."""

import csv
import io
import json
import sqlite3

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.state.schema import MIGRATIONS
from tests.gateway.ledger.ledger_kit import Ledger

ROWS = 30
LAST = len(MIGRATIONS)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXGATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(main, ["ledger", *map(str, words)])


@pytest.fixture
def ledger(tmp_path):
    """Some rows, and a gateway that has the file."""
    ledger = Ledger(tmp_path)
    for number in range(ROWS):
        ledger.begin(f"gen-{number:02d}/1", app="=cmd()" if number == 3 else "x", tags=("a",) if number % 2 else ())
        ledger.end(f"gen-{number:02d}/1", number)
    assert ledger.store.flush(20.0)
    yield ledger
    ledger.close()


def test_the_state_is_said_while_a_gateway_runs_and_after(run, ledger):
    said = json.loads(run("status", "--json").output)
    assert (said["rows"], said["version"], said["gateway"]) == (ROWS, LAST, "running")
    assert said["journal_bytes"] > 0
    assert said["fsyncs_per_s"] > 0
    ledger.close()
    result = run("status")
    assert result.exit_code == 0
    assert "not running" in result.output
    assert sqlite3.sqlite_version in result.output


def test_there_is_no_ledger_is_said(run):
    for words in (("status",), ("check",), ("backup", "x"), ("export",), ("migrate",)):
        result = run(*words)
        assert (result.exit_code, "there is no ledger" in result.output) == (1, True), words


def test_a_copy_is_made_and_never_over_another(run, ledger, tmp_path):
    result = run("backup", tmp_path / "copy.db")
    assert result.exit_code == 0
    assert f"{ROWS} rows" in result.output
    again = run("backup", tmp_path / "copy.db")
    assert (again.exit_code, "no backup is overwritten" in again.output) == (1, True)


def test_what_is_wrong_is_said_with_an_exit_code(run, ledger):
    assert run("check").exit_code == 0
    ledger.close()
    with sqlite3.connect(ledger.path) as connection:
        connection.execute("UPDATE spend_day SET cost_in_nusd = cost_in_nusd + 1 WHERE by = 'model'")
    connection.close()
    result = run("check")
    assert (result.exit_code, "sums by model and day" in result.output) == (1, True)


def test_the_file_goes_back_one_version_once_no_gateway_has_it(run, ledger):
    assert (run("migrate", "--to", LAST - 1).exit_code, run("migrate").exit_code) == (1, 1)
    ledger.close()
    assert f"version {LAST - 1}" in run("migrate", "--to", LAST - 1).output
    assert f"version {LAST}" in run("migrate").output
    assert run("migrate", "--to", 0).exit_code == 1
    assert run("migrate", "--fleet").exit_code == 2, "there is no fleet"


def test_rows_are_written_out_exactly_and_safe_for_a_spreadsheet(run, ledger):
    lines = list(csv.DictReader(io.StringIO(run("export").output)))
    records = [json.loads(line) for line in run("export", "--format", "json").output.splitlines()]
    assert [line["attempt_id"] for line in lines] == [f"gen-{n:02d}/1" for n in reversed(range(ROWS))]
    assert [line["cost_usd"] for line in lines] == [record["cost_usd"] for record in records]
    assert records[0]["cost_usd"] == "0.0002574"
    assert {line["app"] for line in lines} == {"x", "'=cmd()"}
    assert {record["app"] for record in records} == {"x", "=cmd()"}
    assert len(run("export", "--tag", "a", "--format", "json").output.splitlines()) == ROWS // 2
    assert run("export", "--model", "none", "--format", "json").output == ""
    assert run("export", "--since", "never").exit_code == 2

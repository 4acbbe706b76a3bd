"""`mixgate spend`: what was spent, exactly."""

import csv
import io
import json
import time
from fractions import Fraction

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli import main
from gateway.cli.spend import usd
from gateway.ledger.costs import Ending, settlement_of, tariff_of
from gateway.ledger.entry import Intent, row_of
from gateway.state.connection import FILE_NAME, open_writer
from gateway.state.entries import Batch
from gateway.state.writer import Writer
from providers.base import Price
from providers.messages import Usage

DAY_US = 86_400_000_000
KNOWN = tariff_of("p/m", Price(1_000, 3_000), ())
UNKNOWN = tariff_of("p/m", None, ())


def row(number: int, model: str, days_ago: float, *, app: str = "", tags=(), tariff=KNOWN, counted=True):
    unix_us = int(time.time() * 1_000_000 - days_ago * DAY_US)
    intent = Intent(f"gen-{number}/1", unix_us, "k", "r", model, "p/m", "p", "chat", False, "", 10, app=app, tags=tags)
    usage = Usage(input_tokens=1001, output_tokens=7)
    ending = Ending(
        unix_us=unix_us,
        outcome="ok",
        usage=usage if counted else None,
        prompt_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
    )
    return row_of(intent, settlement_of(unix_us, ending, tariff))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXGATE_HOME", str(tmp_path))

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, ["spend", *words])

    return run


@pytest.fixture
def ledger(tmp_path) -> None:
    writer = Writer(open_writer(tmp_path / FILE_NAME))
    rows = [
        row(1, "small", 0.1, app="=cmd()", tags=("x", "y")),
        row(2, "small", 0.1, counted=False),
        row(3, "large", 3, tags=("x",)),
        row(4, "large", 3, tariff=UNKNOWN),
        row(5, "old", 20),
    ]
    writer.write_ledger(Batch(rows, ()))
    writer.close()


@given(st.integers(-(10**20), 10**20))
def test_dollars_are_printed_exactly(amount):
    said = usd(amount)
    assert Fraction(said) == Fraction(amount, 10**9)
    assert len(said.partition(".")[2]) >= 2


@pytest.mark.usefixtures("ledger")
def test_models_are_added_up_over_the_time_that_was_asked_for(run):
    lines = [line.split() for line in run().output.splitlines()]
    assert ["small", "0.000002044", "2", "2", "0", "2002", "14", "0"] in lines
    assert ["large", "0.000001022", "2", "2", "0", "2002", "14", "1"] in lines
    assert ["total", "0.000003066", "4", "4", "0", "4004", "28", "1"] in lines
    assert "The tokens of 1 of these attempts are estimates" in run().output
    assert not any(line[:1] == ["old"] for line in lines)
    assert "old" in run("--since", "4w").output
    assert "large" not in run("--since", "24h").output
    assert "small" not in run("--until", "24h").output


@pytest.mark.usefixtures("ledger")
def test_json_has_money_as_decimal_strings(run):
    said = json.loads(run("--by", "tag", "--json").output)
    assert {line["tag"]: line["cost_usd"] for line in said} == {
        "x": "0.000002044",
        "y": "0.000001022",
        "": "0.000001022",
    }
    assert all(isinstance(line["attempts"], int) for line in said)


@pytest.mark.usefixtures("ledger")
def test_no_spreadsheet_takes_a_name_for_a_formula(run):
    rows = list(csv.DictReader(io.StringIO(run("--by", "app", "--csv").output)))
    assert {line["app"] for line in rows} == {"", "'=cmd()"}


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("by", ["model", "provider", "endpoint", "key", "app", "route", "day", "all"])
def test_every_way_to_add_up_comes_to_the_same(run, by):
    said = json.loads(run("--by", by, "--json", "--since", "2020-01-01").output)
    assert sum(Fraction(line["cost_usd"]) for line in said) == Fraction("0.000004088")


@pytest.mark.usefixtures("ledger")
def test_steps_add_up_to_the_same_and_a_name_picks_one(run):
    said = json.loads(run("--step", "day", "--since", "2020-01-01", "--json").output)
    assert sum(Fraction(line["cost_usd"]) for line in said) == Fraction("0.000004088")
    assert len({line["start"] for line in said}) >= 3
    assert all(line["start"].endswith("T00:00:00Z") for line in said)
    only = json.loads(run("--step", "hour", "--name", "small", "--json").output)
    assert {line["model"] for line in only} == {"small"}
    assert [line["model"] for line in json.loads(run("--name", "small", "--json").output)] == ["small"]
    rows = list(
        csv.DictReader(io.StringIO(run("--step", "month", "--by", "all", "--since", "2020-01-01", "--csv").output))
    )
    assert sum(int(row["attempts"]) for row in rows) == 5
    assert "FROM" in run("--step", "week").output


def test_without_a_ledger_it_says_what_to_do(run):
    done = run()
    assert done.exit_code == 1
    assert "set MIXGATE_HOME as it is for the gateway" in done.output


@pytest.mark.parametrize("words", [["--since", "yesterday"], ["--by", "colour"], ["--json", "--csv"]])
def test_what_it_cannot_do_is_a_mistake_of_usage(run, words):
    assert run(*words).exit_code == 2

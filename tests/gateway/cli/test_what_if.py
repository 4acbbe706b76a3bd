"""`mixgate what-if`: tables, CSV, JSON, and what it refuses."""

import csv
import io
import json
import time

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.config.load import load
from tests.fakes.scripted_day import Day

CONFIG = """\
providers:
  a:
    dialect: openai
    base_url: http://127.0.0.1:9/v1
    models:
      m: {serves: m, context_tokens: 8192, price: {input: 1, output: 1}}
  b:
    dialect: openai
    base_url: http://127.0.0.1:9/v1
    models:
      m: {serves: m, context_tokens: 8192, price: {input: 2, output: 4}}
routes:
  m: {policy: ordered, endpoints: [a/m, b/m]}
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXGATE_HOME", str(tmp_path))
    path = tmp_path / "providers.yaml"
    path.write_text(CONFIG)
    day = Day(tmp_path, load(path, {}))
    now_s = time.time()
    day.ask(now_s - 60, [("a/m", {})])
    day.ask(now_s - 30, [("a/m", {"outcome": "failed", "code": "provider_error"}), ("b/m", {})], record=False)
    yield lambda *words: CliRunner().invoke(main, ["what-if", "--config", str(path), *words])
    day.close()


def test_a_table_says_what_would_have_been_and_what_it_cannot_know(run):
    done = run("--on", "b/m", "--policy", "ordered")
    assert done.exit_code == 0, done.output
    assert "2 requests, 3 attempts" in done.output
    assert "0.00055 USD, as it was" in done.output
    lines = [line.split() for line in done.output.splitlines()]
    assert ["all", "on", "b/m", "0.0008", "0.00055", "0.00025", "2", "1", "1", "0", "0"] in lines
    assert "1 requests have no decision record." in done.output
    assert "Another model may count the same text as more or fewer tokens" in done.output


def test_json_is_the_answer_as_the_function_gives_it(run):
    said = json.loads(run("--json").output)
    assert [line["kind"] for line in said["lines"]] == ["cheapest", "priciest", "first_choice", "no_cache"]
    assert said["as_was_usd"] == "0.00055"
    assert said["complete"] is True
    rows = list(csv.DictReader(io.StringIO(run("--csv", "--first-choice").output)))
    assert [(row["would_have_usd"], row["priced"]) for row in rows] == [("0.0003", "1")]


def test_savings_are_a_question_of_their_own(run):
    said = json.loads(run("--savings", "--json").output)
    assert said["failovers"] == {"requests": 1, "wasted_usd": "0.00", "dearer_usd": "0.00025"}
    assert "by choosing cheaply" in run("--savings").output
    assert run("--savings", "--cheapest").exit_code == 2


@pytest.mark.parametrize("words", [("--on", "nowhere"), ("--policy", "luck"), ("--json", "--csv"), ("--rows", "0")])
def test_what_makes_no_sense_exits_2(run, words):
    assert run(*words).exit_code == 2

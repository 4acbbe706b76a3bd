"""`mixgate uptime`: a table when piped, and the same figures as CSV and JSON."""

import csv
import io
import json
import time

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.observation import MinuteRow
from gateway.state.writer import EndpointEvent
from tests.fakes.catalogues import catalogue, endpoint, route
from tests.fakes.scripted_day import Day

A, B = endpoint("a/m", 1.0), endpoint("b/m", 2.0)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXGATE_HOME", str(tmp_path))
    return lambda *words: CliRunner().invoke(main, words)


@pytest.fixture
def day(tmp_path):
    made = Day(tmp_path, catalogue([A, B], [route([A, B], policy="ordered")]))
    now_s = time.time()
    made.minutes(MinuteRow(endpoint_id="a/m", minute=int(now_s // 60), ok=2, fail_server=1))
    made.events(EndpointEvent(now_s - 5, "a/m", "open", "3 failures in a row"))
    made.ask(now_s - 20, [("a/m", {"outcome": "failed", "code": "provider_error"}), ("b/m", {})], key_id="team-a")
    yield made
    made.close()


@pytest.mark.usefixtures("day")
def test_uptime_has_every_window_the_standing_and_its_cause(run):
    said = run("uptime")
    assert said.exit_code == 0, said.output
    line = next(line for line in said.output.splitlines() if "a/m" in line)
    assert line.count("66.66 %") == 4
    assert "open" in line
    assert "3 failures in a row" in line
    (one,) = json.loads(run("uptime", "--json").output)
    assert one["uptime"] == dict.fromkeys(("5m", "30m", "1d", "30d"), 2 / 3)
    (row,) = csv.DictReader(io.StringIO(run("uptime", "--csv", "--window", "30d").output))
    assert (row["endpoint"], row["5m"], row["ok"], row["failed"]) == ("a/m", "0.666667", "2", "1")
    assert json.loads(run("uptime", "--endpoint", "nobody/m", "--json").output) == []


@pytest.mark.parametrize(
    "words",
    [
        ["uptime", "--window", "long"],
        ["uptime", "--json", "--csv"],
    ],
)
def test_what_they_cannot_do_is_a_mistake_of_usage(run, words):
    assert run(*words).exit_code == 2


@pytest.mark.parametrize("name", ["uptime", "requests"])
def test_without_a_store_they_say_what_to_do(run, name):
    said = run(name)
    assert said.exit_code == 1
    assert "set MIXGATE_HOME" in said.output

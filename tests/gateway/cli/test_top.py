"""`mixgate top`: one table of each when piped, and tables that refresh on a terminal."""

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from click.testing import CliRunner

from gateway.cli import main
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
    refused = {"outcome": "failed", "code": "provider_error"}
    made.ask(time.time() - 20, [("a/m", refused), ("b/m", {})], key_id="team-a")
    yield made
    made.close()


@pytest.mark.usefixtures("day")
def test_top_prints_one_table_of_each_when_piped(run):
    said = run("top")
    assert said.exit_code == 0, said.output
    assert "Who spends, by key" in said.output
    assert [line.split()[:4] for line in said.output.splitlines() if "team-a" in line] == [["team-a", "0.2", "2", "1"]]
    told = json.loads(run("top", "--json", "--by", "model").output)
    assert told["model"][0]["cost_usd"] == "0.0003"
    assert {one["name"]: one["failed"] for one in told["endpoint"]} == {"a/m": 1, "b/m": 0}
    rows = list(csv.DictReader(io.StringIO(run("top", "--csv").output)))
    assert next((row["what"], row["name"]) for row in rows) == ("key", "team-a")


@pytest.mark.parametrize("words", [["--by", "colour"], ["--window", "0s"], ["--json", "--csv"]])
def test_what_it_cannot_do_is_a_mistake_of_usage(run, words):
    assert run("top", *words).exit_code == 2


def test_without_a_store_it_says_what_to_do(run):
    said = run("top")
    assert said.exit_code == 1
    assert "set MIXGATE_HOME" in said.output


@pytest.mark.usefixtures("day")
def test_on_a_terminal_it_looks_again_until_it_is_told_to_end(tmp_path):
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-c",
        "from gateway.cli import main; main()",
        "top",
        "--interval",
        "1s",
        "--window",
        "1h",
    ]
    env = {"MIXGATE_HOME": str(tmp_path), "TERM": "xterm", "COLUMNS": "140", "LINES": "40", "PATH": "/usr/bin"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        seen = b""
        while seen.count(b"Who spends, by key") < 2:
            seen += os.read(ours, 65_536)
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # what a terminal says when its other end is closed
            while os.read(ours, 65_536):
                pass
        assert process.wait(30) == 0
    os.close(ours)
    assert b"team-a" in seen

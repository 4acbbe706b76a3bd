"""`mixgate requests`: filters, pages, and what follows."""

import csv
import io
import json
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from gateway.cli import main
from tests.fakes.catalogues import catalogue, endpoint, route
from tests.fakes.scripted_day import Day

A, B = endpoint("a/m", 1.0), endpoint("b/m", 2.0)
REFUSED = {"outcome": "failed", "code": "provider_error"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXGATE_HOME", str(tmp_path))
    return lambda *words: CliRunner().invoke(main, ["requests", *words])


@pytest.fixture
def day(tmp_path):
    made = Day(tmp_path, catalogue([A, B], [route([A, B], policy="ordered")]))
    yield made
    made.close()


@pytest.fixture
def names(day):
    now_s = time.time()
    return [
        day.ask(now_s - 7200, [("a/m", {})], app="=cmd()", tags=("x", "y")),
        day.ask(now_s - 60, [("a/m", REFUSED), ("b/m", {})]),
        day.ask(now_s - 30, [("a/m", REFUSED), ("b/m", REFUSED)]),
    ]


def ids(done):
    assert done.exit_code == 0, done.output
    return [one["id"] for one in json.loads(done.output)["requests"]]


def test_filters_leave_what_was_asked_for(run, names):
    old, over, failed = names
    assert ids(run("--json")) == [failed, over, old]
    assert ids(run("--json", "--failed")) == [failed]
    assert ids(run("--json", "--failed-over")) == [over]
    assert ids(run("--json", "--rescued")) == []
    assert ids(run("--json", "--since", "1h")) == [failed, over]
    assert ids(run("--json", "--until", "1h")) == [old]
    assert ids(run("--json", "--min-cost", "0.0003")) == [over]
    assert ids(run("--json", "--endpoint", "b/m")) == [failed, over]
    assert ids(run("--json", "--tag", "x")) == [old]


def test_pages_go_on_where_the_last_one_ended(run, names):
    said = json.loads(run("--json", "--count", "2").output)
    assert [one["id"] for one in said["requests"]] == names[:0:-1]
    assert ids(run("--json", "--count", "2", "--before", str(said["before"]))) == names[:1]
    assert f"--before {said['before']}" in run("--count", "2").output


def test_the_table_says_what_became_of_each(run, names):
    lines = run().output.splitlines()
    line = next(line for line in lines if names[1] in line)
    assert line.split()[3:9] == ["b/m", "ok", "2", "100", "50", "0.0003"]
    assert any("failed: provider_error" in line for line in lines)
    rows = list(csv.DictReader(io.StringIO(run("--csv").output)))
    assert rows[-1]["app"] == "'=cmd()"
    assert rows[-1]["tags"] == "x y"


def test_no_name_of_a_clients_tells_the_terminal_what_to_do(run, day):
    evil = "\x1b]0;owned\x07\r\n\u202egnol"
    day.ask(time.time(), [("a/m", {})], app=evil, key_id=evil)
    for words in ([], ["--since", "1h"]):
        assert not any(one in run(*words).output for one in "\x1b\x07\u202e")
    shown = [
        CliRunner().invoke(main, words).output
        for words in (["top"], ["spend", "--by", "app"], ["spend", "--by", "key"])
    ]
    assert not any(one in text for one in "\x1b\x07\r\u202e" for text in shown)
    assert all("\ufffd]0;owned" in text for text in shown)
    assert json.loads(run("--json").output)["requests"][0]["app"] == evil


def test_nothing_is_said_to_be_nothing(run, names):
    assert "Nothing fits." in run("--model", "unheard-of").output


@pytest.mark.parametrize(
    "words", [["--min-cost", "much"], ["--count", "0"], ["--follow", "--before", "3"], ["--json", "--csv"]]
)
def test_what_it_cannot_do_is_a_mistake_of_usage(run, words):
    assert run(*words).exit_code == 2


def test_follow_prints_requests_as_they_end(tmp_path, day):
    code = "from gateway.cli import main; main(['requests', '--follow', '--json', '--since', '1h'])"
    env = {"MIXGATE_HOME": str(tmp_path), "PATH": "/usr/bin"}
    first = day.ask(time.time() - 10, [("a/m", {})])
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env, text=True) as process:
        try:
            assert json.loads(process.stdout.readline())["id"] == first
            second = day.ask(time.time(), [("a/m", REFUSED), ("b/m", {})])
            told = json.loads(process.stdout.readline())
            assert (told["id"], told["attempts"], told["cost_usd"]) == (second, 2, "0.0003")
        finally:
            process.terminate()

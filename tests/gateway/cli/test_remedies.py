"""Where a command cannot do what was asked, it says what would help: not to a database, but to whoever typed it."""

import socket
import sqlite3
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.state.connection import StoreLock
from tests.fakes.process import MIXGATE


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXGATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return lambda line: CliRunner().invoke(main, line.split())


@pytest.mark.parametrize("line", ["spend", "requests", "top --once", "what-if", "ledger status", "ledger check"])
def test_a_damaged_file_is_for_the_gateway_or_a_backup(run, tmp_path, line):
    (tmp_path / "mixgate.db").write_text("no database at all, but longer than its head would be")
    result = run(line)
    assert (result.exit_code, "start the gateway" in result.output, "backup" in result.output) == (1, True, True)


def test_a_backup_says_that_another_file_is_wanted(run, tmp_path):
    sqlite3.connect(tmp_path / "mixgate.db").close()
    (tmp_path / "taken.db").write_text("")
    for target, words in (("taken.db", "another file"), ("nowhere/copy.db", "elsewhere")):
        result = run(f"ledger backup {target}")
        assert (result.exit_code, words in result.output) == (1, True), result.output


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ("--day x", "dollars as 5"),
        ("--ever 5USD", "dollars as 5"),
        ("--max-price-input cheap", "dollars as 5"),
        ("--expires never", "give 30d"),
        ("--expires 2027-01-31", "give 30d"),
        ("--concurrency many", "whole number"),
    ],
)
def test_a_limit_of_a_key_that_is_none_is_said_in_the_words_of_the_command(run, tmp_path, options, hint):
    result = run(f"keys create app {options}")
    assert (result.exit_code, hint in result.output, options.split()[0] in result.output) == (2, True, True)
    assert not (tmp_path / "mixgate.db").exists()


def test_amounts_and_times_of_every_kind_are_taken(run):
    line = "keys create app --day 5 --ever .5 --month 5.25 --expires 2999-01-31T00:00:00Z --max-price-input 0"
    result = run(line)
    assert result.exit_code == 0, result.output
    assert run("keys change app --day none --expires none").exit_code == 0


def test_a_home_that_is_no_folder_is_said(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MIXGATE_HOME", str(tmp_path / "file"))
    result = run("serve --port 0")
    assert (result.exit_code, "set MIXGATE_HOME" in result.output) == (2, True), result.output


def test_a_token_in_the_variable_that_is_the_setting_itself_is_told_apart(run, tmp_path, monkeypatch):
    (tmp_path / "providers.yaml").write_text(
        "gateway: {admin_token: env:MIXGATE_ADMIN_TOKEN}\n"
        "providers: {local: {dialect: local, models: {tiny: {file: bundled, serves: demo}}}}\n"
    )
    monkeypatch.setenv("MIXGATE_ADMIN_TOKEN", "0123456789abcdef0123")
    result = run("check")
    assert (result.exit_code, "needs another name" in result.output) == (2, True), result.output


def test_the_client_key_that_explain_reads_is_not_taken_for_a_misspelt_setting(run, monkeypatch):
    monkeypatch.setenv("MIXGATE_CLIENT_KEY", "sk-mine")
    assert "did you mean" not in run("check").output


@pytest.mark.parametrize(("running", "verdict"), [(True, "warning"), (False, "problem")])
def test_a_port_that_the_gateway_of_this_home_may_hold_is_no_problem(run, tmp_path, running, verdict):
    sqlite3.connect(tmp_path / "mixgate.db").close()
    lock = StoreLock(tmp_path / "mixgate.db")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (tmp_path / "providers.yaml").write_text(
            f"gateway: {{port: {taken.getsockname()[1]}}}\n"
            "providers: {local: {dialect: local, models: {tiny: {file: bundled, serves: demo}}}}\n"
        )
        if running:
            lock.take()
        try:
            said = run("doctor").output
        finally:
            lock.release()
    line = next(line for line in said.splitlines() if line.split()[:1] == ["port"])
    assert line.split()[1] == verdict


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize("line", ["check", "keys list", "drill --help"])
def test_a_full_disk_is_said_without_a_trace(run, tmp_path, line):
    (tmp_path / "providers.yaml").write_text(
        "providers: {local: {dialect: local, models: {tiny: {file: bundled, serves: demo}}}}\n"
    )
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [MIXGATE, *line.split()], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False
        )
    assert (ended.returncode, "Free some space" in ended.stderr, "Traceback" in ended.stderr) == (1, True, False)

"""`mixgate explain`: a stored request, and a dry run against a gateway or the configuration alone."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from gateway.attempts import Attempt
from gateway.cli import main
from gateway.config.load import load
from gateway.explain.trace import Packer, Trace
from gateway.explain.view import Explanation
from gateway.observation import Observation
from gateway.routing.ask import Ask
from gateway.routing.decide import decide
from gateway.routing.table import prepare
from gateway.state.blocks import Packed
from gateway.state.connection import FILE_NAME
from gateway.state.store import Store

ID = "gen-01M80N33M1W9MH97QD81PN993C"
CONFIG = """\
gateway: {port: %d}
providers:
  mine:
    dialect: openai
    base_url: http://127.0.0.1:9/v1
    models:
      big: {serves: m, context_tokens: 100000, price: {input: 0.5, output: 12}}
      small: {serves: m, context_tokens: 10, price: {input: 0.4, output: 11}}
  theirs:
    dialect: openai
    base_url: http://127.0.0.1:9/v1
    api_key: env:NOBODY_SETS_THIS
    models:
      big: {serves: m}
"""
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "the secret words " * 9}]})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def run(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("MIXGATE_CONFIG", "MIXGATE_CLIENT_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MIXGATE_HOME", str(home))
    (tmp_path / "providers.yaml").write_text(CONFIG % 1)
    (tmp_path / "body.json").write_text(BODY)

    def command(*arguments: str, text: str | None = None, **env: str) -> Result:
        return CliRunner().invoke(main, ["explain", *arguments], input=text, env=env, catch_exceptions=False)

    return command


def keep(home: Path, folder: Path, *names: str) -> None:
    """Store a request under each of the names, and one more that is damaged."""
    catalogue = load(folder / "providers.yaml", {})
    route = catalogue.find_route("m")
    assert route is not None
    table = prepare([route], catalogue, {"theirs/big": "no key"})
    ask, seen = Ask(prompt_tokens=40), {"mine/big": Observation(ttft_s=0.5)}
    plan = decide(table, ask, seen, now_s=5.0, draw=0.5)
    attempt = Attempt(1, plan.candidates[0].endpoint, 5.001, outcome="ok", upstream_status=200, duration_s=0.5)
    store = Store.open(home / FILE_NAME, Packer())
    for name in names:
        store.put(
            Trace(
                id=name,
                unix_s=1_795_000_000.0,
                requested=("m",),
                surface="chat.completions",
                caller="me",
                ask=ask,
                table=table,
                observations=seen,
                draw=0.5,
                now_s=5.0,
                now_utc=None,
                catalogue=catalogue.digest,
                plan=plan,
                attempts=[attempt],
                outcome="ok",
                code=None,
                ended_s=5.6,
            )
        )
    assert store.close()


def test_a_stored_request_is_shown_as_tables(run, home: Path, tmp_path: Path):
    keep(home, tmp_path, ID)
    for name in (ID, "last"):
        result = run(name)
        assert result.exit_code == 0
        for words in (ID, "answered by mine/big", "Candidates, by policy balanced", "mine/small", "no key", "0.500 s"):
            assert words in result.output


def test_replaying_says_that_it_is_the_same(run, home: Path, tmp_path: Path):
    keep(home, tmp_path, ID)
    assert "decided once more: the same plan" in run(ID, "--replay").output
    shown = json.loads(run(ID, "--replay", "--json").output)
    assert shown["replay"] == {"same": True, "differences": []}
    assert shown["id"] == ID
    assert [one["code"] for one in shown["decision"]["excluded"]] == ["off", "context"]


def test_a_replay_that_comes_out_otherwise_fails(run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    keep(home, tmp_path, ID)
    monkeypatch.setattr("gateway.cli.explain.differences", lambda _record, _table: ("policy: it was a, it is b",))
    result = run(ID, "--replay")
    assert result.exit_code == 1
    assert "ANOTHER plan\n  policy: it was a, it is b" in result.output


def test_what_is_not_there_is_said_with_its_reason(run, home: Path, tmp_path: Path):
    assert "does not exist" in run(ID).output
    Store.open(home / FILE_NAME, Packer()).close()
    assert "holds no record yet" in run("last").output
    keep(home, tmp_path, ID, ID[:-1] + "K")
    for name, words in (
        ("gen-00000000000000000000000000", "older than the oldest"),
        ("gen-7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "newer than the newest"),
        (ID[:-1] + "G", "there is no record of"),
        ("chatcmpl-1", "no id of a request"),
    ):
        result = run(name)
        assert result.exit_code == 1
        assert words in result.output
        assert "fix: " in result.output


def test_a_store_that_cannot_be_read_is_said_to_be_so(run, home: Path):
    home.mkdir()
    (home / FILE_NAME).write_text("no database" * 500)
    result = run(ID)
    assert result.exit_code == 1
    assert "cannot be read" in result.output


def test_a_record_of_another_version_is_said_to_be_so(run, home: Path):
    store = Store.open(home / FILE_NAME, lambda name: Packed(name, b'{"what":1}'))
    store.put(ID)
    assert store.close()
    result = run(ID)
    assert result.exit_code == 1
    assert "another version" in result.output


@pytest.mark.parametrize(
    "arguments",
    [(), ("gen-1", "-f", "body.json"), ("gen-1", "--offline"), ("-f", "body.json", "--replay"), ("-f", "missing.json")],
)
def test_a_command_line_that_makes_no_sense_exits_2(run, arguments: tuple[str, ...]):
    assert run(*arguments).exit_code == 2


def test_url_and_offline_exclude_each_other(run):
    assert run("-f", "body.json", "--offline", "--url", "http://127.0.0.1:1/v1").exit_code == 2


def test_a_dry_run_without_a_gateway_shows_who_would_be_asked(run):
    result = run("-f", "body.json", "--offline")
    assert result.exit_code == 0
    assert "mine/big" in result.output
    assert "NOBODY_SETS_THIS" in result.output
    assert "secret words" not in result.output
    shown = msgspec.json.decode(run("-f", "-", "--offline", "--json", text=BODY).output, type=Explanation)
    assert shown.would_ask == ("mine/big",)
    assert {one.endpoint: one.code for one in shown.excluded} == {"mine/small": "context", "theirs/big": "off"}


@pytest.mark.parametrize("body", ["", "[]", '{"model": "nobody", "messages": [{"role": "user", "content": "x"}]}'])
def test_a_body_that_is_no_request_exits_2(run, body: str):
    result = run("-f", "-", "--offline", text=body)
    assert result.exit_code == 2
    assert "fix: correct the body" in result.output


def test_nobody_to_ask_is_said(run):
    body = json.dumps({"model": "m", "max_tokens": 200_000, "messages": [{"role": "user", "content": "x"}]})
    result = run("-f", "-", "--offline", text=body)
    assert result.exit_code == 0
    assert "nobody could be asked" in result.output


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[int, list[tuple[str, str | None, bytes]]]]:
    """A server that answers everything alike; gives its port and what it was asked."""
    asked: list[tuple[str, str | None, bytes]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["content-length"]))
            asked.append((self.path, self.headers.get("authorization"), sent))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1], asked
        finally:
            server.shutdown()
            thread.join()


def test_a_running_gateway_is_asked_with_the_client_key(run, tmp_path: Path):
    answer = run("-f", "body.json", "--offline", "--json").output.encode()
    with answering(200, answer) as (port, asked):
        shown = run("-f", "body.json", "--url", f"http://127.0.0.1:{port}/v1", MIXGATE_CLIENT_KEY="sk-mine")
        bare = run("-f", "body.json", "--url", f"http://127.0.0.1:{port}/", MIXGATE_CLIENT_KEY="sk-mine")
        (tmp_path / "providers.yaml").write_text(CONFIG % port)
        by_configuration = run("-f", "body.json")
    assert shown.exit_code == by_configuration.exit_code == 0
    assert shown.output == by_configuration.output == bare.output
    assert "mine/big" in shown.output
    assert asked == [
        ("/v1/route/explain", "Bearer sk-mine", BODY.encode()),
        ("/v1/route/explain", "Bearer sk-mine", BODY.encode()),
        ("/v1/route/explain", None, BODY.encode()),
    ]


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (401, b'{"error": {"message": "no key"}}', 2, "MIXGATE_CLIENT_KEY"),
        (404, b'{"error": {"message": "no such path", "code": "not_found"}}', 2, "point --url"),
        (404, b'{"error": {"message": "no such model", "code": "model_not_found"}}', 2, "correct the body"),
        (500, b"<html>", 1, "it did not say why"),
        (200, b"<html>", 1, "something else"),
    ],
)
def test_what_a_gateway_refuses_is_passed_on(run, status: int, body: bytes, code: int, words: str):
    with answering(status, body) as (port, _):
        result = run("-f", "body.json", "--url", f"http://127.0.0.1:{port}/v1")
    assert result.exit_code == code
    assert words in result.output


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "not a url", "http://[::1", "ftp://127.0.0.1/v1"])
def test_no_gateway_at_all_is_said(run, url: str):
    result = run("-f", "body.json", "--url", url)
    assert result.exit_code == 1
    assert "mixgate serve" in result.output

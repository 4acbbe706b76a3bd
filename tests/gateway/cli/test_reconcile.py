"""`mixgate reconcile`: what it prints, and that it exits 1 where anything differs."""

import csv
import io
import json
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from gateway.cli import main
from tests.fakes.catalogues import catalogue, endpoint, route
from tests.fakes.scripted_day import Day

A = endpoint("a/m", 1.0)


@pytest.fixture
def day(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXGATE_HOME", str(tmp_path))
    made = Day(tmp_path, catalogue([A], [route([A], policy="ordered")]))
    yield made
    made.close()


def run(text, *words):
    return CliRunner().invoke(main, ["reconcile", "-", "--provider", "a", *words], input=text)


def today(unix_s):
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d")


def test_what_is_the_same_exits_0_and_what_differs_exits_1(day):
    now_s = time.time()
    day.ask(now_s, [("a/m", {"upstream_id": "x-1"})])
    text = f"date,model,id,cost\n{today(now_s)},m,x-1,0.00015\n"
    done = run(text)
    assert done.exit_code == 0, done.output
    assert "1 attempts here, 1 charges there, 1 the same, 0 differ" in done.output
    text += f"{today(now_s)},m,=x-2,0.5\n"
    done = run(text)
    assert done.exit_code == 1
    assert "missing here" in done.output
    assert "ours 0.00015 USD, theirs 0.50015 USD, difference 0.50 USD" in done.output
    said = json.loads(run(text, "--json").output)
    assert [(one["kind"], one["theirs_usd"]) for one in said["differences"]] == [("missing_here", "0.50")]
    (row,) = csv.DictReader(io.StringIO(run(text, "--csv").output))
    assert row["id"] == "'=x-2"
    assert run(text, "--tolerance", "0.5").exit_code == 1


def test_columns_and_models_can_be_named(day):
    now_s = time.time()
    day.ask(now_s, [("a/m", {})])
    text = f"When,What,Sum\n{today(now_s)},Model M,0.00015\n"
    words = ("--column", "date=When", "--column", "model=What", "--column", "cost=Sum", "--model", "Model M=m")
    done = run(text, *words)
    assert done.exit_code == 0, done.output
    assert run(text, *words[:-2]).exit_code == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", ()),
        ("date,model,cost\n2026-01-01,m,1\n", ("--column", "colour=x")),
        ("date,model,cost\n2026-01-01,m,1\n", ("--column", "cost=Price")),
        ("date,model,cost\n", ()),
        ("date,model,cost\n", ("--since", "yesterday")),
    ],
)
def test_what_makes_no_sense_exits_2(day, text, words):
    done = run(text, *words)
    assert done.exit_code == 2
    assert "Traceback" not in done.output


CONFIG = """\
providers:
  a:
    dialect: openrouter
    base_url: "{url}"
    api_key: env:NOBODY
    models: {{m: {{}}}}
  b:
    dialect: openai
    base_url: http://127.0.0.1:9/v1
    models: {{m: {{}}}}
"""


@pytest.fixture
def vendor():
    """Says what it charged to whoever shows the management key."""
    asked = []

    class Vendor(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["authorization"]))
            known = self.headers["authorization"] == "Bearer the-management-key-of-the-test"
            row = {"date": today(time.time()), "model": "m", "requests": 1, "usage": 0.00015}
            body = json.dumps({"data": [row]} if known else {"error": {}}).encode()
            self.send_response(200 if known else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Vendor)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api/v1", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_provider_itself_can_be_asked(day, vendor, tmp_path, monkeypatch):
    url, asked = vendor
    path = tmp_path / "providers.yaml"
    path.write_text(CONFIG.format(url=url))
    monkeypatch.setenv("MANAGE", "the-management-key-of-the-test")
    monkeypatch.setenv("WRONG", "another-key")
    day.ask(time.time(), [("a/m", {})])

    def ask(*words, provider="a"):
        words = ["reconcile", "--ask", "--provider", provider, "--config", str(path), *words]
        return CliRunner().invoke(main, words)

    done = ask("--management-key", "env:MANAGE")
    assert done.exit_code == 0, done.output
    assert "1 the same, 0 differ" in done.output
    assert asked == [("/api/v1/activity", "Bearer the-management-key-of-the-test")]
    refused = ask("--management-key", "env:WRONG")
    assert refused.exit_code == 1
    assert "HTTP 401" in refused.output
    assert "another-key" not in refused.output
    assert ask().exit_code == ask("--management-key", "env:NOT_SET").exit_code == 2
    assert ask("--management-key", "env:MANAGE", provider="b").exit_code == 2
    assert CliRunner().invoke(main, ["reconcile", "--provider", "a"]).exit_code == 2
    assert len(asked) == 2

"""`mixgate drill`: what it prints and how it exits."""

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.cli.drill import reply
from gateway.drill.run import Setting
from gateway.drill.scenarios import SCENARIOS

SHIPPED = Path(__file__).parents[3] / "providers.yaml"
TWO = """\
providers:
  one:
    dialect: openai
    base_url: http://127.0.0.1:9/v1
    models:
      up: {serves: m, context_tokens: 8000, price: {input: 1, output: 1}, capabilities: {prefill: true}}
  two:
    dialect: mistral
    api_key: env:TWO_KEY
    models:
      up: {serves: m, context_tokens: 9000, price: {input: 1, output: 1}, capabilities: {prefill: true}}
routes:
  m: {policy: ordered, aliases: [mm]}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command in an empty folder, with an environment that holds nothing of ours."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENROUTER_API_KEY", "MIXGATE_CONFIG", "TWO_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MIXGATE_HOME", str(tmp_path / "home"))
    (tmp_path / "providers.yaml").write_text(TWO)

    def command(*arguments: str, **env: str) -> Result:
        return CliRunner().invoke(main, ["drill", *arguments], env=env, catch_exceptions=False)

    return command


def test_everything_that_can_work_does(run):
    result = run("m", TWO_KEY="a-key-0123456789")
    assert result.exit_code == 0, result.output
    assert f"{len(SCENARIOS)} ok" in result.output
    for scenario in SCENARIOS:
        assert scenario.id in result.output
        assert scenario.title in result.output
    assert "a-key-0123456789" not in result.output


def test_providers_without_a_key_are_left_out_unless_all_are_wanted(run):
    alone = run("--scenario", "S04")
    assert alone.exit_code == 0
    assert "not possible here" in alone.output
    assert "name a `fallback:`" in alone.output
    both = run("--scenario", "S04", "--all")
    assert both.exit_code == 0
    assert "1 ok" in both.output
    assert "two/up answered" in both.output


def test_json_says_the_same(run):
    result = run("mm", "--all", "--json", "--scenario", "S08", "--scenario", "s13")
    found = json.loads(result.output)
    assert [(one["scenario"], one["result"], one["asked"]) for one in found] == [
        ("S08", "ok", {"one/up": 1, "two/up": 1}),
        ("S13", "ok", {"one/up": 1}),
    ]
    assert found[0]["wasted_usd"] == "0.000064000"
    assert found[0]["seconds"] < 10
    assert {one["route"] for one in found} == {"m"}


def test_the_bytes_that_the_app_would_get_are_shown(run):
    result = run("--all", "-v", "--scenario", "S13", "--scenario", "S03")
    assert "--- S13 refused for its content: HTTP 400" in result.output
    assert '"code":"content_policy_violation"' in result.output
    assert "--- S03 one 500: HTTP 200" in result.output
    assert "data: [DONE]" in result.output
    assert "bytes ..." in result.output


def test_an_endpoint_can_be_drilled_by_its_id(run):
    assert "not possible here" in run("one/up", "--scenario", "S05").output


def test_a_lost_answer_exits_1(run, monkeypatch):
    async def losing(answering, send):
        async def send_less(message):
            body = message.get("body", b"")
            await send({**message, "body": b"" if b'"content":"an ap"' in body else body})

        return await reply(answering, send_less)

    def broken(catalogue, off, _reply):
        return Setting(catalogue, off, losing)

    monkeypatch.setattr("gateway.cli.drill.Setting", broken)
    result = run("--all", "--scenario", "S16", "-v")
    assert result.exit_code == 1, result.output
    assert "degraded" in result.output


def test_nothing_to_drill_exits_1(run, tmp_path):
    (tmp_path / "providers.yaml").write_text(TWO.replace("    models", "    api_key: env:ONE_KEY\n    models", 1))
    result = run()
    assert result.exit_code == 1
    assert "m: nothing is on" in result.output
    assert "--all" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--scenario", "S99"), "no scenario S99"),
        (("n",), "no route is called 'n'"),
        (("--config", "x.yaml"), "x.yaml"),
    ],
)
def test_what_is_not_there_exits_2(run, arguments, words):
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.output


def test_a_broken_configuration_exits_2(run, tmp_path):
    (tmp_path / "providers.yaml").write_text("providers: []")
    assert run().exit_code == 2


def test_the_shipped_file_is_drilled_in_seconds(run):
    began_s = time.process_time()
    result = run("--all", "--config", str(SHIPPED))
    assert result.exit_code == 0, result.output
    assert time.process_time() - began_s < 10
    for route in ("mixtral-8x22b", "mixtral-8x7b", "demo"):
        assert f"{route}\n" in result.output

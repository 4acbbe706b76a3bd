"""`mixgate keys`: a model that nothing is called is told on standard error, and the key is made all the same."""

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.cli.key_names import unknown_names
from gateway.config.load import load
from gateway.keys.credential import is_key
from gateway.keys.ring import Grants
from gateway.payment import permitted_of
from gateway.routing.table import prepare

CONFIG = """
providers:
  one:
    dialect: openai
    base_url: http://127.0.0.1:9
    models:
      up: {serves: mixtral, context_tokens: 32768, price: {input: 1, output: 2}}
      down: {serves: other, context_tokens: 32768, price: {input: 1, output: 2}}
  off:
    dialect: openai
    base_url: http://127.0.0.1:9
    api_key: env:NOT_SET
    models:
      large: {context_tokens: 32768, price: {input: 1, output: 2}}
routes:
  chosen: {aliases: [nick], endpoints: [one/up], fallback: [other]}
"""
KNOWN = ("chosen", "mixtral", "other", "one/up", "one/down", "one", "off", "large", "off/large")
UNKNOWN = ("nope", "nick", "chosen:free", "mixtrall", "*", "one/*", "CHOSEN")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "providers.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXGATE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MIXGATE_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return lambda line: CliRunner().invoke(main, line.split())


@pytest.mark.usefixtures("config")
def test_a_key_for_a_model_that_nothing_is_called_is_made_and_that_is_said(run):
    made = run("keys create app --models mixtral,nope,mixtrall,nick")
    assert made.exit_code == 0
    assert is_key(made.stdout.strip())
    warnings = [line for line in made.stderr.splitlines() if "warning" in line]
    assert [line.rpartition("warning: ")[2] for line in warnings] == [
        'no Route, Model or Endpoint is called "nope"',
        'no Route, Model or Endpoint is called "mixtrall"; did you mean "mixtral"?',
        'a key may use nobody by the name "nick": it stands for the Route "chosen"',
    ]
    assert all("providers.yaml" in line for line in warnings)
    assert 'fix: write "mixtral"' in made.stderr
    provider = run("keys create other --models mixtral --providers one,oen,nope")
    assert is_key(provider.stdout.strip())
    warnings = [line.rpartition("warning: ")[2] for line in provider.stderr.splitlines() if "warning" in line]
    assert warnings == ['no Provider is called "oen"; did you mean "one"?', 'no Provider is called "nope"']
    changed = run("keys change app --models othr")
    assert (changed.exit_code, 'did you mean "other"?' in changed.stderr, "warning" in changed.stdout) == (
        0,
        True,
        False,
    )


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize(
    "line", ["create app", "create app --providers one,off", f"create app --models {','.join(KNOWN)}"]
)
def test_names_that_are_known_are_nothing_to_speak_of(run, line):
    made = run(f"keys {line}")
    assert (made.exit_code, "warning" in made.stderr) == (0, False), made.stderr
    assert "warning" not in run("keys change app --models none --day 5").stderr


@pytest.mark.parametrize("content", [None, "providers: [", CONFIG + "  wrong: {endpoints: [nobody]}\n"])
def test_without_a_configuration_that_can_be_read_a_key_is_made_without_a_word(run, tmp_path, content):
    if content is not None:
        (tmp_path / "later.yaml").write_text(content)
    made = run("keys create app --models nope --config later.yaml")
    assert made.exit_code == 0, made.stderr
    assert is_key(made.stdout.strip())
    assert "nope" not in made.stderr


def test_what_is_warned_of_is_what_permits_nobody(config):
    catalogue = load(config, {})
    table = prepare([*catalogue.routes.values()], catalogue, {})
    alone = [prepare([route], catalogue, {}) for route in catalogue.routes.values()]
    for name in (*KNOWN, *UNKNOWN):
        permits = any(permitted_of(Grants(models=(name,)), one) for one in (table, *alone))
        assert permits is (not unknown_names([name], catalogue)), name

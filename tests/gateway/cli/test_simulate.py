"""`mixgate simulate`: what it prints, and how it exits."""

import json

import pytest
from click.testing import CliRunner

from gateway.cli import simulate as simulate_command
from gateway.cli.simulate import command
from gateway.simulate.running import Violation

CONFIG = """\
providers:
  cheap:
    dialect: openai
    base_url: http://127.0.0.1:9/v1
    api_key: env:NOBODY_HAS_THIS_KEY
    models:
      big: {serves: wanted, context_tokens: 8192, price: {input: 0.1, output: 0.2}}
  dear:
    dialect: openai
    base_url: http://127.0.0.1:9/v1
    models:
      big: {serves: wanted, context_tokens: 32768, price: {input: 1, output: 2}}
routes:
  wanted: {policy: price, endpoints: [cheap/big, dear/big]}
"""


def run(*arguments):
    return CliRunner().invoke(command, arguments)


def test_policies_are_compared_in_a_table():
    done = run("--seeds", "2", "--requests", "30", "--policy", "price", "--policy", "ordered")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "2 seeds, 30 requests each"
    assert [line.split()[0] for line in lines[1:4]] == ["policy", "price", "ordered"]
    assert lines[-1] == "4 runs, 0 violations of the invariants"


def test_json_has_the_figures_of_each_policy():
    done = run("--seed", "4", "--requests", "30", "--policy", "balanced", "--json")
    said = json.loads(done.stdout)
    figures = said["policies"]["balanced"]
    assert done.exit_code == said["violated"] == 0
    assert figures["requests"] == 30 == figures["answered"] + figures["failed"] + figures["left"]
    assert figures["attempts"] > 0 < figures["cost_in_usd"]


def test_a_configuration_is_a_world_without_any_key(tmp_path):
    path = tmp_path / "providers.yaml"
    path.write_text(CONFIG)
    done = run("--config", str(path), "--seeds", "2", "--requests", "20", "--policy", "configured", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["policies"]["configured"]["answered"] > 20


def test_a_configuration_with_nobody_in_it_is_refused(tmp_path):
    path = tmp_path / "providers.yaml"
    path.write_text("providers: {}\n")
    done = run("--config", str(path))
    assert done.exit_code == 2
    assert "Traceback" not in done.output


@pytest.mark.parametrize("arguments", [("--policy", "luck"), ("--seeds", "0"), ("--config", "nowhere.yaml")])
def test_what_makes_no_sense_is_refused(arguments):
    assert run(*arguments).exit_code == 2


def test_a_violation_is_shown_with_the_command_that_shows_it_again(monkeypatch):
    real = simulate_command.simulate

    def broken(plan, **more):
        result = real(plan, **more)
        result.violations.append(Violation(3, "price", "I5", "it has 'a', which nobody answered", 12))
        result.violated += 1
        return result

    monkeypatch.setattr(simulate_command, "simulate", broken)
    done = run("--seed", "3", "--requests", "20", "--policy", "price")
    assert done.exit_code == 1
    assert "I5: seed 3, policy price: request 12: it has 'a', which nobody answered" in done.stderr
    assert "again: mixgate simulate --seed 3 --policy price --requests 20" in done.stderr

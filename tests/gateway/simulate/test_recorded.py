"""Worlds out of a ledger: what was recorded comes out again, and the invariants hold."""

import json

import msgspec
import pytest
from click.testing import CliRunner

from gateway.cli.simulate import command
from gateway.config.load import load
from gateway.observation import MinuteRow, ttft_bucket
from gateway.reports.reader import ReportReader
from gateway.simulate.invariants import check
from gateway.simulate.recorded import Traits, read_recorded, recorded_world
from gateway.simulate.running import run_world
from tests.fakes.listener import FULL
from tests.fakes.scripted_day import START_S, US, Day

CONFIG = """\
providers:
  cheap:
    dialect: openai
    base_url: http://127.0.0.1:9/v1
    models:
      big: {serves: m, context_tokens: 8192, price: {input: 0.1, output: 0.2}}
  dear:
    dialect: openai
    base_url: http://127.0.0.1:9/v1
    models:
      big: {serves: m, context_tokens: 32768, price: {input: 1, output: 2}}
      new: {serves: m, context_tokens: 32768, price: {input: 1, output: 2}}
routes:
  m: {policy: ordered, endpoints: [cheap/big, dear/big, dear/new]}
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXGATE_HOME", str(tmp_path))
    path = tmp_path / "providers.yaml"
    path.write_text(CONFIG)
    day = Day(tmp_path, load(path, {}), lazy=True)
    for number in range(60):
        first = [("cheap/big", {"outcome": "failed", "code": "provider_error"})] if number % 4 == 0 else []
        day.ask(START_S + 3.0 * number, [*first, ("dear/big", {"output": 100, "ttft_ms": 500, "duration_ms": 1500})])
    minute = START_S // 60
    counts = [0] * 32
    counts[ttft_bucket(0.5)] = 50
    histogram = b"".join(one.to_bytes(4, "little") for one in counts)
    day.minutes(
        *(
            MinuteRow(endpoint_id="dear/big", minute=minute + at, ok=24, fail_mid=1, ttft_hist=histogram)
            for at in range(4)
        ),
        *(MinuteRow(endpoint_id="cheap/big", minute=minute + at, ok=9, fail_server=1) for at in range(6)),
        *(
            MinuteRow(endpoint_id="cheap/big", minute=minute + at, fail_connect=5, rate_limited=at)
            for at in (10, 11, 20)
        ),
    )
    day.close()
    return day


def recorded(home):
    with ReportReader(home.path) as reader:
        return read_recorded(reader, home.catalogue, START_S * US, (START_S + 3600) * US)


def test_what_was_recorded_comes_out_as_traits(home):
    found = recorded(home)
    assert len(found.asked) == 60
    assert {(one.model, one.input_tokens, one.output_tokens) for one in found.asked} == {("m", 100, 100)}
    assert set(found.gaps_s) == {3.0}
    good, poor = found.traits["dear/big"], found.traits["cheap/big"]
    assert good.faults == (("cut", 0.04),)
    assert 0.35 < good.ttft_s < 0.55
    assert good.tokens_per_s == 100.0
    assert good.outage is None
    assert poor.faults == (("http500", 0.1),)
    # Two outages, of two minutes and of one, between six calm minutes.
    assert (poor.outage, poor.outage_s, poor.sound_s) == ("down", 90.0, 180.0)
    assert poor.requests_per_min == 9
    assert found.guessed == ("dear/new",)
    assert found.traits["dear/new"] == Traits()
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_a_seed_is_always_the_same_world_and_another_one_another(home):
    found = recorded(home)
    assert recorded_world(home.catalogue, found, 3, 40) == recorded_world(home.catalogue, found, 3, 40)
    assert recorded_world(home.catalogue, found, 3, 40) != recorded_world(home.catalogue, found, 4, 40)


def test_the_invariants_hold_in_worlds_of_a_ledger(home):
    found = recorded(home)
    answered = 0
    for seed in range(100 if FULL else 6):
        outcome = run_world(recorded_world(home.catalogue, found, seed, 60), None)
        assert [str(one) for one in check(outcome)] == []
        answered += sum(seen.ending == "answered" for seen in outcome.seen)
    assert answered > (5000 if FULL else 300)


def test_nothing_to_go_by_is_said(home):
    with ReportReader(home.path) as reader, pytest.raises(ValueError, match="no good answer"):
        read_recorded(reader, home.catalogue, 0, US)


def test_the_command_draws_from_the_ledger_and_says_what_is_guessed(home, tmp_path):
    words = ["--from-ledger", "--config", str(tmp_path / "providers.yaml"), "--since", "2024-10-04", "--seeds", "2"]
    words += ["--requests", "30", "--policy", "configured", "--policy", "price", "--json"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert "nothing is recorded of dear/new" in done.stderr
    said = json.loads(done.stdout)
    assert said["violated"] == 0
    assert said["policies"]["price"]["requests"] == 60
    assert CliRunner().invoke(command, [*words, "--plain"]).exit_code == 2
    empty = CliRunner().invoke(command, [*words, "--since", "2026-01-01"])
    assert empty.exit_code == 1
    assert "no good answer" in empty.stderr

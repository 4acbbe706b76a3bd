"""Whole drills: the real router and engine over pretended providers of every dialect."""

import json
import os

import msgspec
import pytest

from gateway.cli.drill import reply
from gateway.config.load import load
from gateway.drill.client import read_answer
from gateway.drill.run import Setting, drill, usable
from gateway.drill.scenarios import SCENARIOS, Act, Script, find_scenarios
from gateway.drill.speech import TEXT, said_after
from providers import DIALECTS
from providers.pretending import PRETENDERS
from tests.gateway.drill.configurations import configuration, play, provider

PAIRS = [(one, "openai") for one in DIALECTS] + [("openai", one) for one in DIALECTS if one != "openai"]
PREFILLING = ["openrouter", "mistral", "local", "openai", "litellm", "bedrock_converse", "bedrock_invoke"]


def told(outcomes, *results):
    return {name: outcome.verdict.reason for name, outcome in outcomes.items() if outcome.verdict.result in results}


@pytest.mark.parametrize(("first", "second"), [("openai", "openai"), ("openrouter", "mistral")])
def test_all_sixteen_and_the_others_come_out_well(tmp_path, first, second):
    outcomes = play(tmp_path, configuration(provider(1, first), provider(2, second)))
    assert list(outcomes) == [scenario.id for scenario in SCENARIOS]
    assert told(outcomes, "degraded", "not possible here") == {}


@pytest.mark.parametrize("prefill", [True, False])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_the_sixteen_come_out_well_or_are_excused_in_every_dialect(tmp_path, first, second, prefill):
    text = configuration(provider(1, first, prefill=prefill), provider(2, second, prefill=prefill))
    outcomes = play(tmp_path, text, *(scenario.id for scenario in SCENARIOS if scenario.id.startswith("S")))
    assert told(outcomes, "degraded") == {}
    excused = set(told(outcomes, "not possible here"))
    assert excused <= {"local": {"S06", "S07", "S10", "S13"}, "mindstudio": {"S06", "S07", "S10", "S13"}}.get(
        first, set()
    )


@pytest.mark.parametrize("dialect", PREFILLING)
def test_an_answer_goes_on_exactly_after_any_of_its_tokens(tmp_path, dialect):
    outcome = play(tmp_path, configuration(provider(1, "openai"), provider(2, dialect)), "E06")["E06"]
    assert (outcome.verdict.result, outcome.verdict.advice, outcome.variations) == ("ok", "", 59)
    assert "went on from there" in outcome.verdict.reason


def test_an_answer_goes_on_exactly_where_a_prefill_may_not_end_with_a_blank(tmp_path):
    outcome = play(tmp_path, configuration(provider(1, "openai"), provider(2, "anthropic")), "E06")["E06"]
    assert outcome.verdict.result == "ok"


@pytest.mark.parametrize(
    ("first", "second"), [("openai", "openrouter"), ("anthropic", "mistral"), ("bedrock_converse", "openai")]
)
def test_a_stream_cut_at_any_byte_comes_out_whole(tmp_path, first, second):
    """Every byte under MIXGATE_TEST_FULL, else every 61st."""
    path = tmp_path / "providers.yaml"
    path.write_text(configuration(provider(1, first), provider(2, second)))
    catalogue = load(path, {})
    size = len(PRETENDERS[first].stream(said_after("", "up-1")).whole)
    step = 1 if os.environ.get("MIXGATE_TEST_FULL") else 61
    scripts = tuple(Script(then=Act(does="cut", after_share=(place + 0.5) / size)) for place in range(0, size, step))
    scenario = msgspec.structs.replace(find_scenarios(["E05"])[0], primary=scripts)
    [outcome] = drill(catalogue.routes["m"], [scenario], Setting(catalogue, {}, reply))
    assert (outcome.verdict.result, outcome.variations) == ("ok", len(scripts)), outcome.verdict.reason


def test_a_route_that_may_not_rescue_is_told(tmp_path):
    text = configuration(provider(1, "openai"), provider(2, "openai")) + "    rescue: false\n"
    outcomes = play(tmp_path, text, "S04", "S08", "S09")
    assert {name: outcome.verdict.result for name, outcome in outcomes.items()} == {
        "S04": "ok",
        "S08": "not possible here",
        "S09": "not possible here",
    }
    assert "rescue" in outcomes["S08"].verdict.advice


def test_a_route_that_is_too_patient_is_told(tmp_path):
    text = configuration(provider(1, "openai"), provider(2, "openai")) + "    timeouts: {first_token_timeout_s: 40}\n"
    outcome = play(tmp_path, text, "S06")["S06"]
    assert outcome.verdict.result == "degraded"
    assert "timeouts" in outcome.verdict.advice


def test_without_prefill_it_is_asked_again_and_that_is_said(tmp_path):
    text = configuration(provider(1, "openai"), provider(2, "openai", prefill=False))
    outcome = play(tmp_path, text, "S08")["S08"]
    assert outcome.verdict.result == "ok"
    assert "asked again" in outcome.verdict.reason
    assert "prefill: true" in outcome.verdict.advice
    assert read_answer(outcome.status, outcome.body, 0).text == TEXT
    assert outcome.wasted_nusd == 24_000 + 40_000  # USD 1 per million tokens, read and written


def test_one_endpoint_alone_is_told_to_get_company(tmp_path):
    outcomes = play(tmp_path, configuration(provider(1, "openai")))
    assert told(outcomes, "degraded") == {}
    alone = told(outcomes, "not possible here")
    assert set(alone) == {scenario.id for scenario in SCENARIOS if scenario.needs_other}
    assert all("only p1/up-1 can answer" in reason for reason in alone.values())
    assert "fallback" in outcomes["S08"].verdict.advice


def test_a_fallback_that_is_no_larger_does_not_help_with_a_long_prompt(tmp_path):
    text = configuration(provider(2, "openai"), provider(1, "openai"))
    outcome = play(tmp_path, text, "S12")["S12"]
    assert outcome.verdict.result == "not possible here"
    assert "larger context" in outcome.verdict.advice
    assert "16000" in outcome.verdict.reason


def test_a_model_that_thinks_is_waited_for(tmp_path):
    text = configuration(provider(1, "openai", more=", reasoning: true"), provider(2, "openai"))
    outcomes = play(tmp_path, text, "S06", "S07")
    assert told(outcomes, "degraded", "ok") == {}
    assert "think" in outcomes["S07"].verdict.reason


@pytest.mark.parametrize("policy", ["balanced", "price", "latency", "throughput", "least_busy"])
def test_every_policy_survives(tmp_path, policy):
    text = configuration(provider(1, "openai"), provider(2, "openai"), provider(3, "mistral"), policy=policy)
    assert told(play(tmp_path, text, *(f"S{number:02}" for number in range(1, 17))), "degraded") == {}


def test_a_drill_comes_out_the_same_every_time(tmp_path):
    text = configuration(provider(1, "openai"), provider(2, "openai"), provider(3, "openai"), policy="balanced")
    assert play(tmp_path, text, "S15", "S02", "E10") == play(tmp_path, text, "S15", "S02", "E10")


def test_what_is_lost_on_the_way_to_the_app_is_seen(tmp_path):
    """The judge reads what the app got: a server that loses bytes is found out, whatever the engine did."""

    async def losing(answering, send):
        async def send_less(message):
            body = message.get("body", b"")
            await send({**message, "body": b"" if b'"content":"an ap"' in body else body})

        return await reply(answering, send_less)

    play(tmp_path, configuration(provider(1, "openai"), provider(2, "openai")), "S03")
    catalogue = load(tmp_path / "providers.yaml", {})
    setting = Setting(catalogue, {}, losing)
    outcome = drill(catalogue.routes["m"], find_scenarios(["S03"]), setting)[0]
    assert outcome.verdict.result == "degraded"
    assert "the text is wrong from character" in outcome.verdict.reason
    assert usable(catalogue.routes["m"], setting)
    assert not usable(catalogue.routes["m"], Setting(catalogue, {"p1/up-1": "x", "p2/up-2": "x"}, losing))


def test_no_key_is_sent_anywhere(tmp_path, monkeypatch):
    """Providers that are off for want of a key can be drilled; those that have one do not use it."""
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-v1-planted")
    outcomes = play(tmp_path, configuration(provider(1, "openrouter"), provider(2, "mistral")), "S04")
    assert outcomes["S04"].verdict.result == "ok"
    assert "planted" not in json.dumps([str(outcome) for outcome in outcomes.values()])

"""The hostile provider by itself: what it sends, when, and what it bills."""

import asyncio
import json

import pytest

from gateway.drill.hostile import HostileTransport, Stage
from gateway.drill.scenarios import SCENARIOS, Act, Script, find_scenarios
from gateway.drill.speech import INPUT_TOKENS, PIECES, TEXT, said_after
from gateway.virtual_time import run
from providers.base import Capabilities, Endpoint, WireRequest
from providers.errors import ConnectError, TruncatedError
from providers.openai import OpenAi
from providers.pretending import PRETENDERS

ENDPOINT = Endpoint(
    id="p/up",
    provider="p",
    model="m",
    upstream_model="up",
    base_url="http://p",
    capabilities=Capabilities(prefill=True),
)


def request(*, prefill="", stream=True):
    messages = [{"role": "user", "content": "hi"}]
    if prefill:
        messages.append({"role": "assistant", "content": prefill})
    return WireRequest(url="http://p", body=json.dumps({"messages": messages}).encode(), stream=stream)


def ask(script, *, prefill="", stream=True, endpoint=ENDPOINT, method="POST"):
    """Status, text as the dialect reads it, the failure, the seconds it took, and the stage."""

    async def act():
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        stage = Stage(script)
        transport = HostileTransport(stage, endpoint, PRETENDERS["openai"])
        decoder, body, failure, status = OpenAi().decoder(endpoint, stream=stream), b"", None, 0
        try:
            wire = request(prefill=prefill, stream=stream)
            if method != "POST":
                wire = WireRequest(url="http://p/models", body=b"", method=method)
            async with asyncio.timeout(600):
                response = await transport.send(wire, connect_timeout_s=5)
                status, body = response.status, response.body or b""
                while data := await response.read():
                    body += data
        except (ConnectError, TruncatedError, TimeoutError) as error:
            failure = type(error)
        text = "".join(getattr(event, "text", "") for event in decoder.feed(body) + decoder.finish())
        return status, text, failure, loop.time() - began_s, stage

    return run(act())


def does(kind, **members):
    return Script(then=Act(does=kind, **members))


@pytest.mark.parametrize("stream", [True, False])
def test_it_answers_at_its_own_pace_and_bills_all_of_it(stream):
    status, text, failure, took_s, stage = ask(Script(), stream=stream)
    assert (status, text, failure) == (200, TEXT, None)
    assert took_s == pytest.approx(1.5, abs=0.1)
    [asked] = stage.asked
    assert (asked.input_tokens, asked.output_tokens, asked.done) == (INPUT_TOKENS, 60, True)


@pytest.mark.parametrize(
    ("script", "text", "failure", "took_s", "billed"),
    [
        (does("cut", after_tokens=40), "".join(PIECES[:40]), TruncatedError, 1.1, 40),
        (does("hang_up", after_tokens=40), "".join(PIECES[:40]), None, 1.1, 40),
        (does("stall", after_tokens=20), "".join(PIECES[:20]), TimeoutError, 600, 20),
        (does("garble", after_tokens=20), TEXT, None, 1.5, 60),
        (does("fail", after_tokens=20), "".join(PIECES[:20]), None, 0.7, 20),
        (does("no_end"), TEXT, None, 1.5, 60),
        (does("stay_open"), TEXT, TimeoutError, 600, 60),
        (Script(then=Act(wait_s=20)), TEXT, None, 21.2, 60),
        (does("silence", wait_s=120), "", ConnectError, 120, 0),
        (does("reset"), "", ConnectError, 0, 0),
        (does("fail"), "", None, 0.3, 0),
        (Script(then=Act(read_bytes=1)), TEXT, None, 1.5, 60),
    ],
    ids=lambda value: value.then.does if isinstance(value, Script) else None,
)
def test_it_fails_as_it_is_told(script, text, failure, took_s, billed):
    _, got, how, seconds, stage = ask(script)
    assert (got, how) == (text, failure)
    assert seconds == pytest.approx(took_s, abs=0.1)
    assert stage.asked[0].output_tokens == billed


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.3, 0.5, 0.9, 0.999])
def test_it_cuts_anywhere(share):
    _, text, failure, _, stage = ask(does("cut", after_share=share))
    assert failure is TruncatedError
    assert TEXT.startswith(text)
    assert stage.asked[0].output_tokens == -(-len(text) // 5)


@pytest.mark.parametrize("kind", ["cut", "hang_up", "stall"])
def test_what_would_happen_in_a_stream_happens_to_a_whole_answer_unseen(kind):
    _, text, failure, _, stage = ask(does(kind, after_tokens=5), stream=False)
    assert (text, stage.asked[0].output_tokens) == ("", 0)
    assert failure in (TruncatedError, TimeoutError)


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (does("refuse"), 500),
        (does("refuse", trouble="rate_limit", retry_after="7"), 429),
        (does("empty"), 200),
        (does("page"), 200),
    ],
)
def test_it_refuses_at_once(script, status):
    got, text, failure, took_s, stage = ask(script)
    assert (got, text, failure) == (status, "", None)
    assert took_s < 0.1
    assert stage.asked[0].output_tokens == 0


def test_it_goes_on_exactly_from_a_prefill():
    for place in (1, 7, 40, 59):
        begun = "".join(PIECES[:place])
        _, text, _, _, stage = ask(Script(), prefill=begun)
        assert begun + text == TEXT
        assert stage.asked[0].prefill == begun
    assert "".join(said_after("something else", "m").pieces) == TEXT


def test_it_refuses_a_prefill_where_told_or_not_known_to_take_one():
    assert ask(Script(takes_prefill=False), prefill="A gat")[0] == 400
    plain = Endpoint(id="p/up", provider="p", model="m", upstream_model="up", base_url="http://p")
    status, *_, stage = ask(Script(), prefill="A gat", endpoint=plain)
    assert (status, stage.asked[0].refused_prefill) == (400, True)


@pytest.mark.parametrize(("script", "status"), [(Script(), 200), (does("refuse"), 503)])
def test_a_question_that_costs_nothing_is_answered_and_not_counted(script, status):
    got, *_, stage = ask(script, method="GET")
    assert (got, stage.probes, stage.asked) == (status, 1, [])


def test_a_script_goes_act_by_act_and_ends():
    script = Script(first=(Act(does="reset"),), then=Act(does="page"), until_s=60)
    assert [script.act(number, 0).does for number in range(3)] == ["reset", "page", "page"]
    assert script.act(0, 60).does == "answer"


def test_scenarios_are_found_by_their_ids():
    assert len({scenario.id for scenario in SCENARIOS}) == len(SCENARIOS)
    assert [scenario.id for scenario in SCENARIOS if scenario.id[0] == "S"] == [f"S{n:02}" for n in range(1, 17)]
    assert [scenario.id for scenario in find_scenarios(["s08", "E01"])] == ["S08", "E01"]
    assert find_scenarios([]) == SCENARIOS
    with pytest.raises(LookupError, match="S99"):
        find_scenarios(["S99"])


def test_the_speech_is_sixty_tokens_of_all_kinds():
    assert len(PIECES) == 60
    assert any(piece.endswith(" ") for piece in PIECES)
    assert any(piece.startswith(" ") for piece in PIECES)
    assert any(ord(character) > 0xFFFF for character in TEXT)

"""What an app makes of the bytes it got, and what the judge makes of that."""

import json

import msgspec
import pytest

from gateway.drill.client import Seen, read_answer
from gateway.drill.hostile import Asked
from gateway.drill.judge import Played, Verdict, is_worse, judge
from gateway.drill.scenarios import ANSWER, find_scenarios
from gateway.drill.speech import TEXT
from providers.base import Endpoint


def chunk(content=None, reason=None, **members):
    delta = {} if content is None else {"content": content}
    body = {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **members}
    return f"data: {json.dumps(body)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 24, "completion_tokens": 60}
GOOD = chunk(TEXT) + chunk(reason="stop") + chunk(usage=USAGE) + DONE
ERROR = b'data: {"error":{"message":"broke","code":"answer_truncated"}}\n\n' + DONE


def test_a_good_stream_is_complete():
    seen = read_answer(200, b": ping\n\n" + GOOD, 1.0)
    assert seen.complete
    assert (seen.text, seen.reason, seen.model, seen.tokens, seen.error) == (TEXT, "stop", "m", (24, 60), None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        DONE,
        chunk(TEXT) + DONE,
        GOOD + DONE,
        GOOD + chunk("x"),
        GOOD.removesuffix(DONE),
        chunk(TEXT) + chunk(reason="stop") + chunk(reason="stop") + DONE,
        chunk("half") + ERROR,
        b"data: nonsense\n\n" + DONE,
        b"<html>",
    ],
)
def test_nothing_else_is(body):
    assert not read_answer(200, body, 1.0).complete


def test_an_error_is_read_wherever_it_comes():
    assert read_answer(200, chunk("half") + ERROR, 1.0).error == "answer_truncated"
    seen = read_answer(503, b'{"error":{"message":"no","code":"no_endpoint_available"}}', 1.0)
    assert (seen.error, seen.message) == ("no_endpoint_available", "no")
    assert read_answer(502, b"<html>", 1.0).error == "unknown"


# ---- the judge


def endpoint(name, context=8000):
    return Endpoint(id=name, provider="p", model="m", upstream_model="u", base_url="http://p", context_tokens=context)


def asked(name="a", *, done=True, tokens=60, prefill="", at_s=0.0):
    return Asked(name, at_s, ANSWER, True, prefill, False, 24, tokens, done)


def played(scenario, *bodies, status=200, seconds=1.0, log=(), candidates=("a", "b"), **members):
    seen = tuple(read_answer(status, body, seconds) for body in bodies or (GOOD,))
    return Played(
        scenario=find_scenarios([scenario])[0],
        seen=seen,
        asked=tuple(log) or (asked(),),
        candidates=tuple(endpoint(name) if isinstance(name, str) else name for name in candidates),
        **members,
    )


def verdict(*arguments, **members):
    return judge(played(*arguments, **members), {"a": "m", "b": "m"})


WRONG = TEXT[:50] + "?" + TEXT[51:]
FAULTS = {
    "wrong text": (("S04", chunk(WRONG) + chunk(reason="stop") + DONE), "from character 50"),
    "less text": (("S04", chunk(TEXT[:-1]) + chunk(reason="stop") + DONE), "from character 296 on (296 instead of 297"),
    "more text": (("S04", chunk(TEXT + "x") + chunk(reason="stop") + DONE), "from character 297"),
    "no end": (("S04", GOOD.removesuffix(DONE)), "without its end"),
    "error": (("S04", chunk("half") + ERROR), "answer_truncated after 4 of 297"),
    "another refusal": (("S13", GOOD), "an answer instead of content_policy_violation"),
    "no word of a failure": (("E10", chunk("half") + chunk(reason="stop") + DONE), "was not told"),
    "second of two": (("S15", GOOD, ERROR), "request 2 of 2: the app got"),
}


@pytest.mark.parametrize(("arguments", "words"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named(arguments, words):
    found = verdict(*arguments)
    assert found.result == "degraded"
    assert words in found.reason


def test_late_is_a_fault_and_so_is_asking_too_often():
    assert "it took 16.0 s, over 15 s" in verdict("S06", seconds=16.0).reason
    often = verdict("S10", log=(asked(done=False), asked(done=False), asked("b")))
    assert "a was asked 2 times, more than 1" in often.reason
    shopped = b'{"error":{"code":"content_policy_violation"}}'
    assert "shopped around" in verdict("S13", shopped, status=400, log=(asked(), asked("b"))).reason


def test_the_one_who_answered_must_be_told_with_its_usage():
    assert verdict("S16").result == "ok"
    log = (asked(done=False, tokens=0), asked("b", tokens=59))
    assert "(24, 60) tokens, and it was (24, 59)" in verdict("S16", log=log).reason
    assert verdict("S16", log=log, silent_about_tokens=frozenset("b")).result == "ok"
    assert "that m answered, and it was other" in judge(played("S16"), {"a": "other"}).reason


def test_an_outage_is_survived_when_the_first_is_asked_again_in_time():
    log = (*(asked(done=False, tokens=0, at_s=at_s) for at_s in range(8)), asked(at_s=61.0))
    assert verdict("S15", log=log, recovered_s=5.0).result == "ok"
    assert "not asked for over 30 s" in verdict("S15", log=log, recovered_s=None).reason
    assert "not asked for over 30 s" in verdict("S15", log=log, recovered_s=31.0).reason
    assert "asked 9 times" in verdict("S15", log=(asked(at_s=8.0), *log), recovered_s=5.0).reason


def test_what_no_gateway_could_do_is_no_fault():
    assert verdict("S08", chunk("half") + ERROR, candidates=("a",)).result == "not possible here"
    assert verdict("S13", unsayable="a") == Verdict("not possible here", "a never fails that way")
    small = verdict("S12", ERROR, candidates=("a", "b"))
    assert (small.result, small.advice) == ("not possible here", "add a fallback with a larger context")
    assert verdict("S12", ERROR, candidates=("a", endpoint("b", 9000))).result == "degraded"
    local = msgspec.structs.replace(endpoint("a"), local=True)
    assert verdict("S06", seconds=31.0, candidates=(local, "b")).result == "not possible here"
    assert verdict("S06", seconds=31.0).result == "degraded"
    assert verdict("S06", ERROR, seconds=31.0, candidates=(local, "b")).result == "degraded"


def test_how_it_was_saved_is_told():
    half = asked(done=False, tokens=40)
    assert verdict("S08", log=(half, asked("b", prefill="A"))).reason == "b went on from there"
    again = verdict("S08", log=(half, asked("b")))
    assert "asked again" in again.reason
    assert "prefill: true" in again.advice
    assert verdict("S14", log=(half, asked("b"))).advice == ""
    assert verdict("S04", log=(asked(done=False, tokens=0), asked("b"))).reason == "b answered"


def test_what_was_lost_is_worse_than_what_could_not_be_had():
    well, excused, lost = (Verdict(result, "") for result in ("ok", "not possible here", "degraded"))
    assert is_worse(lost, excused)
    assert is_worse(excused, well)
    assert not is_worse(well, well)
    assert not is_worse(excused, lost)


def test_what_was_seen_can_be_empty():
    assert Seen(status=0, body=b"").complete is False

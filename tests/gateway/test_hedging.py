"""A second Endpoint beside a slow first one: who answers, who is dropped, and what it costs."""

import asyncio

import pytest

from gateway.health import Permit, Result
from gateway.hedging import COST_MAX_IN_PUSD, WAIT_MIN_S, worth_it
from gateway.observation import Observation, Quantiles
from gateway.routing.candidate import Candidate
from gateway.virtual_time import run
from providers.errors import ServerError
from tests.gateway.test_engine import END, ONE, ROLE, TWO, Scene, stream

USUALLY_S = 2.0
USUAL = Observation(latency=Quantiles(1.0, 1.5, USUALLY_S, 3.0))


def play(*answers, known=True, funded=True):
    """Read a hedged stream; gives the scene, its text, its error and how long it took."""

    async def act():
        scene = Scene(*answers, hedge=True, rescue=True, observation=USUAL)
        loop = asyncio.get_running_loop()
        course = scene.answer._course
        for endpoint in (candidate.endpoint.id for candidate in course.plan.candidates):
            for _ in range(20 if known else 19):
                health = course.health.of(endpoint)
                health.leave(health.enter(loop.time()), Result(ttft_s=USUALLY_S, duration_s=3.0), loop.time())
        for _ in range(100 if funded else 1):
            course.hedges.begin(loop.time())
        started_s = loop.time()
        text, error = await scene.read()
        took_s = loop.time() - started_s
        scene.answer.close()
        for candidate in course.plan.candidates:
            assert course.health.of(candidate.endpoint.id).in_flight == 0
        return scene, text, error, took_s

    return run(act())


def test_the_faster_one_answers_and_the_other_is_dropped():
    scene, text, error, took_s = play((60, stream(ONE, END)), stream(ROLE, TWO, END))
    assert (text, error, scene.asked) == (" two", None, [1, 1])
    assert 1.0 <= took_s < 5.0
    assert scene.transports[0].cancelled == 1
    assert [(one.why, one.outcome) for one in scene.answer.attempts] == [("planned", "cancelled"), ("hedge", "ok")]
    assert scene.answer.endpoint.id == "p1/up"


def test_the_first_may_still_win():
    scene, text, error, _ = play((4, stream(ONE, END)), (60, stream(TWO, END)))
    assert (text, error, scene.asked) == ("one", None, [1, 1])
    assert [one.outcome for one in scene.answer.attempts] == ["ok", "cancelled"]
    assert scene.answer.endpoint.id == "p0/up"


def test_a_quick_one_is_not_hedged():
    scene, text, _, _ = play((0.5, stream(ONE, END)), stream(TWO, END))
    assert (text, scene.asked) == ("one", [1, 0])


def test_a_failure_of_one_leaves_the_race_to_the_other():
    scene, text, error, _ = play((3, ServerError("no")), (9, stream(TWO, END)))
    assert (text, error, scene.asked) == (" two", None, [1, 1])
    assert [one.outcome for one in scene.answer.attempts] == ["failed", "ok"]


def test_when_both_fail_the_next_is_asked():
    scene, text, error, _ = play((4, ServerError("no")), (4, ServerError("no")), stream(ONE, END))
    assert (text, error, scene.asked) == ("one", None, [1, 1, 1])


@pytest.mark.parametrize("missing", [{"known": False}, {"funded": False}])
def test_without_samples_or_budget_there_is_no_hedge(missing):
    scene, text, _, _ = play((8, stream(ONE, END)), stream(TWO, END), **missing)
    assert (text, scene.asked) == ("one", [1, 0])


def test_what_is_dear_or_unknown_is_not_sent_twice():
    def after_s(cost, p90):
        latency = None if p90 is None else Quantiles(0.1, 0.1, p90, 9.0)
        return worth_it(Candidate(None, Observation(latency=latency), 0, cost))

    assert after_s(COST_MAX_IN_PUSD, 0.1) == WAIT_MIN_S
    assert after_s(COST_MAX_IN_PUSD + 1, 0.1) is None
    assert after_s(None, 0.1) is None
    assert after_s(1, None) is None
    assert after_s(1, 4.0) == 4.0


def test_a_client_that_leaves_stops_both():
    async def act():
        scene = Scene((60, stream(ONE)), (60, stream(TWO)), hedge=True, observation=USUAL)
        course = scene.answer._course
        now_s = asyncio.get_running_loop().time()
        health = course.health.of("p0/up")
        for _ in range(20):
            health.leave(health.enter(now_s), Result(ttft_s=USUALLY_S, duration_s=3.0), now_s)
        for _ in range(100):
            course.hedges.begin(now_s)
        reading = asyncio.create_task(scene.answer.next())
        await asyncio.sleep(10)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        scene.answer.close()
        return scene, [course.health.of(f"p{place}/up").in_flight for place in (0, 1)]

    scene, in_flight = run(act())
    assert [transport.cancelled for transport in scene.transports] == [1, 1]
    assert in_flight == [0, 0]
    assert [(one.outcome, one.permit) for one in scene.answer.attempts] == [("cancelled", Permit.REFUSED)] * 2

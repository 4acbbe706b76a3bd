"""The judge: each invariant is found broken where it is broken, and only there."""

import asyncio

import msgspec
import pytest

from gateway.health import Permit, Result
from gateway.simulate.drawing import draw_world
from gateway.simulate.invariants import check
from gateway.simulate.running import run_world
from gateway.simulate.watched import WatchedHealth
from gateway.virtual_time import run
from tests.gateway.simulate.scenes import SOUND, world

FAILED = Result(failure="server", duration_s=0.1)
REFUSED = Result(failure="connect", duration_s=0.1)
GOOD = Result(ttft_s=0.1, duration_s=0.2, output_tokens=5)


def outcome():
    return run_world(draw_world(11, 40), "balanced")


def answered(one):
    """A request whose answer came in full on the first Attempt, with its request to the provider."""
    for seen in one.seen:
        asked = [received for received in one.received if received.job == seen.job.number]
        if seen.ending == "answered" and len(asked) == 1 and seen.job.kind == "text" and len(seen.text) > 60:
            return seen, asked[0]
    raise AssertionError("no plain answer in this world")


def broken(one):
    return {violation.invariant for violation in check(one)}


def test_nothing_is_broken_where_nothing_was_touched():
    assert broken(outcome()) == set()


@pytest.mark.parametrize(
    "change", [lambda text: text[:-1], lambda text: text[:50] + text[49:], lambda text: text + "!"]
)
def test_a_character_more_or_less_is_found(change):
    one = outcome()
    seen, _ = answered(one)
    seen.text = change(seen.text)
    assert broken(one) == {"I5"}


def test_another_callers_text_is_found():
    one = outcome()
    seen, received = answered(one)
    seen.text = received.text = seen.text.replace(f"CANARY-{'abcdefgh'[seen.job.caller]}", "CANARY-h")
    assert broken(one) == {"I12"}


def test_a_second_ending_and_none_are_found():
    one = outcome()
    answered(one)[0].endings = []
    assert "I1" in broken(one)
    answered(two := outcome())[0].endings.append("answered")
    assert broken(two) == {"I1"}


def test_an_attempt_that_nobody_booked_is_found():
    one = outcome()
    seen, _ = answered(one)
    seen.answer.attempts.pop()
    assert broken(one) == {"I6"}


def test_a_request_after_the_deadline_is_found():
    one = outcome()
    seen, _ = answered(one)
    seen.job = msgspec.structs.replace(seen.job, deadline_s=1e-4)
    assert broken(one) == {"I2"}


def test_too_many_attempts_are_found():
    one = outcome()
    _, received = answered(one)
    one.received += [msgspec.structs.replace(received) for _ in range(6)]
    assert "I3" in broken(one)


def test_a_response_that_nobody_closed_is_found():
    one = outcome()
    answered(one)[1].closed = False
    assert broken(one) == {"I10"}


def test_text_in_a_record_and_a_missing_record_are_found():
    one = outcome()
    number = answered(one)[0].job.number
    one.records[number] = [one.records[number][0] + b'"CANARY-a-000001~"']
    assert broken(one) == {"I11"}
    one.records[number] = []
    assert broken(one) == {"I1"}


def test_asking_before_a_retry_after_is_over_is_found():
    one = run_world(world({"a/m": SOUND}, requests=3, gap_s=1.0))
    one.received[0].stay_away_s = 10.0
    assert broken(one) == {"I7"}


def test_what_waits_for_ever_is_found():
    async def wait():
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="would hang"):
        run(wait())


class Watched:
    """Watched health with what it reported."""

    def __init__(self):
        self.found = []
        self.health = WatchedHealth(lambda: 0.5, lambda name, words: self.found.append((name, words)))
        self.one = self.health.of("a")

    def ask(self, result, now_s):
        permit = self.one.enter(now_s)
        if permit is not Permit.REFUSED:
            self.one.leave(permit, result, now_s)
        return permit

    @property
    def names(self):
        return [name for name, _ in self.found]


def test_a_breaker_that_works_is_not_complained_of():
    watched = Watched()
    now_s = 0.0
    for result in [GOOD, FAILED, GOOD, FAILED, FAILED, FAILED, GOOD, GOOD, GOOD, REFUSED, REFUSED, FAILED, GOOD, GOOD]:
        now_s += 13.0
        watched.ask(result, now_s)
    assert watched.found == []
    assert watched.health.settled() == {}


def test_a_breaker_that_opens_too_soon_or_too_late_is_found():
    early = Watched()
    early.one._breaker._failures = 2
    early.ask(FAILED, 1.0)
    assert early.names == ["I9"]
    late = Watched()
    for step in range(3):
        late.one._breaker._failures = 0
        late.ask(FAILED, step)
    assert late.names == ["I9"]


def test_two_trials_at_once_and_a_permit_kept_are_found():
    watched = Watched()
    for step in range(3):
        watched.ask(FAILED, step)
    assert watched.one.enter(30.0) is Permit.PROBE
    watched.one._probing = False
    assert watched.one.enter(30.0) is Permit.PROBE
    assert watched.names == ["I9"]
    assert watched.health.settled() == {"a": ["permits that nobody gave back: {'PROBE': 2}", "2 Attempts in flight"]}


def test_a_permit_given_back_twice_is_found():
    watched = Watched()
    permit = watched.one.enter(1.0)
    watched.one.leave(permit, GOOD, 1.1)
    watched.one.leave(permit, GOOD, 1.2)
    assert watched.names == ["I10"]

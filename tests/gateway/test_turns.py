"""Whose turn it is, over real health and with nobody asked: every cap, wait and budget by itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.attempts import ATTEMPTS_MAX, ATTEMPTS_PER_ENDPOINT_MAX
from gateway.errors import RestingError
from gateway.health import Health, Permit, Result, RetryBudget
from gateway.observation import UNOBSERVED, Observation
from gateway.retries import ALONE_WAIT_MAX_S, PAUSE_MAX_S
from gateway.routing.candidate import Candidate, Plan
from gateway.turns import LEFT_MIN_S, RETRY_AFTER_MAX_S, Turns
from providers.errors import (
    BadRequestError,
    ConnectError,
    ContextLengthError,
    CredentialsError,
    MixgateError,
    OverloadedError,
    RateLimitedError,
    ResetError,
    ServerError,
)
from tests.fakes.catalogues import endpoint

NOW_S = 1000.0
GOOD, FAILED = Result(), Result(failure="server")
OVERLOAD = OverloadedError("busy", upstream_status=503)
HICCUP = ServerError("oops", upstream_status=500)


class Walk:
    """Turns over Endpoints `p0/x`, `p1/x`, ..., then over `resting` ones, with the health that they are asked by."""

    def __init__(self, count=3, *, resting=(), explicit=False, total_s=600.0, attempts_max=ATTEMPTS_MAX, **facts):
        self.health = Health(lambda: 0.5)
        self.budget = RetryBudget()
        self.endpoints = [endpoint(f"p{place}/x", **facts.get(f"p{place}", {})) for place in range(count)]
        late = [
            Candidate(endpoint(f"r{place}/x"), Observation(standing, until_s))
            for place, (standing, until_s) in enumerate(resting)
        ]
        candidates = tuple(Candidate(one, UNOBSERVED) for one in self.endpoints)
        self.plan = Plan("m", "ordered", candidates, tuple(late), explicit=explicit)
        self.now_s = NOW_S
        self.turns = self.begin(total_s=total_s, attempts_max=attempts_max)

    def begin(self, *, total_s=600.0, attempts_max=ATTEMPTS_MAX):
        return Turns(
            self.plan,
            self.health,
            self.budget,
            now_s=self.now_s,
            total_s=total_s,
            draw=0.5,
            attempts_max=attempts_max,
        )

    def next(self):
        """The next Turn as (Endpoint, why), waits waited out."""
        while isinstance(turn := self.turns.next(self.now_s), float):
            self.now_s += turn
        return turn.candidate.endpoint.id, turn.why

    def fail(self, error):
        """The last Turn fails. Its permit goes back, and the pause is waited out; gives the pause."""
        turn = self.turns.last
        kind = "rate_limit" if isinstance(error, RateLimitedError) else "server"
        result = Result(failure=kind, retry_after_s=error.retry_after_s)
        self.health.of(turn.candidate.endpoint.id).leave(turn.permit, result, self.now_s)
        pause_s = self.turns.failed(error, self.now_s)
        self.now_s += pause_s or 0.0
        return pause_s

    def rest(self, make_error=lambda: OVERLOAD):
        """All Turns that are left, each of which fails; and how it ends."""
        seen = []
        try:
            while True:
                seen.append(self.next())
                if self.fail(make_error()) is None:
                    return seen, None
        except MixgateError as error:
            return seen, error

    def down(self, name, kind="server", **more):
        """So many failures before this request that it is open, or one 429 that parks it."""
        health = self.health.of(name)
        for _ in range(1 if kind == "rate_limit" else 3):
            health.leave(health.enter(self.now_s), Result(failure=kind, **more), self.now_s)


# ---- the order and its caps


def test_each_has_its_turn_in_order_and_then_the_most_useful_error_comes():
    walk = Walk(3)
    errors = iter([ConnectError("no"), RateLimitedError("slow", retry_after_s=99.0), CredentialsError("key")])
    seen, error = walk.rest(lambda: next(errors))
    assert seen == [("p0/x", "planned"), ("p1/x", "planned"), ("p2/x", "planned")]
    assert error.code == "rate_limited"


def test_there_are_others_as_long_as_somebody_may_be_asked():
    walk = Walk(2)
    assert walk.turns.others
    walk.next()
    assert walk.turns.others
    walk.fail(OVERLOAD)
    walk.next()
    assert not walk.turns.others


@pytest.mark.parametrize("attempts_max", [1, 2, ATTEMPTS_MAX])
def test_all_together_have_no_more_turns_than_the_cap(attempts_max):
    walk = Walk(ATTEMPTS_MAX + 3, attempts_max=attempts_max)
    seen, _ = walk.rest()
    assert seen == [(f"p{place}/x", "planned") for place in range(attempts_max)]


def test_a_last_local_one_has_its_turn_in_any_case_and_only_one():
    walk = Walk(ATTEMPTS_MAX + 2, **{f"p{ATTEMPTS_MAX + 1}": {"local": True}})
    seen, _ = walk.rest()
    assert [name for name, _ in seen][ATTEMPTS_MAX:] == [f"p{ATTEMPTS_MAX + 1}/x"]


def test_what_is_wrong_everywhere_ends_it():
    walk = Walk(3)
    assert walk.rest(lambda: BadRequestError("bad")) == ([("p0/x", "planned")], None)


def test_a_prompt_that_is_too_long_goes_to_larger_ones_only():
    walk = Walk(4, p0={"context_tokens": 100}, p1={"context_tokens": 50}, p2={"context_tokens": 200})
    seen, error = walk.rest(lambda: ContextLengthError("too long"))
    assert [name for name, _ in seen] == ["p0/x", "p2/x", "p3/x"]
    assert isinstance(error, ContextLengthError)


def test_who_got_into_trouble_since_the_plan_was_made_is_passed_over():
    walk = Walk(3)
    walk.down("p0/x")
    walk.down("p1/x", "rate_limit", retry_after_s=30.0)
    assert walk.next() == ("p2/x", "planned")


def test_with_nobody_to_ask_it_says_so_and_when_to_come_back():
    walk = Walk(1)
    walk.down("p0/x")
    with pytest.raises(RestingError) as caught:
        walk.next()
    assert (caught.value.status, caught.value.retry_after_s) == (503, 1.0)
    assert "p0/x" in str(caught.value)


# ---- once more


@pytest.mark.parametrize("error", [HICCUP, ServerError("x", upstream_status=502), ResetError("gone")])
def test_after_a_hiccup_the_same_one_is_asked_once_more(error):
    walk = Walk(2)
    walk.next()
    assert 0 < walk.fail(error) <= PAUSE_MAX_S
    assert walk.next() == ("p0/x", "again")
    assert walk.fail(error) == 0.0
    assert walk.next() == ("p1/x", "planned")


def test_nobody_is_asked_more_often_than_twice_whatever_happens():
    walk = Walk(1)
    seen, error = walk.rest(lambda: HICCUP)
    assert seen == [("p0/x", "planned"), ("p0/x", "again")]
    assert len(seen) == ATTEMPTS_PER_ENDPOINT_MAX
    assert error is HICCUP


def test_who_is_no_longer_to_be_asked_is_not_asked_again():
    walk = Walk(2)
    walk.next()
    walk.fail(HICCUP)
    walk.down("p0/x", "rate_limit", retry_after_s=60.0)
    assert walk.next() == ("p1/x", "planned")


def test_the_last_turn_of_all_is_not_spent_twice():
    walk = Walk(3, attempts_max=1)
    walk.next()
    assert walk.fail(HICCUP) == 0.0


@pytest.mark.parametrize(("explicit", "pause_s"), [(True, 2.0), (False, 0.0)])
def test_a_short_rate_limit_of_the_first_is_waited_out_where_the_order_was_laid_down(explicit, pause_s):
    walk = Walk(2, explicit=explicit)
    walk.next()
    assert walk.fail(RateLimitedError("slow", retry_after_s=2.0)) == pause_s
    assert walk.next() == (("p0/x", "again") if explicit else ("p1/x", "planned"))


def test_a_request_has_only_so_much_patience_for_all_its_waits_together():
    walk = Walk(2, explicit=True)
    walk.next()
    assert walk.fail(RateLimitedError("slow", retry_after_s=3.0)) == 3.0
    walk.next()
    walk.fail(OVERLOAD)
    assert walk.next() == ("p1/x", "planned")
    assert walk.fail(RateLimitedError("slow", retry_after_s=ALONE_WAIT_MAX_S - 2.9)) == 0.0


def test_a_wait_that_would_not_leave_time_for_an_answer_is_not_begun():
    walk = Walk(1, total_s=5.0)
    walk.next()
    assert walk.fail(RateLimitedError("slow", retry_after_s=4.8)) == 0.0
    walk = Walk(1, total_s=5.0)
    walk.next()
    assert walk.fail(RateLimitedError("slow", retry_after_s=4.4)) == 4.4


def test_close_to_the_deadline_nobody_else_is_started():
    walk = Walk(2, total_s=60.0)
    walk.next()
    walk.now_s += 60.0 - LEFT_MIN_S + 0.1
    assert walk.fail(OVERLOAD) == 0.0
    with pytest.raises(OverloadedError):
        walk.next()


def test_who_is_asked_differently_is_asked_at_once_and_costs_no_budget():
    walk = Walk(2)
    walk.next()
    walk.health.of("p0/x").leave(walk.turns.last.permit, GOOD, walk.now_s)
    walk.turns.insist()
    assert walk.next() == ("p0/x", "again")
    assert walk.budget.retrying == 0
    assert walk.next() == ("p1/x", "planned")


def test_a_repeat_goes_to_the_same_one_even_if_health_would_not_have_it():
    walk = Walk(2)
    walk.next()
    turn = walk.turns.repeat(walk.now_s, "repair")
    assert (turn.candidate.endpoint.id, turn.why, turn.permit) == ("p0/x", "repair", Permit.NORMAL)
    walk.down("p0/x", "rate_limit", retry_after_s=60.0)
    turn = walk.turns.repeat(walk.now_s, "repair")
    assert (turn.candidate.endpoint.id, turn.permit) == ("p0/x", Permit.REFUSED)


# ---- those that rest


def test_a_parked_one_is_waited_for_when_nobody_else_is_left():
    walk = Walk(1, resting=[("parked", NOW_S + 4.0)])
    walk.down("r0/x", "rate_limit", retry_after_s=4.0)
    assert walk.next() == ("p0/x", "planned")
    assert not walk.turns.others
    walk.fail(CredentialsError("key"))
    assert walk.next() == ("r0/x", "planned")
    assert walk.now_s == NOW_S + 4.0


def test_a_wait_for_a_parked_one_is_as_long_as_it_is_parked():
    walk = Walk(0, resting=[("parked", NOW_S + 4.0)])
    walk.down("r0/x", "rate_limit", retry_after_s=4.0)
    assert walk.turns.next(NOW_S) == 4.0
    walk.now_s += 4.0
    assert walk.next() == ("r0/x", "planned")


@pytest.mark.parametrize("until_s", [ALONE_WAIT_MAX_S + 1, 500.0])
def test_what_is_parked_for_long_is_not_waited_for(until_s):
    walk = Walk(0, resting=[("parked", NOW_S + until_s)])
    walk.down("r0/x", "rate_limit", retry_after_s=until_s)
    with pytest.raises(RestingError) as caught:
        walk.next()
    assert caught.value.retry_after_s == min(until_s, RETRY_AFTER_MAX_S)


def test_what_is_parked_again_meanwhile_is_not_waited_for_twice():
    walk = Walk(0, resting=[("parked", NOW_S + 2.0)])
    walk.down("r0/x", "rate_limit", retry_after_s=2.0)
    walk.now_s += walk.turns.next(NOW_S)
    walk.down("r0/x", "rate_limit", retry_after_s=9.0)
    with pytest.raises(RestingError):
        walk.next()


def test_an_open_one_is_asked_in_panic_when_nothing_else_is_left():
    walk = Walk(0, resting=[("open", NOW_S + 5.0)])
    walk.down("r0/x")
    turn = walk.turns.next(NOW_S)
    assert (turn.permit, turn.why) == (Permit.PANIC, "panic")
    assert walk.budget.retrying == 1
    walk.fail(HICCUP)
    assert walk.budget.retrying == 0
    with pytest.raises(MixgateError):
        walk.next()


def test_no_panic_while_somebody_else_may_be_asked():
    walk = Walk(2, resting=[("open", NOW_S + 5.0)])
    walk.down("r0/x")
    seen, _ = walk.rest()
    assert [name for name, _ in seen[:2]] == ["p0/x", "p1/x"]
    assert seen[-1] == ("r0/x", "panic")


# ---- the budget


def test_without_budget_nobody_is_asked_again_but_the_next_one_is():
    walk = Walk(2)
    while walk.budget.take(NOW_S):
        pass
    walk.next()
    assert walk.fail(HICCUP) == 0.0
    assert walk.next() == ("p1/x", "planned")


def test_without_budget_there_is_no_panic():
    walk = Walk(0, resting=[("open", NOW_S + 5.0)])
    walk.down("r0/x")
    while walk.budget.take(NOW_S):
        pass
    with pytest.raises(RestingError):
        walk.next()


def test_what_was_borrowed_is_given_back_when_the_request_ends():
    walk = Walk(1)
    walk.next()
    walk.fail(HICCUP)
    walk.next()
    assert (walk.budget.in_flight, walk.budget.retrying) == (1, 1)
    walk.turns.end()
    assert (walk.budget.in_flight, walk.budget.retrying) == (0, 0)


# ---- whatever happens

ERRORS = [
    ConnectError("x"),
    ResetError("x"),
    HICCUP,
    OVERLOAD,
    OverloadedError("x", upstream_status=503, retry_after_s=2.0),
    RateLimitedError("x", retry_after_s=1.0),
    RateLimitedError("x", retry_after_s=30.0),
    RateLimitedError("x"),
    CredentialsError("x"),
    ContextLengthError("x"),
    BadRequestError("x"),
]
RESTING = st.tuples(st.sampled_from(["parked", "open"]), st.floats(NOW_S + 0.5, NOW_S + 40.0))


@given(
    st.integers(0, 8),
    st.lists(RESTING, max_size=3),
    st.booleans(),
    st.floats(0.5, 600.0),
    st.sampled_from([1, 2, ATTEMPTS_MAX]),
    st.lists(st.sampled_from(ERRORS), min_size=12, max_size=12),
)
def test_it_always_ends_within_its_caps_and_its_time(count, resting, explicit, total_s, attempts_max, errors):
    walk = Walk(count, resting=resting, explicit=explicit, total_s=total_s, attempts_max=attempts_max)
    for place, (standing, until_s) in enumerate(resting):
        kind = "rate_limit" if standing == "parked" else "server"
        walk.down(f"r{place}/x", kind, retry_after_s=until_s - NOW_S)
    queue = iter(errors)
    seen, error = walk.rest(lambda: next(queue))
    walk.turns.end()
    names = [name for name, _ in seen]
    assert len(seen) <= attempts_max
    assert all(names.count(name) <= ATTEMPTS_PER_ENDPOINT_MAX for name in names)
    assert walk.now_s - NOW_S <= min(total_s, ALONE_WAIT_MAX_S) + 1e-6
    assert error is not None or not walk.turns.errors[-1].retryable
    assert (walk.budget.in_flight, walk.budget.retrying) == (0, 0)
    assert all(walk.health.of(name).in_flight == 0 for name in names)

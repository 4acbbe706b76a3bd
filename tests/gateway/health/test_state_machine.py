"""Whatever is done to an Endpoint's health, it does what the plain model says."""

import os
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.health import Health, Permit, Result
from tests.gateway.health.health_model import Model

FULL = os.environ.get("MIXGATE_TEST_FULL") == "1"
LEGAL = {("closed", "open"), ("open", "half_open"), ("half_open", "open"), ("half_open", "closed")}
KINDS = (
    None,
    "connect",
    "overload",
    "rate_limit",
    "server",
    "timeout",
    "stall",
    "midstream",
    "auth",
    "context",
    "unsupported",
    "client",
    "geo",
    "cancelled",
    "full",
    "gateway",
)
RETRY_AFTER = st.none() | st.sampled_from([0.0, -1.0, 0.4, 2.0, 7.0, 299.0, 1e9])
STEP = st.sampled_from([0.0, 0.01, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 61.0, 300.0, 601.0])


class EndpointHealthAgainstTheModel(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.health = Health(lambda: 0.5).of("one")
        self.model = Model()
        self.now_s = 1000.0
        self.running = []

    @rule(step_s=STEP)
    def time_passes(self, step_s):
        self.now_s += step_s

    @rule(panic=st.booleans(), times=st.integers(1, 4))
    def somebody_asks(self, panic, times):
        for _ in range(times):
            cap = self.health.observe(self.now_s).cap
            permit = self.health.enter(self.now_s, panic=panic)
            assert permit.name == self.model.enter(self.now_s, panic, cap)
            if permit is not Permit.REFUSED:
                self.running.append(permit)

    def end(self, place, kind, retry_after_s=None):
        permit = self.running.pop(place % len(self.running))
        ttft_s = 0.3 if kind in (None, "midstream") else None
        result = Result(failure=kind, ttft_s=ttft_s, duration_s=1.0, output_tokens=20, retry_after_s=retry_after_s)
        self.health.leave(permit, result, self.now_s)
        self.model.leave(permit.name, kind, retry_after_s, self.now_s)

    @precondition(lambda self: self.running)
    @rule(place=st.integers(0, 50), kind=st.sampled_from(KINDS), retry_after_s=RETRY_AFTER)
    def an_attempt_ends(self, place, kind, retry_after_s):
        self.end(place, kind, retry_after_s)

    @precondition(lambda self: self.running)
    @rule(kind=st.sampled_from((None, None, "server", "connect", "timeout")))
    def all_attempts_end(self, kind):
        while self.running:
            self.end(0, kind)

    @rule(kinds=st.lists(st.sampled_from((None, None, None, "server", "stall")), max_size=14))
    def traffic_comes_and_goes(self, kinds):
        for kind in kinds:
            self.somebody_asks(panic=False, times=1)
            if self.running:
                self.end(-1, kind)

    @rule(ok=st.booleans())
    def somebody_looks_for_free(self, ok):
        before, until_s = self.health.observe(self.now_s), self.health._breaker.until_s
        self.health.note_probe(ok, self.now_s)
        if before.standing not in ("healthy", "degraded"):
            assert self.health.observe(self.now_s).standing == before.standing
        assert self.health._breaker.until_s == until_s

    @precondition(lambda self: self.running)
    @rule(kind=st.sampled_from(("timeout", "stall")))
    def a_timeout_was_our_own(self, kind):
        permit = self.running.pop()
        self.health.leave(permit, Result(failure=kind, lagged=True), self.now_s)
        self.model.leave(permit.name, "gateway", None, self.now_s)

    @invariant()
    def they_agree(self):
        seen, model = self.health.observe(self.now_s), self.model
        expected = model.standing(self.now_s)
        looks_bad = seen.standing == "degraded" and expected == "healthy" and seen.uptime is None
        assert seen.standing == expected or looks_bad
        assert seen.in_flight == model.in_flight == len(self.running)
        assert seen.outage == model.is_bad(self.now_s, 1, 30, 3, 0.5)
        assert 0.0 <= seen.weight <= 1.0
        assert self.running.count(Permit.PROBE) <= 1
        assert self.running.count(Permit.PANIC) <= 2
        if seen.standing in ("parked", "open", "disabled"):
            assert seen.until_s > self.now_s
        assert all(change in LEGAL for change in pairwise(model.history))
        assert self.health._breaker.state == model.state

    @invariant()
    def a_value_is_kept_only_while_it_is_true(self):
        kept = self.health.observe(self.now_s)
        assert self.health.observe(self.now_s) is kept

    def teardown(self):
        while self.running:
            self.end(0, "cancelled")
        assert self.health.observe(self.now_s).in_flight == 0


TestEndpointHealth = EndpointHealthAgainstTheModel.TestCase
TestEndpointHealth.settings = settings(max_examples=2_000 if FULL else 100, stateful_step_count=80, deadline=None)

"""Who is let in: bounds of all and of each key, and what a slow event loop does to them."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from gateway import admission
from gateway.admission import LAG_EVERY_S, LAG_MAX_S, LAG_WINDOW_S, Admission
from gateway.config.catalogue import GatewaySettings
from gateway.errors import KeyOverLimitError, OverCapacityError


def test_a_keys_fifty_first_request_is_refused_and_others_are_let_in():
    door = Admission()
    for _ in range(50):
        door.enter("key:a")
    with pytest.raises(KeyOverLimitError) as refused:
        door.enter("key:a")
    assert (refused.value.status, refused.value.code, refused.value.retry_after_s) == (429, "key_over_limit", 1.0)
    assert refused.value.type == "rate_limit_error"
    assert "in_flight_per_key_max" in refused.value.message
    door.enter("key:b")
    door.leave("key:a")
    door.enter("key:a")
    assert (door.in_flight, door.refused) == (51, 1)


def test_the_thousand_and_first_request_is_refused_whoever_asks():
    door = Admission()
    for number in range(1000):
        door.enter(f"key:{number}")
    for key in ("key:0", "key:new", None):
        with pytest.raises(OverCapacityError) as refused:
            door.enter(key)
        assert (refused.value.status, refused.value.code) == (503, "gateway_overloaded")
        assert refused.value.retry_after_s == 1.0
    assert (door.in_flight, door.refused) == (1000, 3)


def test_without_keys_there_is_nobody_to_be_fair_to():
    door = Admission()
    for _ in range(1000):
        door.enter(None)
    with pytest.raises(OverCapacityError):
        door.enter(None)


def test_bounds_may_change_under_running_requests():
    door = Admission(in_flight_max=10, in_flight_per_key_max=10)
    for _ in range(5):
        door.enter("key:a")
    door.in_flight_per_key_max = 3
    with pytest.raises(KeyOverLimitError):
        door.enter("key:a")
    door.in_flight_max = 5
    with pytest.raises(OverCapacityError):
        door.enter("key:b")
    for _ in range(5):
        door.leave("key:a")
    for _ in range(3):
        door.enter("key:a")
    assert door.in_flight == 3


def test_a_key_that_has_nothing_on_its_way_is_forgotten():
    door = Admission()
    for number in range(10_000):
        door.enter(f"key:{number}")
        door.leave(f"key:{number}")
    assert door.in_flight == 0
    assert door._by_key == {}


def late(door, seconds, *late_s):
    for _ in range(round(seconds / (LAG_EVERY_S + LAG_MAX_S))):
        for each in late_s:
            door.note_lag(each)


def test_a_loop_that_is_late_for_five_seconds_lets_nobody_in_until_it_is_not():
    door = Admission()
    late(door, LAG_WINDOW_S - 0.5, LAG_MAX_S + 0.01)
    door.enter(None)
    late(door, 1.0, LAG_MAX_S + 0.01)
    with pytest.raises(OverCapacityError):
        door.enter(None)
    door.note_lag(0.01)
    door.enter(None)
    assert door.in_flight == 2


def test_one_long_pause_or_a_loop_that_is_late_now_and_then_refuses_nobody():
    door = Admission()
    door.note_lag(60.0)
    door.enter(None)
    late(door, 20.0, LAG_MAX_S + 1.0, 0.0)
    door.enter(None)


class AgainstCounting(RuleBasedStateMachine):
    """Every request let in leaves once; nothing else is kept."""

    inside = Bundle("inside")

    def __init__(self):
        super().__init__()
        self.door = Admission(in_flight_max=8, in_flight_per_key_max=3)
        self.keys = []

    @rule(target=inside, key=st.sampled_from([None, "a", "b", "c", "d"]))
    def enter(self, key):
        over_all = len(self.keys) >= 8
        over_own = key is not None and self.keys.count(key) >= 3
        try:
            self.door.enter(key)
        except OverCapacityError:
            assert over_all
            return "refused"
        except KeyOverLimitError:
            assert over_own
            assert not over_all
            return "refused"
        assert not over_all
        assert not over_own
        self.keys.append(key)
        return key

    @rule(key=inside)
    def leave(self, key):
        if key != "refused" and key in self.keys:
            self.keys.remove(key)
            self.door.leave(key)

    @invariant()
    def the_counts_agree(self):
        assert self.door.in_flight == len(self.keys)
        named = [key for key in self.keys if key is not None]
        assert self.door._by_key == {key: named.count(key) for key in named}


TestAgainstCounting = AgainstCounting.TestCase


def test_its_defaults_are_those_of_the_configuration():

    settings = GatewaySettings()
    assert (settings.in_flight_max, settings.in_flight_per_key_max) == (
        admission.IN_FLIGHT_MAX,
        admission.IN_FLIGHT_PER_KEY_MAX,
    )

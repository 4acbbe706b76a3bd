"""One test for each transition of the breaker, as the engine meets it: by permits and results."""

import random

import pytest

from gateway.health import Health, Permit, Result

GOOD = Result(ttft_s=0.2, duration_s=1.0, output_tokens=10)
OPEN_TIMES_S = (5.0, 10.0, 20.0, 20.0, 20.0)


def failed(kind, **more):
    return Result(failure=kind, **more)


class Driver:
    """One Endpoint, asked and answered at a time of its own."""

    def __init__(self, draw=0.5, siblings=1):
        self.changes = []
        self.fleet = Health(lambda: draw, on_change=lambda *change: self.changes.append(change))
        self.fleet.set_routes({"route": tuple("abcdefgh"[:siblings])})
        self.health = self.fleet.of("a")
        self.now_s = 1000.0

    def ask(self, result, *, panic=False):
        permit = self.health.enter(self.now_s, panic=panic)
        if permit is not Permit.REFUSED:
            self.health.leave(permit, result, self.now_s)
        return permit

    def seen(self):
        return self.health.observe(self.now_s)

    def open(self, kind="server"):
        while self.seen().standing in ("healthy", "degraded"):
            self.ask(failed(kind))
        return self

    def wait_until_due(self):
        self.now_s = self.seen().until_s
        return self

    def close(self):
        self.wait_until_due()
        assert [self.ask(GOOD), self.ask(GOOD)] == [Permit.PROBE, Permit.PROBE]
        return self


@pytest.mark.parametrize("kind", ["overload", "server", "timeout", "stall", "midstream"])
def test_three_failures_in_a_row_open_it(kind):
    driver = Driver()
    permits = [driver.ask(failed(kind)) for _ in range(5)]
    assert permits == [Permit.NORMAL] * 3 + [Permit.REFUSED] * 2
    assert driver.seen().standing == "open"
    assert driver.changes == [("a", "open", f"3 failures in a row, the last one: {kind}", 1000.0)]


def test_two_failures_to_connect_open_it():
    driver = Driver()
    assert [driver.ask(failed("connect")) for _ in range(3)] == [Permit.NORMAL, Permit.NORMAL, Permit.REFUSED]


def test_a_good_answer_in_between_starts_the_count_again():
    driver = Driver()
    for result in (failed("server"), failed("server"), GOOD) * 3 + (failed("connect"), GOOD) * 3:
        assert driver.ask(result) is Permit.NORMAL
        driver.now_s += 7.0  # or half of ten within a minute would do it


@pytest.mark.parametrize("kind", ["cancelled", "context", "unsupported", "client", "geo", "full", "gateway"])
def test_what_is_not_its_fault_is_never_held_against_it(kind):
    driver = Driver()
    for _ in range(50):
        assert driver.ask(failed(kind)) is Permit.NORMAL
    assert driver.seen().standing == "healthy"
    assert not driver.seen().outage
    assert driver.changes == []


def test_rate_limits_are_never_counted_as_failures():
    driver = Driver()
    for _ in range(50):
        assert driver.ask(failed("rate_limit", retry_after_s=0.0)) is Permit.NORMAL
        driver.ask(GOOD)
    assert driver.seen().standing == "healthy"
    assert not driver.seen().outage


def test_half_of_ten_failing_within_a_minute_opens_it():
    driver = Driver()
    for _ in range(4):
        driver.ask(GOOD)
        driver.ask(failed("server"))
    driver.ask(GOOD)
    assert driver.seen().standing == "healthy"  # nine say nothing yet
    driver.ask(failed("server"))
    assert driver.seen().standing == "open"
    assert driver.changes[-1][2] == "5 of 10 requests failed within a minute, the last one: server"


def test_one_in_twenty_failing_degrades_it_for_a_minute():
    driver = Driver()
    for _ in range(19):
        driver.ask(GOOD)
    driver.ask(failed("stall"))
    assert driver.seen().standing == "degraded"
    assert driver.ask(GOOD) is Permit.NORMAL
    driver.now_s += 60.0
    assert driver.seen().standing == "healthy"
    assert [change[1] for change in driver.changes] == ["degraded", "healthy"]


def test_half_of_three_failing_is_an_outage_for_thirty_seconds():
    driver = Driver()
    for result in (GOOD, failed("server")):
        driver.ask(result)
    assert not driver.seen().outage
    driver.ask(failed("server"))
    assert driver.seen().outage
    driver.now_s += 29.0
    assert driver.seen().outage
    driver.now_s += 1.0
    assert not driver.seen().outage


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0])
def test_it_stays_open_for_longer_each_time_up_to_a_limit(draw):
    driver = Driver(draw).open()
    for open_s in OPEN_TIMES_S:
        assert driver.seen().until_s - driver.now_s == pytest.approx(open_s * (0.8 + 0.4 * draw))
        driver.now_s = driver.seen().until_s - 0.001
        assert driver.ask(GOOD) is Permit.REFUSED
        driver.now_s += 0.001
        assert driver.ask(failed("server")) is Permit.PROBE


def test_half_open_has_one_permit_at_a_time():
    driver = Driver().open().wait_until_due()
    assert driver.seen().standing == "probing"
    assert driver.health.enter(driver.now_s) is Permit.PROBE
    assert driver.health.enter(driver.now_s) is Permit.REFUSED
    assert driver.seen().standing == "open"
    assert driver.seen().until_s > driver.now_s
    driver.health.leave(Permit.PROBE, GOOD, driver.now_s)
    assert driver.seen().standing == "probing"


def test_two_good_answers_close_it_and_it_starts_slowly():
    driver = Driver().open().close()
    start_s = driver.now_s
    assert [change[1] for change in driver.changes] == ["open", "probing", "healthy"]
    for passed_s, weight in ((0.0, 0.1), (30.0, 0.55), (60.0, 1.0), (600.0, 1.0)):
        driver.now_s = start_s + passed_s
        assert driver.seen().weight == pytest.approx(weight)
    assert driver.ask(GOOD) is Permit.NORMAL


def test_a_recovery_is_not_undone_by_the_failures_before_it():
    driver = Driver()
    for _ in range(5):
        driver.ask(GOOD)
        driver.ask(failed("connect"))
    driver.close()
    assert not driver.seen().outage
    driver.ask(failed("server"))
    assert driver.seen().standing == "healthy"


@pytest.mark.parametrize("kind", ["server", "connect", "timeout", "rate_limit"])
def test_a_failed_probe_opens_it_again_for_longer(kind):
    driver = Driver().open().wait_until_due()
    driver.ask(GOOD)
    assert driver.ask(failed(kind, retry_after_s=0.0)) is Permit.PROBE
    assert driver.seen().standing == "open"
    assert driver.seen().until_s - driver.now_s == pytest.approx(10.0)
    driver.wait_until_due()
    driver.ask(GOOD)
    assert driver.seen().standing == "probing"  # two in a row are needed, and one was before the failure


@pytest.mark.parametrize("kind", ["cancelled", "client", "context", "unsupported", "geo", "full", "gateway"])
def test_a_probe_without_a_verdict_gives_its_permit_back(kind):
    driver = Driver().open().wait_until_due()
    assert driver.ask(failed(kind)) is Permit.PROBE
    assert driver.seen().standing == "probing"
    assert [driver.ask(GOOD), driver.ask(GOOD), driver.ask(GOOD)] == [Permit.PROBE, Permit.PROBE, Permit.NORMAL]


def test_ten_minutes_closed_make_the_next_time_open_short():
    driver = Driver()
    for closed_s, open_s in ((0.0, 5.0), (599.0, 10.0), (599.0, 20.0), (600.0, 5.0)):
        driver.now_s += closed_s
        driver.open()
        assert driver.seen().until_s - driver.now_s == pytest.approx(open_s)
        driver.close()


def test_what_was_under_way_when_it_opened_changes_nothing():
    driver = Driver()
    permits = [driver.health.enter(driver.now_s) for _ in range(8)]
    for permit in permits[:3]:
        driver.health.leave(permit, failed("server"), driver.now_s)
    until_s = driver.seen().until_s
    driver.now_s += 4.0
    for permit, result in zip(permits[3:], (failed("server"), GOOD, failed("connect"), GOOD, GOOD), strict=True):
        driver.health.leave(permit, result, driver.now_s)
    assert (driver.seen().standing, driver.seen().until_s) == ("open", until_s)
    assert driver.seen().in_flight == 0


def test_panic_asks_an_open_one_with_two_requests_at_once():
    driver = Driver().open()
    permits = [driver.health.enter(driver.now_s, panic=True) for _ in range(3)]
    assert permits == [Permit.PANIC, Permit.PANIC, Permit.REFUSED]
    driver.health.leave(permits[0], GOOD, driver.now_s)
    assert driver.health.enter(driver.now_s, panic=True) is Permit.PANIC
    assert driver.seen().standing == "open"  # it stays so until it is due


def test_panic_takes_the_ordinary_permits_where_there_are_any():
    driver = Driver()
    assert driver.ask(GOOD, panic=True) is Permit.NORMAL
    assert driver.open().wait_until_due().ask(GOOD, panic=True) is Permit.PROBE


def test_panic_asks_no_parked_and_no_disabled_one():
    for kind in ("rate_limit", "auth"):
        driver = Driver()
        driver.ask(failed(kind, retry_after_s=10.0))
        assert driver.ask(GOOD, panic=True) is Permit.REFUSED


def test_a_refused_key_disables_it_for_five_minutes_and_one_request_looks_again():
    driver = Driver()
    driver.ask(failed("auth"))
    assert (driver.seen().standing, driver.seen().until_s) == ("disabled", driver.now_s + 300.0)
    driver.now_s += 299.9
    assert driver.ask(GOOD) is Permit.REFUSED
    driver.now_s += 0.1
    assert driver.seen().standing == "probing"
    assert driver.health.enter(driver.now_s) is Permit.PROBE
    assert driver.ask(GOOD) is Permit.REFUSED
    driver.health.leave(Permit.PROBE, failed("auth"), driver.now_s)
    assert (driver.seen().standing, driver.seen().until_s) == ("disabled", driver.now_s + 300.0)
    driver.wait_until_due()
    assert [driver.ask(GOOD), driver.ask(GOOD)] == [Permit.PROBE, Permit.NORMAL]
    assert driver.seen().standing == "healthy"


def test_another_failure_of_that_look_tells_nothing_of_the_key():
    driver = Driver()
    driver.ask(failed("auth"))
    driver.wait_until_due().ask(failed("server"))
    assert (driver.seen().standing, driver.seen().until_s) == ("disabled", driver.now_s + 30.0)


def test_three_callers_who_are_all_told_they_are_wrong_are_right():
    driver = Driver()
    for place in range(4):
        driver.ask(failed("client", caller="abcd"[place]))
    assert driver.seen().standing == "healthy"
    driver.ask(failed("client", caller="a"))
    assert driver.seen().standing == "open"


def test_one_caller_who_is_told_so_often_is_wrong():
    driver = Driver()
    for _ in range(50):
        driver.ask(failed("client", caller="a"))
        driver.ask(failed("client", caller="b"))
        driver.ask(failed("client"))
    assert driver.seen().standing == "healthy"


def test_callers_are_wrong_where_others_are_answered():
    driver = Driver()
    for place in range(50):
        driver.ask(failed("client", caller=str(place)))
        driver.ask(GOOD if place % 3 == 0 else failed("client", caller="x"))
    assert driver.seen().standing == "healthy"


def test_a_timeout_while_our_own_loop_lagged_is_no_sample():
    driver = Driver()
    for _ in range(20):
        assert driver.ask(failed("timeout", lagged=True)) is Permit.NORMAL
    assert driver.seen().standing == "healthy"
    assert driver.fleet.drain_minutes(1) == []


def test_a_good_free_look_opens_nothing_sooner_and_a_bad_one_opens_nothing():
    driver = Driver()
    for _ in range(2):
        driver.health.note_probe(ok=False, now_s=driver.now_s)
    assert driver.seen().standing == "healthy"
    driver.health.note_probe(ok=False, now_s=driver.now_s)
    assert driver.seen().standing == "degraded"
    assert driver.ask(GOOD) is Permit.NORMAL
    assert driver.seen().standing == "healthy"
    driver.open()
    until_s = driver.seen().until_s
    for _ in range(10):
        driver.health.note_probe(ok=True, now_s=driver.now_s)
    assert (driver.seen().standing, driver.seen().until_s) == ("open", until_s)


def test_an_idle_endpoint_that_free_looks_find_down_goes_behind_until_they_find_it_up():
    driver = Driver()
    looks = [False, False, True, False, False, False, True, False, True, True]
    standings = []
    for ok in looks:
        driver.health.note_probe(ok, driver.now_s)
        standings.append(driver.seen().standing == "degraded")
    assert standings == [False] * 5 + [True] * 4 + [False]


def test_looks_of_long_ago_say_nothing():
    driver = Driver()
    for _ in range(3):
        driver.health.note_probe(ok=False, now_s=driver.now_s)
    driver.now_s += 299.0
    assert driver.seen().standing == "degraded"
    driver.now_s += 1.0
    assert driver.seen().standing == "healthy"


STEADY_S = tuple(3.0 * place for place in range(20))
IN_BURSTS_S = (*[0.0] * 6, 4.0, 12.0, 12.1, *(28.0 + place for place in range(11)))


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["server", "overload", "connect", "stall"])
@pytest.mark.parametrize("arrivals_s", [STEADY_S, IN_BURSTS_S])
def test_sixty_seconds_down_cost_at_most_eight_of_twenty_requests(draw, kind, arrivals_s):
    """Each is sent to it first, and elsewhere where it may not be or fails; from then on one comes every second."""
    driver = Driver(draw, siblings=2)
    start_s, tries = driver.now_s, 0
    for at_s in arrivals_s:
        driver.now_s = start_s + at_s
        tries += driver.ask(failed(kind)) is not Permit.REFUSED
    assert 2 <= tries <= 8
    driver.now_s = start_s + 60.0
    while driver.ask(GOOD) is Permit.REFUSED:
        driver.now_s += 1.0
    assert driver.now_s <= start_s + 60.0 + 30.0


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0])
def test_five_minutes_down_cost_one_request_per_open_period_and_recovery_is_seen_soon(draw):
    """Ten requests a second, each sent to it first."""
    driver = Driver(draw, siblings=2)
    start_s, tries = driver.now_s, 0
    for place in range(3000):
        driver.now_s = start_s + place / 10
        tries += driver.ask(failed("server")) is not Permit.REFUSED
    periods = sum(change[1] == "open" for change in driver.changes)
    assert tries == 3 + periods - 1
    assert periods <= 2 + 300.0 / (20.0 * (0.8 + 0.4 * draw)) + 2
    weights = []
    for place in range(900):
        driver.now_s = start_s + 300.0 + place / 10
        driver.ask(GOOD)
        if driver.changes[-1][1] == "healthy":
            weights.append(driver.seen().weight)
    healed_s = driver.changes[-1][3] - start_s - 300.0
    assert healed_s <= 30.0
    assert weights == sorted(weights)
    assert (weights[0], weights[-1]) == (pytest.approx(0.1), 1.0)


def test_a_third_failing_at_random_is_seen_within_a_minute():
    for seed in range(20):
        driver, draw = Driver(), random.Random(seed)
        while driver.seen().standing == "healthy" and driver.now_s < 1100.0:
            driver.now_s += 0.5
            driver.ask(failed("server") if draw.random() < 0.3 else GOOD)
        assert driver.now_s <= 1060.0

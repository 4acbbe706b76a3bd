import pytest

from gateway.health import Health, Permit, Result
from gateway.observation import UNOBSERVED, MinuteRow

GOOD = Result(ttft_s=0.2, duration_s=1.0, output_tokens=10, prompt_tokens=7)
COLUMNS = {
    "connect": "fail_connect",
    "overload": "fail_server",
    "server": "fail_server",
    "auth": "fail_server",
    "timeout": "fail_timeout",
    "stall": "fail_timeout",
    "midstream": "fail_mid",
    "rate_limit": "rate_limited",
    "full": "rate_limited",
    "context": "client_err",
    "unsupported": "client_err",
    "client": "client_err",
    "geo": "geo",
    "cancelled": "cancelled",
}
AGAINST = {"connect", "overload", "server", "auth", "timeout", "stall", "midstream"}


def ends(health, result, now_s):
    health.in_flight += 1
    health.leave(Permit.NORMAL, result, now_s)


@pytest.mark.parametrize("kind", COLUMNS)
def test_every_kind_has_its_column_and_counts_against_it_or_not_at_all(kind):
    fleet = Health(lambda: 0.5)
    health = fleet.of("a")
    for _ in range(30):
        ends(health, GOOD, 100.0)
    for _ in range(10):
        ends(health, Result(failure=kind, retry_after_s=0.0), 100.0)
    (row,) = fleet.drain_minutes(5)
    assert (row.endpoint_id, row.minute, row.ok, row.tok_in, row.tok_out) == ("a", 5, 30, 210, 300)
    counted = {name: getattr(row, name) for name in set(COLUMNS.values())}
    assert counted == {name: 10 if name == COLUMNS[kind] else 0 for name in counted}
    assert health.observe(102.0).uptime == (0.75 if kind in AGAINST else 1.0)


def test_our_own_faults_are_in_no_column():
    fleet = Health(lambda: 0.5)
    ends(fleet.of("a"), Result(failure="gateway"), 100.0)
    assert fleet.drain_minutes(5) == []


def test_free_looks_are_counted_apart():
    fleet = Health(lambda: 0.5)
    fleet.of("a").note_probe(ok=True, now_s=1.0)
    fleet.of("a").note_probe(ok=False, now_s=1.0)
    (row,) = fleet.drain_minutes(5)
    assert (row.probe_ok, row.probe_fail, row.ok, row.failed) == (1, 1, 0, 0)
    assert fleet.of("a").share(2.0, 5).uptime is None


def test_a_cut_answer_is_billed_and_timed():
    fleet = Health(lambda: 0.5)
    ends(fleet.of("a"), Result(failure="midstream", ttft_s=0.2, output_tokens=3, prompt_tokens=7, committed=True), 1.0)
    (row,) = fleet.drain_minutes(5)
    assert (row.tok_in, row.tok_out, row.fail_mid, len(row.ttft_hist)) == (7, 3, 1, 128)


def test_what_was_drained_is_not_drained_again():
    fleet = Health(lambda: 0.5)
    ends(fleet.of("a"), GOOD, 1.0)
    assert len(fleet.drain_minutes(5)) == 1
    assert fleet.drain_minutes(6) == []
    ends(fleet.of("a"), GOOD, 61.0)
    ends(fleet.of("b"), GOOD, 61.0)
    assert [(row.endpoint_id, row.minute, row.ok) for row in fleet.drain_minutes(6)] == [("a", 6, 1), ("b", 6, 1)]


def test_uptime_needs_twenty_answers_and_takes_thirty_minutes_where_five_have_fewer():
    health = Health(lambda: 0.5).of("a")
    for _ in range(19):
        ends(health, GOOD, 0.0)
    assert health.observe(1.0).uptime is None
    ends(health, Result(failure="stall"), 1.0)
    assert health.observe(2.0).uptime == 0.95
    assert health.observe(360.0).uptime == 0.95
    for _ in range(20):
        ends(health, GOOD, 600.0)
    assert health.observe(601.0).uptime == 1.0
    assert health.observe(1000.0).uptime == 39 / 40
    assert health.observe(3000.0).uptime is None


def test_windows_hold_what_belongs_to_them():
    health = Health(lambda: 0.5).of("a")
    for minute in range(0, 1500, 10):
        ends(health, GOOD if minute % 20 else Result(failure="stall"), 60.0 * minute)
    now_s = 60.0 * 1499
    assert health.share(now_s, 5).answers == 0
    assert (health.share(now_s, 30).answers, health.share(now_s, 30).uptime) == (3, 2 / 3)
    assert health.share(now_s, 1440).answers == 144


def test_a_restart_takes_up_what_was_kept():
    old, new = Health(lambda: 0.5), Health(lambda: 0.5)
    rows = []
    for minute in range(40):
        for place in range(3):
            ends(old.of("a"), Result(failure="midstream") if place == 0 else GOOD, 60.0 * minute + 1)
        rows += old.drain_minutes(28_000_000 + minute)
    new.restore(reversed(rows), now_unix_minute=28_000_039, now_s=12.0)
    assert new.of("a").share(12.0, 5) == old.of("a").share(60.0 * 39 + 2, 5)
    assert new.of("a").share(12.0, 30) == old.of("a").share(60.0 * 39 + 2, 30)
    assert new.of("a").share(12.0, 1440).answers == 120
    assert new.observe("a", 12.0).standing == "healthy"
    assert new.observe("a", 12.0).uptime == pytest.approx(2 / 3)
    ends(new.of("a"), GOOD, 13.0)
    assert new.of("a").share(13.0, 30).answers == 91
    assert new.drain_minutes(28_000_040)[0].ok == 1


def test_rows_of_the_future_and_of_long_ago_are_dropped():
    health = Health(lambda: 0.5)
    rows = [MinuteRow(endpoint_id="a", minute=minute, ok=1) for minute in (8560, 8561, 10_000, 10_001, 99_999)]
    health.restore(rows, now_unix_minute=10_000, now_s=5.0)
    assert health.of("a").share(5.0, 1440).answers == 2


def test_jumps_of_the_wall_clock_change_no_window():
    fleet = Health(lambda: 0.5)
    for place in range(40):
        ends(fleet.of("a"), GOOD, 100.0 + place)
        fleet.drain_minutes(28_000_000 + 60 * (-1) ** place)
    assert fleet.of("a").share(140.0, 5).answers == 40


def test_who_was_never_asked_is_unobserved():
    fleet = Health(lambda: 0.5)
    assert fleet.observe("a", 1.0) is UNOBSERVED
    assert fleet.of("a").observe(1.0) == UNOBSERVED


def test_what_a_local_worker_says_of_itself_is_seen():
    health = Health(lambda: 0.5).of("local/demo")
    permit = health.enter(1.0)
    assert health.observe(1.0).cap is None
    health.note_capacity(3, 24)
    assert (health.observe(1.0).in_flight, health.observe(1.0).cap) == (4, 24)
    health.leave(permit, GOOD, 2.0)
    assert health.observe(2.0).in_flight == 3

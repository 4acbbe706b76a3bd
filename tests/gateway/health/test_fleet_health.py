from gateway.health import Health, Permit, Result

GOOD = Result(ttft_s=0.2, duration_s=1.0, output_tokens=10)


def fail_half(health, now_s):
    """Five of ten, never two in a row."""
    for place in range(10):
        permit = health.enter(now_s)
        health.leave(permit, Result(failure="server") if place % 2 else GOOD, now_s)


def fail_all(health, now_s):
    for _ in range(3):
        health.leave(health.enter(now_s), Result(failure="server"), now_s)


def standings(fleet, names, now_s):
    return [fleet.observe(name, now_s).standing for name in names]


def test_ratios_take_out_half_of_a_route_at_most():
    for size, out in ((1, 1), (2, 1), (3, 1), (4, 2), (7, 3)):
        fleet, names = Health(lambda: 0.5), "abcdefg"[:size]
        fleet.set_routes({"route": tuple(names)})
        for name in names:
            fail_half(fleet.of(name), 100.0)
        assert standings(fleet, names, 100.0) == ["open"] * out + ["degraded"] * (size - out)


def test_failures_in_a_row_take_out_all():
    fleet = Health(lambda: 0.5)
    fleet.set_routes({"route": ("a", "b")})
    for name in "ab":
        fail_all(fleet.of(name), 100.0)
    assert standings(fleet, "ab", 100.0) == ["open", "open"]


def test_ratios_leave_the_one_that_is_left_in_any_of_its_routes():
    fleet = Health(lambda: 0.5)
    fleet.set_routes({"large": tuple("abcdef"), "small": ("a", "b")})
    fail_all(fleet.of("b"), 100.0)
    fail_half(fleet.of("a"), 100.0)
    fail_half(fleet.of("c"), 100.0)
    assert standings(fleet, "abc", 100.0) == ["degraded", "open", "open"]


def test_a_disabled_one_is_out_too():
    fleet = Health(lambda: 0.5)
    fleet.set_routes({"route": ("a", "b")})
    health = fleet.of("a")
    health.leave(health.enter(100.0), Result(failure="auth"), 100.0)
    fail_half(fleet.of("b"), 100.0)
    assert standings(fleet, "ab", 100.0) == ["disabled", "degraded"]


def test_an_endpoint_of_no_route_is_alone():
    fleet = Health(lambda: 0.5)
    fail_half(fleet.of("a"), 100.0)
    assert standings(fleet, "a", 100.0) == ["open"]


def test_a_reload_forgets_what_is_gone_once_nobody_is_on_the_way_to_it():
    fleet = Health(lambda: 0.5)
    kept, gone, busy = (fleet.of(name) for name in "abc")
    for health in (kept, gone):
        fail_all(health, 100.0)
    permit = busy.enter(100.0)
    fleet.keep(["a"])
    assert fleet.of("a") is kept
    assert fleet.of("b") is not gone
    assert fleet.of("c") is busy
    busy.leave(permit, GOOD, 101.0)
    fleet.keep(["a"])
    assert fleet.of("c") is not busy
    assert standings(fleet, "abc", 100.0) == ["open", "healthy", "healthy"]


def test_each_route_has_a_budget_of_its_own_within_the_gateways():
    fleet = Health(lambda: 0.5)
    fleet.set_routes({"one": ("a",), "two": ("b",)})
    assert fleet.retries_of("one") is fleet.retries_of("one") is not fleet.retries_of("two")
    assert fleet.retries_of("unknown") is fleet.retries
    one = fleet.retries_of("one")
    one.begin(1.0)
    assert fleet.retries.in_flight == 1
    fleet.set_routes({"two": ("b",)})
    assert fleet.retries_of("one") is fleet.retries


def test_an_attempt_that_was_sent_without_a_permit_counts_in_the_figures_only():
    health = Health(lambda: 0.5).of("a")
    fail_all(health, 100.0)
    assert health.enter(100.0) is Permit.REFUSED
    health.leave(Permit.REFUSED, GOOD, 100.0)
    seen = health.observe(100.0)
    assert (seen.standing, seen.in_flight) == ("open", 0)
    assert health.share(100.0, 5).answers == 4

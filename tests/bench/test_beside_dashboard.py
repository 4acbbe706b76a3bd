"""What is made of windows with and without a visitor of the dashboard."""

import pytest

from bench.beside_dashboard import PAGES, Window, judge_beside_dashboard


def test_medians_of_pairs_are_compared():
    alone = [Window(100, 200), Window(100, 1000), Window(110, 210)]
    used = [Window(105, 225), Window(100, 220), Window(500, 9000)]
    p99, p50, page = judge_beside_dashboard(alone, used, [90.0, 2000.0, 100.0])
    assert p99.value == pytest.approx(225 / 210)
    assert p50.value == pytest.approx(105 / 100)
    assert page.value == 100.0
    assert [one.status for one in (p99, p50, page)] == ["PASS", "PASS", "PASS"]


def test_pairs_that_others_disturbed_count_only_where_hardly_any_was_not():
    calm, loud = Window(100, 200), Window(100, 900, foreign_share=0.5)
    three = [calm] * 3
    assert judge_beside_dashboard([*three, *three], [*three, loud, loud, loud], [1.0])[0].value == 1
    assert judge_beside_dashboard(three, [loud, loud, calm], [1.0])[0].value == pytest.approx(4.5)


def test_a_dashboard_that_slows_requests_down_or_is_slow_itself_fails():
    found = judge_beside_dashboard([Window(100, 200)], [Window(120, 400)], [1500.0])
    assert [one.status for one in found] == ["FAIL", "FAIL", "FAIL"]


def test_nothing_measured_is_no_success():
    assert {one.status for one in judge_beside_dashboard([], [], [])} == {"not run"}


def test_a_visitor_sees_all_kinds_of_pages():
    fetched = {path.partition("?")[0] for page in PAGES for path in page}
    assert {"overview", "spend/series", "endpoints", "requests", "live"} <= fetched

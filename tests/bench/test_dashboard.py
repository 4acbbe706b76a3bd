"""What the dashboard is measured by: what it is asked, how its pages are judged, and one short run of all of it."""

import json
import shutil
from contextlib import closing

import pytest

from bench.__main__ import main
from bench.beside_dashboard import CHART, PAGES
from bench.dashboard import (
    KEYSET_PAGES,
    PAGE_MAX_MS,
    PAINT_MAX_MS,
    ROLL_UP_MAX_MS,
    Opened,
    judge_look_ups,
    judge_pages,
    look_ups,
)
from bench.generated_ledger import DAY_S, DAYS, fill, fill_spans
from bench.visited import CHART_BODY
from gateway.dashboard import charts
from gateway.dashboard.jobs import Job
from gateway.dashboard.views import reply_to
from gateway.state.connection import FILE_NAME
from gateway.state.figures_reader import FiguresReader

NOW_S = 1_760_000_000
ELSEWHERE = {"overview", "live", "prices", "budgets", "endpoints", CHART}
"""What takes a gateway that runs."""


def test_the_bars_are_those_that_were_promised():
    assert (PAINT_MAX_MS, ROLL_UP_MAX_MS, PAGE_MAX_MS) == (1000, 300, 500)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    path = tmp_path_factory.mktemp("ledger") / FILE_NAME
    fill(path, 20_000, since_unix_s=NOW_S - DAYS * DAY_S)
    fill_spans(path, NOW_S)
    with closing(FiguresReader(path)) as reader:
        yield reader


def ask(reader, path):
    what, _, query = path.partition("?")
    job = Job(number=1, what=what, query=query.encode(), unix_s=float(NOW_S), role="admin")
    return json.loads(reply_to(job, reader, None).body)


def test_whatever_is_asked_has_an_answer_with_rows(reader):
    asked = [path for _, paths in look_ups(NOW_S).values() for path in paths]
    asked += [path for page in PAGES for path in page]
    for path in asked:
        if path.partition("?")[0] in ELSEWHERE:
            continue
        answer = ask(reader, path)
        # Of few rows none is of all kinds at once, and nothing has happened to any Endpoint.
        assert answer.get("data", True) or "min_cost" in path or path.count("&") > 2 or path.startswith("events"), path


def test_hours_of_forty_names_are_hours_of_forty_names(reader):
    (path,) = look_ups(NOW_S)["series by hour, 30 days, 40 names"][1]
    answer = ask(reader, path)
    assert len(answer["names"]) == 40
    assert not any(one["others"] for one in answer["names"])


def test_the_chart_that_is_drawn_is_one():
    assert charts.draw(CHART_BODY.encode()).count(b"data-point") > 200


def test_a_kind_is_as_slow_as_its_slowest():
    kind, other = [*look_ups(0)][:2]
    quick, slow, none = judge_look_ups({kind: {"a": 3.0, "b": 299.0}, other: {"c": 1.0, "d": 301.0}, "endpoints": {}})
    assert (quick.value, quick.status) == (299.0, "PASS")
    assert (slow.value, slow.status) == (301.0, "FAIL")
    assert none.status == "not run"


def test_every_page_has_to_paint_in_time_at_half_of_the_visits():
    pages = {
        "one": [Opened(100, 200, 300), Opened(110, 5000, 400), Opened(120, 210, 350)],
        "other": [Opened(1100, 1200, 1300)],
    }
    paint, content, settled, first = judge_pages(Opened(90, 800, 900), pages)
    assert [one.value for one in (paint, content, settled, first)] == [1100, 1200, 1300, 800]
    assert [one.status for one in (paint, content, settled, first)] == ["FAIL", "FAIL", "FAIL", "PASS"]
    assert judge_pages(Opened(90, 800, 900), {"one": pages["one"]})[1].value == 210


def test_without_a_browser_nothing_is_said_of_pages():
    assert {one.status for one in judge_pages(None, {})} == {"not run"}


@pytest.mark.full
@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_all_of_it_is_measured_in_a_gateway_that_runs(tmp_path):
    assert main(["--dashboard", "--quick", "--out", str(tmp_path)]) == 0
    kept = json.loads((tmp_path / "results.json").read_text())["dashboard"]
    assert kept["seen"]["rows"] == 50_000
    pages = [one for name, found in kept["seen"]["look_ups_ms"].items() if "after the other" in name for one in found]
    assert 1 < len(pages) <= KEYSET_PAGES
    assert all(bar["value"] for bar in kept["bars"])
    assert not (tmp_path / "mixgate" / "home" / FILE_NAME).exists()

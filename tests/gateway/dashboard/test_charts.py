"""Charts: SVG that a strict policy lets through, with the words and links that were given, whatever they are."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.dashboard.charts import MAX_BODY_BYTES, MAX_POINTS, MAX_SERIES, ChartError, draw

ROOT = Path(__file__).parents[3]
SVG = "{http://www.w3.org/2000/svg}"
KINDS = ("bars", "stacked-bars", "lines", "time-line")
AFTER_A_CHART = """
import importlib.metadata, importlib.util, sys
from gateway.dashboard.charts import draw
draw(sys.stdin.buffer.read())
print(importlib.metadata.version("pygal"), importlib.util.find_spec("nowhere"))
"""


def described(kind="stacked-bars", points=5, series=2, **more):
    columns = [
        {
            "name": f"name {number}",
            "values": [number + at + 0.5 for at in range(points)],
            "texts": [f"text {number} {at}" for at in range(points)],
            "links": [f"/dashboard/requests?at={at}" for at in range(points)],
        }
        for number in range(series)
    ]
    labels = [f"day {at}" for at in range(points)]
    return {"kind": kind, "label": "a chart", "labels": labels, "series": columns, **more}


def drawn(chart):
    return ET.fromstring(draw(json.dumps(chart).encode()))  # noqa: S314 # our own


@pytest.mark.parametrize("kind", KINDS)
def test_every_point_has_its_words_its_link_and_its_place(kind):
    links = list(drawn(described(kind)).iter(f"{SVG}a"))
    said = {(one.get("data-series"), one.get("data-point")): one.get("aria-label") for one in links}
    assert said == {(str(number), str(at)): f"text {number} {at}" for number in range(2) for at in range(5)}
    assert {one.get("href") for one in links} == {f"/dashboard/requests?at={at}" for at in range(5)}
    assert {one.get("tabindex") for one in links} == {"-1"}


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_no_style_and_no_script_in_it(kind):
    root = drawn(described(kind))
    assert {one.tag for one in root.iter()} <= {
        SVG + name for name in ("svg", "g", "rect", "path", "text", "a", "circle")
    }
    assert not any("style" in one.attrib or any(name.startswith("on") for name in one.attrib) for one in root.iter())


def test_what_is_nothing_is_no_bar_and_the_others_keep_their_places():
    chart = described(series=1, points=4)
    chart["series"][0]["values"] = [0, 2, None, 3]
    assert [one.get("data-point") for one in drawn(chart).iter(f"{SVG}a")] == ["1", "3"]


def test_the_scale_ends_above_the_highest_stack():
    chart = described(series=2, points=1)
    chart["series"][0]["values"], chart["series"][1]["values"] = [3.1], [4.2]
    marks = [one.text for one in drawn(chart | {"unit": "usd"}).iter(f"{SVG}text") if one.text.startswith("$")]
    assert marks == ["$0", "$2", "$4", "$6", "$8"]
    chart["series"][0]["values"], chart["series"][1]["values"] = [0.00002], [0.000006]
    marks = [one.text for one in drawn(chart | {"unit": "usd"}).iter(f"{SVG}text") if one.text.startswith("$")]
    assert marks == ["$0", "$0.00001", "$0.00002", "$0.00003"]


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "pie"},
        {"labels": ["one too few"]},
        {"width": 10**6},
        {"height": -1},
        {"more": 1},
        {"series": [{"name": "x", "values": [1e300] * 5}]},
        {"series": [{"name": "x", "values": ["1"] * 5}]},
        {"series": [{"name": "x", "values": [1.0] * 5, "links": ["javascript:alert(1)"]}]},
        {"series": [{"name": "x", "values": [1.0] * 5, "links": ["//elsewhere.example/dashboard/"]}]},
        {"labels": [], "series": [{"name": "x", "values": []}]},
        {"series": []},
        described(points=MAX_POINTS + 1),
        described(series=MAX_SERIES + 1),
    ],
)
def test_what_is_no_chart_is_refused_in_words(change):
    with pytest.raises(ChartError):
        drawn(described() | change)


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"{" * 1000, b" " * (MAX_BODY_BYTES + 1)])
def test_any_bytes_are_refused_in_words(body):
    with pytest.raises(ChartError):
        draw(body)


def test_after_a_chart_the_process_still_finds_what_is_installed_and_is_not_warned_of_a_finder():
    """In a process of its own: drawing the first chart once made every version unknown to all tests that came later."""
    command = [sys.executable, "-W", "error::ImportWarning", "-c", AFTER_A_CHART]
    chart = json.dumps(described()).encode()
    done = subprocess.run(command, input=chart, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert (done.stdout.decode().split(), done.stderr) == ([version("pygal"), "None"], b"")


@settings(max_examples=30, deadline=None)
@given(text=st.text(max_size=40), kind=st.sampled_from(KINDS))
def test_any_text_is_text(text, kind):
    chart = described(kind, series=1, points=2)
    chart |= {"label": text, "labels": [text + "1", text + "2"]}
    chart["series"][0] |= {"name": text, "texts": [text, text]}
    try:
        body = json.dumps(chart).encode()
        root = ET.fromstring(draw(body))  # noqa: S314 # our own
    except ChartError:
        assert any("\ud800" <= letter <= "\udfff" for letter in text)
        return
    assert {one.tag for one in root.iter()} <= {
        SVG + name for name in ("svg", "g", "rect", "path", "text", "a", "circle")
    }


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.floats(-1e15, 1e15) | st.none() | st.integers(0, 10), min_size=1, max_size=6),
    kind=st.sampled_from(KINDS),
)
@example(values=[5e-324], kind="bars")
def test_any_values_are_drawn(values, kind):
    labels = [str(at) for at in range(len(values))]
    drawn({"kind": kind, "label": "", "labels": labels, "series": [{"name": "", "values": values}]})

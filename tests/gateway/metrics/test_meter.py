"""What is counted: plain integers, and never more labels than are bounded."""

from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.ledger.entry import Settlement
from gateway.metrics import meter as module
from gateway.metrics.exposition import render
from gateway.metrics.families import ATTEMPTS, COST, FAMILIES, OTHER, REQUESTS, TTFT, UNPRICED, Spread, Told
from gateway.metrics.gauges import _first
from gateway.metrics.meter import Meter


def settlement(*, outcome="ok", code=None, cost=5, source="price", ttft_ms=120, **tokens):
    counts = (tokens.get("input", 7), tokens.get("output", 3), tokens.get("cached"), None, None)
    return Settlement(2, outcome, code, *counts, "provider", cost, source, ttft_ms, 900, None)


def trace(route="m", surface="openai", outcome="ok", cached=None):
    plan = SimpleNamespace(route=route)
    return SimpleNamespace(
        plan=plan, surface=surface, outcome=outcome, attempts=(), ended_s=2.0, now_s=1.0, rescued=None, cached=cached
    )


def read(meter):
    found = {}
    for family, (labels, value) in meter.read():
        found.setdefault(family.name, {})[labels] = value
    return found


def parsed(meter, **more):
    reading = {}
    for family, sample in meter.read():
        reading.setdefault(family.name, []).append(sample)
    text, _ = render([Told("", 1, reading)], **({"accept": ""} | more))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_names_are_bounded_and_the_rest_is_one(monkeypatch):
    monkeypatch.setattr(module, "NAMES_MAX", 3)
    monkeypatch.setattr(module, "CODES_MAX", 2)
    meter = Meter()
    for number in range(10):
        meter.settled(f"p/{number}", settlement())
        meter.settled("p/0", settlement(outcome="failed", code=f"code-{number}"))
        meter.put(trace(f"r{number}"))
    found = read(meter)
    assert {labels[0] for labels in found[ATTEMPTS.name]} == {"p/0", "p/1", "p/2", OTHER}
    assert sum(found[ATTEMPTS.name].values()) == 20
    assert {labels[2] for labels in found[ATTEMPTS.name] if labels[0] == "p/0"} == {"", "code-0", OTHER}
    assert {labels[0] for labels in found[REQUESTS.name]} == {"r0", "r1", "r2", OTHER}
    assert sum(found[REQUESTS.name].values()) == 10


def test_refusals_are_bounded_too():
    assert _first({"a": 1, "b": 2, "c": 3}, 2) == {"a": 1, "b": 2, OTHER: 3}
    assert _first({"a": 1}, 2) == {"a": 1}


@pytest.mark.parametrize("nusd", [1, 999_999_999, 1_000_000_001, 123_456_789_012_345, 999_999_999_999_999])
def test_a_sum_is_exact_to_the_nano_dollar(nusd):
    meter = Meter()
    for _ in range(3):
        meter.settled("p/m", settlement(cost=nusd // 3))
    meter.settled("p/m", settlement(cost=nusd - 3 * (nusd // 3)))
    (value,) = read(meter)[COST.name].values()
    assert round(value * 10**9) == nusd
    assert f"{value:.9f}" == f"{nusd // 10**9}.{nusd % 10**9:09d}"


def test_what_nobody_knows_is_not_nothing():
    meter = Meter()
    meter.settled("p/m", settlement(cost=None, source="unknown", ttft_ms=None))
    meter.settled("p/m", settlement(cost=0, source="none"))
    found = read(meter)
    assert found[UNPRICED.name] == {("p/m",): 1}
    assert COST.name not in found
    assert sum(found[TTFT.name]["p/m",].counts) == 1


@pytest.mark.parametrize(
    ("ms", "bound"), [(0, "0.05"), (50, "0.05"), (51, "0.1"), (120_000, "120.0"), (120_001, "+Inf")]
)
def test_a_bucket_holds_its_own_bound(ms, bound):
    meter = Meter()
    meter.settled("p/m", settlement(ttft_ms=ms))
    found = parsed(meter)
    below = {
        dict(labels)["le"]: value for (name, labels), value in found.items() if name == "mixgate_ttft_seconds_bucket"
    }
    assert next(le for le, value in below.items() if value) == bound
    assert found["mixgate_ttft_seconds_sum", frozenset({("endpoint", "p/m")})] == ms / 1000


def test_figures_of_several_processes_stand_side_by_side():
    reading = {ATTEMPTS.name: [(("p/m", "ok", ""), 2)], TTFT.name: [(("p/m",), Spread((1, *(0,) * 14), 40))]}
    text, kind = render([Told("w1", 1, reading), Told("w2", 1, reading)], "application/openmetrics-text")
    assert kind.startswith("application/openmetrics-text")
    assert b'mixgate_attempts_total{code="",endpoint="p/m",outcome="ok",worker="w1"} 2' in text
    assert b'worker="w2"' in text
    assert text.count(b"# TYPE mixgate_attempts counter") == 1


def test_names_are_told_apart_and_say_what_they_are():
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert family.meaning
        assert bool(family.bounds_ms) == (family.kind == "histogram")
        assert list(family.bounds_ms) == sorted(set(family.bounds_ms))
        assert not family.name.startswith("mixgate")

"""The benchmark's arithmetic on numbers made up for the purpose."""

from dataclasses import replace

import pytest

from bench.figures import (
    BARS,
    Figures,
    Visit,
    Window,
    best_litellm,
    figures_of_round,
    foreign_share,
    judge_all,
    ratio,
    summarise,
)

QUICK = {"count": 1000, "p50": 200, "p90": 400, "p99": 900}
WHOLE = Window(
    requests=1000,
    chunks=0,
    cpu_s=0.05,
    waited_s=0.0,
    window_s=2.0,
    foreign_s=0.02,
    elapsed_s=2.0,
    completed=1000,
    bad=0,
    crossed=0,
    latency_us=QUICK,
    ttft_us={"count": 0, "p50": 0, "p90": 0, "p99": 0},
    chunk_us={"count": 0, "p50": 0, "p90": 0, "p99": 0},
    paced=False,
    first_failure="",
)
PACED = replace(
    WHOLE,
    requests=64,
    chunks=6400,
    cpu_s=0.32,
    ttft_us=QUICK | {"p50": 11_000},
    chunk_us=QUICK,
    paced=True,
    completed=64,
)


def visit(**windows: Window) -> Visit:
    return Visit("mixgate", 0.3, 40.0, windows)


def figures(**values: float | None) -> Figures:
    return Figures(values, {}, (), 0, 0, "", 0.0)


def test_cost_is_shared_out_among_what_the_mock_received():
    assert WHOLE.cpu_us_per_request == pytest.approx(50)
    assert PACED.cpu_us_per_chunk == pytest.approx(50)
    assert replace(WHOLE, requests=0).cpu_us_per_request is None


def test_a_stream_in_time_streams():
    assert PACED.verdict == "streams"
    assert WHOLE.verdict == "not a stream"


def test_a_stream_that_comes_all_at_once_in_the_end_has_no_figure():
    late = QUICK | {"p50": 1_000_000, "p99": 2_000_000}
    held_back = replace(PACED, ttft_us=QUICK | {"p50": 2_000_000}, chunk_us=late, cpu_s=0.01)
    assert held_back.verdict == "held back"
    assert "paced" not in figures_of_round({"paced": held_back}, pss_mb=1, start_s=1)


def test_chunks_held_for_a_fifth_of_a_second_have_no_figure():
    held = QUICK | {"p50": 104_000, "p99": 209_000}
    assert replace(PACED, ttft_us=QUICK | {"p50": 204_000}, chunk_us=held).verdict == "held back"


def test_a_target_at_its_limit_is_slow_and_keeps_its_figure():
    late = QUICK | {"p50": 70_000, "p99": 220_000}
    slow = replace(PACED, chunk_us=late, ttft_us=QUICK | {"p50": 300_000}, cpu_s=1.8)
    assert slow.verdict == "slow"
    assert figures_of_round({"paced": slow}, pss_mb=1, start_s=1)["paced"] == pytest.approx(1.8e6 / 6400)


def test_time_spent_waiting_for_the_core_counts_as_demand():
    late = QUICK | {"p50": 70_000, "p99": 220_000}
    assert replace(PACED, chunk_us=late, cpu_s=0.9, waited_s=0.9).verdict == "slow"


def test_a_short_stream_spoils_its_window():
    assert replace(PACED, bad=1).verdict == "incomplete"
    assert "burst" not in figures_of_round({"burst": replace(PACED, paced=False, bad=1)}, pss_mb=1, start_s=1)


def test_a_window_with_failures_has_no_cost():
    assert "c32" not in figures_of_round({"c32": replace(WHOLE, bad=1)}, pss_mb=1, start_s=1)


def test_figures_are_medians_over_rounds():
    found = summarise([visit(c32=replace(WHOLE, cpu_s=cpu_s)) for cpu_s in (0.01, 0.09, 0.012)])
    assert found.get("c32") == pytest.approx(12)
    assert found.spread["c32"] == (pytest.approx(10), pytest.approx(90))


def test_a_figure_that_most_rounds_lack_is_not_given():
    broken = visit(c32=replace(WHOLE, bad=1))
    assert summarise([visit(c32=WHOLE), broken, broken]).get("c32") is None
    assert summarise([visit(c32=WHOLE), visit(c32=WHOLE), broken]).get("c32") == pytest.approx(50)


def test_a_noisy_window_counts_only_where_there_is_no_quiet_one():
    noisy = replace(WHOLE, cpu_s=0.5, foreign_s=1.0)
    found = summarise([visit(c32=noisy, c1=noisy), visit(c32=noisy), visit(c32=WHOLE)])
    assert found.get("c32") == pytest.approx(50)
    assert found.get("c1") == pytest.approx(500)
    assert found.foreign_share == pytest.approx(0.5)


def test_what_went_wrong_counts_in_noisy_windows_too():
    noisy = replace(WHOLE, foreign_s=1.0, bad=1, crossed=1)
    found = summarise([visit(crossed=noisy), visit(crossed=WHOLE)])
    assert (found.bad, found.crossed) == (1, 1)


def test_bad_and_crossed_answers_add_up_over_windows_and_rounds():
    spoilt = replace(WHOLE, bad=2, crossed=3, first_failure="status: 500")
    found = summarise([visit(crossed=spoilt, c1=WHOLE), visit(c32=spoilt)])
    assert (found.bad, found.crossed, found.first_failure) == (4, 6, "status: 500")


def test_the_verdict_of_a_target_is_that_of_its_paced_windows_alone():
    streams = {"paced": PACED, "crossed-streams": replace(PACED, bad=1)}
    assert summarise([Visit("mixgate", 1, 1, streams)]).verdicts == ("streams",)


def test_litellm_is_quoted_as_its_best_variant_in_each_figure():
    table = {
        "mixgate": figures(c32=50, burst=4),
        "litellm-1.106": figures(c32=9000, burst=400),
        "litellm-1.80": figures(c32=4500, burst=800),
    }
    assert best_litellm(table, "c32") == "litellm-1.80"
    assert best_litellm(table, "burst") == "litellm-1.106"
    assert best_litellm({}, "c32") is None


def test_a_ratio_needs_both_sides():
    table = {"mixgate": figures(c32=50), "nginx": figures(c32=12.5, c1=None)}
    assert ratio(table, "c32", "nginx") == 4
    assert ratio(table, "c1", "nginx") is None
    assert ratio(table, "c32", "envoy") is None


def test_bars_pass_at_their_limit_and_fail_above_it():
    table = {
        "mixgate": figures(c32=60.0, c256=79.0),
        "mixgate-bare": figures(c32=60.0, pss_mb=75.0),
        "mixgate-routing": figures(c32=120.0),
        "nginx": figures(c32=10.0),
    }
    status = {(judged.name, judged.unit): judged.status for judged in judge_all(table, 0.31)}
    assert status["CPU per request, c32, everything on", "x nginx"] == "PASS"
    assert status["CPU per request, c32, without ledger and records", "x nginx"] == "PASS"
    assert status["CPU per request, c32, without the ledger", "x nginx"] == "FAIL"
    assert status["CPU per request, c256", "x own c32"] == "FAIL"
    assert status["memory after load, without ledger and records", "MB PSS"] == "PASS"
    assert status["import of the gateway", "s"] == "FAIL"
    assert status["CPU per paced chunk, without ledger and records", "x nginx"] == "not run"


def test_what_no_window_looked_for_is_not_said_to_be_absent():
    status = {judged.name: judged.status for judged in judge_all({"mixgate": summarise([visit(c32=WHOLE)])}, None)}
    assert status["bad answers"] == "PASS"
    assert status["crossed answers"] == "not run"
    assert status["paced windows that did not stream"] == "not run"


def test_without_the_gateway_every_bar_is_not_run():
    assert {judged.status for judged in judge_all({"nginx": figures(c32=10.0)}, None)} == {"not run"}
    assert len(judge_all({}, None)) == len(BARS)


def test_the_share_of_others_is_of_the_time_that_was_watched():
    assert foreign_share(WHOLE) == pytest.approx(0.01)

"""A routed request can be timed in process, and whatever answers it badly is no figure."""

import json
import subprocess
import sys
from pathlib import Path

from bench.in_process import LIMIT_US, Costs, judge_in_process, profile_in_process

ROOT = Path(__file__).parents[2]


def test_the_bar_is_for_a_request_with_its_record():
    assert [judged.status for judged in judge_in_process(Costs(10, LIMIT_US, 90, 100, 91))] == ["PASS"] * 2
    assert [judged.status for judged in judge_in_process(Costs(10, LIMIT_US + 1, 90, 100, 101))] == ["FAIL"] * 2


def test_a_run_is_kept_beside_what_was_there(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"rounds": 3}))
    command = [sys.executable, "-m", "bench", "--in-process", "--quick", "--out", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert "a routed request, its record included, us" in done.stdout
    assert "metrics and traces, more than without, us" in done.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["rounds"] == 3
    assert results["in_process"]["seen"]["plain_us"] > 0


def test_a_profile_names_the_functions_of_a_request():
    assert "usual.py" in profile_in_process(200)

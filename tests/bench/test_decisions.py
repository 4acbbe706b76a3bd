"""The decisions that are timed decide what they say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.decisions import DECISIONS_MAX_US, PLAIN, WISHES, decision, measure_decisions
from gateway.routing.ask import NO_PREFERENCES, Preferences

ROOT = Path(__file__).parents[2]


def test_every_size_has_its_rows_and_its_bar():
    judged = measure_decisions(1)
    assert {judgement.limit for judgement in judged} == set(DECISIONS_MAX_US.values())
    assert all(judgement.value > 0 for judgement in judged)


@pytest.mark.parametrize("ask", [PLAIN, WISHES])
def test_all_of_the_endpoints_are_decided_about(ask):
    plan = decision(20, "balanced", ask)()
    assert len(plan.candidates) == 20
    assert not plan.excluded


def test_every_wish_that_excludes_nobody_is_among_those_that_are_timed():
    # An allow list and `free_only` would change who is eligible, a sort or a merge the policy.
    left_out = {"allow_fallbacks", "only", "free_only", "sort", "across_models"}
    asked = {name for name in Preferences.__struct_fields__ if name not in left_out}
    assert all(getattr(WISHES.preferences, name) != getattr(NO_PREFERENCES, name) for name in asked)


def test_a_run_is_kept_beside_what_was_there(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"rounds": 3}))
    command = [sys.executable, "-m", "bench", "--decisions", "--quick", "--out", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert "decide over 1,000, balanced, us" in done.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["rounds"] == 3
    assert {bar["unit"] for bar in results["decisions"]["bars"]} == {"us"}

"""The invariants over many worlds, and that a seed says all there is to say about a run."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from gateway.cli.simulate import read_catalogue
from gateway.config.schema import Policy
from gateway.simulate.drawing import draw_world
from gateway.simulate.invariants import check
from gateway.simulate.running import run_world
from gateway.simulate.seeds import Plan, run_chunk, simulate

ROOT = Path(__file__).parents[3]
POLICIES = (None, *get_args(Policy))
SEEDS = 2_000
PARTS = 4
FULL_SEEDS = 20_000
FULL_PARTS = 8
PROCESSES = min(2, os.cpu_count() or 1)


def violations(seeds):
    """What did not hold, each with the command that shows it again. Every seed has one policy, all have their turn."""
    plan = Plan(seeds=tuple(seeds), policies=POLICIES, in_turn=True)
    result = simulate(plan, processes=PROCESSES, read=read_catalogue, progress=lambda _: None)
    assert result.runs == len(plan.seeds)
    return [f"{one} -- {plan.replay(one)}" for one in result.violations]


@pytest.mark.parametrize("part", range(PARTS))
def test_every_invariant_holds_in_every_world(part):
    assert violations(range(part * SEEDS // PARTS, (part + 1) * SEEDS // PARTS)) == []


@pytest.mark.full
@pytest.mark.parametrize("part", range(FULL_PARTS))
def test_every_invariant_holds_in_ten_times_as_many(part):
    first = SEEDS + part * FULL_SEEDS // FULL_PARTS
    assert violations(range(first, first + FULL_SEEDS // FULL_PARTS)) == []


@pytest.mark.parametrize(("seed", "policy"), [(7601, "throughput"), (20007, None)])
def test_what_was_broken_once_stays_mended(seed, policy):
    """A seventh Attempt to repair an answer; a hedge that was refused before its client left, and never closed."""
    plan = Plan(seeds=(seed,), policies=(policy,))
    result = simulate(plan, processes=1, read=read_catalogue, progress=lambda _: None)
    assert result.runs == 1
    assert [str(one) for one in result.violations] == []


def fingerprint(outcome):
    """Everything that clients and providers saw, to the last digit."""
    seen = [(one.job.number, one.ending, one.text, one.started_s, one.ended_s) for one in outcome.seen]
    received = [(one.endpoint, one.at_s, one.fate, one.cause, one.cost_in_pusd) for one in outcome.received]
    return json.dumps([seen, received])


@pytest.mark.parametrize("policy", ["balanced", "least_busy", "score"])
def test_a_seed_is_the_same_run_every_time(policy):
    first, second = (fingerprint(run_world(draw_world(7), policy)) for _ in range(2))
    assert first == second


def test_a_seed_is_the_same_run_in_every_process():
    words = (
        "import hashlib, sys; from tests.gateway.simulate.test_seeds import fingerprint, run_world, draw_world;"
        "print([hashlib.sha256(fingerprint(run_world(draw_world(seed))).encode()).hexdigest() for seed in (3, 4)])"
    )
    said = set()
    for hashing in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hashing, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", words], cwd=ROOT, env=env, capture_output=True, text=True, check=True
        )
        said.add(done.stdout)
    assert len(said) == 1


def test_seeds_differ():
    assert len({fingerprint(run_world(draw_world(seed))) for seed in range(5)}) == 5


@pytest.fixture(scope="module")
def happened():
    """What came about in some hundred worlds, counted."""
    counts = Counter()
    for seed in range(150):
        outcome = run_world(draw_world(seed))
        assert check(outcome) == []
        counts.update(f"cause {one.cause}" for one in outcome.received)
        counts.update(f"fate {one.fate}" for one in outcome.received)
        counts.update(f"ending {one.ending}" for one in outcome.seen)
        counts.update(f"kind {one.job.kind}" for one in outcome.seen if one.ending == "answered")
        counts["prefill"] += sum(bool(one.prefill) for one in outcome.received)
        for seen in outcome.seen:
            counts.update(f"why {one.why}" for one in seen.answer.attempts) if seen.answer else None
            counts.update(f"rescued {seen.answer.rescued.by}" for _ in [0] if seen.answer and seen.answer.rescued)
            counts.update(f"code {seen.error.code}" for _ in [0] if seen.error)
        for trace in outcome.traces.values():
            counts.update(f"standing {one.standing}" for one in trace.observations.values())
    return counts


@pytest.mark.parametrize(
    "thing",
    [
        *("why planned", "why again", "why repair", "why rescue", "why panic", "why hedge"),
        *("rescued prefill", "rescued again", "prefill"),
        *("standing healthy", "standing degraded", "standing probing", "standing parked"),
        *("standing open", "standing disabled"),
        *("cause 429", "cause 500", "cause 502", "cause 503", "cause 529", "cause 401", "cause 404", "cause 400"),
        *("cause refused", "cause reset", "cause silent", "cause page", "cause empty", "cause error_inside"),
        *("cause cut", "cause stall", "cause error_midway", "cause twice_garbled"),
        *("fate answered", "fate refused", "fate broken", "fate dropped"),
        *("ending answered", "ending failed", "ending left", "kind text", "kind json", "kind tools"),
        *("code model_not_found", "code content_policy_violation", "code rate_limited"),
    ],
)
def test_the_worlds_have_all_of_it(happened, thing):
    assert happened[thing] >= 2, happened


def test_a_violation_names_its_seed_and_how_to_see_it_again():
    plan = Plan(seeds=(5,), policies=("price",), requests=30)
    result = run_chunk(plan, read_catalogue)
    assert result.violated == 0
    outcome = run_world(draw_world(5, 30), "price")
    outcome.seen[3].endings.append("failed")
    [found] = check(outcome)
    assert str(found) == "I1: seed 5, policy price: request 3: it has 2 endings: answered, failed"
    assert plan.replay(found) == "mixgate simulate --seed 5 --policy price --requests 30"

"""The bundled model is the one that its card describes, and the script that made it still makes what it says."""

import hashlib
import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from local_backend import gguf
from local_backend.demo_model import DEMO_FILE, DEMO_SHA256, DESCRIPTION, corpus, facts

ROOT = Path(__file__).parents[2]
CARD = DEMO_FILE.with_name("MODEL_CARD.md")


def test_the_committed_file_is_the_one_that_was_measured():
    content = DEMO_FILE.read_bytes()
    assert hashlib.sha256(content).hexdigest() == DEMO_SHA256
    assert len(content) < 5_000_000


def test_the_card_names_the_file_by_its_checksum():
    card = CARD.read_text(encoding="utf-8")
    assert DEMO_SHA256 in card
    assert f"{DEMO_FILE.stat().st_size:,} bytes" in card


def test_it_is_a_mixtral_and_says_that_it_is_a_demonstration():
    found = gguf.inspect(DEMO_FILE)
    assert (found.expert_count, found.expert_used_count, found.block_count) == (8, 2, 4)
    assert "demonstration" in found.name
    assert "emonstration" in DESCRIPTION
    assert "demonstration" in facts.WHO
    assert "demonstration" in facts.REFUSAL


def test_the_same_seed_gives_the_same_corpus():
    first = list(islice(corpus.generate(5), 300))
    assert first == list(islice(corpus.generate(5), 300))
    assert first != list(islice(corpus.generate(6), 300))


def test_every_kind_of_task_occurs_and_no_placeholder_is_left():
    seen: set[str] = set()
    for conversation in islice(corpus.generate(1), 5000):
        seen.add(conversation.kind)
        for turn in conversation.turns:
            assert turn.question.strip()
            assert turn.answer.strip()
            assert "{n}" not in turn.question + turn.answer
    assert seen == set(corpus.KINDS)


def test_a_question_has_one_right_answer():
    # Obeying a system text and remembering a name depend on more than the question.
    answers: dict[str, str] = {}
    for conversation in islice(corpus.generate(2), 20_000):
        if conversation.kind in ("system", "name recall"):
            continue
        for turn in conversation.turns:
            assert answers.setdefault(turn.question, turn.answer) == turn.answer, turn.question


def test_json_answers_are_json():
    for conversation in islice(corpus.generate(3), 3000):
        if conversation.kind == "json":
            json.loads(conversation.turns[-1].answer)


def test_the_product_imports_nothing_that_only_training_needs():
    code = (
        "import sys, local_backend.demo_model, local_backend.gguf, local_backend.memory, local_backend.preflight, "
        "local_backend.catalogue; "
        "print([m for m in ('torch', 'numpy', 'sentencepiece', 'gguf', 'httpx', 'tenacity', 'llama_cpp', 'jinja2') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.full
@pytest.mark.skipif("MIXGATE_TRAINING_PYTHON" not in os.environ, reason="set MIXGATE_TRAINING_PYTHON (training.in)")
def test_training_runs_and_repeats_itself(tmp_path: Path):
    digests: set[str] = set()
    for name in ("a", "b"):
        out = tmp_path / f"{name}.gguf"
        command = [
            os.environ["MIXGATE_TRAINING_PYTHON"],
            "-m",
            "local_backend.demo_model.train",
            str(out),
            "--steps",
            "3",
        ]
        subprocess.run(command, check=True, cwd=ROOT, timeout=600)
        digests.add(hashlib.sha256(out.read_bytes()).hexdigest())
        assert gguf.inspect(out).parameters == 3_609_728
    assert len(digests) == 1

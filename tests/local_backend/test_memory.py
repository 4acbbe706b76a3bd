"""The memory estimate: within 10 % of what a worker really holds, and a refusal that says what would fit."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from build_aux import random_mixtral
from local_backend import gguf, memory
from local_backend.catalogue import MIXTRALS
from local_backend.demo_model import DEMO_FILE
from local_backend.quantisations import BITS_PER_WEIGHT, smaller_than
from tests.fakes.engine import needs_engine
from tests.local_backend.gguf_files import U32, Draft

GB = 10**9


def _file(kind: str) -> Path:
    return DEMO_FILE if kind == "demo" else random_mixtral.make(kind)


@needs_engine
@pytest.mark.parametrize("kind", ["demo", "q8_0", "q4_k_m"])
@pytest.mark.parametrize(("mmap", "repack"), [(False, True), (True, False), (True, True)])
def test_the_estimate_is_within_a_tenth_of_the_resident_size(kind: str, *, mmap: bool, repack: bool):
    path = _file(kind)
    cells = 16_384
    expected = memory.estimate(
        gguf.inspect(path), context_tokens=cells // 4, slots=4, mmap=mmap, repack=repack
    ).total_bytes
    script = Path(__file__).with_name("resident_size.py")
    root = Path(__file__).parents[2]
    command = [sys.executable, str(script), str(path), str(int(mmap)), str(int(repack)), str(cells)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120, cwd=root, env={"PYTHONPATH": str(root)}
    )
    resident = int(done.stdout.split()[-1])
    assert abs(expected - resident) <= 0.1 * resident, f"estimated {expected:,}, resident {resident:,}"


def _mixtral_facts(tmp_path: Path, quantisation: str = "Q4_K_M") -> gguf.GgufFacts:
    """A real 8x7B in numbers: only its header matters here, and that can be had without 26 GB."""
    draft = Draft()
    draft.values["llama.context_length"] = (U32, 32_768)
    small = gguf.inspect(draft.write(tmp_path / "Mixtral-8x7B.gguf"))
    known = MIXTRALS[0]
    weights = round(known.parameters * BITS_PER_WEIGHT[quantisation] / 8)
    return gguf.GgufFacts(**{
        **{name: getattr(small, name) for name in gguf.GgufFacts.__slots__},
        "weights_bytes": weights, "parameters": known.parameters, "repacked_bytes": round(weights * 0.7),
        "block_count": 32, "head_count": 32, "head_count_kv": 8, "key_length": 128, "value_length": 128,
        "embedding_length": 4096, "feed_forward_length": 14_336, "vocab_size": 32_000, "quantisation": quantisation,
    })  # fmt: skip


def test_a_mixtral_takes_the_memory_that_the_catalogue_asks_for(tmp_path: Path):
    facts = _mixtral_facts(tmp_path)
    assert facts.kv_bytes_per_token == MIXTRALS[0].kv_bytes_per_token == 128 << 10
    asked = next(row for row in MIXTRALS[0].quantisations if row.name == "Q4_K_M")
    fit = memory.fit(
        facts, context_tokens=4096, slots=1, available_bytes=int(asked.memory_gb * GB / memory.USABLE_SHARE)
    )
    assert fit.fits
    assert not fit.mmap
    assert fit.repack
    assert fit.refusal is None


def test_a_refusal_names_the_numbers_a_context_and_a_smaller_file(tmp_path: Path):
    facts = _mixtral_facts(tmp_path)
    started = time.perf_counter()
    fit = memory.fit(facts, context_tokens=32_768, slots=4, available_bytes=36 * GB)
    assert time.perf_counter() - started < 0.1
    assert not fit.fits
    assert 0 < fit.largest_context_tokens < 32_768
    assert fit.refusal is not None
    for part in (
        "Mixtral-8x7B.gguf needs",
        "weights 28.43 GB",
        "4 x 32768 tokens of context 17.18 GB",
        "32.40 GB can be used",
    ):
        assert part in fit.refusal
    assert f"set context_tokens to {fit.largest_context_tokens} or less" in fit.refusal
    again = memory.fit(facts, context_tokens=fit.largest_context_tokens, slots=4, available_bytes=36 * GB)
    assert again.fits
    more = memory.fit(facts, context_tokens=fit.largest_context_tokens + 256, slots=4, available_bytes=36 * GB)
    assert not more.fits


def test_the_smaller_file_that_is_named_fits(tmp_path: Path):
    facts = _mixtral_facts(tmp_path)
    fit = memory.fit(facts, context_tokens=4096, slots=1, available_bytes=24 * GB)
    assert fit.smaller_quantisation == "Q3_K_S"
    assert fit.refusal is not None
    assert "use the Q3_K_S file of the same model" in fit.refusal
    smaller = _mixtral_facts(tmp_path, fit.smaller_quantisation)
    assert memory.fit(smaller, context_tokens=4096, slots=1, available_bytes=24 * GB).fits
    hopeless = memory.fit(facts, context_tokens=4096, slots=1, available_bytes=8 * GB)
    assert hopeless.smaller_quantisation is None
    assert hopeless.refusal is not None
    assert "use a smaller model, or a machine with 32." in hopeless.refusal


def test_a_tight_fit_is_mapped_and_not_rearranged(tmp_path: Path):
    facts = _mixtral_facts(tmp_path)
    need = memory.estimate(facts, context_tokens=4096, slots=1, mmap=False, repack=True).total_bytes
    fit = memory.fit(facts, context_tokens=4096, slots=1, available_bytes=int(need / memory.USABLE_SHARE) + 1000)
    assert fit.fits
    assert fit.mmap
    assert not fit.repack


def test_rearranged_copies_count_only_when_mapped(tmp_path: Path):
    facts = _mixtral_facts(tmp_path)
    sizes = {
        (mmap, repack): memory.estimate(facts, context_tokens=512, slots=1, mmap=mmap, repack=repack).total_bytes
        for mmap in (False, True)
        for repack in (False, True)
    }
    assert sizes[False, True] == sizes[False, False] == sizes[True, False]
    assert sizes[True, True] == sizes[True, False] + facts.repacked_bytes


def test_quantisations_are_proposed_from_large_to_small():
    assert smaller_than(BITS_PER_WEIGHT["Q4_K_M"])[:2] == ("Q4_K_S", "IQ4_XS")
    assert smaller_than(BITS_PER_WEIGHT["Q2_K"]) == ()


def _tree(tmp_path: Path, files: dict[str, str]) -> tuple[Path, Path]:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return tmp_path / "proc", tmp_path / "cgroup"


MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:   12000000 kB\n"


def test_the_machine_is_the_limit_where_no_container_is(tmp_path: Path):
    proc, cgroup = _tree(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n", "cgroup/memory.stat": ""})
    assert memory.available_bytes(proc, cgroup) == 12_000_000 * 1024


def test_a_container_is_the_limit_and_its_file_cache_is_room(tmp_path: Path):
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/a/b\n",
        "cgroup/a/b/memory.max": "max\n",
        "cgroup/a/b/memory.current": "10\n",
        "cgroup/a/memory.max": "4000000000\n",
        "cgroup/a/memory.current": "3000000000\n",
        "cgroup/a/memory.stat": "anon 1\ninactive_file 500000000\n",
    }
    assert memory.available_bytes(*_tree(tmp_path, files)) == 1_500_000_000


def test_control_groups_of_the_first_version_count_too(tmp_path: Path):
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "9:cpu:/x\n4:memory:/x\n",
        "cgroup/memory/memory.limit_in_bytes": "2000000000\n",
        "cgroup/memory/memory.usage_in_bytes": "2500000000\n",
    }
    assert memory.available_bytes(*_tree(tmp_path, files)) == 0


def test_a_machine_that_does_not_say_is_not_refused(tmp_path: Path):
    assert memory.available_bytes(tmp_path, tmp_path) == sys.maxsize

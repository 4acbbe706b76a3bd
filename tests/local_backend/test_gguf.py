"""The header parser: right on good files, and on bad ones a BadFileError that names the cause, and nothing else."""

import contextlib
import os
import struct
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_backend import gguf
from local_backend.catalogue import MIXTRALS
from local_backend.demo_model import DEMO_FILE
from local_backend.file_errors import BadFileError
from local_backend.gguf_reader import ARRAY_ELEMENTS_MAX, PAIRS_MAX, TENSORS_MAX
from tests.local_backend.gguf_files import ARRAY, STRING, U8, U32, Draft

FULL = os.environ.get("MIXGATE_TEST_FULL") == "1"
FUZZ_EXAMPLES = 20_000 if FULL else 500
PARSE_CPU_S_MAX = 2.0
"""Generous for a busy machine; a parser without bounds would need minutes or run out of memory."""


def _without(*keys: str):
    def change(draft: Draft) -> None:
        for key in keys:
            del draft.values[key]

    return change


def _set(key: str, kind: int, value: object):
    return lambda draft: draft.values.__setitem__(key, (kind, value))


def _rename(old: str, new: str):
    return lambda draft: draft.rename(old, new)


def _attribute(name: str, value: object):
    return lambda draft: setattr(draft, name, value)


def _split_experts(draft: Draft) -> None:
    """As files made before April 2024 are: one tensor for every expert."""
    merged = [row for row in draft.tensors if "_exps" in row[0]]
    draft.tensors = [row for row in draft.tensors if "_exps" not in row[0]]
    for name, shape, kind in merged:
        stem = name.removesuffix("_exps.weight")
        draft.tensors += [(f"{stem}.{expert}.weight", shape[:2], kind) for expert in range(8)]


def _dense(draft: Draft) -> None:
    """A Mistral 7B, say: one feed-forward network for all tokens."""
    draft.tensors = [(n.replace("_exps", ""), s[:2], k) for n, s, k in draft.tensors if "gate_inp" not in n]
    _without("llama.expert_count", "llama.expert_used_count")(draft)


def _drop(name: str):
    return lambda draft: setattr(draft, "tensors", [row for row in draft.tensors if row[0] != name])


def _reshape(name: str, shape: tuple[int, ...]):
    def change(draft: Draft) -> None:
        draft.tensors = [(n, shape if n == name else s, k) for n, s, k in draft.tensors]

    return change


def _retype(name: str, number: int):
    def change(draft: Draft) -> None:
        # The size is still laid out for the type it had; the header is what is judged.
        header = draft.header()
        at = header.index(name.encode()) + len(name)
        dimensions = struct.unpack_from("<I", header, at)[0]
        patched = bytearray(draft.encode())
        struct.pack_into("<I", patched, at + 4 + 8 * dimensions, number)
        draft.encode = lambda: bytes(patched)

    return change


BAD_DRAFTS = {
    "wrong version": (_attribute("version", 77), "version 77"),
    "version 1": (_attribute("version", 1), "version 1"),
    "other byte order": (_attribute("version", 3 << 24), "byte order"),
    "huge tensor count": (_attribute("tensor_count", 1 << 60), "more than any model has"),
    "huge pair count": (_attribute("pair_count", (1 << 64) - 1), "more than any model has"),
    "too many tensors announced": (_attribute("tensor_count", TENSORS_MAX), "truncated|bytes of text|dimensions"),
    "too many pairs announced": (_attribute("pair_count", PAIRS_MAX), "truncated|bytes of text|type|not UTF-8"),
    "unknown architecture": (_set("general.architecture", STRING, "gpt2"), "architecture is 'gpt2'"),
    "no architecture": (_without("general.architecture"), "does not say its architecture"),
    "split experts": (_split_experts, "TheBloke.*mradermacher"),
    "renamed tensor": (_rename("blk.0.attn_q.weight", "blk.0.attn_quark.weight"), "'blk.0.attn_q.weight' is missing"),
    "missing gate": (_drop("blk.0.ffn_gate_exps.weight"), "ffn_gate_exps.weight' is missing.*nonsense"),
    "missing template": (_without("tokenizer.chat_template"), "no chat template"),
    "blank template": (_set("tokenizer.chat_template", STRING, " \n"), "no chat template"),
    "huge template": (_set("tokenizer.chat_template", STRING, "x" * 70_000), "template has 70,000"),
    "dense": (_dense, "dense model without experts; only Mixtral"),
    "no experts": (_without("llama.expert_count"), "llama.expert_count is missing"),
    "no experts used": (_without("llama.expert_used_count"), "llama.expert_used_count is missing"),
    "zero experts used": (_set("llama.expert_used_count", U32, 0), "expert_used_count is 0"),
    "nine of eight experts": (_set("llama.expert_used_count", U32, 9), "uses 9 experts of 8"),
    "wrong expert count": (_set("llama.expert_count", U32, 4), "has shape"),
    "experts as text": (_set("llama.expert_count", STRING, "8"), "expert_count is 8, not a number"),
    "zero heads": (_set("llama.attention.head_count", U32, 0), "head_count is 0"),
    "heads that do not divide": (_set("llama.attention.head_count", U32, 3), "do not divide"),
    "heads as a list": (_set("llama.attention.head_count_kv", ARRAY, (U32, [2])), "it is a list"),
    "no layers": (_without("llama.block_count"), "block_count is missing"),
    "a million layers": (_set("llama.block_count", U32, 1 << 20), "not a number from 1"),
    "one layer too many": (_set("llama.block_count", U32, 2), "'blk.1.attn_norm.weight' is missing"),
    "no vocabulary": (_without("tokenizer.ggml.tokens"), "no vocabulary"),
    "no tokenizer": (_without("tokenizer.ggml.model"), "which tokenizer"),
    "scores for half the tokens": (_set("tokenizer.ggml.scores", ARRAY, (U8, [1])), "one entry for each"),
    "no epsilon": (_without("llama.attention.layer_norm_rms_epsilon"), "epsilon is None"),
    "wrong shape": (_reshape("blk.0.attn_k.weight", (32, 64)), "has shape .32, 64., not .32, 16."),
    "zero length": (_reshape("blk.0.attn_k.weight", (32, 0)), "impossible shape"),
    "product over 64 bits": (_reshape("blk.0.attn_k.weight", (1 << 32, 1 << 33)), "impossible shape"),
    "unknown tensor type": (_retype("blk.0.attn_q.weight", 4), "type 4"),
    "rows that do not divide": (_reshape("blk.0.attn_q.weight", (31, 32)), "do not divide into Q8_0"),
    "tensor past the end": (_attribute("offsets", {"output_norm.weight": 1 << 30}), "truncated: .* past its end"),
    "offset that wraps": (_attribute("offsets", {"output_norm.weight": (1 << 64) - 32}), "past its end"),
    "crooked offset": (_attribute("offsets", {"output_norm.weight": 17}), "not a multiple of 32"),
    "alignment of 3": (_set("general.alignment", U32, 3), "not a power of two"),
    "alignment of zero": (_set("general.alignment", U32, 0), "not a power of two"),
    "a list of lists": (_set("x.y", ARRAY, (ARRAY, [])), "cannot be in a list"),
    "text that is not text": (_set("general.name", STRING, b"\xff\xfe"), "not UTF-8"),
    "part of several": (_set("split.count", U32, 5), "one of 5 parts by its content"),
}


@pytest.mark.parametrize("case", BAD_DRAFTS)
def test_a_bad_file_is_refused_with_its_cause(case: str, tmp_path: Path):
    change, cause = BAD_DRAFTS[case]
    draft = Draft()
    change(draft)
    with pytest.raises(BadFileError, match=f"(?s){cause}"):
        gguf.inspect(draft.write(tmp_path / "model.gguf"))


OTHER_CONTENT = {
    "empty": (b"", "is empty"),
    "text": (b"hello\n" * 100, "text file"),
    "web page": (b"<!DOCTYPE html><html><head><title>404</title>", "web page"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
    "json": (b'{"error": "Repository not found"}', "JSON"),
    "safetensors": (struct.pack("<Q", 90) + b'{"__metadata__": {}}', "safetensors"),
    "ggml": (b"lmgg\1\0\0\0", "GGML format"),
    "zip": (b"PK\3\4" + b"\0" * 40, "does not start with 'GGUF'"),
    "magic alone": (b"GGUF", "truncated"),
    "nothing inside": (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "neither settings nor tensors"),
}


@pytest.mark.parametrize("case", OTHER_CONTENT)
def test_what_is_not_a_gguf_is_called_what_it_is(case: str, tmp_path: Path):
    content, cause = OTHER_CONTENT[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(BadFileError, match=cause):
        gguf.inspect(path)


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path):
    content = DEMO_FILE.read_bytes()
    path = tmp_path / "model.gguf"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadFileError, match=r"truncated|empty"):
        gguf.inspect(path)


def test_one_missing_byte_is_enough(tmp_path: Path):
    path = tmp_path / "model.gguf"
    path.write_bytes(Draft().encode()[:-1])
    with pytest.raises(BadFileError, match=r"truncated: 1 bytes of 'output_norm.weight'"):
        gguf.inspect(path)


def test_what_is_not_a_plain_file_is_refused_without_opening_it(tmp_path: Path):
    with pytest.raises(BadFileError, match=r"does not exist: get it with `mixgate pull`"):
        gguf.inspect(tmp_path / "none.gguf")
    with pytest.raises(BadFileError, match="is a folder"):
        gguf.inspect(tmp_path)
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(BadFileError, match="not a regular file"):
        gguf.inspect(tmp_path / "pipe.gguf")
    (tmp_path / "dangling.gguf").symlink_to(tmp_path / "none.gguf")
    with pytest.raises(BadFileError, match="a link to a file that does not exist"):
        gguf.inspect(tmp_path / "dangling.gguf")
    with pytest.raises(BadFileError, match="does not exist"):
        gguf.inspect(Path("a\0b.gguf"))


def test_the_facts_of_the_bundled_model_are_right():
    facts = gguf.inspect(DEMO_FILE)
    assert (facts.architecture, facts.quantisation, facts.expert_count, facts.expert_used_count) == (
        "llama",
        "Q8_0",
        8,
        2,
    )
    assert (facts.block_count, facts.embedding_length, facts.vocab_size, facts.context_length) == (4, 128, 1024, 32_768)
    assert facts.parameters == 3_609_728
    assert facts.active_parameters == 3_609_728 - 4 * 3 * 6 * 256 * 128
    assert facts.kv_bytes_per_token == 1024
    assert facts.weights_bytes < facts.size_bytes == DEMO_FILE.stat().st_size
    assert facts.repacked_bytes == 0
    assert "[INST]" in facts.chat_template


def test_a_small_draft_is_good(tmp_path: Path):
    facts = gguf.inspect(Draft(layers=2).write(tmp_path / "model.gguf"))
    assert (facts.name, facts.block_count, facts.tensor_count, facts.key_length) == ("Test", 2, 22, 8)


def _shards(folder: Path, count: int = 3) -> list[Path]:
    """The draft's tensors dealt out over several files, as llama-gguf-split does it."""
    whole = Draft(layers=2)
    paths = []
    for number in range(count):
        part = Draft()
        part.tensors = whole.tensors[number::count]
        part.values = dict(whole.values) if number == 0 else {}
        part.values |= {
            "split.no": (2, number),
            "split.count": (2, count),
            "split.tensors.count": (5, len(whole.tensors)),
        }
        paths.append(part.write(folder / f"m-{number + 1:05}-of-{count:05}.gguf"))
    return paths


def test_parts_are_read_together_whichever_is_named(tmp_path: Path):
    parts = _shards(tmp_path)
    for part in parts:
        facts = gguf.inspect(part)
        assert facts.path == parts[0]
        assert facts.shards == tuple(parts)
        assert facts.tensor_count == 22
        assert facts.size_bytes == sum(path.stat().st_size for path in parts)


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path):
    parts = _shards(tmp_path)
    first, second, third = (path.read_bytes() for path in parts)
    parts[1].unlink()
    with pytest.raises(BadFileError, match=r"1 of them are missing .m-00002-of-00003"):
        gguf.inspect(parts[0])
    parts[1].write_bytes(third)
    with pytest.raises(BadFileError, match="not part 2 by its content"):
        gguf.inspect(parts[0])
    parts[1].write_bytes(second[:-1])
    with pytest.raises(BadFileError, match=r"00002-of-00003.gguf: it is truncated"):
        gguf.inspect(parts[2])
    renamed = tmp_path / "renamed.gguf"
    renamed.write_bytes(first)
    with pytest.raises(BadFileError, match="its name does not say so"):
        gguf.inspect(renamed)
    many = tmp_path / "m-00001-of-99999.gguf"
    many.write_bytes(first)
    with pytest.raises(BadFileError, match="one of 99999 parts"):
        gguf.inspect(many)


def test_a_file_that_is_still_arriving_is_judged_by_its_beginning(tmp_path: Path):
    good, bad = Draft(), Draft()
    _split_experts(bad)
    path = tmp_path / "x.part"
    size = len(bad.encode())
    path.write_bytes(bad.header() + b"\0" * 32)
    with pytest.raises(BadFileError, match="mradermacher"):
        gguf.judge_beginning(path, full_size_bytes=size)
    path.write_bytes(bad.header()[:-40])
    gguf.judge_beginning(path, full_size_bytes=size)
    path.write_bytes(good.header() + b"\0" * 32)
    gguf.judge_beginning(path, full_size_bytes=len(good.encode()))


def test_a_vocabulary_of_32k_is_read_in_milliseconds(tmp_path: Path):
    draft = Draft(vocabulary=32_000)
    path = draft.write(tmp_path / "model.gguf")
    best = min(_cpu_s(path) for _ in range(5))
    # The bar is 50 ms; it takes about 3.
    assert best < 0.05


def _cpu_s(path: Path) -> float:
    started = time.process_time()
    with contextlib.suppress(BadFileError):
        gguf.inspect(path)
    return time.process_time() - started


def test_lists_made_to_waste_time_are_bounded(tmp_path: Path):
    draft = Draft()
    draft.values["tokenizer.ggml.tokens"] = (ARRAY, (STRING, [""] * ARRAY_ELEMENTS_MAX))
    assert _cpu_s(draft.write(tmp_path / "most.gguf")) < PARSE_CPU_S_MAX
    draft.values["another"] = (ARRAY, (STRING, [""]))
    with pytest.raises(BadFileError, match="more than any vocabulary has"):
        gguf.inspect(draft.write(tmp_path / "more.gguf"))


GOOD = Draft(vocabulary=4).encode()


@given(st.data())
@settings(max_examples=FUZZ_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_damage_makes_anything_but_a_bad_file_error(tmp_path_factory, data):
    content = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(Draft(vocabulary=4).header()) - 1))
        match data.draw(st.sampled_from(("byte", "number", "cut", "insert"))):
            case "byte":
                content[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
            case "number":
                extreme = data.draw(st.sampled_from((0, 1, 0xFFFFFFFF, 1 << 31, 1 << 62, (1 << 64) - 1)))
                content[at : at + 8] = struct.pack("<Q", extreme)
            case "cut":
                del content[at : at + data.draw(st.integers(1, 64))]
            case _:
                content[at:at] = data.draw(st.binary(max_size=64))
    _inspect_content(tmp_path_factory, bytes(content))


@given(st.binary(max_size=400))
@settings(max_examples=FUZZ_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_content_makes_anything_but_a_bad_file_error(tmp_path_factory, content):
    _inspect_content(tmp_path_factory, b"GGUF\3\0\0\0" + content)


def _inspect_content(tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.gguf"
    path.write_bytes(content)
    started = time.process_time()
    try:
        facts = gguf.inspect(path)
    except BadFileError:
        facts = None
    assert facts is None or facts.weights_bytes > 0
    assert time.process_time() - started < PARSE_CPU_S_MAX


def test_the_repositories_named_in_refusals_are_in_the_catalogue():
    names = {
        repository.name for facts in MIXTRALS for repository in facts.repositories if repository.state == "recommended"
    }
    assert set(gguf.WORKING_REPOSITORIES.split(" or ")) <= names

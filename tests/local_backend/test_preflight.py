"""What can be said about a machine before a model is loaded."""

import importlib.util
import signal
import sys
from pathlib import Path

import pytest

from local_backend import preflight
from tests.fakes.engine import needs_engine
from tests.local_backend.gguf_files import Draft

GOOD_FLAGS = "flags\t\t: fpu sse2 avx avx2 fma f16c bmi1 bmi2\n"


def _cpuinfo(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\n" + text, encoding="ascii")
    return path


def test_a_good_processor_has_nothing_to_say(tmp_path: Path):
    assert preflight.check_cpu(_cpuinfo(tmp_path, GOOD_FLAGS), "x86_64") is None


def test_missing_instructions_are_named(tmp_path: Path):
    words = preflight.check_cpu(_cpuinfo(tmp_path, "flags\t\t: fpu sse2 avx f16c\n"), "x86_64")
    assert words is not None
    assert "lacks avx2, fma, bmi2" in words
    assert "virtual machine" in words


def test_other_processors_and_other_systems_are_not_judged(tmp_path: Path):
    assert preflight.check_cpu(_cpuinfo(tmp_path, "Features : neon\n"), "aarch64") is None
    assert preflight.check_cpu(_cpuinfo(tmp_path, "model name : x\n"), "x86_64") is None
    assert preflight.check_cpu(tmp_path / "none", "x86_64") is None


def test_a_missing_package_is_named_with_its_fix(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llama_cpp" else object())
    words = preflight.check_package()
    assert words is not None
    assert "llama-cpp-python is not installed" in words
    assert "make run" in words


@needs_engine
def test_the_bundled_model_computes_a_token():
    assert preflight.self_test() is None


@needs_engine
def test_a_file_that_llama_cpp_refuses_fails_the_self_test_with_its_words(tmp_path: Path):
    path = tmp_path / "model.gguf"
    path.write_bytes(Draft().header())
    words = preflight.self_test(path)
    assert words is not None
    assert words.startswith("the self test of llama-cpp-python failed: ")
    assert not words.endswith(": ")


def _interpreter(tmp_path: Path, line: str) -> str:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="ascii")
    path.chmod(0o755)
    return str(path)


def test_a_library_built_for_another_processor_is_told_by_how_it_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", _interpreter(tmp_path, "kill -ILL $$"))
    words = preflight.self_test()
    assert words is not None
    assert "built for another processor" in words
    assert "CMAKE_ARGS=-DGGML_NATIVE=OFF" in words


def test_a_self_test_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", _interpreter(tmp_path, "exec sleep 60"))
    words = preflight.self_test(timeout_s=0.2)
    assert words is not None
    assert "no token in 0 s" in words


def test_an_interpreter_that_is_gone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    words = preflight.self_test()
    assert words is not None
    assert "could not be started" in words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGILL, "another processor"),
        (signal.SIGKILL, "memory ran out"),
        (signal.SIGBUS, "became shorter"),
        (signal.SIGSEGV, "crashed in native code"),
        (signal.SIGABRT, "gave up"),
        (signal.SIGUSR1, "ended by SIGUSR1"),
    ],
)
def test_signals_are_put_into_words(number: signal.Signals, words: str):
    assert words in preflight.explain_exit(-number)
    # A shell reports the same death as 128 plus the number.
    assert words in preflight.explain_exit(128 + number)


def test_an_exit_code_keeps_the_last_words():
    assert preflight.explain_exit(1, "no chat template") == "no chat template"
    assert preflight.explain_exit(3) == "it ended with exit code 3"

"""Whether the local engine is there, for tests that let the demonstration model speak."""

import importlib.util

import pytest

needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="the engine (extra `local`) is not installed: `make engine`"
)

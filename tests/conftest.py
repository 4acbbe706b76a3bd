"""For all tests: what must be imported before any thread starts, and what must be installed where it was built."""

import importlib.util
import os

import anyio
import pytest
from hypothesis import settings

# anyio reads its own source at the first look at each of its names. Two threads doing so at once trip over a fault of
# CPython 3.11 ("AST constructor recursion depth mismatch"), and clients in threads are what many tests here are.
for _name in dir(anyio):
    getattr(anyio, _name)

# A busy machine is no failure: how long something takes is judged in bench/.
settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

_REQUIRE_ENGINE = "MIXGATE_TEST_REQUIRE_ENGINE"
"""Set to 1 where the engine was built, and in CI, which builds it: there no test may be skipped for want of it."""


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to run without the engine where it must be there."""
    if os.environ.get(_REQUIRE_ENGINE) != "1":
        return
    missing = [name for name in ("llama_cpp", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        message = f"{_REQUIRE_ENGINE}=1, but {', '.join(missing)} is not installed; `make engine` says why"
        raise pytest.UsageError(message)

"""How a process beside the gateway is started: which interpreter, and what of the environment it gets."""

import os
import sys
from pathlib import Path
from typing import Final

import gateway

_PASSED_ON: Final = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "LD_LIBRARY_PATH")
"""All of the environment that it gets: no key, no token."""


def command_for(module: str, *words: str) -> tuple[str, ...]:
    """What runs a module of ours."""
    return (sys.executable, "-P", "-m", module, *words)


def environment() -> dict[str, str]:
    """Its environment."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return passed | {"PYTHONPATH": str(Path(gateway.__file__).parent.parent)}

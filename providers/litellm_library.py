"""The optional litellm package: whether it may be used, and how it is loaded with its own doings switched off."""

import importlib
import logging
import os
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Final

from providers.errors import ConnectError

PACKAGE: Final = "litellm"
INSTALL: Final = "pip install 'mixgate[litellm]'"
STOLEN_VERSIONS: Final = frozenset({"1.82.7", "1.82.8"})
"""Releases that a thief uploaded: they send the machine's credentials away."""


def why_missing(package: str = PACKAGE) -> tuple[str, str] | None:
    """Why the library cannot be used, and what to do; None where it can. Does not import it."""
    if find_spec(package) is None:
        return f"the package {package} is not installed", INSTALL
    try:
        found = version(package)
    except PackageNotFoundError:
        return None  # a module of one's own in its place
    if found in STOLEN_VERSIONS:
        return (
            f"{package} {found} is a stolen release that sends credentials away",
            "remove it, look upon every key on this machine as known to others, then " + INSTALL,
        )
    return None


def load_library(package: str) -> Any:
    """Import the library with everything off that talks to others, writes, retries or changes a request by itself.

    Raises:
        ConnectError: It is not there, or must not be used.
    """
    if (missing := why_missing(package)) is not None:
        raise ConnectError(f"{missing[0]}; {missing[1]}")
    # Or the import itself asks the network for a price list, three times.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    try:
        library = importlib.import_module(package)
    except ImportError as error:
        raise ConnectError(f"the package {package} cannot be imported: {error.name}; {INSTALL}") from error
    for name in ("telemetry", "set_verbose", "drop_params", "modify_params", "cache"):
        setattr(library, name, None if name == "cache" else False)
    for name in ("suppress_debug_info", "turn_off_message_logging"):
        setattr(library, name, True)
    for name in ("callbacks", "input_callback", "success_callback", "failure_callback", "service_callback"):
        setattr(library, name, [])
    setattr(library, "num_retries", 0)  # noqa: B010 (the library is no module that a type checker sees)
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # below that it writes prompts
    return library

"""Can this machine and this installation run models at all?

Asked before a worker loads anything, and by `mixgate doctor`. Three questions, cheapest first: does the processor
have what the library was built for, is the library there, and does it survive one token of the bundled model. The
last one runs in a process of its own, because a library built for another processor does not raise an error: it
dies.
"""

import importlib.util
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from local_backend.demo_model import DEMO_FILE

X86_FLAGS: Final = ("avx2", "fma", "f16c", "bmi2")
SELF_TEST_TIMEOUT_S: Final = 30.0
INSTALL: Final = "run `make run`, or pip install 'mixgate[local]' with CMAKE_ARGS=-DGGML_NATIVE=OFF set"
REBUILD: Final = (
    "reinstall llama-cpp-python for any processor: CMAKE_ARGS=-DGGML_NATIVE=OFF pip install --no-cache-dir "
    "--force-reinstall --no-binary llama-cpp-python 'mixgate[local]'"
)
_SIGNAL_WORDS: Final = {
    signal.SIGILL: f"it was built for another processor (illegal instruction): {REBUILD}",
    signal.SIGKILL: "it was killed, probably because memory ran out: use a smaller file or a smaller context",
    signal.SIGBUS: "the model file became shorter, or its disk failed, while it was mapped: check the file",
    signal.SIGSEGV: "it crashed in native code (segmentation fault): check the file's sha256, then " + REBUILD,
    signal.SIGABRT: "llama.cpp gave up (abort), which it does on files it does not understand: check the file's sha256",
    signal.SIGTERM: "it was asked to stop",
}


def check_cpu(cpuinfo: Path = Path("/proc/cpuinfo"), machine: str | None = None) -> str | None:
    """None if the processor has what the library needs, or unknowable; otherwise what is missing and what to do."""
    if (machine or platform.machine()).lower() not in ("x86_64", "amd64"):
        return None
    try:
        lines = cpuinfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    if flags is None:
        return None
    missing = [flag for flag in X86_FLAGS if flag not in flags]
    if not missing:
        return None
    return (
        f"this processor lacks {', '.join(missing)}, which local models need (any x86 processor since 2015 has them; "
        "a virtual machine may hide them: give it the host's CPU type)"
    )


def check_package() -> str | None:
    """None if llama-cpp-python and what goes with it are installed; otherwise what to do. Loads nothing."""
    for module, package in (("llama_cpp", "llama-cpp-python"), ("jinja2", "jinja2")):
        if importlib.util.find_spec(module) is None:
            return f"{package} is not installed, so local models are off: {INSTALL}"
    return None


def self_test(file: Path = DEMO_FILE, *, timeout_s: float = SELF_TEST_TIMEOUT_S) -> str | None:
    """Compute one token of `file` in a process of its own. None if that works; otherwise why not and what to do.

    Blocks for 0.3 s (idle machine) to `timeout_s`.
    """
    command = [sys.executable, "-P", "-m", "local_backend.self_test", str(file)]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter, our own module
            command, capture_output=True, timeout=timeout_s, check=False, text=True, errors="replace",
            cwd=Path(__file__).parent.parent,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"the library computed no token in {timeout_s:.0f} s: the machine is overloaded, or {REBUILD}"
    except OSError as error:
        return f"the self test could not be started: {error}"
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()[-1:] or [""]
    return f"the self test of llama-cpp-python failed: {explain_exit(done.returncode, said[0])}"


def check() -> str | None:
    """All three questions; the first complaint, or None."""
    return check_cpu() or check_package() or self_test()


def explain_exit(returncode: int, said: str = "") -> str:
    """Put the end of a worker process into words.

    Args:
        returncode: As `subprocess` reports it: negative for a signal.
        said: Its last words, if any.
    """
    number = -returncode if returncode < 0 else returncode - 128
    try:
        return _SIGNAL_WORDS.get(signal.Signals(number), f"it was ended by {signal.Signals(number).name}")
    except ValueError:
        return said or f"it ended with exit code {returncode}"

"""The benchmark's two C programs: built when needed; the mock upstream is a process, the load client a call."""

import json
import os
import resource
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.modes import Mode

HERE = Path(__file__).parent
OUT = HERE / "out"
COMPILE_FLAGS = ("-O2", "-Wall", "-Wextra")
LOAD_GRACE_S = 60.0
"""How long past its window the load client may take before it is given up: its own drain limit is 10 s."""


class BenchError(Exception):
    """The benchmark can't go on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Paths of the two programs."""

    mock: Path
    load: Path


def build_tools(out: Path = OUT) -> Tools:
    """Compile what is older than its source.

    Raises:
        BenchError: There is no C compiler, this is not Linux, or the compiler failed.
    """
    if not Path("/proc/self/stat").exists():
        raise BenchError("the benchmark reads /proc and uses epoll: it runs on Linux only")
    out.mkdir(parents=True, exist_ok=True)
    built: list[Path] = []
    for name in ("mock", "load"):
        source, program = HERE / f"{name}.c", out / name
        built.append(program)
        if program.exists() and program.stat().st_mtime_ns >= source.stat().st_mtime_ns:
            continue
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise BenchError("no C compiler: install one (Debian: `apt install gcc libc6-dev`) and run this again")
        # Built beside and moved into place: another run may be using the old one.
        fresh = program.with_suffix(f".{os.getpid()}")
        made = subprocess.run(
            [compiler, *COMPILE_FLAGS, "-o", fresh, source], capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise BenchError(f"{compiler} could not build {source.name}:\n{made.stderr}")
        fresh.replace(program)
    return Tools(built[0], built[1])


@dataclass(frozen=True, slots=True)
class MockCounts:
    """What the mock upstream has received so far."""

    completions: int
    streams: int
    streams_finished: int

    @property
    def requests(self) -> int:
        """Requests of both kinds."""
        return self.completions + self.streams


class MockUpstream:
    """The mock upstream as a running process."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdout=subprocess.PIPE)
        assert self._process.stdout is not None  # noqa: S101 - we asked for the pipe
        self.pid = self._process.pid
        self.port: int = json.loads(self._process.stdout.readline())["port"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def set_pace(self, *, delay_us: int, chunks: int) -> None:
        """How streams that begin from now on are paced."""
        self._control(f"?delay_us={delay_us}&chunks={max(chunks, 2)}")

    def counts(self) -> MockCounts:
        """Requests so far."""
        answer = self._control("")
        return MockCounts(answer["completions"], answer["streams"], answer["streams_finished"])

    def _control(self, query: str) -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/control{query}", timeout=10) as answer:
            counts: dict[str, int] = json.load(answer)
            return counts


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What the clients saw. Times are quantiles in microseconds: p50, p90, p99 and their count."""

    requests: int
    completed: int
    failed: int
    incomplete: int
    """Streams that ended without all their chunks and `[DONE]`."""
    hung: int
    crossed: int
    unmarked: int
    ticks: int
    latency_us: dict[str, int]
    ttft_us: dict[str, int]
    chunk_us: dict[str, int]
    seconds: float
    first_failure: str
    cpu_ns: int = 0
    """What the load client itself spent."""

    @property
    def bad(self) -> int:
        """Answers that were not what they had to be."""
        return self.failed + self.incomplete + self.hung


def run_load(program: Path, mode: Mode, *, port: int, bodies: Path, headers: tuple[str, ...]) -> LoadResult:
    """Drive one window of load and wait for its end.

    Raises:
        BenchError: The load client failed, which is never the target's fault.
    """
    command: list[str | Path] = [program, "--port", str(port), "--body", bodies / f"{mode.body}.json"]
    command += ["--connections", str(mode.connections), "--seconds", str(mode.window_s)]
    if mode.chunks:
        command += ["--chunks", str(mode.chunks)]
    for header in headers:
        command += ["--header", header]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=mode.window_s + LOAD_GRACE_S)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise BenchError(f"the load client failed: {done.stderr.strip()}")
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    fields: dict[str, Any] = json.loads(done.stdout)
    return LoadResult(**fields, cpu_ns=int(spent_s * 1e9))

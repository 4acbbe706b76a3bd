"""The measuring itself: rounds of visits to each target in turn, and in each visit one window per mode."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.accounting import read_cpu, read_machine_busy_ns, read_pss_mb
from bench.figures import Visit, Window, foreign_share, is_quiet
from bench.modes import WARM_UP, Mode
from bench.running import Cores, RunningTarget, free_port
from bench.targets import BUILDERS, ROOT, Place, Target, UnavailableError
from bench.tools import MockUpstream, Tools, run_load

IMPORT_RUNS = 7
IMPORT_CODE = "import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
IMPORTED_MODULES = ("gateway", "gateway.app")
"""What `import gateway` means to a user, and what `mixgate serve` imports; the bar holds the slower one."""


@dataclass(slots=True)
class Record:
    """Everything a run has seen. This is what results.json holds."""

    visits: list[Visit] = field(default_factory=list[Visit])
    versions: dict[str, str] = field(default_factory=dict[str, str])
    unavailable: dict[str, str] = field(default_factory=dict[str, str])
    import_s: float | None = None
    import_note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Bench:
    """What every visit needs."""

    tools: Tools
    mock: MockUpstream
    bodies: Path
    out: Path
    cores: Cores
    patience: int = 0
    """How often a window is repeated when others disturbed it; the quietest one counts."""

    def prepare(self, name: str) -> tuple[Target, Place]:
        """Configure a target on a port of its own.

        Raises:
            UnavailableError: It can't be measured here.
        """
        folder = self.out / name
        folder.mkdir(parents=True, exist_ok=True)
        port = self.mock.port if name == "direct" else free_port()
        place = Place(folder, port, free_port(), self.mock.port)
        return BUILDERS[name](place), place

    def start(self, target: Target, place: Place) -> RunningTarget:
        """Start a target and wait for its first answer."""
        body = (self.bodies / "small.json").read_bytes()
        return RunningTarget(target, port=place.port, folder=place.folder, body=body, cores=self.cores)

    def visit(self, name: str, modes: Sequence[Mode]) -> Visit:
        """Start a target, warm it up, measure every mode, stop it."""
        target, place = self.prepare(name)
        with self.start(target, place) as running:
            self.drive(running, target, WARM_UP)
            running.wait_until_idle()
            windows = {mode.name: self.measure_in_peace(running, target, mode) for mode in modes}
            pss_mb = read_pss_mb(running.pid) if running.pid else 0.0
            return Visit(name, running.start_s, pss_mb, windows)

    def drive(self, running: RunningTarget, target: Target, mode: Mode) -> None:
        """Load without measuring."""
        run_load(self.tools.load, mode, port=running.port, bodies=self.bodies, headers=target.headers)

    def measure_in_peace(self, running: RunningTarget, target: Target, mode: Mode) -> Window:
        """One window, again while others disturb it and patience lasts. A window with bad answers is never replaced."""
        best = self.measure(running, target, mode)
        for _ in range(self.patience):
            if is_quiet(best) or best.bad or best.crossed:
                break
            again = self.measure(running, target, mode)
            if again.bad or again.crossed or foreign_share(again) < foreign_share(best):
                best = again
        return best

    def measure(self, running: RunningTarget, target: Target, mode: Mode) -> Window:
        """One window. It begins and ends with an idle target, so that everything a request costs is inside."""
        self.mock.set_pace(delay_us=mode.delay_us, chunks=mode.chunks)
        counts_before, busy_before = self.mock.counts(), read_machine_busy_ns()
        mock_before, began = read_cpu(self.mock.pid), time.perf_counter()
        cpu_before = read_cpu(running.pid) if running.pid else None
        load = run_load(self.tools.load, mode, port=running.port, bodies=self.bodies, headers=target.headers)
        running.wait_until_idle()
        cpu_ns = waited_ns = 0
        if running.pid and cpu_before:
            cpu_after = read_cpu(running.pid)
            cpu_ns, waited_ns = cpu_after.since(cpu_before), cpu_after.waited_ns - cpu_before.waited_ns
        elapsed_s = time.perf_counter() - began
        mock_ns = read_cpu(self.mock.pid).since(mock_before)
        busy_ns = read_machine_busy_ns() - busy_before
        counts = self.mock.counts()
        return Window(
            requests=counts.requests - counts_before.requests,
            chunks=(counts.streams_finished - counts_before.streams_finished) * mode.chunks,
            cpu_s=cpu_ns / 1e9,
            waited_s=max(0, waited_ns) / 1e9,
            window_s=load.seconds,
            foreign_s=max(0.0, (busy_ns - cpu_ns - mock_ns - load.cpu_ns) / 1e9),
            elapsed_s=elapsed_s,
            completed=load.completed,
            bad=load.bad,
            crossed=load.crossed + load.unmarked,
            latency_us=load.latency_us,
            ttft_us=load.ttft_us,
            chunk_us=load.chunk_us,
            paced=mode.delay_us > 0,
            first_failure=load.first_failure,
        )


def run_rounds(
    bench: Bench, names: Sequence[str], modes: Sequence[Mode], rounds: int, say: Callable[[str], None]
) -> Record:
    """Visit every target once per round, in an order that moves by one each round, so that no one is always first."""
    record = Record()
    usable = list(names)
    for name in names:
        # The unmeasured first start: it fills the bytecode caches, and tells what can be measured at all.
        try:
            target, place = bench.prepare(name)
            with bench.start(target, place):
                record.versions[name] = target.version
        except UnavailableError as error:
            say(f"{name}: not measured: {error}")
            record.unavailable[name] = str(error)
            usable.remove(name)
    for number in range(rounds if usable else 0):
        shift = number % len(usable)
        for name in usable[shift:] + usable[:shift]:
            say(f"round {number + 1} of {rounds}: {name}")
            try:
                record.visits.append(bench.visit(name, modes))
            except UnavailableError as error:
                say(f"{name}: lost in this round: {error}")
                record.unavailable[name] = str(error)
    return record


def measure_import() -> tuple[float | None, str]:
    """The median time in seconds that importing the gateway takes in a fresh process, and a note when it can't be."""
    slowest = 0.0
    for module in IMPORTED_MODULES:
        times: list[float] = []
        for _ in range(IMPORT_RUNS):
            done = subprocess.run(
                [sys.executable, "-c", IMPORT_CODE.format(module=module)],
                capture_output=True,
                text=True,
                check=False,
                cwd=ROOT,
                env={"PATH": "/usr/bin:/bin"},
            )
            if done.returncode:
                return None, f"import {module}: {done.stderr.strip().splitlines()[-1]}"
            times.append(float(done.stdout))
        slowest = max(slowest, sorted(times)[len(times) // 2])
    return slowest, ""

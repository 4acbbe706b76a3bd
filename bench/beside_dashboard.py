"""What requests suffer while the dashboard is used over a large ledger: the same windows with and without a visitor."""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from statistics import median

from bench.accounting import read_cpu, read_machine_busy_ns
from bench.figures import FOREIGN_SHARE_MAX, Judgement, judge_at_most
from bench.measure import Bench
from bench.modes import WARM_UP, Mode
from bench.targets import UnavailableError
from bench.tools import run_load
from bench.visited import Visited, visit

PAIRS_DEFAULT = 12
QUIET_LEAST = 3
"""Pairs in which nobody else used the machine: with fewer, all count."""
QUIET_WAIT_S = 15.0
"""How long a pair waits, for each time of the patience that is asked for, until others leave the machine alone."""
PAGE_EVERY_S = 1.0
"""How often another page is opened: faster than people read."""
SETTLE_S = 1.0
P99_RATIO_MAX = 1.10
PAGE_MAX_MS = 1000.0
PROBE = Mode("beside-dashboard", "1 KB body, 4 connections", 4, 3, "small")
CHART = "chart"
"""The place of a chart that is drawn."""
PAGES = (
    (
        *("overview", "spend/series?by=model&since=30d", CHART, "spend/series?by=all&since=30d", CHART),
        *("cost-distribution?since=30d", CHART, "spend?by=app&since=30d&top=10", "savings?since=30d"),
    ),
    ("endpoints", "endpoints/days?days=30", "events", "prices"),
    (*("overview", "spend/series?by=key&step=hour&since=30d", CHART, "cost-distribution?since=90d", CHART),),
    ("requests?since=24h", "requests?key=key5&model=vendor%2Fmodel-3", "requests?tag=blue&outcome=failed", "live"),
)
"""What the pages fetch, one page after the other."""


@dataclass(frozen=True, slots=True)
class Window:
    """How long requests took."""

    p50_us: int
    p99_us: int
    foreign_share: float = 0.0
    """CPU time that others on the machine spent meanwhile, as a share of one core."""


def judge_beside_dashboard(
    alone: Sequence[Window], used: Sequence[Window], pages_ms: Sequence[float]
) -> list[Judgement]:
    """The bars, from windows in pairs: medians, so that one disturbed window does not decide.

    Pairs in which others used the machine do not count, where there are some without.
    """
    quiet = [pair for pair in zip(alone, used, strict=True) if all(map(_is_quiet, pair))]
    if len(quiet) >= QUIET_LEAST:
        alone, used = zip(*quiet, strict=True)
    found: list[Judgement] = []
    latencies: dict[str, Callable[[Window], int]] = {"p99": lambda one: one.p99_us, "p50": lambda one: one.p50_us}
    for name, of in latencies.items():
        ratio = median(map(of, used)) / median(map(of, alone)) if alone and used else None
        found.append(judge_at_most(f"request {name} while the dashboard is used", "x without", P99_RATIO_MAX, ratio))
    found.append(judge_at_most("all that a page fetches", "ms", PAGE_MAX_MS, median(pages_ms) if pages_ms else None))
    return found


def measure_beside_dashboard(
    bench: Bench, pairs: int, rows: int, say: Callable[[str], None]
) -> tuple[list[Window], list[Window], list[float]]:
    """Windows without and with a visitor, in turn, on one running gateway; and how long each page took, in ms.

    Raises:
        UnavailableError: The gateway can't be run here, or its dashboard does not answer.
    """
    alone: list[Window] = []
    used: list[Window] = []
    pages_ms: list[float] = []
    pages = cycle(PAGES)
    with visit(bench, rows, say) as visited:
        bench.drive(visited.running, visited.target, WARM_UP)
        quiet = 0
        for number in range(pairs * (1 + bench.patience)):
            if quiet == pairs:
                break
            say(f"pair {number + 1}: {quiet} of {pairs} quiet ones so far")
            _wait_for_quiet(bench.patience * QUIET_WAIT_S)
            alone.append(_window(bench, visited))
            with _looking(visited, pages, pages_ms):
                used.append(_window(bench, visited))
            visited.running.wait_until_idle()
            quiet += _is_quiet(alone[-1]) and _is_quiet(used[-1])
    return alone, used, pages_ms


def _is_quiet(one: Window) -> bool:
    return one.foreign_share <= FOREIGN_SHARE_MAX


def _wait_for_quiet(limit_s: float) -> None:
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        before_ns = read_machine_busy_ns()
        time.sleep(SETTLE_S)
        if read_machine_busy_ns() - before_ns <= FOREIGN_SHARE_MAX * SETTLE_S * 1e9:
            return


def _window(bench: Bench, visited: Visited) -> Window:
    bench.mock.set_pace(delay_us=0, chunks=0)
    running = visited.running
    pids = [pid for pid in (running.pid, bench.mock.pid) if pid is not None]
    before, busy_ns = [read_cpu(pid) for pid in pids], read_machine_busy_ns()
    own_ns, began_s = time.process_time_ns(), time.monotonic()
    seen = run_load(bench.tools.load, PROBE, port=running.port, bodies=bench.bodies, headers=visited.target.headers)
    if seen.bad or not seen.completed:
        raise UnavailableError(f"{seen.bad} of {seen.requests} requests failed: {seen.first_failure}")
    elapsed_s, own_ns = time.monotonic() - began_s, time.process_time_ns() - own_ns
    known_ns = own_ns + seen.cpu_ns + sum(read_cpu(pid).since(then) for pid, then in zip(pids, before, strict=True))
    foreign_s = max(0.0, (read_machine_busy_ns() - busy_ns - known_ns) / 1e9)
    return Window(seen.latency_us["p50"], seen.latency_us["p99"], foreign_s / elapsed_s)


@contextmanager
def _looking(visited: Visited, pages: Iterator[Sequence[str]], pages_ms: list[float]) -> Generator[None]:
    """Somebody who opens one page after the other while the block runs."""
    stop = threading.Event()
    failures: list[Exception] = []

    def look() -> None:
        try:
            visitor = visited.connect()
            while not stop.is_set():
                began_s = time.monotonic()
                for path in next(pages):
                    if path == CHART:
                        visitor.draw()
                    else:
                        visitor.get(path)
                pages_ms.append((time.monotonic() - began_s) * 1000)
                stop.wait(PAGE_EVERY_S)
        except (OSError, UnavailableError) as error:
            failures.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        time.sleep(SETTLE_S)
        yield
    finally:
        stop.set()
        thread.join()
    if failures:
        raise UnavailableError(f"the dashboard did not answer: {failures[0]}")

"""What requests suffer while the dashboard is used over a large ledger: the same windows with and without a visitor."""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from bench.figures import Judgement, judge_at_most
from bench.measure import Bench
from bench.modes import WARM_UP, Mode
from bench.targets import UnavailableError
from bench.tools import run_load
from bench.visited import Visited, visit

PAIRS_DEFAULT = 7
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


def judge_beside_dashboard(
    alone: Sequence[Window], used: Sequence[Window], pages_ms: Sequence[float]
) -> list[Judgement]:
    """The bars, from windows in pairs: medians, so that one disturbed window does not decide."""
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
    with visit(bench, rows, say) as visited:
        bench.drive(visited.running, visited.target, WARM_UP)
        for number in range(pairs):
            say(f"pair {number + 1} of {pairs}")
            alone.append(_window(bench, visited))
            with _looking(visited, pages_ms):
                used.append(_window(bench, visited))
            visited.running.wait_until_idle()
    return alone, used, pages_ms


def _window(bench: Bench, visited: Visited) -> Window:
    bench.mock.set_pace(delay_us=0, chunks=0)
    port, headers = visited.running.port, visited.target.headers
    seen = run_load(bench.tools.load, PROBE, port=port, bodies=bench.bodies, headers=headers)
    if seen.bad or not seen.completed:
        raise UnavailableError(f"{seen.bad} of {seen.requests} requests failed: {seen.first_failure}")
    return Window(seen.latency_us["p50"], seen.latency_us["p99"])


@contextmanager
def _looking(visited: Visited, pages_ms: list[float]) -> Generator[None]:
    """Somebody who opens one page after the other while the block runs."""
    stop = threading.Event()
    failures: list[Exception] = []

    def look() -> None:
        try:
            visitor = visited.connect()
            number = 0
            while not stop.is_set():
                began_s = time.monotonic()
                for path in PAGES[number % len(PAGES)]:
                    if path == CHART:
                        visitor.draw()
                    else:
                        visitor.get(path)
                pages_ms.append((time.monotonic() - began_s) * 1000)
                number += 1
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

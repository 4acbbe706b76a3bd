"""What requests suffer while the dashboard is used over a large ledger: the same windows with and without a visitor."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from bench.figures import Judgement, judge_at_most
from bench.ledger import fill
from bench.measure import Bench
from bench.modes import WARM_UP, Mode
from bench.running import RunningTarget
from bench.targets import Target, UnavailableError, mixgate_config
from bench.tools import run_load
from gateway.state.connection import FILE_NAME

PAIRS_DEFAULT = 7
PAGE_EVERY_S = 1.0
"""How often another page is opened: faster than people read."""
SETTLE_S = 1.0
TIMEOUT_S = 10.0
P99_RATIO_MAX = 1.10
PAGE_MAX_MS = 1000.0
PROBE = Mode("beside-dashboard", "1 KB body, 4 connections", 4, 3, "small")
ADMIN_TOKEN = "bench-admin-token-0123456789abcdef"  # noqa: S105 - of this run alone
PAGES = (
    ("overview", "spend/series?by=model&since=30d", "spend?by=app&since=30d", "cost-distribution?since=30d"),
    ("overview", "spend/series?by=key&since=90d", "endpoints", "events"),
    ("requests?since=24h", "requests?key=bench-key", "live"),
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
    target, place = bench.prepare("mixgate")
    home = Path(target.environment["MIXGATE_HOME"])
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / FILE_NAME).unlink(missing_ok=True)
    say(f"writing a ledger of {rows:,} rows")
    fill(home / FILE_NAME, rows)
    config = json.loads(mixgate_config(place.upstream_port))
    config["gateway"]["admin_token"] = "env:BENCH_ADMIN_TOKEN"  # noqa: S105 - where it is found
    (place.folder / "providers.yaml").write_text(json.dumps(config))
    target = replace(target, environment={**target.environment, "BENCH_ADMIN_TOKEN": ADMIN_TOKEN})
    alone: list[Window] = []
    used: list[Window] = []
    pages_ms: list[float] = []
    with bench.start(target, place) as running:
        bench.drive(running, target, WARM_UP)
        cookie = _sign_in(running.port)
        for number in range(pairs):
            say(f"pair {number + 1} of {pairs}")
            alone.append(_window(bench, running, target))
            with _visitor(running.port, cookie, pages_ms):
                used.append(_window(bench, running, target))
            running.wait_until_idle()
    return alone, used, pages_ms


def _window(bench: Bench, running: RunningTarget, target: Target) -> Window:
    bench.mock.set_pace(delay_us=0, chunks=0)
    seen = run_load(bench.tools.load, PROBE, port=running.port, bodies=bench.bodies, headers=target.headers)
    if seen.bad or not seen.completed:
        raise UnavailableError(f"{seen.bad} of {seen.requests} requests failed: {seen.first_failure}")
    return Window(seen.latency_us["p50"], seen.latency_us["p99"])


@contextmanager
def _visitor(port: int, cookie: str, pages_ms: list[float]) -> Iterator[None]:
    """Somebody who opens one page after the other while the block runs."""
    stop = threading.Event()
    failures: list[Exception] = []

    def visit() -> None:
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
            number = 0
            while not stop.is_set():
                began_s = time.monotonic()
                for path in PAGES[number % len(PAGES)]:
                    _fetch(connection, "GET", path, {"cookie": cookie})
                pages_ms.append((time.monotonic() - began_s) * 1000)
                number += 1
                stop.wait(PAGE_EVERY_S)
        except (OSError, UnavailableError) as error:
            failures.append(error)

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        time.sleep(SETTLE_S)
        yield
    finally:
        stop.set()
        thread.join()
    if failures:
        raise UnavailableError(f"the dashboard did not answer: {failures[0]}")


def _sign_in(port: int) -> str:
    """The cookie of a session. Once, as tries to sign in are counted."""
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    headers = {"origin": f"http://127.0.0.1:{port}", "content-type": "application/json"}
    answer = _fetch(connection, "POST", "sign-in", headers, json.dumps({"token": ADMIN_TOKEN}))
    return answer.partition(";")[0]


def _fetch(connection: HTTPConnection, method: str, path: str, headers: dict[str, str], body: str | None = None) -> str:
    """The cookie that came with the answer, if one did."""
    connection.request(method, f"/dashboard/api/{path}", body, headers)
    response = connection.getresponse()
    text = response.read()
    if response.status != 200:
        raise UnavailableError(f"{path}: {response.status} {text[:200]!r}")
    return response.headers.get("set-cookie") or ""

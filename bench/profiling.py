"""Where the gateway's time goes in one mode: cProfile around the whole server, its most expensive functions printed."""

import io
import pstats
import sys
from dataclasses import replace

from bench.measure import Bench
from bench.modes import Mode
from bench.tools import BenchError

FUNCTIONS_SHOWN = 40
STOP_LIMIT_S = 30.0
"""cProfile writes its file when the server ends by itself, so it gets the time to drain."""


def profile_mode(bench: Bench, mode: Mode) -> str:
    """Run the gateway under cProfile for one window and return the table of its functions by their own time.

    Raises:
        BenchError: The gateway left no profile.
        UnavailableError: The gateway can't be started.
    """
    target, place = bench.prepare("mixgate")
    profile = place.folder / f"{mode.name}.prof"
    profile.unlink(missing_ok=True)
    profiled = replace(target, command=(sys.executable, "-m", "cProfile", "-o", str(profile), *target.command))
    with bench.start(profiled, place) as running:
        bench.mock.set_pace(delay_us=mode.delay_us, chunks=mode.chunks)
        before = bench.mock.counts().requests
        bench.drive(running, profiled, mode)
        requests = bench.mock.counts().requests - before
        running.stop(limit_s=STOP_LIMIT_S)
    if not profile.exists():
        raise BenchError(f"the gateway left no profile within {STOP_LIMIT_S:.0f} s: see {place.folder / 'log.txt'}")
    text = io.StringIO()
    statistics = pstats.Stats(str(profile), stream=text).strip_dirs()
    statistics.sort_stats("tottime").print_stats(FUNCTIONS_SHOWN)
    caution = "the profiler makes calls look dearer than they are"
    return f"{mode.name}: {requests} requests; {caution}\n{text.getvalue()}"

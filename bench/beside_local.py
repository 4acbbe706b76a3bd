"""What remote requests suffer while the local worker runs flat out: the same windows with it idle and with it busy."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from bench.figures import Judgement, judge_at_most
from bench.measure import Bench
from bench.modes import WARM_UP, Mode
from bench.running import RunningTarget
from bench.targets import CLIENT_KEY, ROOT, Target, UnavailableError, mixgate_config
from bench.tools import run_load
from bench.watched_serve import LAG_FILE, RECORD

ROUNDS_DEFAULT = 5
LOCAL_STREAMS = 8
SETTLE_S = 1.0
READY_LIMIT_S = 60.0
PROBE = Mode("beside-local", "1 KB body, 1 connection", 1, 3, "small")
OVERHEAD_RATIO_MAX = 1.10
LAG_P99_MAX_MS = 2.0
QUESTION = {"role": "user", "content": "Tell me a story, please, and then another one."}
LOCAL_BODY = {"model": "demo", "messages": [QUESTION], "stream": True, "max_tokens": 400, "temperature": 1}
LONG_LIST = {"type": "array", "items": {"type": "string", "minLength": 3, "maxLength": 12}, "minItems": 300}
LONG_ANSWER = {"response_format": {"type": "json_schema", "json_schema": {"name": "words", "schema": LONG_LIST}}}
"""The demonstration model has said all after some 30 tokens; a list this long keeps it writing to the last of 400."""
STREAMS, ANSWERS = "8 local streams", "8 clients of short local answers"


@dataclass(frozen=True, slots=True)
class Condition:
    """One window, with the worker idle or busy."""

    p50_us: int
    p99_us: int
    direct_p50_us: int
    direct_p99_us: int
    lag_p99_ms: float

    @property
    def overhead_p50_us(self) -> int:
        """What the gateway adds to half of all requests."""
        return self.p50_us - self.direct_p50_us

    @property
    def overhead_p99_us(self) -> int:
        """What the gateway adds to the slowest hundredth."""
        return self.p99_us - self.direct_p99_us


def judge_beside_local(idle: Sequence[Condition], busy: Mapping[str, Sequence[Condition]]) -> list[Judgement]:
    """The bars, from windows in turn: medians, so that one disturbed window does not decide.

    Args:
        idle: Those with an idle worker.
        busy: Those beside each load of it.
    """
    found: list[Judgement] = []
    overheads: dict[str, Callable[[Condition], float]] = {
        "p99": lambda condition: condition.overhead_p99_us,
        "p50": lambda condition: condition.overhead_p50_us,
    }
    for load, conditions in busy.items():
        for name, of in overheads.items():
            before, after = _median(idle, of), _median(conditions, of)
            # Less than nothing was measured only where the windows straight to the mock were disturbed.
            ratio = after / before if before is not None and after is not None and before > 0 <= after else None
            found.append(judge_at_most(f"remote overhead {name} beside {load}", "x idle", OVERHEAD_RATIO_MAX, ratio))
    for name, conditions in {"an idle worker": idle, **busy}.items():
        lag_ms = _median(conditions, lambda condition: condition.lag_p99_ms)
        found.append(judge_at_most(f"event loop lag p99 beside {name}", "ms", LAG_P99_MAX_MS, lag_ms))
    return found


def _median(conditions: Sequence[Condition], of: Callable[[Condition], float]) -> float | None:
    return median(map(of, conditions)) if conditions else None


def measure_beside_local(
    bench: Bench, rounds: int, say: Callable[[str], None], model: Path | None = None
) -> tuple[list[Condition], dict[str, list[Condition]]]:
    """Windows with the worker idle and with it busy, in turn, on one running gateway.

    Args:
        bench: The mock, and the tools.
        rounds: Of one window idle, and one beside each load.
        say: Told how far it is.
        model: A GGUF file; without one, the bundled model.

    Raises:
        UnavailableError: The gateway or its local worker can't be run here.
    """
    target, place = bench.prepare("mixgate")
    lag_file = place.folder / "lag.bin"
    lag_file.write_bytes(b"")
    config = place.folder / "providers.yaml"
    config.write_text(_with_local(mixgate_config(place.upstream_port), model))
    command = (sys.executable, "-P", "-m", "bench.watched_serve", *target.command[1:])
    paths = filter(None, (target.environment["PYTHONPATH"], str(ROOT)))
    environment = {**target.environment, LAG_FILE: str(lag_file), "PYTHONPATH": os.pathsep.join(paths)}
    watched = replace(target, command=command, environment=environment)
    # Another model goes on for as long as it may.
    loads = {STREAMS: LOCAL_BODY | LONG_ANSWER, ANSWERS: LOCAL_BODY} if model is None else {STREAMS: LOCAL_BODY}
    idle: list[Condition] = []
    busy: dict[str, list[Condition]] = {load: [] for load in loads}
    with bench.start(watched, place) as running:
        _wait_for_worker(place.port)
        bench.drive(running, watched, WARM_UP)
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            idle.append(_window(bench, running, watched, lag_file))
            for load, body in loads.items():
                with _local_clients(bench, running, watched, body):
                    busy[load].append(_window(bench, running, watched, lag_file))
                running.wait_until_idle()
    return idle, busy


def _with_local(config: str, model: Path | None) -> str:
    document = json.loads(config)
    row = {"file": "bundled" if model is None else str(model), "serves": "demo", "context_tokens": 2048, "load": "boot"}
    document["providers"]["local"] = {"dialect": "local", "models": {"local": {**row, "slots": LOCAL_STREAMS}}}
    return json.dumps(document, indent=1)


def _wait_for_worker(port: int) -> None:
    end_s = time.monotonic() + READY_LIMIT_S
    body = json.dumps({**LOCAL_BODY, "stream": False, "max_tokens": 4})
    headers = {"content-type": "application/json", "authorization": f"Bearer {CLIENT_KEY}"}
    while time.monotonic() < end_s:
        connection = HTTPConnection("127.0.0.1", port, timeout=READY_LIMIT_S)
        connection.request("POST", "/v1/chat/completions", body, headers)
        status = connection.getresponse().status
        connection.close()
        if status == 200:
            return
        time.sleep(0.2)
    raise UnavailableError("the local worker does not answer: is the local extra installed? `mixgate doctor` says more")


@contextmanager
def _local_clients(bench: Bench, running: RunningTarget, target: Target, body: Mapping[str, object]) -> Iterator[None]:
    """Eight clients that ask the local model again and again while the block runs."""
    file = bench.bodies / "local.json"
    file.write_text(json.dumps(body))
    command: list[str | Path] = [bench.tools.load, "--port", str(running.port), "--body", file]
    command += ["--connections", str(LOCAL_STREAMS), "--seconds", "3600"]
    for header in target.headers:
        command += ["--header", header]
    clients = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        time.sleep(SETTLE_S)
        yield
    finally:
        clients.kill()
        clients.wait()


def _window(bench: Bench, running: RunningTarget, target: Target, lag_file: Path) -> Condition:
    """Straight to the mock and through the gateway, under the same conditions one after the other."""
    bench.mock.set_pace(delay_us=0, chunks=0)
    direct = run_load(bench.tools.load, PROBE, port=bench.mock.port, bodies=bench.bodies, headers=())
    began_s = time.monotonic()
    through = run_load(bench.tools.load, PROBE, port=running.port, bodies=bench.bodies, headers=target.headers)
    ended_s = time.monotonic()
    if through.bad or not through.completed:
        raise UnavailableError(f"{through.bad} of {through.requests} remote requests failed: {through.first_failure}")
    return Condition(
        p50_us=through.latency_us["p50"],
        p99_us=through.latency_us["p99"],
        direct_p50_us=direct.latency_us["p50"],
        direct_p99_us=direct.latency_us["p99"],
        lag_p99_ms=lag_p99_ms(lag_file.read_bytes(), began_s, ended_s),
    )


def lag_p99_ms(records: bytes, began_s: float, ended_s: float) -> float:
    """The 99th percentile of how late the loop's timers fired in between, in milliseconds."""
    whole = records[: len(records) // RECORD.size * RECORD.size]
    late = sorted(late_s for at_s, late_s in RECORD.iter_unpack(whole) if began_s <= at_s <= ended_s)
    if not late:
        raise UnavailableError("the gateway's event loop was not watched")
    return late[min(len(late) - 1, len(late) * 99 // 100)] * 1000

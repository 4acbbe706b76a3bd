"""Exports what requests leave: a queue that the loop appends to, and a thread that does all the rest.

Nothing here makes a request wait or fails one. What finds no room, or nobody who takes it, is dropped and counted.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Protocol

from gateway.config.operations import Telemetry
from gateway.errors import ConfigError, ConfigProblem
from gateway.explain.trace import Trace
from gateway.trace_context import Propagator, TraceContext

QUEUE_MAX: Final = 4096
"""Requests that wait to be exported."""
BATCH_MAX: Final = 256
"""Requests of one export."""
EXPORT_EVERY_S: Final = 1.0
METRICS_EVERY_S: Final = 15.0
TIMEOUT_S: Final = 10.0
"""Of one export, with everything that is tried again in it."""
CLOSE_TIMEOUT_S: Final = 3.0
"""How long the end waits for the last export."""

_log = logging.getLogger("mixgate.tracing")


class Spans(Protocol):
    """Where spans go."""

    def export(self, sampled: Sequence[tuple[Trace, TraceContext]], /) -> bool:
        """Whether the spans of these requests were taken. Blocks."""
        ...

    def close(self) -> None:
        """Give up what is being tried. Any thread."""
        ...


class Counts(Protocol):
    """Where metrics go."""

    def note(self, trace: Trace, /) -> None:
        """Count what a request used."""
        ...

    def flush(self) -> bool:
        """Export them; whether they were taken. Blocks."""
        ...

    def close(self) -> None:
        """Give up what is being tried. Any thread."""
        ...


class Exporter:
    """Takes Traces on the loop's thread.

    Args:
        propagator: Says what is traced.
        spans: Where spans go.
        counts: Where metrics go.
    """

    def __init__(self, propagator: Propagator, spans: Spans, counts: Counts) -> None:
        self.dropped = 0
        """Requests that were not exported."""
        self.exported = 0
        self._propagator = propagator
        self._spans = spans
        self._counts = counts
        self._queue: deque[Trace] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="mixgate-tracing", daemon=True)

    def start(self) -> None:
        """Begin to export."""
        self._thread.start()

    def put(self, trace: Trace, /) -> bool:
        """A request is over. Returns at once."""
        queue = self._queue
        if len(queue) >= QUEUE_MAX or self._stopping:
            self.dropped += 1
            return False
        queue.append(trace)
        if len(queue) == BATCH_MAX:
            self._wake.set()
        return True

    def close(self) -> None:
        """Export what is left, as far as that goes in CLOSE_TIMEOUT_S. Blocks."""
        self._stopping = True
        self._wake.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        self._spans.close()
        self._counts.close()
        self._thread.join(CLOSE_TIMEOUT_S)
        self.dropped += len(self._queue)

    def _run(self) -> None:
        waited_s = 0.0
        while not self._stopping:
            self._wake.wait(EXPORT_EVERY_S)
            self._wake.clear()
            self._export_all()
            waited_s += EXPORT_EVERY_S
            if waited_s >= METRICS_EVERY_S:
                waited_s = 0.0
                self._guard_flush()
        self._export_all()
        self._guard_flush()

    def _guard_flush(self) -> None:
        try:
            self._counts.flush()
        except Exception:  # noqa: BLE001 - a fault of the library must not end the thread; logged
            _log.exception("metrics could not be exported")

    def _export_all(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH_MAX, len(self._queue)))]
            try:
                taken = self._export(batch)
            except Exception:  # noqa: BLE001 - one request that cannot be told must not end the thread; logged
                _log.exception("traces could not be exported")
                taken = False
            if taken:
                self.exported += len(batch)
            else:
                self.dropped += len(batch)
            if taken is self._failing:
                self._failing = not taken
                _log.warning("traces are %s", "exported again" if taken else "not taken, and dropped meanwhile")

    def _export(self, batch: list[Trace]) -> bool:
        sampled: list[tuple[Trace, TraceContext]] = []
        for trace in batch:
            self._counts.note(trace)
            context = self._propagator.context(trace.id, trace.traceparent)
            if context.sampled:
                sampled.append((trace, context))
        return not sampled or self._spans.export(sampled)


def open_exporter(telemetry: Telemetry) -> Exporter:
    """An Exporter to that place. Loads the library, which takes a moment.

    Raises:
        ConfigError: The library is not installed.
    """
    try:
        # A tenth of a second that only those pay who configured it.
        from gateway.tracing.otlp import OtlpCounts, OtlpSpans, Post, resource_of  # noqa: PLC0415
    except ImportError as error:
        said = f"gateway.telemetry is set, and OpenTelemetry is not installed ({error.name})."
        raise ConfigError(
            (ConfigProblem("gateway.telemetry", said, "install mixgate[otel], or take the section out"),)
        ) from error
    resource = resource_of(_version())
    headers = {name: secret.reveal() for name, secret in telemetry.headers.items()}
    spans = OtlpSpans(Post(f"{telemetry.otlp_endpoint}/v1/traces", headers, TIMEOUT_S), resource)
    counts = OtlpCounts(Post(f"{telemetry.otlp_endpoint}/v1/metrics", headers, TIMEOUT_S), resource, time.time)
    return Exporter(Propagator(telemetry.sample), spans, counts)


def _version() -> str:
    try:
        return version("mixgate")
    except PackageNotFoundError:
        return "unknown"

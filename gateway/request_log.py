"""A line in the log for every request, where that is wanted: ids, names and figures. Written by a thread."""

import logging
import threading
from collections import deque
from typing import Any, Final

from gateway.explain.trace import Trace
from gateway.request_id import REQUEST_ID

QUEUE_MAX: Final = 8192
"""Requests whose line is not written yet; more are left out and counted."""
WRITE_EVERY_S: Final = 0.2
CLOSE_TIMEOUT_S: Final = 2.0
_log: Final = logging.getLogger("mixgate.requests")


class RequestLog:
    """Takes Traces on the loop's thread."""

    def __init__(self) -> None:
        self.left_out = 0
        """Requests without a line: whoever reads standard error is too slow."""
        self._queue: deque[Trace] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mixgate-request-log", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, trace: Trace, /) -> bool:
        """A request is over."""
        if len(self._queue) >= QUEUE_MAX:
            self.left_out += 1
            return False
        self._queue.append(trace)
        return True

    def close(self) -> None:
        """Write what is left. Blocks a little."""
        self._stop.set()
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stop.wait(WRITE_EVERY_S):
            self._write_all()
        self._write_all()

    def _write_all(self) -> None:
        while self._queue:
            trace = self._queue.popleft()
            REQUEST_ID.set(trace.id)
            facts = facts_of(trace)
            said = " ".join(f"{name}={value}" for name, value in facts.items())
            _log.info("%s", f"request {said}", extra={"facts": facts})
        REQUEST_ID.set("")


def facts_of(trace: Trace) -> dict[str, Any]:
    """What the line has. No text of a client's."""
    facts: dict[str, Any] = {
        "outcome": trace.outcome,
        "code": trace.code,
        "route": trace.plan.route,
        "surface": trace.surface,
        "caller": trace.caller,
        "stream": trace.ask.stream,
        "attempts": len(trace.attempts),
        "duration_ms": int((trace.ended_s - trace.now_s) * 1000),
        "cost_in_nusd": trace.cost_in_nusd,
    }
    if trace.attempts:
        last = trace.attempts[-1]
        facts["endpoint"] = last.endpoint.id
        facts["ttft_ms"] = None if last.ttft_s is None else int(last.ttft_s * 1000)
        if last.usage is not None:
            facts["input_tokens"], facts["output_tokens"] = last.usage.input_tokens, last.usage.output_tokens
    if trace.cached is not None:
        facts["cached"] = True
    return {name: value for name, value in facts.items() if value is not None}

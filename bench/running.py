"""One target as a running process: started, waited for, measured in silence, stopped."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.accounting import read_cpu
from bench.targets import ROOT, Target, UnavailableError, environment_for

START_LIMIT_S = 90.0
STOP_LIMIT_S = 8.0
PROBE_GAP_S = 0.004
PROBE_LIMIT_S = 10.0
IDLE_LIMIT_S = 4.0
IDLE_LOOK_S = 0.05
IDLE_SHARE = 0.02
"""A tree that uses less than this share of a core has finished what the window gave it."""
LOG_LINES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the servers under test run on, and which the mock, the load and this program."""

    target: int | None
    load: int | None

    @staticmethod
    def choose() -> "Cores":
        """Two cores of those we may use, or none pinned where there is only one."""
        usable = sorted(os.sched_getaffinity(0))
        return Cores(usable[1], usable[0]) if len(usable) > 1 else Cores(None, None)


def free_port() -> int:
    """A loopback port that nothing listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class RunningTarget:
    """A started target. Construction returns when it has answered its first request."""

    def __init__(self, target: Target, *, port: int, folder: Path, body: bytes, cores: Cores) -> None:
        self._target = target
        self.port = port
        self._log_path = folder / "log.txt"
        self._process: subprocess.Popen[bytes] | None = None
        self.start_s = 0.0
        if target.command:
            self._start(folder, body, cores)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The process at the root of the target's tree; `None` for the direct target."""
        return self._process.pid if self._process else None

    def _start(self, folder: Path, body: bytes, cores: Cores) -> None:
        ours = os.sched_getaffinity(0)
        with self._log_path.open("wb") as log:
            if cores.target is not None:
                os.sched_setaffinity(0, {cores.target})
            started = time.perf_counter()
            try:
                self._process = subprocess.Popen(
                    self._target.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=ROOT if self._target.name.endswith("-anchor") else folder,
                    env=environment_for(self._target),
                    start_new_session=True,
                )
            finally:
                os.sched_setaffinity(0, ours)
        try:
            self._wait_for_first_answer(body, started)
        except BaseException:
            self.stop()
            raise

    def _wait_for_first_answer(self, body: bytes, started: float) -> None:
        headers = {"Content-Type": "application/json"}
        headers |= dict(line.split(": ", 1) for line in self._target.headers)
        seen = "no answer"
        while (waited := time.perf_counter() - started) < START_LIMIT_S:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PROBE_LIMIT_S)
            try:
                connection.request("POST", "/v1/chat/completions", body, headers)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status == 200:
                    self.start_s = time.perf_counter() - started
                    return
                seen = f"status {answer.status}: {text[:300].decode(errors='replace')}"
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            if self._process is not None and self._process.poll() is not None:
                raise UnavailableError(f"it ended with code {self._process.returncode}: {self._last_words()}")
            # A slow starter is not asked so often that the asking slows it down.
            time.sleep(PROBE_GAP_S if waited < 1 else 0.05)
        raise UnavailableError(f"no 200 within {START_LIMIT_S:.0f} s ({seen}): {self._last_words()}")

    def _last_words(self) -> str:
        lines = self._log_path.read_text(errors="replace").split("\n")
        return " | ".join(line.strip() for line in lines if line.strip())[-600:] or "it said nothing"

    def wait_until_idle(self) -> None:
        """Return when the target has finished what it was given, or after IDLE_LIMIT_S."""
        if self.pid is None:
            return
        before = read_cpu(self.pid)
        end = time.perf_counter() + IDLE_LIMIT_S
        while time.perf_counter() < end:
            time.sleep(IDLE_LOOK_S)
            now = read_cpu(self.pid)
            if now.since(before) < IDLE_SHARE * IDLE_LOOK_S * 1e9:
                return
            before = now

    def stop(self, *, limit_s: float = STOP_LIMIT_S) -> None:
        """Ask it to end, then make it. Its whole process group goes."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(limit_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

"""Keeps one worker process per model alive: starts it, restarts it after a crash, and says why it died."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import Final, Literal

from local_backend.client import LocalResponse, WorkerLink, fingerprint
from local_backend.errors import InvalidRequestError, LocalError, NotReadyError, WorkerCrashedError
from local_backend.frames import Refusal, WorkerFacts, WorkerSpec
from local_backend.preflight import explain_exit
from local_backend.restarts import RestartPolicy, Suspects

State = Literal["off", "starting", "ready", "crashed", "refused"]

BOOT_WAIT_MAX_S: Final = 30.0
"""The longest that a request waits for a starting model."""
EXIT_WORDS_WAIT_S: Final = 0.05
"""How long the streams of a dead worker wait for its exit status to be known."""
REFUSAL_STANDS_S: Final = 30.0
"""A file that was refused is looked at again by a request that comes later than this."""
STOP_WAIT_S: Final = 2.0
LAST_WORDS_LINES: Final = 20

_PASSED_ON: Final = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "VIRTUAL_ENV", "LLAMA_CPP_LIB_PATH")
"""Nothing else of the gateway's environment: provider keys are in it."""
_PACKAGE_HOME: Final = str(Path(__file__).resolve().parent.parent)
_log = logging.getLogger("local_backend")


def worker_environment() -> dict[str, str]:
    """The environment of a worker process."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        **passed,
        "PYTHONPATH": _PACKAGE_HOME,
        "PYTHONUNBUFFERED": "1",
        "GGML_NO_BACKTRACE": "1",  # else a crash starts a debugger and takes seconds
        "OMP_WAIT_POLICY": "passive",  # else idle threads spin at barriers and starve the gateway
        "GOMP_SPINCOUNT": "300",  # but a few microseconds: falling asleep at each of hundreds of barriers takes longer
    }


class Supervisor:
    """One model's worker process.

    Args:
        spec: What to load.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.state: State = "off"
        self.reason = "it is loaded when first asked for"
        self.facts: WorkerFacts | None = None
        self._link: WorkerLink | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._runner: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._policy = RestartPolicy()
        self._suspects = Suspects()
        self._ready_at_s: float | None = None
        self._next_start_at_s = 0.0
        self._arriving = 0
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS_LINES)

    @property
    def busy(self) -> int:
        """Requests under way."""
        return 0 if self._link is None else self._link.busy

    @property
    def running(self) -> int:
        """Requests that have a slot."""
        return 0 if self._link is None else self._link.busy - self._link.waiting

    @property
    def waiting(self) -> int:
        """Requests that have no slot: in the worker's queue, or here until the model is loaded."""
        return self._arriving + (0 if self._link is None else self._link.waiting)

    @property
    def pid(self) -> int | None:
        """The worker's process id, while there is one."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    @property
    def can_serve(self) -> bool:
        """Whether a request is worth sending: it would be answered, load the model, or be told when to come back."""
        return self.state != "refused" or time.monotonic() >= self._next_start_at_s

    def start(self) -> None:
        """Start the worker, in the background. Idempotent."""
        if self._runner is None or self._runner.done():
            self._set("starting", "the model is being loaded")
            self._runner = asyncio.get_running_loop().create_task(self._run(), name=f"local:{self.spec.name}")
            self._runner.add_done_callback(self._ran)

    async def stop(self, reason: str = "it was stopped") -> None:
        """End the worker; what it is doing ends with an error."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
            await asyncio.wait([runner])
        await self._end_process()
        if self._link is not None:
            self._link.fail(NotReadyError("the local model was stopped", retry_after_s=5.0))
            self._link = None
        self._set("off", reason)

    async def wait_ready(self, limit_s: float) -> WorkerLink:
        """The link to a loaded model.

        Raises:
            LocalError: NotReadyError or WorkerCrashedError, with why and when to ask again.
        """
        if self._link is not None and self.state == "ready":
            return self._link
        if self.can_serve:
            self.start()
        try:
            async with asyncio.timeout(limit_s):
                await self._settled.wait()
        except TimeoutError:
            raise NotReadyError(f"the local model {self.spec.name} is still starting", retry_after_s=2.0) from None
        if self._link is not None and self.state == "ready":
            return self._link
        if self.state == "crashed":
            left_s = max(1.0, self._next_start_at_s - time.monotonic())
            raise WorkerCrashedError(f"the local model {self.spec.name} is down: {self.reason}", retry_after_s=left_s)
        left_s = max(1.0, self._next_start_at_s - time.monotonic())
        raise NotReadyError(f"the local model {self.spec.name} does not run: {self.reason}", retry_after_s=left_s)

    async def send(self, body: bytes, *, whole: bool, deadline_s: float | None, caller: str = "") -> LocalResponse:
        """Ask the model, waiting for it to start if need be.

        Raises:
            LocalError: It does not run, or this very request ended the worker before.
        """
        asked_at_s = time.monotonic()
        if self._suspects.any and self._suspects.convicted(fingerprint(body), asked_at_s):
            raise InvalidRequestError(
                "this very request was running both times when the local worker crashed; it is not tried a third time. "
                "Change it, or use another model"
            )
        limit_s = BOOT_WAIT_MAX_S if deadline_s is None else min(BOOT_WAIT_MAX_S, deadline_s)
        self._arriving += 1
        try:
            link = await self.wait_ready(limit_s)
        finally:
            self._arriving -= 1
        return await link.send(body, whole=whole, waited_s=time.monotonic() - asked_at_s, caller=caller)

    def _set(self, state: State, reason: str) -> None:
        self.state, self.reason = state, reason
        if state == "starting":
            self._settled.clear()
        else:
            self._settled.set()

    def _ran(self, runner: asyncio.Task[None]) -> None:
        """A supervisor that fails itself must not leave requests waiting for a model that nobody starts."""
        error = None if runner.cancelled() else runner.exception()
        if error is not None:
            _log.error("local model %s: its supervisor failed", self.spec.name, exc_info=error)
            self._next_start_at_s = time.monotonic() + REFUSAL_STANDS_S
            self._set("refused", f"the gateway failed to supervise it ({type(error).__name__}); see its log")

    # --- the life of workers ---

    async def _run(self) -> None:
        while True:
            try:
                refusal = await self._live_once()
            except OSError as error:
                refusal = Refusal(status=503, code="local_not_ready", message=f"the worker cannot be started: {error}")
            if refusal is not None:
                _log.warning("local model %s is off: %s", self.spec.name, refusal.message)
                self._next_start_at_s = time.monotonic() + REFUSAL_STANDS_S
                self._set("refused", refusal.message)
                return
            lived_s = 0.0 if self._ready_at_s is None else time.monotonic() - self._ready_at_s
            pause = self._policy.after_crash(time.monotonic(), lived_s)
            self._next_start_at_s = time.monotonic() + pause.delay_s
            if pause.circuit_open:
                self._set(
                    "crashed", f"{self.reason}; it crashed 3 times in a minute, next start in {pause.delay_s:.0f} s"
                )
            else:
                self._set("starting", self.reason)
            await asyncio.sleep(pause.delay_s)
            self._set("starting", "the model is being loaded again after a crash")

    async def _live_once(self) -> Refusal | None:
        """One worker process from start to end. A Refusal means that starting again makes no sense."""
        self._ready_at_s = None
        link = await self._spawn()
        listening = asyncio.get_running_loop().create_task(self._listen())
        try:
            verdict = await asyncio.shield(link.verdict)
            if isinstance(verdict, Refusal):
                return verdict
            if verdict is not None:
                self.facts, self._link = verdict, link
                self._ready_at_s = time.monotonic()
                self._set("ready", "")
                await asyncio.shield(link.lost)
            await self._bury(link)
            return None
        finally:
            link.close()
            await self._end_process()
            listening.cancel()

    async def _spawn(self) -> WorkerLink:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._last_words.clear()
        try:
            ours.setblocking(False)  # noqa: FBT003  # the socket API
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "local_backend.worker", str(theirs.fileno()), str(os.getpid())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                env=worker_environment(),
                cwd="/",
            )
            _, link = await asyncio.get_running_loop().create_unix_connection(lambda: WorkerLink(self.spec), sock=ours)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        link.answered = self._suspects.clear
        return link

    async def _bury(self, link: WorkerLink) -> None:
        """The worker died: put it into words, and end what it was doing with them."""
        # Whoever asks from here on waits for the next worker, however long this one takes to be gone.
        self._link = None
        self._set("starting", "the worker process crashed")
        words = "the worker process ended without a word"
        try:
            words = await self._exit_in_words() or words
        finally:
            self.reason = f"the worker process crashed: {words}"
            for mark in link.fail(WorkerCrashedError(f"the local worker crashed: {words}", retry_after_s=1.0)):
                self._suspects.mark(mark, time.monotonic())
        _log.error("local model %s: %s; last words: %s", self.spec.name, self.reason, " | ".join(self._last_words))

    async def _exit_in_words(self) -> str:
        """What the process ended of; nothing where it takes too long to end."""
        process = self._process
        if process is None:
            return ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_WORDS_WAIT_S):
                await process.wait()
        if process.returncode is None:
            return ""
        return explain_exit(process.returncode, self._last_words[-1] if self._last_words else "")

    async def _listen(self) -> None:
        """Keep the worker's last words."""
        stream = None if self._process is None else self._process.stderr
        if stream is None:
            return
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # a line longer than the stream's limit: not worth keeping
                continue
            if not line:
                return
            self._last_words.append(line.decode("utf-8", "replace").rstrip())

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if self._link is not None:
            self._link.close()
        try:
            async with asyncio.timeout(STOP_WAIT_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


__all__ = ["BOOT_WAIT_MAX_S", "LocalError", "State", "Supervisor", "worker_environment"]

"""One child as the parent has it: started, started again when it ends or hangs, told what is to be done."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from gateway.workers.control import Control, ControlLink, Ready, Start
from gateway.workers.exits import HUNG_S, LOOK_EVERY_S, START_HUNG_S, RestartPolicy, Silence, explain_exit

PROGRAM: Final = "gateway.cli.process"
"""The module that a child runs. It alone is named, as it joins everything and so lies above all of this."""
KILL_AFTER_S: Final = 10.0
"""How long a child that was told to stop has for it, where it does not say itself how long it takes."""
EXIT_CONFIGURATION: Final = 2

_log = logging.getLogger("mixgate.workers")


class Child:
    """A process that is kept alive.

    Args:
        title: What it is called in the log: `the owner`, `worker 2`.
        begin: What it is to be, asked anew for each start.
        on_ready: Told once it is at work.
        on_end: Told the name of a process that is gone.
        gate: Its process comes up at once, and begins to work when this is open.
    """

    def __init__(
        self,
        title: str,
        begin: Callable[[], Start],
        on_ready: Callable[[], None],
        on_end: Callable[[str], None],
        gate: asyncio.Event | None = None,
    ) -> None:
        self.title = title
        self.name = ""
        """Of the process that there is; empty where there is none."""
        self.ready_since_s: float | None = None
        self.refused = False
        """Whether it said that the configuration cannot be used."""
        self.starts = 0
        self._gone_at_s = 0.0
        self._begin = begin
        self._on_ready = on_ready
        self._on_end = on_end
        self._gate = gate
        self._silence = Silence()
        self._hung = False
        self._policy = RestartPolicy()
        self._link: ControlLink | None = None
        self._unsaid: list[Control] = []
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._awake = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether it is at work."""
        return self.ready_since_s is not None

    @property
    def pid(self) -> int | None:
        """Its process id, while there is one."""
        return None if self._process is None else self._process.pid

    def say(self, message: Control) -> None:
        """Tell it, if it is there or about to be."""
        if self._link is not None:
            self._link.say(message)
        elif self.name:
            self._unsaid.append(message)

    async def run(self) -> None:
        """Keep it alive until it is stopped; returns when it is gone then, or will never be ready."""
        while not self._stopping:
            try:
                status = await self._live_once()
            except OSError as error:
                status = None
                _log.error("%s cannot be started: %s", self.title, error.strerror or error)
            ready_s = None if self.ready_since_s is None else time.monotonic() - self.ready_since_s
            self._bury()
            if self._stopping:
                return
            if status == EXIT_CONFIGURATION and ready_s is None:
                self.refused = True
                return
            pause_s = self._policy.after_end(ready_s)
            if status is not None:
                again = f"in {pause_s:.1f} s" if pause_s else "at once"
                why = "it hung" if self._hung else explain_exit(status)
                _log.error("%s is gone: %s. It is started again %s", self.title, why, again)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._awake.wait(), pause_s or 0.001)

    def stop(self) -> None:
        """Do not start it again. Ending it is another matter."""
        self._stopping = True
        self._awake.set()

    def kill(self) -> None:
        """End it now."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _live_once(self) -> int:
        """One process from start to end; gives its exit status."""
        start = self._begin()
        self.name = start.name
        self.starts += 1
        descriptors = tuple(one for group in start.sockets for one in group)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            ours.setblocking(False)  # noqa: FBT003  # the socket API
            # In a session of its own: Ctrl-C is for the parent, which drains first.
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", PROGRAM, self.title, str(theirs.fileno()), str(os.getpid())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *descriptors),
                start_new_session=True,
            )
            loop = asyncio.get_running_loop()
            _, self._link = await loop.create_unix_connection(lambda: ControlLink(self._hear, _nothing), sock=ours)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ending = asyncio.ensure_future(process.wait())
        if self._gate is not None and not self._gate.is_set():
            opening = asyncio.ensure_future(self._gate.wait())
            both: set[asyncio.Future[Any]] = {ending, opening}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            opening.cancel()
        unsaid, self._unsaid = self._unsaid, []
        for message in (start, *unsaid):
            self.say(message)
        self._silence, self._hung = Silence(), False
        watching = asyncio.create_task(self._watch())
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:
            self.kill()
            await ending
            raise
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        """Kill it when it hangs; whatever follows from its end follows then. Over when it hangs up, as it ends then."""
        loop = asyncio.get_running_loop()
        looked_s = loop.time()
        while self._link is not None and self._link.up:
            await asyncio.sleep(LOOK_EVERY_S)
            now_s = loop.time()
            silent_s = self._silence.look(now_s - looked_s)
            looked_s = now_s
            if silent_s >= (HUNG_S if self.ready else START_HUNG_S):
                words = "%s has not said for %.0f s that it is alive: it hangs, and is killed"
                _log.error(words, self.title, silent_s)
                self._hung = True
                self.kill()
                return

    def _hear(self, message: Any) -> None:
        self._silence.end()
        if isinstance(message, Ready) and self.ready_since_s is None:
            self.ready_since_s = time.monotonic()
            if self.starts > 1:
                _log.warning("%s is back after %.1f s", self.title, self.ready_since_s - self._gone_at_s)
            self._on_ready()

    def _bury(self) -> None:
        if self._link is not None:
            self._link.close()
        self._gone_at_s = time.monotonic()
        name, self.name = self.name, ""
        self._unsaid.clear()
        self._link = self._process = self.ready_since_s = None
        self._on_end(name)


def _nothing() -> None:
    """A child that hangs up is about to end, which is waited for elsewhere."""

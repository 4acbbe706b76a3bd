"""The gateway's end of the process beside it: started when the dashboard is opened, gone when nobody looks any more."""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.dashboard.answers import Reply
from gateway.dashboard.errors import DashboardBusyError, DashboardTimeoutError, FiguresUnavailableError
from gateway.dashboard.jobs import FRAME_MAX_BYTES, HEAD, Done, Job, frame
from gateway.state.beside import command_for, environment

WAITING_MAX: Final = 32
"""Jobs that run or wait; one more is refused."""
PATIENCE_S: Final = 20.0
"""How long a job is waited for, those before it included; then the process is given up."""
IDLE_S: Final = 300.0
"""How long it stays without a job."""
RETRY_AFTER_S: Final = 1.0
"""When to ask again where it could not answer."""
_done: Final = msgspec.msgpack.Decoder(Done)
_log = logging.getLogger("mixgate.dashboard")


class Aside:
    """Has jobs done. Belongs to the event loop.

    Args:
        path: mixgate.db.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._number = 0
        self._rest: asyncio.TimerHandle | None = None

    async def ask(self, job: Job) -> Reply:
        """Have a job done. Its number is filled in.

        Raises:
            DashboardBusyError: Too much waits already.
            DashboardTimeoutError: It took too long.
            FiguresUnavailableError: The process cannot be had, or died.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise DashboardBusyError("The dashboard is asked too much at once.", retry_after_s=RETRY_AFTER_S)
        self._number += 1
        number = self._number
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply
        try:
            stdin = await self._start()
            stdin.write(frame(replace(job, number=number)))
            async with asyncio.timeout(PATIENCE_S):
                await stdin.drain()
                return await reply
        except TimeoutError as error:
            self._end()
            raise DashboardTimeoutError("The look-up took too long.", retry_after_s=RETRY_AFTER_S) from error
        except OSError as error:
            raise _gone() from error
        finally:
            self._waiting.pop(number, None)
            self._rest_later()

    async def warm(self) -> None:
        """Start the process: somebody opens the dashboard, and will ask in a moment."""
        with contextlib.suppress(FiguresUnavailableError):
            await self._start()
        self._rest_later()

    async def aclose(self) -> None:
        """End the process."""
        if self._rest is not None:
            self._rest.cancel()
        process, reading = self._process, self._reading
        self._end()
        if process is not None:
            await process.wait()
        if reading is not None:
            await asyncio.gather(reading, return_exceptions=True)

    async def _start(self) -> asyncio.StreamWriter:
        """Where jobs are written, of a process that runs."""
        async with self._starting:
            if self._process is None:
                try:
                    self._process = await asyncio.create_subprocess_exec(
                        *command_for("gateway.dashboard.clerk_process", str(self._path)),
                        stdin=asyncio.subprocess.PIPE,
                        stdout=asyncio.subprocess.PIPE,
                        env=environment(),
                        cwd="/",
                    )
                except OSError as error:
                    raise FiguresUnavailableError(
                        f"The process that looks things up cannot be started: {error}", retry_after_s=RETRY_AFTER_S
                    ) from error
                self._reading = asyncio.create_task(self._read(self._process))
            stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 (we asked for a pipe)
        return stdin

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand out replies until the process ends."""
        stdout = process.stdout
        assert stdout is not None  # noqa: S101 (we asked for a pipe)
        try:
            while True:
                (length,) = HEAD.unpack(await stdout.readexactly(HEAD.size))
                if length > FRAME_MAX_BYTES:
                    _log.error("the dashboard's process sends %d bytes at once and is ended", length)
                    break
                done = _done.decode(await stdout.readexactly(length))
                waiting = self._waiting.get(done.number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(done.reply)
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
            _log.debug("the dashboard's process has ended", exc_info=True)
        finally:
            if self._process is process:
                self._end()
            await process.wait()

    def _rest_later(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
        self._rest = asyncio.get_running_loop().call_later(IDLE_S, self._rest_now)

    def _rest_now(self) -> None:
        if not self._waiting:
            self._end()

    def _end(self) -> None:
        """Give the process up; another one is started when there is something to do."""
        process, self._process, self._reading = self._process, None, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # it changes nothing, so nothing is lost
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(_gone())


def _gone() -> FiguresUnavailableError:
    return FiguresUnavailableError(
        "The process that looks things up has ended; ask again.", retry_after_s=RETRY_AFTER_S
    )

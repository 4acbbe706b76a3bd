"""Look-ups beside the event loop: a few threads with a connection each, bounded in number and in time."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from gateway.dashboard.errors import DashboardBusyError, DashboardTimeoutError, FiguresUnavailableError
from gateway.errors import InvalidRequestError
from gateway.state.errors import StoreError
from gateway.state.figures_reader import FiguresReader

THREADS_MAX: Final = 2
"""Look-ups at the same time: the rest of the machine is for requests."""
WAITING_MAX: Final = 32
"""Look-ups that run or wait; one more is refused."""
LOOK_UP_MAX_S: Final = 5.0
"""How long one may take, from when it was asked for."""
RETRY_AFTER_S: Final = 1.0
OPENING_S: Final = 1.0
"""How long the file is waited for."""
OPENING_STEP_S: Final = 0.05

Found = TypeVar("Found")


class Readers:
    """Connections that change nothing. Belongs to the event loop.

    Args:
        path: mixgate.db.
        look_up_max_s: How long one look-up may take.
    """

    def __init__(self, path: Path, *, look_up_max_s: float = LOOK_UP_MAX_S) -> None:
        self._path = path
        self._look_up_max_s = look_up_max_s
        self._threads: ThreadPoolExecutor | None = None
        self._idle: deque[FiguresReader] = deque()
        self._asked = 0

    async def ask(self, work: Callable[[FiguresReader], Found]) -> Found:
        """Do something with a connection, in a thread.

        Raises:
            DashboardBusyError: Too much waits already.
            DashboardTimeoutError: It took too long.
            FiguresUnavailableError: The store cannot be read.
        """
        if self._asked >= WAITING_MAX:
            raise DashboardBusyError("The dashboard is asked too much at once.", retry_after_s=RETRY_AFTER_S)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS_MAX, "dashboard")
        loop = asyncio.get_running_loop()
        call = _Call(self._path, self._idle, work)
        deadline = loop.call_later(self._look_up_max_s, call.give_up)
        self._asked += 1
        running = loop.run_in_executor(self._threads, call.run)
        running.add_done_callback(self._done)
        try:
            # Whoever asked may be gone before it is done; it ends at its deadline at the latest.
            return await asyncio.shield(running)
        except StoreError as error:
            if call.gave_up:
                raise DashboardTimeoutError(
                    f"The look-up took longer than {self._look_up_max_s:g} s; ask for a shorter time or fewer rows."
                ) from error
            raise FiguresUnavailableError(f"The store cannot be read: {error}", retry_after_s=RETRY_AFTER_S) from error
        finally:
            if running.done():
                deadline.cancel()

    async def draw(self, body: bytes) -> bytes:
        """The picture of a chart.

        Raises:
            InvalidRequestError: It is no chart.
            DashboardBusyError: Too much waits already.
        """
        return await self.ask(lambda _reader: _draw(body))

    def close(self) -> None:
        """Give everything back. Nothing may be asked any more."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        while self._idle:
            self._idle.pop().close()

    def _done(self, running: "asyncio.Future[Any]") -> None:
        self._asked -= 1
        if not running.cancelled():
            running.exception()  # it was told, or whoever asked is gone


class _Call(Generic[Found]):
    """One look-up."""

    def __init__(self, path: Path, idle: deque[FiguresReader], work: Callable[[FiguresReader], Found]) -> None:
        self._path = path
        self._idle = idle
        self._work = work
        self._reader: FiguresReader | None = None
        self._lock = threading.Lock()
        self.gave_up = False

    def give_up(self) -> None:
        # Under the lock the reader is still ours: another look-up must not be broken off.
        with self._lock:
            self.gave_up = True
            if self._reader is not None:
                self._reader.give_up()

    def run(self) -> Found:
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = _open(self._path)
        reader.begin()
        with self._lock:
            self._reader = reader
            if self.gave_up:
                reader.give_up()
        broken = False
        try:
            return self._work(reader)
        except StoreError:
            broken = True  # its file may have been moved aside meanwhile
            raise
        finally:
            with self._lock:
                self._reader = None
            if broken:
                reader.close()
            else:
                self._idle.append(reader)


def _open(path: Path) -> FiguresReader:
    """A connection to a file that is of this version: the store makes or changes it a moment after the start."""
    waited_s = 0.0
    while True:
        try:
            reader = FiguresReader(path)
            if reader.is_current():
                return reader
            reader.close()
            failure = StoreError("the file is of another version")
        except StoreError as error:
            failure = error
        if waited_s >= OPENING_S:
            raise failure
        time.sleep(OPENING_STEP_S)  # in a thread of our own
        waited_s += OPENING_STEP_S


def _draw(body: bytes) -> bytes:
    # It takes longer to load than everything else here, and most gateways never draw.
    from gateway.dashboard.charts import ChartError, draw  # noqa: PLC0415

    try:
        return draw(body)
    except ChartError as error:
        raise InvalidRequestError(str(error)) from error

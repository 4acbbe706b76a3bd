"""What the process beside the gateway does: jobs come on stdin, replies go to stdout.

Look-ups, drawing and judging take Python's lock for longer than a request may wait. Here they have one of their own.
Ends with its stdin, so with the gateway.
"""

import logging
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from gateway.dashboard.answers import Reply, error_reply
from gateway.dashboard.errors import DashboardTimeoutError, FiguresUnavailableError
from gateway.dashboard.jobs import CHART, FRAME_MAX_BYTES, HEAD, Done, Job, frame
from gateway.dashboard.views import draw_chart, reply_to
from gateway.logs import begin
from gateway.state.errors import StoreError
from gateway.state.figures_reader import FiguresReader
from providers.errors import MixgateError

THREADS_MAX: Final = 2
"""Jobs at the same time: the rest of the machine is for requests."""
LOOK_UP_MAX_S: Final = 5.0
"""How long one look-up may take."""
NICENESS: Final = 10
"""Requests come first."""
RETRY_AFTER_S: Final = 1.0
"""When to ask again where the file could not be read."""
OPENING_S: Final = 1.0
"""How long the file is waited for."""
OPENING_STEP_S: Final = 0.05
"""How often it is looked for."""

_log = logging.getLogger("mixgate.dashboard")
_jobs: Final = msgspec.msgpack.Decoder(Job)


class Clerk:
    """Does jobs, a few at a time.

    Args:
        path: mixgate.db.
        replies: Where replies go.
    """

    def __init__(self, path: Path, replies: BinaryIO) -> None:
        self._path = path
        self._replies = replies
        self._writing = threading.Lock()
        self._waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(THREADS_MAX)]

    def run(self, jobs: BinaryIO) -> None:
        """Do jobs until there is no more."""
        for thread in self._threads:
            thread.start()
        while (head := jobs.read(HEAD.size)) and len(head) == HEAD.size:
            (length,) = HEAD.unpack(head)
            if length > FRAME_MAX_BYTES:
                break
            self._waiting.put(_jobs.decode(jobs.read(length)))

    def _work(self) -> None:
        reader: FiguresReader | None = None
        while True:
            job = self._waiting.get()
            try:
                if job.what == CHART:
                    reply = draw_chart(job.body)
                else:
                    reader = reader or _open(self._path)
                    reply = _within_time(job, reader, self._path)
            except StoreError as error:
                reply = error_reply(_told(error, reader))
                if reader is not None:
                    reader.close()  # its file may have been moved aside meanwhile
                reader = None
            except MixgateError as error:
                reply = error_reply(error)
            except Exception:  # noqa: BLE001 - one job that fails must not cost the others; logged
                _log.exception("a look-up for the dashboard failed")
                reply = error_reply(MixgateError("The look-up failed; this is the gateway's fault. Its log says more."))
            with self._writing:
                self._replies.write(frame(Done(job.number, reply)))
                self._replies.flush()


def _within_time(job: Job, reader: FiguresReader, path: Path) -> Reply:
    """The reply to a job; what takes too long is broken off."""
    reader.begin()
    timer = threading.Timer(LOOK_UP_MAX_S, reader.give_up)
    timer.start()
    try:
        return reply_to(job, reader, path)
    finally:
        timer.cancel()
        timer.join()  # it must not break off the next one


def _told(error: StoreError, reader: FiguresReader | None) -> MixgateError:
    """What is said of a store that did not answer."""
    if reader is not None and reader.gave_up:
        return DashboardTimeoutError(
            f"The look-up took longer than {LOOK_UP_MAX_S:g} s; ask for a shorter time or fewer rows."
        )
    return FiguresUnavailableError(f"The store cannot be read: {error}", retry_after_s=RETRY_AFTER_S)


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
        time.sleep(OPENING_STEP_S)
        waited_s += OPENING_STEP_S


def main() -> None:
    """Do jobs for the gateway that started this."""
    os.nice(NICENESS)
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # whoever has a request to answer is not preempted
    begin(os.environ, "clerk")
    Clerk(Path(sys.argv[1]), sys.stdout.buffer).run(sys.stdin.buffer)
    os._exit(0)  # whatever still runs is for nobody

"""The threads of a step: how many, and on which cores. The one place that tells the kernel where the engine may run."""

import contextlib
import os
import time

from local_backend.cores import Cores
from local_backend.second_thread import SecondThread


class Threads:
    """Asked before each step and told of it afterwards, from the engine's thread.

    Args:
        threads: How many there are.
        second_thread: Whether a step of several rows may take one more, where that makes it faster.
    """

    def __init__(self, threads: int, *, second_thread: bool) -> None:
        self._second_thread = SecondThread(threads, wanted=second_thread)
        self._on = frozenset(os.sched_getaffinity(0))
        self._cores = Cores(self._on, threads=threads)
        self._threads = threads
        self._computed_s = 0.0

    def begin(self, rows: int, now_s: float) -> int:
        """How many threads compute a step of so many rows. The calling thread is where it should be afterwards."""
        self._threads = self._second_thread.choose(rows, now_s)
        cores = self._cores.choose(self._threads, now_s)
        if cores != self._on:
            self._on = cores
            _move_to(cores)
        self._computed_s = time.thread_time()
        return self._threads

    def end(self, rows: int, took_s: float, now_s: float) -> None:
        """The step took so long. One with a prompt in it counts as having no rows."""
        self._second_thread.learn(rows, took_s, now_s)
        if self._threads == 1:
            self._cores.learn(took_s, time.thread_time() - self._computed_s, now_s)


def _move_to(cores: frozenset[int]) -> None:
    """Keep the calling thread to these cores. Where that is forbidden, or cores were taken away, it stays as it is."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, cores)

"""An event loop whose clock jumps to the next timer instead of waiting for it: hours pass in no time, always alike.

For drills, simulations and tests: nothing in them touches a network, so the timers are all there is to wait for. While
a thread of the loop's own executor works, the clock stands still.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

START_S: Final = 1000.0
"""What the clock shows first. Not zero, so that nobody takes `no time yet` for `long ago`."""
START_UNIX_S: Final = 1_767_225_600.0
"""The wall clock then: the first second of 2026, UTC."""
LIMIT_S: Final = 366 * 86_400.0
"""How much virtual time may pass in one run."""
THREAD_LIMIT_S: Final = 60.0
"""How long the clock stands still for one piece of work in a thread, in real seconds."""
TASKS_NAMED_MAX: Final = 5

_T = TypeVar("_T")
_Ready = list[tuple[selectors.SelectorKey, int]]


class NeverEndsError(RuntimeError):
    """Something waits for what can never come: no timer is left, or virtual time ran out."""


class _JumpingSelector(selectors.DefaultSelector):
    """Says how long the loop would sleep, and does not sleep."""

    def __init__(self, jump: Callable[[float | None], float]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> _Ready:
        """What is ready now; when nothing is, let the clock jump."""
        ready: _Ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        wait_s = self._jump(timeout)
        return super().select(wait_s) if wait_s > 0 else ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """Time is what the timers say. Sockets may not be waited for: nobody tells the clock that they will be ready.

    Args:
        limit_s: How much virtual time may pass, in seconds.
    """

    def __init__(self, *, limit_s: float = LIMIT_S) -> None:
        self._now_s = START_S
        self._end_s = START_S + limit_s
        self._threads = 0
        super().__init__(_JumpingSelector(self._jump))

    def time(self) -> float:
        """The virtual monotonic clock, in seconds."""
        return self._now_s

    def unix_time_s(self) -> float:
        """The virtual wall clock, in seconds since 1970."""
        return START_UNIX_S + (self._now_s - START_S)

    def run_in_executor(  # type: ignore[override]  # typeshed types the variadic arguments by a newer syntax
        self, executor: Executor | None, func: Callable[..., _T], *args: Any
    ) -> "asyncio.Future[_T]":
        """As ever; the clock stands still until the work is done."""
        future: asyncio.Future[_T] = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        """As ever: it waits for threads, which take real time."""
        self._threads += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._threads -= 1

    def _thread_done(self, _future: "asyncio.Future[Any]") -> None:
        self._threads -= 1

    def _jump(self, timeout_s: float | None) -> float:
        """Move the clock on; gives how long to wait in real time.

        Raises:
            NeverEndsError: There is nothing to wait for, or it would be too late.
        """
        if self._threads > 0:
            return THREAD_LIMIT_S
        if timeout_s is None:
            raise NeverEndsError(f"everything waits and no timer is set, so this would hang: {self._waiting()}")
        self._now_s += timeout_s
        if self._now_s > self._end_s:
            raise NeverEndsError(f"virtual time ran out while this still waited: {self._waiting()}")
        return 0.0

    def _waiting(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        named = [f"{task.get_name()} in {getattr(task.get_coro(), '__qualname__', '?')}" for task in tasks]
        more = f" and {len(named) - TASKS_NAMED_MAX} more" if len(named) > TASKS_NAMED_MAX else ""
        return (", ".join(named[:TASKS_NAMED_MAX]) or "no task at all") + more


def run(work: Coroutine[Any, Any, _T], *, limit_s: float = LIMIT_S) -> _T:
    """Run to completion in virtual time.

    Args:
        work: What to run. It must not wait for sockets.
        limit_s: How much virtual time may pass, in seconds.

    Raises:
        NeverEndsError: It waits for what can never come.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(limit_s=limit_s)) as runner:
        return runner.run(work)

"""How long a provider may be waited for: one timer that looks up when it fires, and cancels the wait."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from providers.errors import ProviderError, StalledError

_T = TypeVar("_T")


class Watch:
    """Cancels the task that waits for a provider when the provider takes too long. Belongs to that one task.

    One timer per Attempt, looked at only when it fires: progress costs an assignment. Time that the task spends
    elsewhere (a slow client) does not count.
    """

    __slots__ = (
        "_deadline_s",
        "_error",
        "_limit_s",
        "_loop",
        "_progressed",
        "_since_s",
        "_task",
        "_timer",
        "_tripped",
        "_waiting",
    )

    def __init__(self, total_timeout_s: float, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None) -> None:
        self._loop = loop
        self._deadline_s = self._loop.time() + total_timeout_s
        self._task = task
        self._waiting = False
        self._timer: asyncio.TimerHandle | None = None
        self._error: type[ProviderError] = StalledError
        self._limit_s = 0.0
        self._since_s = 0.0
        self._progressed = True
        self._tripped = False

    def now_s(self) -> float:
        """The loop's clock, in seconds."""
        return self._loop.time()

    def arm(self, limit_s: float, error: type[ProviderError]) -> None:
        """From now on, waiting longer than this is that error."""
        self._error = error
        self._limit_s = limit_s
        self._progressed = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, min(limit_s, self._deadline_s - self._loop.time())), self._look)

    def is_over(self) -> bool:
        """Whether the time for all Attempts together is used up."""
        return self._loop.time() >= self._deadline_s

    def progress(self) -> None:
        """Something worth waiting for came: the limit counts anew from the next wait. Comments are not progress."""
        self._progressed = True

    def disarm(self) -> None:
        """Wait without a limit, for as long as nobody arms it again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def guard(self, waiting: Awaitable[_T]) -> _T:
        """Wait under the limit that is armed.

        Raises:
            ProviderError: The limit passed.
        """
        if self._progressed:
            self._progressed = False
            self._since_s = self._loop.time()
        if self._task is None:
            self._task = asyncio.current_task(self._loop)
        self._waiting = True
        try:
            return await waiting
        except asyncio.CancelledError:
            if not self._tripped or self._task is None or self._task.uncancel() > 0:
                raise
            self._tripped = False
            raise self._error(f"nothing came from the provider within {self._limit_s:g} s") from None
        finally:
            self._waiting = False

    def _look(self) -> None:
        now_s = self._loop.time()
        if not self._waiting or self._task is None:
            self._timer = self._loop.call_later(self._limit_s, self._look)
            return
        due_s = min(self._since_s + self._limit_s, self._deadline_s)
        if now_s < due_s - 0.001:
            self._timer = self._loop.call_later(due_s - now_s, self._look)
        else:
            self._timer = None
            self._tripped = True
            self._task.cancel()

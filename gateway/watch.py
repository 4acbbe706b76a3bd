"""How long a provider may be waited for: one timer that looks up when it fires, and cancels the wait."""

import asyncio
from typing import Any, Final

from providers.errors import ProviderError, StalledError

LAG_MAX_S: Final = 0.25
"""A limit that fires this much too late says more about us than about the provider."""


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
        "lagged",
        "waiting",
    )

    def __init__(self, deadline_s: float, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None) -> None:
        self._loop = loop
        self._deadline_s = deadline_s
        self._task = task
        self.waiting = False
        self._timer: asyncio.TimerHandle | None = None
        self._error: type[ProviderError] = StalledError
        self._limit_s = 0.0
        self._since_s = 0.0
        self._progressed = True
        self._tripped = False
        self.lagged = False
        """Whether our own loop came so late to the limit that it may be our fault."""

    def arm(self, limit_s: float, error: type[ProviderError]) -> None:
        """From now on, waiting longer than this is that error."""
        self._error = error
        self._limit_s = limit_s
        self._progressed = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, min(limit_s, self._deadline_s - self._loop.time())), self._look)

    def adopt(self, task: asyncio.Task[Any] | None) -> None:
        """It belongs to another task from now on; None: to whichever waits next."""
        self._task = task

    def progress(self) -> None:
        """Something worth waiting for came: the limit counts anew from the next wait. Comments are not progress."""
        self._progressed = True

    def disarm(self) -> None:
        """Wait without a limit, for as long as nobody arms it again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def begin(self) -> None:
        """A wait for the provider begins now; set `waiting` to False when it is over, however it ends."""
        if self._progressed:
            self._progressed = False
            self._since_s = self._loop.time()
        if self._task is None:
            self._task = asyncio.current_task(self._loop)
        self.waiting = True

    def verdict(self) -> ProviderError:
        """The error that a cancelled wait stands for.

        Raises:
            CancelledError: It was not this watch that cancelled it.
        """
        if not self._tripped or self._task is None or self._task.uncancel() > 0:
            raise asyncio.CancelledError
        self._tripped = False
        return self._error(f"nothing came from the provider within {self._limit_s:g} s")

    def _look(self) -> None:
        now_s = self._loop.time()
        if not self.waiting or self._task is None:
            self._timer = self._loop.call_later(self._limit_s, self._look)
            return
        due_s = min(self._since_s + self._limit_s, self._deadline_s)
        if now_s < due_s - 0.001:
            self._timer = self._loop.call_later(due_s - now_s, self._look)
        else:
            self._timer = None
            self._tripped = True
            self.lagged = now_s - due_s > LAG_MAX_S
            self._task.cancel()

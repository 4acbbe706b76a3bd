"""How long a provider may be waited for: one timer for all who wait, that cancels the waits that last too long."""

import asyncio
from typing import Any, Final

from providers.errors import ProviderError, StalledError

LAG_MAX_S: Final = 0.25
"""A limit that fires this much too late says more about us than about the provider."""
LOOK_EVERY_MIN_S: Final = 0.002
"""Who waits is looked through no more often than this."""


class Alarm:
    """The timer of one loop. Most waits end long before their limit, so it is set for the first of them alone."""

    __slots__ = ("_at_s", "_timer", "_watches", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._watches: set[Watch] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._at_s = 0.0

    def add(self, watch: "Watch", due_s: float) -> None:
        """Look at this one too, at that time at the latest."""
        self._watches.add(watch)
        if self._timer is None or due_s < self._at_s:
            self._set(due_s)

    def discard(self, watch: "Watch") -> None:
        """Look at it no more."""
        self._watches.discard(watch)

    def _set(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at_s = due_s
        self._timer = self.loop.call_at(due_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._watches:
            return
        now_s = self.loop.time()
        next_s = min([watch.look(now_s) for watch in list(self._watches)])
        if self._watches and self._timer is None:
            self._set(max(next_s, now_s + LOOK_EVERY_MIN_S))


class Watch:
    """Cancels the task that waits for a provider when the provider takes too long. Belongs to that one task.

    Progress costs an assignment. Time that the task spends elsewhere (a slow client) does not count.
    """

    __slots__ = (
        "_alarm",
        "_deadline_s",
        "_due_s",
        "_error",
        "_limit_s",
        "_loop",
        "_progressed",
        "_since_s",
        "_task",
        "_tripped",
        "lagged",
        "waiting",
    )

    def __init__(self, deadline_s: float, alarm: Alarm, task: asyncio.Task[Any] | None) -> None:
        self._alarm = alarm
        self._loop = alarm.loop
        self._deadline_s = deadline_s
        self._task = task
        self.waiting = False
        self._error: type[ProviderError] = StalledError
        self._limit_s = 0.0
        self._since_s = 0.0
        self._due_s = 0.0
        """When to look at it next."""
        self._progressed = True
        self._tripped = False
        self.lagged = False
        """Whether our own loop came so late to the limit that it may be our fault."""

    def arm(self, limit_s: float, error: type[ProviderError]) -> None:
        """From now on, waiting longer than this is that error."""
        self._error = error
        self._limit_s = limit_s
        self._progressed = True
        self._due_s = min(self._loop.time() + limit_s, self._deadline_s)
        self._alarm.add(self, self._due_s)

    def adopt(self, task: asyncio.Task[Any] | None) -> None:
        """It belongs to another task from now on; None: to whichever waits next."""
        self._task = task

    def progress(self) -> None:
        """Something worth waiting for came: the limit counts anew from the next wait. Comments are not progress."""
        self._progressed = True

    def disarm(self) -> None:
        """Wait without a limit, for as long as nobody arms it again."""
        self._alarm.discard(self)

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

    def look(self, now_s: float) -> float:
        """Cancel the wait if it has lasted too long; gives when to look again."""
        if now_s < self._due_s - 0.001:
            return self._due_s
        if not self.waiting or self._task is None:
            self._due_s = now_s + self._limit_s
            return self._due_s
        due_s = min(self._since_s + self._limit_s, self._deadline_s)
        if now_s < due_s - 0.001:
            self._due_s = due_s
            return due_s
        self._alarm.discard(self)
        self._tripped = True
        self.lagged = now_s - due_s > LAG_MAX_S
        self._task.cancel()
        return self._deadline_s

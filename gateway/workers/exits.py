"""When to start a process again that ended or hangs, and what its exit status says. Pure: clocks are passed in."""

import signal
from typing import Final

READY_BACK_OFFS_S: Final = (0.0, 0.0, 0.0, 0.2, 0.5, 1.0)
"""Pauses before a process is started again that had become ready: after its first end, its second ... in a row."""
START_BACK_OFFS_S: Final = (0.2, 1.0, 5.0, 30.0)
"""Pauses before one is that had not: it will hardly become ready the next time."""
STABLE_S: Final = 60.0
"""A process that lived so long was fine: its end counts as a first one."""
HUNG_S: Final = 30.0
"""An owner or a worker that was at work and has not said for so long that it is alive hangs, and is killed. However
busy, it says so every second: only one whose event loop stands still, or that is stopped, does not."""
START_HUNG_S: Final = 300.0
"""The same for one that is only starting, which has long steps."""
LOOK_EVERY_S: Final = 1.0
"""How often it is looked whether they have."""
LOOK_LATE_TIMES: Final = 2
"""A look that comes later than so many times LOOK_EVERY_S says that the whole machine, or we, stood still: what came
meanwhile has not been heard yet."""
_SIGNAL_WORDS: Final = {
    signal.SIGKILL: "it was killed (SIGKILL): by somebody, or by the system because memory ran out",
    signal.SIGSEGV: "it crashed in native code (segmentation fault)",
    signal.SIGBUS: "a file that it had mapped became shorter, or its disk failed (SIGBUS)",
    signal.SIGABRT: "it gave up in native code (abort)",
    signal.SIGTERM: "it was asked to stop (SIGTERM)",
}


def explain_exit(status: int) -> str:
    """An exit status as the system gives it, below 0 for a signal, in words."""
    if status < 0:
        try:
            number = signal.Signals(-status)
        except ValueError:
            return f"it was ended by signal {-status}"
        return _SIGNAL_WORDS.get(number, f"it was ended by {number.name}")
    if status == 0:
        return "it ended by itself"
    return f"it failed (exit status {status}); its last words are above"


class RestartPolicy:
    """Counts ends in a row."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def after_end(self, ready_s: float | None) -> float:
        """A process ended: how long to wait before the next start, in seconds.

        Args:
            ready_s: How long it had been ready; None if it never was.
        """
        if ready_s is not None and ready_s >= STABLE_S:
            self._in_a_row = 0
        back_offs_s = START_BACK_OFFS_S if ready_s is None else READY_BACK_OFFS_S
        pause_s = back_offs_s[min(self._in_a_row, len(back_offs_s) - 1)]
        self._in_a_row += 1
        return pause_s


class Silence:
    """For how long a process has not been heard of."""

    def __init__(self) -> None:
        self._silent_s = 0.0

    def end(self) -> None:
        """It was heard."""
        self._silent_s = 0.0

    def look(self, since_s: float) -> float:
        """How long it is, in seconds.

        Args:
            since_s: Seconds since the last look. More than usual counts for nothing, as nobody listened then.
        """
        self._silent_s += min(since_s, LOOK_LATE_TIMES * LOOK_EVERY_S)
        return self._silent_s

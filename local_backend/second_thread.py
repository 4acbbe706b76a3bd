"""Whether a second thread pays: small models are computed by one, which leaves the other cores to the gateway. Pure.

Eight rows are worth sharing where a core has nothing else to do, and take longer together where it has: each layer
waits for the slower thread. Nobody can say beforehand which it is, so both are timed in turn, and the faster is used.
"""

from typing import Final

ROWS_MIN: Final = 4
"""With fewer rows a single thread is about as fast."""
TRIAL_EVERY_S: Final = 0.2
"""How long the faster way is used before the other one is tried again."""
TRIAL_STEPS: Final = 6
"""Steps of a trial. The first one, which makes the thread, does not count."""
GAIN_MAX: Final = 0.9
"""A step must shrink to so much of its time for a second thread to be worth a core."""

_LEARNING_RATE: Final = 0.125


class SecondThread:
    """Says before each step how many threads compute it, and learns from how long that took.

    Args:
        threads: How many there are without it.
        wanted: Whether there may be one more.
    """

    def __init__(self, threads: int, *, wanted: bool) -> None:
        self._threads = threads
        self._wanted = wanted
        self._pays = False
        self._trying = False
        self._row_s = {False: 0.0, True: 0.0}
        """What a row took at last, without and with it; 0 before it was timed."""
        self._trial_s: list[float] = []
        self._next_trial_s = 0.0

    def choose(self, rows: int, now_s: float) -> int:
        """How many threads compute a step of so many rows."""
        if not self._wanted or rows < ROWS_MIN:
            return self._threads
        if not self._trying and self._row_s[self._pays] and now_s >= self._next_trial_s:
            self._trying = True
        return self._threads + (self._pays is not self._trying)

    def learn(self, rows: int, took_s: float, now_s: float) -> None:
        """A step of so many rows took so long. One with a prompt in it says nothing: it counts as none."""
        if not self._wanted or rows < ROWS_MIN:
            return
        row_s = took_s / rows
        if not self._trying:
            before_s = self._row_s[self._pays] or row_s
            self._row_s[self._pays] = before_s + (row_s - before_s) * _LEARNING_RATE
            return
        self._trial_s.append(row_s)
        if len(self._trial_s) == TRIAL_STEPS:
            self._row_s[not self._pays] = sorted(self._trial_s[1:])[TRIAL_STEPS // 2 - 1]
            self._pays = self._row_s[True] < self._row_s[False] * GAIN_MAX
            self._trying, self._next_trial_s = False, now_s + TRIAL_EVERY_S
            self._trial_s = []

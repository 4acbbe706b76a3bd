"""Which cores a single engine thread computes on: all but the gateway's, while that costs it nothing. Pure.

Left to itself the kernel moves an engine that never sleeps to whichever core sleeps for a moment. That is the one of
the gateway's event loop, which waits a few microseconds for each answer and then finds its core taken. But a thread
that is kept to cores which another program fills would hardly run, and its niceness would leave it nearly nothing: so
its share of them is measured, and when it is poor it may go everywhere for a while.
"""

from typing import Final

SHARE_MIN: Final = 0.4
"""For so much of the time that its steps take, a thread must really compute."""
JUDGED_S: Final = 0.1
"""How much computing is judged at once."""
FREE_S: Final = 5.0
"""How long a thread that got too little may go everywhere, before it is kept away from the gateway's core again."""


class Cores:
    """Says before each step where the engine's thread may run, and learns from what it got.

    Args:
        allowed: The cores that this process may use. The lowest is left to the gateway.
        threads: How many the engine has. With as many threads as cores, or several, the kernel decides.
    """

    def __init__(self, allowed: frozenset[int], *, threads: int) -> None:
        self._all = allowed
        apart = allowed - {min(allowed)} if allowed else allowed
        self._apart = apart if threads == 1 and apart else allowed
        self._free_until_s = 0.0
        self._took_s = 0.0
        self._computed_s = 0.0

    def choose(self, threads: int, now_s: float) -> frozenset[int]:
        """Where a step with so many threads is computed."""
        return self._apart if threads == 1 and now_s >= self._free_until_s else self._all

    def learn(self, took_s: float, computed_s: float, now_s: float) -> None:
        """Steps of one thread took so long, and the thread computed for so much of that."""
        if now_s < self._free_until_s:
            return
        self._took_s += took_s
        self._computed_s += computed_s
        if self._took_s >= JUDGED_S:
            if self._computed_s < self._took_s * SHARE_MIN:
                self._free_until_s = now_s + FREE_S
            self._took_s = self._computed_s = 0.0

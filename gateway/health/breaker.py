"""When an Endpoint that fails is left alone, and how it comes back. Pure: time and chance are arguments."""

from collections.abc import Callable
from typing import Final, Literal

FAILURES_MAX: Final = 3
"""So many failures in a row open it."""
CONNECT_FAILURES_MAX: Final = 2
"""So many failures to connect in a row do."""
OPEN_S: Final = 5.0
"""How long it is open the first time; twice as long each next time."""
OPEN_MAX_S: Final = 20.0
"""The longest."""
OPEN_JITTER: Final = 0.2
"""Each a fifth more or less."""
PROBES_TO_CLOSE: Final = 2
SLOW_START_S: Final = 60.0
"""How long it takes to get all of its traffic back."""
SLOW_START_SHARE: Final = 0.1
"""What it gets of its usual traffic at first, growing to all of it over SLOW_START_S."""
FORGIVEN_S: Final = 600.0
"""After so long closed, the next time open is a short one again."""

State = Literal["closed", "open", "half_open"]


class Breaker:
    """Closed: everybody may ask. Open: nobody. Half-open: one at a time, until two in a row went well."""

    __slots__ = ("_closed_s", "_connects", "_failures", "_good_probes", "_opened", "_random", "state", "until_s")

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self.state: State = "closed"
        self.until_s = 0.0
        """When it was or will be half-open at the earliest. Means something while it is not closed."""
        self._closed_s: float | None = None
        self._opened = 0
        self._failures = 0
        self._connects = 0
        self._good_probes = 0

    def good(self) -> None:
        """An ordinary Attempt went well: failures are not in a row any more."""
        self._failures = self._connects = 0

    def bad(self, now_s: float, *, connect: bool) -> str | None:
        """An ordinary Attempt failed. Gives why it opened, if it did."""
        if self.state != "closed":
            return None
        self._failures += 1
        self._connects = self._connects + 1 if connect else 0
        if self._connects >= CONNECT_FAILURES_MAX:
            why = f"{self._connects} failures to connect in a row"
        elif self._failures >= FAILURES_MAX:
            why = f"{self._failures} failures in a row"
        else:
            return None
        self.open(now_s)
        return why

    def open(self, now_s: float) -> None:
        """Leave it alone from now on, for longer than the last time."""
        if self.state == "closed" and (self._closed_s is None or now_s - self._closed_s >= FORGIVEN_S):
            self._opened = 0
        open_s = min(OPEN_S * 2**self._opened, OPEN_MAX_S)
        self._opened += OPEN_S * 2**self._opened < OPEN_MAX_S
        self.state = "open"
        self.until_s = now_s + open_s * (1.0 + OPEN_JITTER * (2.0 * self._random() - 1.0))
        self._failures = self._connects = self._good_probes = 0

    def is_due(self, now_s: float) -> bool:
        """Whether its one permit may be given, if nobody has it."""
        return self.state == "half_open" or (self.state == "open" and now_s >= self.until_s)

    def begin_probe(self) -> None:
        """Its one permit is given."""
        if self.state == "open":
            self.state = "half_open"

    def probe_went_well(self, now_s: float) -> bool:
        """A probe was answered. Whether that closed it."""
        self._good_probes += 1
        if self._good_probes < PROBES_TO_CLOSE:
            return False
        self.state = "closed"
        self._closed_s = now_s
        self._failures = self._connects = 0
        return True

    def weight(self, now_s: float) -> float:
        """Which share of its usual traffic it should get, 0.1 to 1."""
        if self.state != "closed":
            return SLOW_START_SHARE
        if self._closed_s is None:
            return 1.0
        grown = (now_s - self._closed_s) / SLOW_START_S
        return 1.0 if grown >= 1.0 else SLOW_START_SHARE + (1.0 - SLOW_START_SHARE) * max(grown, 0.0)

"""What follows from a 429: staying away for as long as asked, and learning how much the Endpoint bears. Pure."""

from collections.abc import Callable
from typing import Final

from providers.retry_after import RETRY_AFTER_MAX_S

PARK_S: Final = 1.0
"""How long to stay away from an Endpoint that did not say. Doubles while it goes on refusing."""
PARK_MAX_S: Final = 32.0
"""The longest such time."""
PARK_JITTER: Final = 0.2
CAP_FIRST_SHARE: Final = 0.7
"""The first cap, as a share of what was on its way when the first 429 came."""
CAP_LATER_SHARE: Final = 0.9
"""The next one, as a share of the cap that turned out one step too high."""
CAP_GROWS_EVERY_S: Final = 10.0
"""So long without a 429 raise the cap by one. Doubles each time that one more was refused again."""
CAP_GROWS_MAX_S: Final = 80.0
"""The longest such time."""
CAP_REST_S: Final = 1.0
"""429s so close together are one: the cap goes down once."""
CAP_FORGET_FACTOR: Final = 2
CAP_FORGET_MARGIN: Final = 10
"""A cap above that multiple of what is used, and this much more, limits nobody and is forgotten."""


class Parking:
    """Until when an Endpoint wants to be left alone."""

    __slots__ = ("_random", "_refusals", "until_s")

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._refusals = 0
        self.until_s = 0.0

    def refuse(self, retry_after_s: float | None, now_s: float) -> None:
        """It answered 429.

        Args:
            retry_after_s: What it asked for. Believed up to RETRY_AFTER_MAX_S. 0 or less is no wait, until it refuses
                again; from then on, and where this is None, the wait grows.
            now_s: The monotonic clock.
        """
        if retry_after_s is not None and retry_after_s > 0:
            self.until_s = max(self.until_s, now_s + min(retry_after_s, RETRY_AFTER_MAX_S))
        elif retry_after_s is not None and not self._refusals:
            self._refusals = 1
        elif now_s >= self.until_s:  # else one of a burst that is paid for already
            park_s = min(PARK_S * 2**self._refusals, PARK_MAX_S)
            self._refusals += park_s < PARK_MAX_S
            self.until_s = now_s + park_s * (1.0 + PARK_JITTER * (2.0 * self._random() - 1.0))

    def calm(self) -> None:
        """It answered: the next wait it does not name is a short one again."""
        self._refusals = 0


class Cap:
    """How many Attempts at once it was seen to bear. Goes down by a share with a 429, up by one after a while without.

    Where it bears two, trying three every ten seconds would be a large part of all that is asked; so what was refused
    before is tried again later and later, until it fits.
    """

    __slots__ = ("_changed_s", "_grows_every_s", "_lowered_s", "_peak", "_steps", "limit")

    def __init__(self) -> None:
        self.limit: int | None = None
        """None is no limit known."""
        self._changed_s = 0.0
        self._lowered_s = 0.0
        self._grows_every_s = CAP_GROWS_EVERY_S
        self._steps = 0
        self._peak = 0

    def lower(self, in_flight: int, now_s: float) -> None:
        """A 429 came.

        Args:
            in_flight: Attempts on their way, the refused one included.
            now_s: The monotonic clock.
        """
        if self.limit is None:
            self.limit = max(1, int(CAP_FIRST_SHARE * in_flight))
            self._peak = in_flight
        elif now_s - self._lowered_s < CAP_REST_S:
            # Of a burst the refused come back first: what stays on its way is what was taken.
            self.limit = max(1, min(self.limit, in_flight - 1))
            self._changed_s = now_s
            return
        else:
            self.limit = max(1, min(int(CAP_LATER_SHARE * self.limit), in_flight))
            again = self._steps == 1
            self._grows_every_s = min(2 * self._grows_every_s, CAP_GROWS_MAX_S) if again else CAP_GROWS_EVERY_S
        self._steps = 0
        self._changed_s = self._lowered_s = now_s

    def settle(self, in_flight: int, now_s: float) -> int | None:
        """What the limit is by now."""
        if self.limit is None:
            return None
        self._peak = max(self._peak, in_flight)
        steps = int((now_s - self._changed_s) // self._grows_every_s)
        if steps > 0:
            self.limit += steps
            self._steps += steps
            self._changed_s += steps * self._grows_every_s
            if self.limit > CAP_FORGET_FACTOR * self._peak + CAP_FORGET_MARGIN:
                self.limit = None
            self._peak = in_flight
        return self.limit

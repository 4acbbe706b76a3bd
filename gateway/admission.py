"""Who is let in when there is more to do than can be done: bounds on requests at the same time, of all and of each key.

A request over a bound is refused before its body is looked at, which costs next to nothing, so that those let in are
answered as fast as ever. Reads no clock.
"""

from collections import deque
from typing import Final

from gateway.errors import KeyOverLimitError, OverCapacityError

IN_FLIGHT_MAX: Final = 1000
IN_FLIGHT_PER_KEY_MAX: Final = 50
LAG_MAX_S: Final = 0.25
"""An event loop that comes this late to its timers has more than it can do."""
LAG_WINDOW_S: Final = 5.0
"""How long it must have been so before anybody is refused for it."""
LAG_EVERY_S: Final = 0.1
RETRY_AFTER_S: Final = 1.0

_SAMPLES: Final = round(LAG_WINDOW_S / (LAG_EVERY_S + LAG_MAX_S))
"""Late ones come further apart: so many in a row cover the window."""


class Admission:
    """Counts requests in and out."""

    __slots__ = ("_by_key", "_late", "_slow", "in_flight", "in_flight_max", "in_flight_per_key_max", "refused")

    def __init__(self, in_flight_max: int = IN_FLIGHT_MAX, in_flight_per_key_max: int = IN_FLIGHT_PER_KEY_MAX) -> None:
        self.in_flight_max = in_flight_max
        self.in_flight_per_key_max = in_flight_per_key_max
        self.in_flight = 0
        self.refused = 0
        self._by_key: dict[str, int] = {}
        self._late: deque[bool] = deque(maxlen=_SAMPLES)
        self._slow = False

    def enter(self, key: str | None) -> None:
        """Let a request in; `leave` must follow.

        Args:
            key: The client key's name; None where there are no keys, and so nobody to be fair to.

        Raises:
            OverCapacityError: We are full, or too slow already.
            KeyOverLimitError: This key has as many on their way as one key may have.
        """
        if self.in_flight >= self.in_flight_max or self._slow:
            self.refused += 1
            raise OverCapacityError(
                f"the gateway is busy with {self.in_flight} requests; ask again in a moment",
                retry_after_s=RETRY_AFTER_S,
            )
        if key is not None:
            count = self._by_key.get(key, 0)
            if count >= self.in_flight_per_key_max:
                self.refused += 1
                raise KeyOverLimitError(
                    f"this client key has {count} requests on their way, which is all that one key may have "
                    "(gateway.in_flight_per_key_max); ask again when one is answered",
                    retry_after_s=RETRY_AFTER_S,
                )
            self._by_key[key] = count + 1
        self.in_flight += 1

    def leave(self, key: str | None) -> None:
        """A request that was let in is over."""
        self.in_flight -= 1
        if key is not None:
            left = self._by_key[key] - 1
            if left:
                self._by_key[key] = left
            else:
                del self._by_key[key]

    def note_lag(self, late_s: float) -> None:
        """How late the event loop came to a timer; to be called every LAG_EVERY_S."""
        self._late.append(late_s > LAG_MAX_S)
        # Late all through the window; a single pause, however long, is not it.
        self._slow = len(self._late) == _SAMPLES and all(self._late)

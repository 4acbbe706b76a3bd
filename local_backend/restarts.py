"""When to start a crashed worker again, and which requests not to give it a third time. Pure: clocks are passed in."""

from typing import Final

from msgspec import Struct

BACK_OFFS_S: Final = (0.2, 1.0, 5.0, 30.0)
CIRCUIT_CRASHES: Final = 3
CIRCUIT_WINDOW_S: Final = 60.0
CIRCUIT_OPEN_S: Final = 30.0
STABLE_S: Final = 60.0
"""A worker that lived so long was fine: its crash counts as a first one."""
SUSPECT_CRASHES: Final = 2
SUSPECT_FOR_S: Final = 600.0
SUSPECTS_MAX: Final = 1024


class Pause(Struct, frozen=True):
    """How long to wait before the next start, and whether requests are to wait with it."""

    delay_s: float
    circuit_open: bool
    """Refuse requests at once until then."""


class RestartPolicy:
    """Counts crashes."""

    def __init__(self) -> None:
        self._crashes: list[float] = []
        self._in_a_row = 0

    def after_crash(self, now_s: float, lived_s: float) -> Pause:
        """A worker crashed.

        Args:
            now_s: The monotonic time.
            lived_s: How long it had been ready; 0 if it never was.
        """
        if lived_s >= STABLE_S:
            self._in_a_row = 0
        self._crashes = [at for at in self._crashes if now_s - at < CIRCUIT_WINDOW_S] + [now_s]
        delay_s = BACK_OFFS_S[min(self._in_a_row, len(BACK_OFFS_S) - 1)]
        self._in_a_row += 1
        if len(self._crashes) >= CIRCUIT_CRASHES:
            return Pause(max(delay_s, CIRCUIT_OPEN_S), circuit_open=True)
        return Pause(delay_s, circuit_open=False)


class Suspects:
    """Requests that were running when a worker crashed. One that was there twice, never answered, is refused."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[int, float]] = {}

    def mark(self, fingerprint: bytes, now_s: float) -> None:
        """It was running at a crash."""
        count, _ = self._seen.pop(fingerprint, (0, 0.0))
        self._seen[fingerprint] = (count + 1, now_s)
        while len(self._seen) > SUSPECTS_MAX:
            del self._seen[next(iter(self._seen))]

    def clear(self, fingerprint: bytes) -> None:
        """It was answered."""
        self._seen.pop(fingerprint, None)

    def convicted(self, fingerprint: bytes, now_s: float) -> bool:
        """Whether to refuse it."""
        count, at = self._seen.get(fingerprint, (0, 0.0))
        return count >= SUSPECT_CRASHES and now_s - at < SUSPECT_FOR_S

    @property
    def any(self) -> bool:
        """Whether there are suspects at all; mostly there are none and fingerprints need no look-up."""
        return bool(self._seen)

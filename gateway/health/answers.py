"""Good and bad answers of the last minute and the last half minute, and what each share of bad ones means. Pure."""

from typing import Final

from gateway.health.ring import Ring

RATIO_BUCKETS: Final = 12
RATIO_BUCKET_S: Final = 5.0
"""Of the minute of answers that its ratio is of: the steps in which it moves on."""
RATIO_LEAST: Final = 10
RATIO_OPEN: Final = 0.5
"""At least half of at least ten answers of the last minute failed: open."""
RATIO_DEGRADED: Final = 0.05
OUTAGE_BUCKETS: Final = 30
OUTAGE_BUCKET_S: Final = 1.0
"""Of the half minute of answers that an outage is judged by."""
OUTAGE_LEAST: Final = 3
OUTAGE_SHARE: Final = 0.5


class Answers:
    """Counts them, and judges."""

    __slots__ = ("_half_minute", "_minute")

    def __init__(self) -> None:
        self._minute = Ring(RATIO_BUCKETS, RATIO_BUCKET_S)
        self._half_minute = Ring(OUTAGE_BUCKETS, OUTAGE_BUCKET_S)

    def add_ok(self, now_s: float) -> None:
        """Count a good one."""
        self._minute.add_ok(now_s)
        self._half_minute.add_ok(now_s)

    def add_bad(self, now_s: float) -> None:
        """Count a bad one."""
        self._minute.add_bad(now_s)
        self._half_minute.add_bad(now_s)

    def clear(self) -> None:
        """Forget everything."""
        self._minute.clear()
        self._half_minute.clear()

    @property
    def of_a_minute(self) -> tuple[int, int]:
        """Bad ones and all of the last minute, as of the last call."""
        return self._minute.bad, self._minute.bad + self._minute.ok

    @property
    def are_all_good(self) -> bool:
        """Whether none was bad, as of the last call."""
        return not self._minute.bad and not self._half_minute.bad

    def are_mostly_bad(self, now_s: float) -> bool:
        """Whether so many of the last minute were bad that it is to be left alone."""
        return self._minute.is_bad(now_s, least=RATIO_LEAST, share=RATIO_OPEN)

    def are_often_bad(self, now_s: float) -> bool:
        """Whether so many of the last minute were bad that others go first."""
        return self._minute.is_bad(now_s, least=RATIO_LEAST, share=RATIO_DEGRADED)

    def are_an_outage(self, now_s: float) -> bool:
        """Whether so many of the last half minute were bad."""
        return self._half_minute.is_bad(now_s, least=OUTAGE_LEAST, share=OUTAGE_SHARE)

"""How fast an Endpoint answers: means that forget, and quantiles of the last minutes. Pure."""

from collections import deque
from math import exp
from typing import Final

from msgspec import Struct

from gateway.health.histogram import BUCKETS, PACE_FLOOR, TTFT_FLOOR_S, bucket_of, merge, quantiles
from gateway.health.kinds import Result
from gateway.observation import Quantiles

DECAY_S: Final = 30.0
"""After this long without a sample, the next one weighs 63 %."""
SAMPLE_WEIGHT_MIN: Final = 0.1
"""What a sample weighs at least, however many came just before it."""
FORGET_S: Final = 300.0
"""A mean that nobody renewed for so long is unknown again: who was slow gets another chance."""
WINDOW_MINUTES: Final = 5
"""Of what decisions are made by."""
KEPT_MINUTES: Final = 30
"""Of what can be asked for."""
SAMPLES_MIN: Final = 20
"""So many first tokens are needed before a timeout follows from them."""
LASTING_MAX: Final = 512
"""At so many samples the long histogram is halved, so that it follows a provider that changes."""
P95_EVERY: Final = 8
"""The 95 % quantile is computed anew after so many samples."""
TOKENS_MIN: Final = 2
ELAPSED_MIN_S: Final = 0.001
"""An answer that took less has no speed."""


class _Mean:
    """An exponentially weighted mean, by time."""

    __slots__ = ("at_s", "value")

    def __init__(self) -> None:
        self.value: float | None = None
        self.at_s = 0.0

    def add(self, sample: float, now_s: float) -> None:
        if self.value is None:
            self.value = sample
        else:
            passed_s = now_s - self.at_s
            weight = 1.0 - exp(-passed_s / DECAY_S) if passed_s > 0 else 0.0
            self.value += (sample - self.value) * (weight if weight > SAMPLE_WEIGHT_MIN else SAMPLE_WEIGHT_MIN)  # noqa: FURB136 (`max` is 60 ns)
        self.at_s = now_s

    def now(self, now_s: float) -> float | None:
        return self.value if now_s - self.at_s < FORGET_S else None


class _Minute(Struct):
    """The samples of one minute of the monotonic clock."""

    minute: int
    ttft: list[int]
    tokens_per_s: list[int]


class Pace:
    """Times to the first token, and tokens per second after it."""

    __slots__ = (
        "_answer_tokens",
        "_lasting",
        "_lasting_total",
        "_minutes",
        "_p95_due",
        "_p95_s",
        "_tokens_per_s",
        "_ttft",
    )

    def __init__(self) -> None:
        self._ttft = _Mean()
        self._tokens_per_s = _Mean()
        self._answer_tokens = _Mean()
        self._minutes: deque[_Minute] = deque(maxlen=KEPT_MINUTES)
        self._lasting = [0] * BUCKETS
        self._lasting_total = 0
        self._p95_s: float | None = None
        self._p95_due = SAMPLES_MIN

    def add(self, result: Result, now_s: float) -> int:
        """Take in what an Attempt measured.

        A failed Attempt has its time to the first token, if it came that far, but no speed.

        Returns:
            The bucket of its time to the first token, for who keeps a histogram of their own; -1 without one.
        """
        bucket = -1
        minute = self._minute(int(now_s // 60))
        if result.ttft_s is not None:
            bucket = bucket_of(result.ttft_s, TTFT_FLOOR_S)
            self._ttft.add(result.ttft_s, now_s)
            minute.ttft[bucket] += 1
            self._keep(bucket)
        tokens = result.output_tokens
        if tokens is not None and tokens >= TOKENS_MIN and result.failure is None:
            elapsed_s = result.duration_s - (result.ttft_s or 0.0)
            if elapsed_s >= ELAPSED_MIN_S:
                speed = tokens / elapsed_s
                self._tokens_per_s.add(speed, now_s)
                minute.tokens_per_s[bucket_of(speed, PACE_FLOOR)] += 1
                self._answer_tokens.add(tokens, now_s)
        return bucket

    def ttft_s(self, now_s: float) -> float | None:
        """The mean time to the first token; None where nobody knows any more."""
        return self._ttft.now(now_s)

    def tokens_per_s(self, now_s: float) -> float | None:
        """The mean speed of an answer once it began; None where nobody knows any more."""
        return self._tokens_per_s.now(now_s)

    def ttft_p95_s(self) -> float | None:
        """The time to the first token that 95 % keep, by at least SAMPLES_MIN samples of whatever age; else None."""
        if self._lasting_total < SAMPLES_MIN:
            return None
        if self._p95_due <= 0 or self._p95_s is None:
            found = quantiles(self._lasting, (0.95,), TTFT_FLOOR_S)
            self._p95_s = found[0] if found else None
            self._p95_due = P95_EVERY
        return self._p95_s

    def expected_whole_s(self, output_tokens: int | None = None) -> float | None:
        """How long a whole answer takes; None without a measured speed.

        Args:
            output_tokens: How long the answer may become; by default as long as answers there were on the mean.
        """
        speed, usual = self._tokens_per_s.value, self._answer_tokens.value
        if speed is None or usual is None:
            return None
        return (self._ttft.value or 0.0) + (usual if output_tokens is None else output_tokens) / speed

    def latency(self, now_s: float, minutes: int = WINDOW_MINUTES) -> Quantiles | None:
        """Of the time to the first token over the last minutes, KEPT_MINUTES at most, in seconds."""
        counts = merge(one.ttft for one in self._recent(now_s, minutes))
        found = quantiles(counts, (0.5, 0.75, 0.9, 0.99), TTFT_FLOOR_S)
        return None if found is None else Quantiles(*found)

    def throughput(self, now_s: float, minutes: int = WINDOW_MINUTES) -> Quantiles | None:
        """Of tokens per second over the last minutes, KEPT_MINUTES at most; p99 is what 99 % surpass."""
        counts = merge(one.tokens_per_s for one in self._recent(now_s, minutes))
        found = quantiles(counts, (0.01, 0.1, 0.25, 0.5), PACE_FLOOR)
        return None if found is None else Quantiles(*reversed(found))

    def _recent(self, now_s: float, minutes: int) -> list[_Minute]:
        since = int(now_s // 60) - minutes
        return [one for one in self._minutes if one.minute > since]

    def _minute(self, minute: int) -> _Minute:
        if self._minutes and self._minutes[-1].minute >= minute:
            return self._minutes[-1]
        added = _Minute(minute, [0] * BUCKETS, [0] * BUCKETS)
        self._minutes.append(added)
        return added

    def _keep(self, bucket: int) -> None:
        self._lasting[bucket] += 1
        self._lasting_total += 1
        self._p95_due -= 1
        if self._lasting_total >= LASTING_MAX:
            self._lasting = [count // 2 for count in self._lasting]
            self._lasting_total = sum(self._lasting)

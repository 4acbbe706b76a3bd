"""A row of numbers as a row of little bars, for a column of a table."""

from collections.abc import Sequence
from typing import Final

BARS: Final = "▁▂▃▄▅▆▇█"
NOTHING: Final = " "


def sparkline(values: Sequence[float | None], *, low: float = 0.0, high: float | None = None) -> str:
    """One bar for each value: the lowest for `low`, the highest for `high`.

    Args:
        values: None leaves a gap.
        low: What the lowest bar stands for.
        high: What the highest one stands for; None: the largest value.
    """
    known = [value for value in values if value is not None]
    top = high if high is not None else max(known, default=0.0)
    return "".join(NOTHING if value is None else _bar(value, low, top) for value in values)


def _bar(value: float, low: float, top: float) -> str:
    if top <= low:
        return BARS[0]
    share = min(1.0, max(0.0, (value - low) / (top - low)))
    return BARS[min(len(BARS) - 1, round(share * (len(BARS) - 1)))]

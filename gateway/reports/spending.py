"""What was spent over time: the roll-ups by hour, put together into steps."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias, get_args

from msgspec import Struct

from gateway.reports.reader import ReportReader
from gateway.state.ledger_reader import By
from gateway.state.ledger_rows import HOUR_US

Step: TypeAlias = Literal["hour", "day", "week", "month"]
STEPS: Final[tuple[Step, ...]] = get_args(Step)
HOUR_S: Final = 3600
_HOURS: Final = {"hour": 1, "day": 24, "week": 168}
_MONDAY_OFFSET_HOURS: Final = 72
"""1970-01-01 was a Thursday."""


class Point(Struct, frozen=True, gc=False):
    """What one name spent in one step."""

    name: str
    start_unix_s: int
    requests: int
    attempts: int
    failed: int
    input_tokens: int
    output_tokens: int
    cost_in_nusd: int
    unknown_cost: int


def read_points(reader: ReportReader, by: By, since_us: int, until_us: int, step: Step) -> tuple[Point, ...]:
    """What each name spent in each step, by time and name. Steps without any are not there. Times are UTC.

    Args:
        reader: Of the ledger.
        by: What the names are of.
        since_us: The hour in which it lies is the first.
        until_us: The hour in which it lies is the last, but where it lies on its start.
        step: How long each is.

    Raises:
        StoreError: The store cannot be read.
    """
    sums: dict[tuple[int, str], list[int]] = {}
    for name, hour, *values in reader.hours(by, since_us // HOUR_US, -(-until_us // HOUR_US)):
        sum_of = sums.setdefault((start_of(hour * HOUR_S, step), name), [0] * len(values))
        for place, value in enumerate(values):
            sum_of[place] += value
    return tuple(Point(name, start, *values) for (start, name), values in sorted(sums.items()))


def start_of(unix_s: int, step: Step) -> int:
    """When the step that a moment lies in began: Unix seconds, UTC, weeks from Monday."""
    if step == "month":
        moment = datetime.fromtimestamp(unix_s, UTC)
        return int(moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())
    hours, offset = _HOURS[step], _MONDAY_OFFSET_HOURS if step == "week" else 0
    return ((unix_s // HOUR_S + offset) // hours * hours - offset) * HOUR_S


def curve(points: Sequence[Point], name: str, since_us: int, until_us: int, cells: int) -> list[float]:
    """What one name spent, in nano-USD, in each of so many equal parts of the time."""
    width_us = max(1, until_us - since_us)
    found = [0.0] * cells
    for point in points:
        if point.name == name:
            place = (point.start_unix_s * 1_000_000 - since_us) * cells // width_us
            found[min(cells - 1, max(0, place))] += point.cost_in_nusd
    return found

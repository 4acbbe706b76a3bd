"""Reads what was spent over time, line by line: how long it takes follows from the lines and steps that are shown.

Ledgers have thousands of apps and keys, and a chart shows the few of most cost. Which these are, the days say; each of
their steps is one step in the roll-ups' index; what the others come to is all that was spent, less these.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from gateway.state.bulk_reader import BulkReader
from gateway.state.ledger_reader import By, Spent
from gateway.state.ledger_rows import HOURS_PER_DAY
from gateway.state.schema import SPENT_COLUMNS

Step = Literal["hour", "day"]
STEPS_S: Final[dict[Step, int]] = {"hour": 3600, "day": 86_400}
SERIES_ROWS_MAX: Final = 32_000
"""Rows of one series, steps times names: a month of hours of forty names."""
_COLUMNS: Final = ", ".join(SPENT_COLUMNS)
_SUMS: Final = ", ".join(f"sum({column})" for column in SPENT_COLUMNS)
_ATTEMPTS: Final = SPENT_COLUMNS.index("attempts")


class SpentThen(Struct, frozen=True, gc=False):
    """What was spent on one thing in one step of time."""

    step: int
    """Since 1970, in steps."""
    rest: bool
    """Whether it is all those together that have no line of their own."""
    spent: Spent


class SeriesReader(BulkReader):
    """Look-ups of spending over time."""

    def spend_series(
        self, by: By, step: Step, first: int, end: int, *, name: str | None, names_max: int
    ) -> tuple[SpentThen, ...]:
        """What was spent in each step from one to before another, in their order, those of most cost first in each.

        Where there are more than SERIES_ROWS_MAX rows, it gives one more than that.

        Args:
            by: What the names are of; not `day`.
            step: How long each is.
            first: Steps since 1970.
            end: The first that is not wanted.
            name: This one alone.
            names_max: Names with lines of their own, those of most cost over all steps; the others are added up.

        Raises:
            StoreError: The store cannot be read.
        """
        with self.one_moment():
            names = self._dearest(by, step, first, end, names_max) if name is None else [name]
            lines = self._lines(by, step, first, end, names)
            found = [SpentThen(row[0], rest=False, spent=Spent(*row[1:])) for row in lines]
            if name is None and len(names) == names_max:
                found += self._others(by, step, first, end, names, lines)
        found.sort(key=_order)
        return tuple(found[: SERIES_ROWS_MAX + 1])

    def _dearest(self, by: By, step: Step, first: int, end: int, count: int) -> list[str]:
        """The names of most cost over all steps."""
        source = "SELECT name, cost_in_nusd, attempts FROM spend_{0} WHERE by = ? AND {0} >= ? AND {0} < ?"
        hours, days = source.format("hour"), source.format("day")
        if step == "day":
            select, values = days, [by, first, end]
        else:
            # Whole days from the days, and what is before and behind them from the hours.
            first_day, end_day = -(-first // HOURS_PER_DAY), end // HOURS_PER_DAY
            edges = (end, end) if first_day >= end_day else (first_day * HOURS_PER_DAY, end_day * HOURS_PER_DAY)
            select = f"{hours} UNION ALL {days} UNION ALL {hours}"
            values = [by, first, edges[0], by, first_day, end_day, by, edges[1], end]
        rows = self._rows(
            f"SELECT name FROM ({select}) GROUP BY name "  # noqa: S608 # our names
            "ORDER BY sum(cost_in_nusd) DESC, sum(attempts) DESC, name LIMIT ?",
            (*values, count),
        )
        return [row[0] for row in rows]

    def _lines(self, by: By, step: Step, first: int, end: int, names: Sequence[str]) -> list[list[Any]]:
        """Step, name and sums of each of these names."""
        return self._rows(
            "WITH RECURSIVE n(at) AS (SELECT ?2 UNION ALL SELECT at + 1 FROM n WHERE at + 1 < ?3) "  # noqa: S608 # ours
            f"SELECT at, name, {_COLUMNS} FROM n CROSS JOIN json_each(?4) AS one CROSS JOIN spend_{step} "
            f"WHERE by = ?1 AND {step} = at AND name = one.value LIMIT {SERIES_ROWS_MAX + 1}",
            (by, first, end, msgspec.json.encode(names).decode()),
        )

    def _others(
        self, by: By, step: Step, first: int, end: int, names: Sequence[str], lines: Sequence[Sequence[Any]]
    ) -> list[SpentThen]:
        """What all other names come to in each step in which there are any."""
        times = f"{step} >= ?2 AND {step} < ?3"
        if by == "tag":
            # Requests count under each of their tags, so that nothing says what all come to but they themselves.
            rows = self._rows(
                f"SELECT {step}, {_SUMS} FROM spend_{step} WHERE by = ?1 AND {times} "  # noqa: S608 # our names
                "AND name NOT IN (SELECT value FROM json_each(?4)) GROUP BY 1",
                (by, first, end, msgspec.json.encode(names).decode()),
            )
            return [SpentThen(row[0], rest=True, spent=Spent("", *row[1:])) for row in rows]
        shown: defaultdict[int, list[int]] = defaultdict(lambda: [0] * len(SPENT_COLUMNS))
        for at, _, *sums in lines:
            shown[at] = [*map(int.__add__, shown[at], sums)]
        rows = self._rows(
            f"SELECT {step}, {_COLUMNS} FROM spend_{step} WHERE by = ?1 AND {times}",  # noqa: S608 # our names
            ("all", first, end),
        )
        rest = [(at, [*map(int.__sub__, sums, shown[at])]) for at, *sums in rows]
        return [SpentThen(at, rest=True, spent=Spent("", *sums)) for at, sums in rest if sums[_ATTEMPTS] > 0]


def _order(one: SpentThen) -> tuple[int, bool, int, int, str]:
    return one.step, one.rest, -one.spent.cost_in_nusd, -one.spent.attempts, one.spent.name

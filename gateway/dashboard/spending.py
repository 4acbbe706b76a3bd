"""What was spent: sums, sums over time, how much a request costs, and what failing over saved."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct

from gateway.dashboard.answers import Table
from gateway.dashboard.money import usd
from gateway.dashboard.query import US_PER_S, Query, iso
from gateway.errors import InvalidRequestError
from gateway.state.figures_reader import FiguresReader
from gateway.state.ledger_reader import BYS, By, Spent
from gateway.state.series_reader import SERIES_ROWS_MAX, STEPS_S, SpentThen, Step

HOUR_US: Final = 3600 * US_PER_S
DAY_US: Final = 24 * HOUR_US
HOURS_MAX: Final = 31 * 24
"""Steps of an hour in one series."""
DAYS_MAX: Final = 1100
"""Steps of a day in one series."""
TOP_MAX: Final = 100
"""Names with lines of their own."""
TOP_USUAL: Final = 8
FORECAST_DAYS: Final = 7
"""Full days whose mean the forecast goes by."""
OTHERS: Final = "(others)"
_COUNTS: Final = tuple(name for name in Spent.__struct_fields__ if name not in {"name", "cost_in_nusd"})
COLUMNS: Final = ("name", "label", "cost_usd", *_COUNTS)
_TOTALS: Final = ("cost_usd", "requests", "attempts", "failed", "unknown_cost")

Label = Callable[[By, str], str | None]
"""What people call it; None: its name says it."""


class Forecast(Struct, frozen=True):
    """What a month comes to, if it goes on as it did."""

    cost_in_nusd: int
    from_days: int
    method: str


def spend_table(reader: FiguresReader, query: Query, label: Label) -> Table:
    """`GET spend`: the same figures as `mixgate spend`."""
    query.expect(("by", "since", "until", "name", "top", "format"))
    by: By = query.word("by", BYS, "model")  # type: ignore[assignment] # one of them
    since, until = query.span("7d")
    top = query.number("top", 1, TOP_MAX, 0)
    lines = reader.spend(by, since, until, name=query.text("name"))
    total = None if by == "tag" else {"name": "", "label": None, **_counts(_added("", lines))}
    rows = [_row(by, line, label) | {"others": False} for line in lines[: top or None]]
    if top and len(lines) > top:
        rows.append({"name": "", "label": OTHERS, **_counts(_added("", lines[top:])), "others": True})
    more = {"by": by, "since": iso(since // HOUR_US * HOUR_US), "until": iso(until), "total": total}
    return Table(COLUMNS, rows, more)


def series_table(reader: FiguresReader, query: Query, label: Label) -> Table:
    """`GET spend/series`: sums per hour or day."""
    query.expect(("by", "step", "since", "until", "name", "top", "format"))
    by: By = query.word("by", [by for by in BYS if by != "day"], "model")  # type: ignore[assignment] # one of them
    step: Step = query.word("step", tuple(STEPS_S), "day")  # type: ignore[assignment] # one of them
    since, until = query.span("7d")
    width_us = STEPS_S[step] * US_PER_S
    first, end = since // width_us, -(-until // width_us)
    most = HOURS_MAX if step == "hour" else DAYS_MAX
    if end - first > most:
        raise InvalidRequestError(f"a series has at most {most} steps; ask for a shorter time, or longer steps")
    top = query.number("top", 1, TOP_MAX, TOP_USUAL)
    found = reader.spend_series(by, step, first, end, name=query.text("name"), names_max=top)
    if len(found) > SERIES_ROWS_MAX:
        raise InvalidRequestError(
            f"this series would have more than {SERIES_ROWS_MAX:,} rows; ask for fewer names, a shorter time or longer "
            "steps",
            param="top",
        )
    rows = _step_rows(found, by, width_us, label)
    more = {
        "by": by,
        "step": step,
        "since": iso(first * width_us),
        "until": iso(end * width_us),
        "names": _names(found, by, label),
    }
    return Table(("time", *COLUMNS), rows, more)


def month_start_us(now_us: int) -> int:
    """When the month began, UTC."""
    now = datetime.fromtimestamp(now_us // US_PER_S, UTC)
    return int(datetime(now.year, now.month, 1, tzinfo=UTC).timestamp()) * US_PER_S


def month_end_us(now_us: int) -> int:
    """When the next one begins."""
    now = datetime.fromtimestamp(now_us // US_PER_S, UTC)
    year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)  # December
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * US_PER_S


def totals(reader: FiguresReader, since_us: int, now_us: int) -> dict[str, Any]:
    """What was spent since then, in few figures."""
    counts = _counts(_added("", reader.spend("all", since_us, now_us + 1)))
    return {"since": iso(since_us)} | {name: counts[name] for name in _TOTALS}


def forecast(reader: FiguresReader, now_us: int) -> dict[str, Any]:
    """What this month comes to by its end."""
    today = now_us // DAY_US
    spent = _added("", reader.spend("all", month_start_us(now_us), now_us + 1)).cost_in_nusd
    past = reader.spend_series("all", "day", today - FORECAST_DAYS, today, name=None, names_max=1)
    left_us = month_end_us(now_us) - now_us
    if past:
        # Days from the first with any traffic on: a gateway that is new has no week behind it.
        days = today - past[0].step
        mean_of, before = sum(one.spent.cost_in_nusd for one in past), days * DAY_US
        method = f"what was spent this month, and for each day that is left the mean of the last {days} full days"
    else:
        days = 0
        mean_of, before = spent, max(HOUR_US, now_us - today * DAY_US)
        method = "what was spent this month, and as much per hour as today, as no full day is known yet"
    return {"cost_usd": usd(spent + mean_of * left_us // before), "from_days": days, "method": method}


def _row(by: By, line: Spent, label: Label) -> dict[str, Any]:
    return {"name": line.name, "label": label(by, line.name), **_counts(line)}


def _step_rows(found: Sequence[SpentThen], by: By, width_us: int, label: Label) -> list[dict[str, Any]]:
    times = {step: iso(step * width_us) for step in {one.step for one in found}}
    said = {name: label(by, name) for name in {one.spent.name for one in found}}
    return [
        {
            "time": times[one.step],
            "name": one.spent.name,
            "label": OTHERS if one.rest else said[one.spent.name],
            **_counts(one.spent),
            "others": one.rest,
        }
        for one in found
    ]


def _counts(line: Spent) -> dict[str, Any]:
    return {"cost_usd": usd(line.cost_in_nusd), **{name: getattr(line, name) for name in _COUNTS}}


def _names(found: Sequence[SpentThen], by: By, label: Label) -> list[dict[str, Any]]:
    """Those with lines of their own by what they cost, and the rest behind them."""
    sums: dict[tuple[bool, str], int] = {}
    for one in found:
        key = (one.rest, one.spent.name)
        sums[key] = sums.get(key, 0) + one.spent.cost_in_nusd
    ordered = sorted(sums, key=lambda key: (key[0], -sums[key], key[1]))
    return [{"name": name, "label": OTHERS if rest else label(by, name), "others": rest} for rest, name in ordered]


def _added(name: str, lines: Iterable[Spent]) -> Spent:
    columns = Spent.__struct_fields__[1:]
    sums = dict.fromkeys(columns, 0)
    for line in lines:
        for column in columns:
            sums[column] += getattr(line, column)
    return Spent(name, **sums)

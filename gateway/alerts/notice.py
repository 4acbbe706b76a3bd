"""What is worth an alert, by stated rules: pure functions from facts of the store to notices for one target."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any, Final

from msgspec import Struct

from gateway.config.alerts import AlertTarget
from gateway.reports.money import usd

HOUR_S: Final = 3600
DAY_S: Final = 86_400
USUAL_DAYS: Final = 14
"""Days whose same hour says what is usual."""
USUAL_DAYS_MIN: Final = 3
"""Of these, so many must lie behind the first row of the ledger."""


class Notice(Struct, frozen=True, gc=False):
    """One thing that one target is told once."""

    event: str
    subject: str
    """What it is about, with the time it belongs to: nothing is told twice of one."""
    message: str
    data: Mapping[str, Any]


class BudgetUse(Struct, frozen=True, gc=False):
    """How far a key's budget of one window is used up."""

    key_id: str
    name: str
    window: str
    start_unix_s: int
    spent_in_nusd: int
    budget_in_nusd: int


class Outage(Struct, frozen=True, gc=False):
    """An Endpoint that is down, or was until `back_unix_s`."""

    endpoint: str
    since_unix_s: float
    standing: str
    cause: str
    back_unix_s: float | None = None


class DearAnswer(Struct, frozen=True, gc=False):
    """An answer that another Endpoint gave than would have if all had been well."""

    generation_id: str
    route: str
    endpoint: str
    first_choice: str
    unix_s: float
    cost_in_nusd: int
    first_in_nusd: int
    """What the same answer would have cost there."""


class HourSpend(Struct, frozen=True, gc=False):
    """What was spent in the running hour, and in the same one of the days before."""

    start_unix_s: int
    spent_in_nusd: int
    before_in_nusd: tuple[int, ...]
    """Of the last days that the ledger knows of, up to USUAL_DAYS."""


class Facts(Struct, frozen=True, gc=False):
    """All that one look at the store found."""

    budgets: Sequence[BudgetUse] = ()
    outages: Sequence[Outage] = ()
    dear: Sequence[DearAnswer] = ()
    hour: HourSpend | None = None


def notices_of(facts: Facts, target: AlertTarget) -> Iterator[Notice]:
    """What one target wants to know of all that."""
    wanted = frozenset(target.events)
    if "budget" in wanted:
        yield from _budgets(facts.budgets, target.budget_percent)
    if wanted & {"endpoint_down", "endpoint_back"}:
        yield from (one for one in _outages(facts.outages) if one.event in wanted)
    if "dear_fallback" in wanted:
        yield from _dear(facts.dear, target.dearer_times)
    if "unusual_spend" in wanted and facts.hour is not None:
        yield from _unusual(facts.hour, target)


def _budgets(uses: Sequence[BudgetUse], percents: Sequence[int]) -> Iterator[Notice]:
    """The highest share that is reached; those below it are told no more."""
    for use in uses:
        reached = [one for one in percents if use.spent_in_nusd * 100 >= one * use.budget_in_nusd]
        if not reached or use.budget_in_nusd <= 0:
            continue
        percent = max(reached)
        yield Notice(
            "budget",
            f"{use.key_id}/{use.window}/{use.start_unix_s}/{percent}",
            f"{use.name} has used {percent} % of its {use.window} budget: {usd(use.spent_in_nusd)} of "
            f"{usd(use.budget_in_nusd)} USD",
            {
                "key_id": use.key_id,
                "key_name": use.name,
                "window": use.window,
                "window_start": iso(use.start_unix_s),
                "percent": percent,
                "spent_usd": usd(use.spent_in_nusd),
                "budget_usd": usd(use.budget_in_nusd),
            },
        )


def _outages(outages: Sequence[Outage]) -> Iterator[Notice]:
    for one in outages:
        subject = f"{one.endpoint}/{one.since_unix_s:.3f}"
        data = {"endpoint": one.endpoint, "since": iso(one.since_unix_s), "standing": one.standing, "cause": one.cause}
        if one.back_unix_s is None:
            yield Notice("endpoint_down", subject, f"{one.endpoint} is {one.standing}: {one.cause}", data)
        else:
            down_s = round(one.back_unix_s - one.since_unix_s)
            message = f"{one.endpoint} is back after {down_s} s"
            yield Notice("endpoint_back", subject, message, {**data, "back": iso(one.back_unix_s), "down_s": down_s})


def _dear(answers: Sequence[DearAnswer], times: float) -> Iterator[Notice]:
    """At most one an hour for each Route and Endpoint: the first that is found."""
    for one in answers:
        if one.first_in_nusd <= 0 or one.cost_in_nusd < times * one.first_in_nusd:
            continue
        hour = int(one.unix_s) // HOUR_S * HOUR_S
        factor = one.cost_in_nusd / one.first_in_nusd
        yield Notice(
            "dear_fallback",
            f"{one.route}/{one.endpoint}/{hour}",
            f"{one.endpoint} answered for {one.route} at {factor:.1f} times what {one.first_choice} would have charged",
            {
                "route": one.route,
                "endpoint": one.endpoint,
                "first_choice": one.first_choice,
                "generation_id": one.generation_id,
                "cost_usd": usd(one.cost_in_nusd),
                "first_choice_usd": usd(one.first_in_nusd),
                "times": round(factor, 3),
            },
        )


def _unusual(hour: HourSpend, target: AlertTarget) -> Iterator[Notice]:
    """More than `unusual_times` the median, and more than `unusual_least`."""
    if len(hour.before_in_nusd) < USUAL_DAYS_MIN:
        return
    usual = int(median(hour.before_in_nusd))
    most = max(target.unusual_least_in_nusd, target.unusual_times * usual)
    if hour.spent_in_nusd <= most:
        return
    yield Notice(
        "unusual_spend",
        str(hour.start_unix_s),
        f"{usd(hour.spent_in_nusd)} USD were spent since {iso(hour.start_unix_s)}; in this hour of the last "
        f"{len(hour.before_in_nusd)} days the median is {usd(usual)}",
        {
            "hour": iso(hour.start_unix_s),
            "spent_usd": usd(hour.spent_in_nusd),
            "median_usd": usd(usual),
            "days": len(hour.before_in_nusd),
        },
    )


def iso(unix_s: float) -> str:
    """A time of UTC, to the second."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""What each look-up finds, and how it is said. Runs in the process beside the gateway."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.dashboard.answers import Reply, Table, json_reply, table_reply
from gateway.dashboard.endpoints import days_table, endpoints_table, events_table, minutes_table
from gateway.dashboard.explorer import requests_table
from gateway.dashboard.jobs import OVERVIEW, WHAT_IF, Job
from gateway.dashboard.outcomes import distribution_table, savings_since
from gateway.dashboard.query import US_PER_S, Query, iso
from gateway.dashboard.roles import Role
from gateway.dashboard.spending import DAY_US, forecast, month_start_us, series_table, spend_table, totals
from gateway.errors import InvalidRequestError, NotFoundError
from gateway.state.figures_reader import FiguresReader
from gateway.state.ledger_reader import By

REQUEST: Final = "requests/"


class _Asked:
    """A job, and its query."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.query = Query(job.query, job.unix_s)
        self.now_us = int(job.unix_s * US_PER_S)

    def label(self, by: By, name: str) -> str | None:
        return self.job.labels.get(name) if by == "key" else None


_View = Callable[[FiguresReader, _Asked], Table]
_VIEWS: Final[Mapping[str, _View]] = {
    "spend": lambda reader, asked: spend_table(reader, asked.query, asked.label),
    "spend/series": lambda reader, asked: series_table(reader, asked.query, asked.label),
    "cost-distribution": lambda reader, asked: distribution_table(reader, asked.query),
    "endpoints": lambda reader, asked: endpoints_table(reader, asked.query, asked.job),
    "endpoints/days": lambda reader, asked: days_table(reader, asked.query, asked.job.unix_s),
    "endpoints/minutes": lambda reader, asked: minutes_table(reader, asked.query),
    "events": lambda reader, asked: events_table(reader, asked.query),
    "requests": lambda reader, asked: requests_table(reader, asked.query, asked.job.role, asked.job.labels.get),
}


def reply_to(job: Job, reader: FiguresReader, path: Path) -> Reply:
    """The reply to a job.

    Args:
        job: What is asked.
        reader: Of the ledger.
        path: mixgate.db, for those that read it in their own way.

    Raises:
        MixgateError: Why there is none.
    """
    asked = _Asked(job)
    as_csv = asked.query.flag("format", "csv")
    if job.what == WHAT_IF:
        return table_reply(_judge(job, asked.query, path), as_csv=as_csv, name=WHAT_IF)
    if job.what == OVERVIEW:
        return json_reply(_overview(reader, asked))
    if job.what == "savings":
        return json_reply(savings_since(reader, asked.query, asked.now_us))
    if job.what.startswith(REQUEST):
        asked.query.expect(())
        return json_reply(_detail(reader, job.what.removeprefix(REQUEST), job.role))
    view = _VIEWS.get(job.what)
    if view is None:
        raise NotFoundError("there is nothing of this name in the dashboard's API")
    return table_reply(view(reader, asked), as_csv=as_csv, name=job.what.replace("/", "-"))


def _overview(reader: FiguresReader, asked: _Asked) -> dict[str, Any]:
    asked.query.expect(())
    now_us = asked.now_us
    return {
        "now": iso(now_us // US_PER_S * US_PER_S),
        "today": totals(reader, now_us // DAY_US * DAY_US, now_us),
        "month": totals(reader, month_start_us(now_us), now_us),
        "forecast": forecast(reader, now_us),
        "savings": savings_since(reader, asked.query, now_us),
        **asked.job.facts,
    }


# Whoever opens the dashboard waits for this process: what takes long to load and is not for the first page comes later.


def _detail(reader: FiguresReader, name: str, role: Role) -> dict[str, Any]:
    from gateway.dashboard.detail import request_detail  # noqa: PLC0415

    return request_detail(reader, name, role)


def _judge(job: Job, query: Query, path: Path) -> Table:
    from gateway.dashboard.configuration import unpack_catalogue  # noqa: PLC0415
    from gateway.dashboard.what_if import what_if_table  # noqa: PLC0415

    return what_if_table(path, unpack_catalogue(job.body), query)


def draw_chart(body: bytes) -> Reply:
    """A chart as a picture.

    Raises:
        InvalidRequestError: It is none.
    """
    from gateway.dashboard.charts import ChartError, draw  # noqa: PLC0415

    try:
        return Reply(draw(body), "image/svg+xml")
    except ChartError as error:
        raise InvalidRequestError(str(error)) from error

"""What a window would have cost under other rules, as the page `What if` asks it: bounded, and with pauses."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from gateway.config.catalogue import Catalogue
from gateway.config.schema import Policy
from gateway.dashboard.answers import Table
from gateway.dashboard.query import Query
from gateway.errors import InvalidRequestError
from gateway.reports.reader import ReportReader
from gateway.state.ledger_reader import Filter
from gateway.whatif.run import Inquiry, Question

ROWS_MAX: Final = 20_000
"""Rows of the ledger that are judged, the newest ones; `mixgate what-if` judges more."""
JUDGING_MAX_S: Final = 4.0
"""How long, before the answer is of what was judged so far."""
PAUSE_S: Final = 0.002
"""After each step: it is the interpreter's lock that requests on their way wait for."""
COLUMNS: Final = (
    *("kind", "name", "requests", "as_was_usd", "would_have_usd", "difference_usd", "from_ledger", "priced"),
    *("estimated", "by_today", "left_out"),
)
_PARAMETERS: Final = ("since", "until", "on", "key", "route", "format")


def what_if_table(path: Path, catalogue: Catalogue, query: Query) -> Table:
    """`GET what-if`. For a thread: it takes seconds.

    Args:
        path: mixgate.db.
        catalogue: Today's configuration.
        query: As it was asked.

    Raises:
        InvalidRequestError: It names what is not there.
        StoreError: The ledger cannot be read.
    """
    query.expect(_PARAMETERS)
    since_us, until_us = query.span("7d")
    wanted = Filter(since_us, until_us, key_id=query.text("key") or None, route=query.text("route") or None)
    with ReportReader(path) as reader:
        try:
            inquiry = Inquiry(reader, _questions(query.text("on")), catalogue, wanted, rows_max=ROWS_MAX)
        except ValueError as error:
            raise InvalidRequestError(str(error), param="on") from error
        _judge(inquiry)
        answer = msgspec.to_builtins(inquiry.result())
    return Table(COLUMNS, [_row(line) for line in answer["lines"]], answer)


def _questions(name: str | None) -> Sequence[Question]:
    asked = [Question("on", name)] if name else []
    plain = [Question(kind) for kind in ("cheapest", "priciest", "first_choice", "no_cache")]
    return [*asked, *plain, *(Question("policy", policy) for policy in get_args(Policy))]


def _judge(inquiry: Inquiry) -> None:
    end_s = time.monotonic() + JUDGING_MAX_S
    for _ in inquiry.steps():
        if time.monotonic() > end_s:
            return  # the answer says that it is not of all
        time.sleep(PAUSE_S)


def _row(line: dict[str, Any]) -> dict[str, Any]:
    return line | {"left_out": sum(one["requests"] for one in line["left_out"])}

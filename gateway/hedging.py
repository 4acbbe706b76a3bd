"""Asking a second Endpoint when the first is slow to begin: whoever brings content first answers, the other is dropped.

Off by default, and paid from a budget of its own (gateway/health/budget.py), because the loser may cost money too.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from gateway.call import Call
from gateway.routing.candidate import Candidate
from providers.errors import GarbledError
from providers.messages import CONTENT_EVENTS, AnswerFailed, Event

WAIT_MIN_S: Final = 1.0
"""No hedge before this, however fast an Endpoint usually is."""
COST_MAX_IN_PUSD: Final = 10**10
"""Requests that are expected to cost more than a cent are not sent twice."""
HELD_EVENTS_MAX: Final = 200_000
"""Events of a stream that are kept back before any may be sent."""


class Lead(Struct, frozen=True):
    """A Call as far as its first content, its end or its failure."""

    call: Call
    events: list[Event]
    failed: AnswerFailed | None = None


class Race(Struct, frozen=True):
    """How a race ended."""

    winner: Lead
    """It has content, or it is the last of those that failed."""
    dropped: Sequence[Call] = ()
    """Who was still on the way, and is closed now."""


async def race(
    first: Call,
    limit_s: float,
    *,
    after_s: float,
    second: Callable[[], tuple[Call, float] | None],
    lost: Callable[[Lead], None],
) -> Race:
    """Open `first`; if it has no content after `after_s`, open a second Call beside it, and take the faster.

    Args:
        first: Not yet open.
        limit_s: Its limit for the first token.
        after_s: When to ask for a second one.
        second: Gives it with its own limit, or None: there shall be none.
        lost: Told at once of whoever failed while the other was on its way: the client may leave before that ends.
    """
    loop = asyncio.get_running_loop()
    running: dict[asyncio.Task[Lead], Call] = {loop.create_task(_lead(first, limit_s)): first}
    try:
        done, _ = await asyncio.wait(running, timeout=after_s)
        if not done and (more := second()) is not None:
            running[loop.create_task(_lead(*more))] = more[0]
        while True:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                del running[task]
                lead = task.result()
                if lead.failed is None or not running:
                    return Race(lead, list(running.values()))
                lost(lead)
    finally:
        await _drop(running)


async def _drop(running: dict[asyncio.Task[Lead], Call]) -> None:
    for task, call in running.items():
        task.cancel()
        call.close()
    if running:
        await asyncio.gather(*running, return_exceptions=True)


async def _lead(call: Call, limit_s: float) -> Lead:
    failed = await call.open(limit_s)
    events: list[Event] = []
    while failed is None:
        more = await call.read()
        last = more[-1] if more else None
        if isinstance(last, AnswerFailed):
            failed = last
            break
        events += more
        if call.complete or any(isinstance(event, CONTENT_EVENTS) for event in more):
            break
        if len(events) > HELD_EVENTS_MAX:
            failed = AnswerFailed(GarbledError("the provider sent too many steps of an answer"))
    call.adopt(None)
    return Lead(call, events, failed)


def worth_it(candidate: Candidate) -> float | None:
    """After how many seconds without content a second Endpoint may be asked; None: not at all.

    After as long as nine of ten answers take to begin: where one of twenty is slow, the 95th of a hundred may be one.
    """
    usual, cost = candidate.observation.latency, candidate.expected_cost_in_pusd
    if usual is None or cost is None or cost > COST_MAX_IN_PUSD:
        return None
    return max(WAIT_MIN_S, usual.p90)

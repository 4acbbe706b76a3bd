"""What must hold of every run, judged by what providers and clients saw, not by what the gateway says of itself.

I8, that the bills of all providers add up to what the ledger says, comes with the ledger.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Final

from gateway.attempts import ATTEMPTS_MAX, ATTEMPTS_PER_ENDPOINT_MAX, TOTAL_TIMEOUT_S
from gateway.simulate.clients import Seen
from gateway.simulate.provider import Received
from gateway.simulate.running import Outcome, Violation
from gateway.simulate.texts import CANARY, canary_of
from providers.json_values import members
from providers.retry_after import RETRY_AFTER_MAX_S

TOLERANCE_S: Final = 1e-3
REPEATS_AT_ONCE_MIN: Final = 3
REPEATS_AT_ONCE_SHARE: Final = 0.2
REPEAT_WINDOW_S: Final = 60.0
REPEATS_PER_REQUEST: Final = 0.2
REPEATS_PER_S: Final = 1.0
REPEATS_SLACK: Final = 4
"""The budget counts whole seconds, and a permission may be used a little after it was given."""
NAMES: Final = {
    "I1": "exactly one ending per request",
    "I2": "nothing starts after the deadline",
    "I3": "at most six Attempts, two on an Endpoint and one repair there",
    "I4": "repeats within their budget",
    "I5": "a client has the winner's text, or a part and its continuation, without a lost or repeated character",
    "I6": "every request to a provider is one Attempt, and every Attempt one request",
    "I7": "permits, caps and cool-downs are kept",
    "I9": "breakers change as they should, with one trial request at a time",
    "I10": "at the end nothing is in flight, held or open",
    "I11": "no text of a request or an answer is in a record",
    "I12": "no caller gets what is another's",
}
"""What is checked, by the names that the documents use."""

_Found = tuple[str, str, int | None]
"""The invariant, what broke it, and for which request."""


def check(outcome: Outcome) -> list[Violation]:
    """All that did not hold in a run, with what its health reported while it ran."""
    by_job: dict[int, list[Received]] = defaultdict(list)
    for received in outcome.received:
        by_job[received.job].append(received)
    found: list[_Found] = [("I10", words, None) for words in outcome.leftovers]
    for seen in outcome.seen:
        asked = by_job[seen.job.number]
        for name, judge in _OF_ONE:
            found.extend((name, words, seen.job.number) for words in judge(seen, asked))
        found.extend(_records(outcome, seen))
    found.extend(("I4", words, None) for words in _repeats(outcome))
    found.extend(("I7", words, None) for words in _cool_downs(outcome))
    found.extend(("I10", words, None) for words in _open_ends(outcome))
    seed, policy = outcome.world.seed, outcome.policy
    return [*outcome.violations, *(Violation(seed, policy, name, words, job) for name, words, job in found)]


def _endings(seen: Seen, _asked: list[Received]) -> Iterator[str]:
    if len(seen.endings) != 1:
        yield f"it has {len(seen.endings)} endings: {', '.join(seen.endings) or 'none'}"
    if seen.late:
        yield "something came behind its end"
    if seen.ending == "answered" and seen.finishes != 1:
        yield f"an answer with {seen.finishes} finish reasons is called complete"


def _deadline(seen: Seen, asked: list[Received]) -> Iterator[str]:
    patience_s = min(seen.job.deadline_s or TOTAL_TIMEOUT_S, TOTAL_TIMEOUT_S)
    deadline_s = seen.started_s + patience_s
    for received in asked:
        if received.at_s > deadline_s - TOLERANCE_S:
            yield f"{received.endpoint} was asked {received.at_s - deadline_s:.3f} s after the deadline"
    if seen.ended_s > deadline_s + TOLERANCE_S:
        yield f"it ended {seen.ended_s - deadline_s:.3f} s after its deadline of {patience_s:g} s"


def _attempts(seen: Seen, asked: list[Received]) -> Iterator[str]:
    counts: dict[str, int] = defaultdict(int)
    for received in asked:
        counts[received.endpoint] += 1
    last_resort = [] if seen.plan is None else [one.endpoint.id for one in seen.plan.candidates if one.endpoint.local]
    others = sum(count for name, count in counts.items() if name not in last_resort)
    # The last resort gets its Attempt besides, and no more than that once the others are used up.
    if others > ATTEMPTS_MAX or len(asked) > ATTEMPTS_MAX + (1 if last_resort else 0):
        yield f"{len(asked)} Attempts: {', '.join(received.endpoint for received in asked)}"
    booked = () if seen.answer is None else seen.answer.attempts
    for name, count in counts.items():
        # The repair of an emulated answer is asked of whoever gave it, and comes besides.
        repairs = sum(one.why == "repair" and one.endpoint.id == name for one in booked)
        if count > ATTEMPTS_PER_ENDPOINT_MAX + min(repairs, 1):
            yield f"{count} Attempts on {name}"


def _text(seen: Seen, asked: list[Received]) -> Iterator[str]:
    if not seen.text:
        return
    given = [_given(received) for received in asked]
    if seen.ending == "answered":
        if not any(
            received.fate != "broken" and _same(seen, text) for received, text in zip(asked, given, strict=True)
        ):
            yield f"it has {_short(seen.text)}, which nobody answered; providers said {[_short(one) for one in given]}"
    elif not any(_begins(received, seen.text) for received in asked):
        yield f"it has {_short(seen.text)}, which nobody began with; providers said {[_short(one) for one in given]}"
    for received in asked:
        if received.prefill and not seen.text.startswith(received.prefill):
            yield f"{received.endpoint} was told to go on from what the client does not have"


def _given(received: Received) -> str:
    """All that a client has if this is what it got, the part before the cut included."""
    return received.prefill + received.text


def _begins(received: Received, part: str) -> bool:
    return (received.prefill + received.before + received.text + received.after).startswith(part)


def _same(seen: Seen, given: str) -> bool:
    if seen.job.kind == "text":
        return seen.text == given
    # Around the text comes JSON, which an emulation may write anew.
    return seen.text == given or given in _only_value(seen.text)


def _only_value(text: str) -> str:
    try:
        value: object = json.loads(text)
    except ValueError:
        return text  # cut by its length limit, so it is handed on as it is
    return "".join(str(one) for one in members(value).values())


def _bookkeeping(seen: Seen, asked: list[Received]) -> Iterator[str]:
    booked = [] if seen.answer is None else [(one.endpoint.id, one.started_s) for one in seen.answer.attempts]
    if [name for name, _ in booked] != [received.endpoint for received in asked]:
        yield f"booked {[name for name, _ in booked]}, but asked were {[received.endpoint for received in asked]}"
        return
    for (name, started_s), received in zip(booked, asked, strict=True):
        if abs(started_s - received.at_s) > TOLERANCE_S:
            yield f"the Attempt at {name} is booked {received.at_s - started_s:.3f} s before it was sent"
    if seen.answer is not None and any(one.outcome == "running" for one in seen.answer.attempts):
        yield "an Attempt is booked as running"


def _callers(seen: Seen, _asked: list[Received]) -> Iterator[str]:
    rest = seen.text.replace(canary_of(seen.job), "")
    if CANARY in rest and not canary_of(seen.job).startswith(rest[rest.index(CANARY) :]):  # cut short by its limit
        yield f"caller {seen.job.caller} got {_short(seen.text)}"


_OF_ONE: Final[tuple[tuple[str, Callable[[Seen, list[Received]], Iterator[str]]], ...]] = (
    ("I1", _endings),
    ("I2", _deadline),
    ("I3", _attempts),
    ("I5", _text),
    ("I6", _bookkeeping),
    ("I12", _callers),
)


def _records(outcome: Outcome, seen: Seen) -> Iterator[_Found]:
    if seen.answer is None:
        return
    number = seen.job.number
    kept = outcome.records.get(number, [])
    if len(kept) != 1:
        yield "I1", f"{len(kept)} records are kept of it", number
    for record in kept:
        if CANARY.encode() in record:
            place = record.index(CANARY.encode())
            yield "I11", f"its record holds text: {record[max(0, place - 60) : place + 40]!r}", number


def _repeats(outcome: Outcome) -> Iterator[str]:
    """The budget of repeats on the same Endpoint, and of panic, worked out from the outside."""
    spans = [
        (one.started_s, one.started_s + one.duration_s, seen)
        for seen in outcome.seen
        if seen.answer is not None
        for one in seen.answer.attempts
        if one.why in ("again", "panic")
    ]
    starts = [(seen.started_s, seen.ended_s) for seen in outcome.seen]
    for at_s, _, _ in spans:
        together = sum(1 for start_s, end_s, _ in spans if start_s <= at_s < end_s)
        # Whoever repeats took the permission up to ten seconds before, when more may have been on their way.
        around = sum(1 for start_s, end_s in starts if start_s <= at_s and end_s >= at_s - 10.0)
        allowed = max(REPEATS_AT_ONCE_MIN, REPEATS_AT_ONCE_SHARE * around + 1)
        if together > allowed:
            yield f"{together} repeats at the same time beside {around} requests"
        recent = sum(1 for start_s, _, _ in spans if at_s - REPEAT_WINDOW_S < start_s <= at_s)
        asked = sum(1 for start_s, _ in starts if at_s - REPEAT_WINDOW_S - 10.0 < start_s <= at_s)
        if recent > REPEATS_PER_REQUEST * asked + REPEATS_PER_S * REPEAT_WINDOW_S + REPEATS_SLACK:
            yield f"{recent} repeats within a minute that had {asked} requests"


def _cool_downs(outcome: Outcome) -> Iterator[str]:
    """Nobody is asked before the time that its last 429 named, but to repair what it has just answered."""
    repairs = _repairs(outcome)
    until_s: dict[str, float] = {}
    told = sorted(
        (received.ended_s or 0.0, received.endpoint, received.stay_away_s)
        for received in outcome.received
        if received.stay_away_s > 0 and received.responded  # else the gateway had hung up before it was told
    )
    place = 0
    for received in outcome.received:
        while place < len(told) and told[place][0] + _HEAD_S < received.at_s:
            at_s, endpoint, away_s = told[place]
            until_s[endpoint] = max(until_s.get(endpoint, 0.0), at_s + min(away_s, RETRY_AFTER_MAX_S))
            place += 1
        early_s = until_s.get(received.endpoint, 0.0) - received.at_s
        if early_s > _EARLY_S and received.place not in repairs:
            yield f"{received.endpoint} was asked {early_s:.2f} s before the end of its Retry-After"


def _repairs(outcome: Outcome) -> set[int]:
    """The places of requests that ask an Endpoint to mend its own answer."""
    asked: dict[int, list[int]] = defaultdict(list)
    for received in outcome.received:
        asked[received.job].append(received.place)
    return {
        place
        for seen in outcome.seen
        if seen.answer is not None
        for one, place in zip(seen.answer.attempts, asked[seen.job.number], strict=False)
        if one.why == "repair"
    }


_HEAD_S: Final = 0.031
"""An answer with an error status takes a moment to arrive."""
_EARLY_S: Final = 0.1


def _open_ends(outcome: Outcome) -> Iterator[str]:
    for received in outcome.received:
        if received.fate == "running":
            yield f"request {received.job} still runs at {received.endpoint}"
        elif received.responded and not received.closed:
            yield f"the response of {received.endpoint} to request {received.job} was never closed"


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:40]} ... {text[-40:]}") + f" ({len(text)})"

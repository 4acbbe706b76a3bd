"""Worlds drawn from what a gateway recorded: what was asked, how often, and how each Endpoint really did.

The ledger gives models, lengths, limits and the times between requests; the minutes of Endpoints give failures, outages
and times to the first token. What was said is nowhere recorded, so every request is for text.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from math import log
from typing import Final

from msgspec import Struct

from gateway.config.catalogue import Catalogue
from gateway.health.histogram import TTFT_FLOOR_S, merge, quantiles
from gateway.observation import MinuteRow
from gateway.reports.reader import ReportReader, split_id
from gateway.reports.uptime import pace_of
from gateway.simulate.dice import Dice
from gateway.simulate.texts import MESSAGE_TOKENS, OUTPUT_TOKENS_MAX, PROMPT_CHARS_MAX, PROMPT_CHARS_PER_TOKEN
from gateway.simulate.traffic import CALLERS_MAX
from gateway.simulate.world import Behaviour, Fault, Job, Trouble, TroubleKind, World
from gateway.state.entries import Entry
from gateway.state.histogram import read_histogram
from gateway.state.ledger_reader import PAGE_MAX, Filter

ROWS_MAX: Final = 20_000
"""Rows of the ledger that worlds are drawn from, the newest ones."""
GAP_MAX_S: Final = 60.0
"""Quiet times are cut to this: nothing can be learned from them."""
BAD_MINUTE_SHARE: Final = 0.5
"""Of its Attempts must fail in a minute for it to be part of an outage, of at least BAD_MINUTE_LEAST."""
BAD_MINUTE_LEAST: Final = 3
TTFT_MAX_S: Final = 30.0
SPREAD_MIN: Final = 0.05
SPREAD_MAX: Final = 1.0
PACE_MIN: Final = 1.0
P90_NORMAL: Final = 1.2816
"""Standard deviations above the mean of a normal distribution's 90th percentile."""
US_PER_S: Final = 1_000_000
MINUTE_S: Final = 60.0
_LUCK: Final = 5
"""Tells these draws from those of other worlds."""
_KINDS: Final[Mapping[str, tuple[Fault, TroubleKind]]] = {
    "fail_connect": ("refused", "down"),
    "fail_server": ("http500", "errors"),
    "fail_timeout": ("silent", "silent"),
    "fail_mid": ("cut", "cuts"),
}


class Asked(Struct, frozen=True, gc=False):
    """What one request was like."""

    model: str
    input_tokens: int
    output_tokens: int
    limit_tokens: int | None
    stream: bool


class Traits(Struct, frozen=True, kw_only=True):
    """How one Endpoint did."""

    ttft_s: float = 0.4
    spread: float = 0.3
    tokens_per_s: float = 80.0
    faults: tuple[tuple[Fault, float], ...] = ()
    """Outside of outages."""
    outage: TroubleKind | None = None
    """What its outages were like; None: it had none."""
    outage_s: float = 0.0
    """How long one was, in the mean."""
    sound_s: float = 0.0
    """How long it was well between two, in the mean."""
    requests_per_min: int | None = None
    """The most that it answered in a minute, where it refused more."""
    attempts: int = 0
    """By how many all this is known; 0: it is a guess."""


class Recorded(Struct, frozen=True, kw_only=True):
    """What worlds are drawn from."""

    since: str
    until: str
    asked: tuple[Asked, ...]
    gaps_s: tuple[float, ...]
    """Between a request and the next."""
    traits: dict[str, Traits]
    """By Endpoint of the configuration."""
    left_out: dict[str, int]
    """By name, requests for what the configuration has no more."""

    @property
    def guessed(self) -> tuple[str, ...]:
        """Endpoints of which nothing is known."""
        return tuple(name for name, one in self.traits.items() if not one.attempts)


def read_recorded(reader: ReportReader, catalogue: Catalogue, since_us: int, until_us: int) -> Recorded:
    """What was recorded in a time, of what is configured now.

    Raises:
        StoreError: The store cannot be read.
        ValueError: There is nothing to go by.
    """
    entries = _entries(reader, Filter(since_unix_us=since_us, until_unix_us=until_us))
    asked: list[Asked] = []
    left_out: dict[str, int] = {}
    for entry in entries:
        if catalogue.find_route(entry.route) is None:
            left_out[entry.route] = left_out.get(entry.route, 0) + 1
        elif entry.outcome == "ok" and entry.input_tokens and entry.output_tokens:
            limit = entry.output_limit
            asked.append(Asked(entry.route, entry.input_tokens, entry.output_tokens, limit, entry.stream))
    if not asked:
        raise ValueError("the ledger has no good answer in that time for anything that is configured")
    firsts = sorted(entry.unix_us for entry in entries if split_id(entry.attempt_id)[1] == 1)
    gaps = [min(GAP_MAX_S, (b - a) / US_PER_S) for a, b in pairwise(firsts)]
    minutes: dict[str, list[MinuteRow]] = {}
    for row in reader.read_minutes(None, since_us // (60 * US_PER_S), -(-until_us // (60 * US_PER_S))):
        minutes.setdefault(row.endpoint_id, []).append(row)
    live = [one.id for one in catalogue.endpoints.values() if one.state != "retired"]
    return Recorded(
        since=_iso(since_us),
        until=_iso(until_us),
        asked=tuple(asked),
        gaps_s=tuple(gaps) or (1.0,),
        traits={
            name: _traits(minutes.get(name, ()), [one for one in entries if one.endpoint == name]) for name in live
        },
        left_out=left_out,
    )


def recorded_world(catalogue: Catalogue, recorded: Recorded, seed: int, requests: int) -> World:
    """A world of the configured Endpoints, with traffic and luck as they were recorded: always the same for a seed."""
    dice = Dice(seed, 1, _LUCK)
    jobs = _jobs(Dice(seed, 2, _LUCK), recorded, requests)
    span_s = jobs[-1].at_s + GAP_MAX_S
    behaviours = {name: _behaviour(dice, traits, span_s) for name, traits in recorded.traits.items()}
    return World(seed=seed, catalogue=catalogue, behaviours=behaviours, jobs=jobs)


def _entries(reader: ReportReader, wanted: Filter) -> list[Entry]:
    found: list[Entry] = []
    before: int | None = None
    while len(found) < ROWS_MAX:
        page = reader.entries(wanted, before=before, count=PAGE_MAX)
        found += page.entries
        if page.before is None:
            break
        before = page.before
    return found


def _jobs(dice: Dice, recorded: Recorded, requests: int) -> tuple[Job, ...]:
    jobs: list[Job] = []
    at_s = 0.0
    for number in range(requests):
        at_s += dice.pick(recorded.gaps_s)
        asked = dice.pick(recorded.asked)
        chars = max(1, asked.input_tokens - MESSAGE_TOKENS) * PROMPT_CHARS_PER_TOKEN
        jobs.append(
            Job(
                number=number,
                at_s=at_s,
                caller=dice.whole(0, CALLERS_MAX - 1),
                model=asked.model,
                prompt_chars=min(PROMPT_CHARS_MAX, chars),
                output_tokens=min(OUTPUT_TOKENS_MAX, asked.output_tokens),
                limit_tokens=asked.limit_tokens,
                stream=asked.stream,
            )
        )
    return tuple(jobs)


def _behaviour(dice: Dice, traits: Traits, span_s: float) -> Behaviour:
    troubles: list[Trouble] = []
    if traits.outage is not None:
        at_s = dice.waiting(traits.sound_s)
        while at_s < span_s:
            end_s = at_s + dice.waiting(traits.outage_s)
            troubles.append(Trouble(traits.outage, at_s, end_s))
            at_s = end_s + dice.waiting(traits.sound_s)
    return Behaviour(
        ttft_s=traits.ttft_s,
        spread=traits.spread,
        tokens_per_s=traits.tokens_per_s,
        requests_per_min=traits.requests_per_min,
        retry_after="seconds" if traits.requests_per_min is not None else "none",
        faults=traits.faults,
        troubles=tuple(troubles),
    )


def _traits(rows: Sequence[MinuteRow], entries: Iterable[Entry]) -> Traits:
    counted = [row for row in rows if row.ok + row.failed]
    attempts = sum(row.ok + row.failed for row in counted)
    if not attempts:
        return Traits()
    bad = [row for row in counted if _is_bad(row)]
    calm = [row for row in counted if not _is_bad(row)]
    ttft_s, spread = _times(rows)
    paces = sorted(pace for entry in entries if (pace := pace_of(entry)) is not None)
    outages = _count_runs(bad)
    outage_s = len(bad) * MINUTE_S / outages if outages else 0.0
    return Traits(
        ttft_s=ttft_s,
        spread=spread,
        tokens_per_s=max(PACE_MIN, paces[len(paces) // 2]) if paces else Traits().tokens_per_s,
        faults=_faults(calm),
        outage=_worst(bad),
        outage_s=outage_s,
        sound_s=max(1, len(calm)) * MINUTE_S / outages if outages else 0.0,
        requests_per_min=max(row.ok for row in counted) or 1 if any(row.rate_limited for row in rows) else None,
        attempts=attempts,
    )


def _is_bad(row: MinuteRow) -> bool:
    total = row.ok + row.failed
    return total >= BAD_MINUTE_LEAST and row.failed >= BAD_MINUTE_SHARE * total


def _count_runs(bad: Sequence[MinuteRow]) -> int:
    """Outages: minutes that follow one another are one."""
    minutes = [row.minute for row in bad]
    return sum(minute - 1 not in minutes[max(0, place - 1) : place] for place, minute in enumerate(minutes))


def _faults(rows: Sequence[MinuteRow]) -> tuple[tuple[Fault, float], ...]:
    total = sum(row.ok + row.failed for row in rows)
    sums = {column: sum(getattr(row, column) for row in rows) for column in _KINDS}
    return tuple((_KINDS[column][0], count / total) for column, count in sums.items() if count)


def _worst(rows: Sequence[MinuteRow]) -> TroubleKind | None:
    if not rows:
        return None
    return _KINDS[max(_KINDS, key=lambda column: sum(getattr(row, column) for row in rows))][1]


def _times(rows: Sequence[MinuteRow]) -> tuple[float, float]:
    """Median and spread of the time to the first token."""
    usual = Traits()
    found = quantiles(merge(read_histogram(row.ttft_hist) for row in rows), (0.5, 0.9), TTFT_FLOOR_S)
    if found is None:
        return usual.ttft_s, usual.spread
    p50, p90 = found
    spread = log(max(1.0, p90 / p50)) / P90_NORMAL
    return min(TTFT_MAX_S, p50), min(SPREAD_MAX, max(SPREAD_MIN, spread))


def _iso(unix_us: int) -> str:
    return datetime.fromtimestamp(unix_us / US_PER_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""One request in full: what was decided, what came of it, what it cost and why."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.dashboard.explorer import PERSONAL, number_of
from gateway.dashboard.money import usd_of_pico, usd_or_none
from gateway.dashboard.prices import price_members
from gateway.dashboard.query import US_PER_S, iso
from gateway.dashboard.roles import Role
from gateway.errors import NotFoundError
from gateway.explain.errors import ExplainError
from gateway.explain.record import Record, decode
from gateway.explain.static import read_static
from gateway.explain.view import explanation_of_record
from gateway.explain.words import headline, outcome_of
from gateway.ledger.costs import read_tariff
from gateway.state.entries import Entry
from gateway.state.figures_reader import FiguresReader
from providers.base import Price
from providers.pricing import price_in_force

ID_MAX_CHARS: Final = 64
"""The id of a request."""
_COUNTS: Final = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
_BILLED: Final = frozenset({"price", "estimate", "recovered"})
"""Costs that follow from our prices."""


class _Line(Struct, frozen=True):
    what: str
    count: int
    price_in_pusd: int


def request_detail(reader: FiguresReader, name: str, role: Role) -> dict[str, Any]:
    """`GET requests/{id}`.

    Raises:
        NotFoundError: Neither a record nor the ledger knows it.
    """
    if len(name) > ID_MAX_CHARS or not name.replace("-", "").isalnum():
        raise NotFoundError("that is no id of a request")
    entries = reader.find_entries(name)
    record = _record(reader, name)
    if record is None and not entries:
        raise NotFoundError("there is no request of this id: not in the ledger, and no record is kept of it")
    costs = [_cost(reader, entry) for entry in entries]
    who = _who(entries[0], role) if entries else None
    if record is None:
        return _from_ledger(name, entries) | {"asked_by": who, "costs": costs}
    static = reader.find_static(record.table)
    explanation = explanation_of_record(record, None if static is None else read_static(static))
    shown = msgspec.to_builtins(record)
    return {
        "id": record.id,
        "time": iso(round(record.unix_s * 1000) * 1000),
        "outcome": record.outcome,
        "code": record.code,
        "headline": headline(record),
        "summary": outcome_of(record),
        "route": record.decision.route,
        "policy": record.decision.policy,
        "requested": record.requested,
        "surface": record.surface,
        "caller": record.caller,
        "duration_ms": record.duration_ms,
        "cost_usd": usd_or_none(_sum(entries) if entries else record.cost_in_nusd),
        "draw": record.draw,
        "rescued": msgspec.structs.asdict(record.rescued) if record.rescued is not None else None,
        "decision": msgspec.to_builtins(explanation),
        "attempts": [_attempt(one) for one in shown.get("attempts", ())],
        "asked_by": who,
        "costs": costs,
    }


def _record(reader: FiguresReader, name: str) -> Record | None:
    data = reader.find_record(name)
    if data is None:
        return None
    try:
        return decode(data)
    except ExplainError:
        return None  # of another version: the ledger still says what it cost


def _attempt(shown: Mapping[str, Any]) -> dict[str, Any]:
    """All members, those that a record leaves out too."""
    return {
        "number": shown["number"],
        "endpoint": shown["endpoint"],
        "why": shown.get("why", "planned"),
        "outcome": shown["outcome"],
        "code": shown.get("code"),
        "upstream_status": shown.get("upstream_status"),
        "started_ms": shown.get("started_ms", 0),
        "ttft_ms": shown.get("ttft_ms"),
        "duration_ms": shown.get("duration_ms", 0),
        "emulated": shown.get("emulated", ()),
        "adapted": shown.get("adapted", ()),
        "followed": shown.get("followed", False),
    }


def _from_ledger(name: str, entries: tuple[Entry, ...]) -> dict[str, Any]:
    """What is left of a request once its record is gone."""
    first, last = entries[0], entries[-1]
    origin_us = min(entry.unix_us for entry in entries)
    ended_us = max(entry.ended_unix_us for entry in entries)
    outcome = "ok" if any(entry.outcome == "ok" for entry in entries) else last.outcome
    return {
        "id": name,
        "time": iso(origin_us),
        "outcome": outcome,
        "code": None if outcome == "ok" else last.code,
        "headline": f"{name}: {iso(origin_us)}, {first.surface}",
        "summary": "the record of the decision is gone; this is what the ledger keeps",
        "route": first.route,
        "policy": None,
        "requested": [first.route],
        "surface": first.surface,
        "caller": first.key_id or None,
        "duration_ms": max(0, ended_us - origin_us) // 1000,
        "cost_usd": usd_or_none(_sum(entries)),
        "draw": None,
        "rescued": None,
        "decision": None,
        "attempts": [
            _attempt(
                {
                    "number": number_of(entry),
                    "endpoint": entry.endpoint,
                    "outcome": entry.outcome,
                    "code": entry.code,
                    "started_ms": (entry.unix_us - origin_us) // 1000,
                    "ttft_ms": entry.ttft_ms,
                    "duration_ms": entry.duration_ms,
                }
            )
            for entry in entries
        ],
    }


def _who(entry: Entry, role: Role) -> dict[str, Any]:
    """Who asked, as far as that was said."""
    tags: list[str] = msgspec.json.decode(entry.tags) if entry.tags else []
    said: dict[str, Any] = {"key": entry.key_id, "app": entry.app, "tags": tags}
    return said | {name: getattr(entry, name) if role == "admin" else None for name in PERSONAL}


def _cost(reader: FiguresReader, entry: Entry) -> dict[str, Any]:
    """What one Attempt cost, and what that is made of where it follows from our prices."""
    price = _price(reader, entry)
    shown = None if price is None else {"id": entry.price_id, **price_members(price)}
    lines = _lines(entry, price) if price is not None and entry.cost_source in _BILLED else None
    return {
        "attempt": number_of(entry),
        "endpoint": entry.endpoint,
        "cost_usd": usd_or_none(entry.cost_in_nusd),
        "cost_source": entry.cost_source,
        "usage_source": entry.usage_source,
        **{name: getattr(entry, name) for name in _COUNTS},
        "price": shown,
        "lines": None if lines is None else [_line(one) for one in lines],
    }


def _price(reader: FiguresReader, entry: Entry) -> Price | None:
    """The prices that held for it."""
    snapshot = reader.price(entry.price_id) if entry.price_id else None
    if snapshot is None:
        return None
    try:
        tariff = read_tariff(snapshot)
    except msgspec.DecodeError:
        return None  # of another version
    if tariff.price is None:
        return None
    now_utc = datetime.fromtimestamp(entry.unix_us / US_PER_S, UTC)
    return price_in_force(tariff.price, tariff.overrides, prompt_tokens=entry.input_tokens, now_utc=now_utc)


def _lines(entry: Entry, price: Price) -> list[_Line]:
    """The parts of a cost, those that come to nothing left out. Together, rounded once, they are the row's cost."""
    whole = entry.input_tokens or 0
    read = min(entry.cached_tokens or 0, whole)
    written = min(entry.cache_write_tokens or 0, whole - read)
    plain = price.input_in_pusd
    lines = [
        _Line("input", whole - read - written, plain or 0),
        _Line("cache_read", read, (plain if price.cache_read_in_pusd is None else price.cache_read_in_pusd) or 0),
        _Line("cache_write", written, (plain if price.cache_write_in_pusd is None else price.cache_write_in_pusd) or 0),
        _Line("output", entry.output_tokens or 0, price.output_in_pusd or 0),
        _Line("request", 1, price.request_in_pusd or 0),
    ]
    kept = [one for one in lines if one.count and (one.price_in_pusd or one.what in {"input", "output"})]
    images = (entry.cost_in_nusd or 0) * 1000 - sum(one.count * one.price_in_pusd for one in kept)
    # How many images there were is not in the row; it follows from what is left, which rounding makes a little wrong.
    count = 0 if not price.image_in_pusd else round(images / price.image_in_pusd)
    return [*kept, _Line("image", count, price.image_in_pusd or 0)] if count > 0 else kept


def _line(one: _Line) -> dict[str, Any]:
    return {
        "what": one.what,
        "count": one.count,
        "usd_per_unit": usd_of_pico(one.price_in_pusd),
        "cost_usd": usd_of_pico(one.count * one.price_in_pusd),
    }


def _sum(entries: tuple[Entry, ...]) -> int:
    """Of all Attempts whose cost is known."""
    return sum(entry.cost_in_nusd or 0 for entry in entries)

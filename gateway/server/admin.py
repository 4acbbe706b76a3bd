"""Keys over HTTP: `/api/v1/keys` for the operator and `/api/v1/key` for a key's holder, in OpenRouter's shapes.

https://openrouter.ai/docs/api-reference/api-keys. What its shapes have no member for is under `mixgate`: teams, rates
and all four budgets. Amounts are JSON numbers in its members, decimal strings in ours.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import UNSET

from gateway.errors import InvalidRequestError, NotFoundError
from gateway.keys.budget import span_end
from gateway.keys.changes import US_PER_S, Change, Issued, NewKey
from gateway.keys.key import NO_LIMITS, WINDOWS, KeyLimits, KeyRecord, Window
from gateway.keys.office import KeyOffice
from gateway.keys.purse import Purse, Usage
from gateway.keys.ring import KeyRing
from gateway.server.key_members import (
    NUSD_PER_USD,
    PICO_PER_USD_MTOK,
    RESETS,
    ChangedMembers,
    NewMembers,
    RotateMembers,
    decode,
    limits_of,
    unix_us,
)
from gateway.state.errors import StoreError

WORKSPACE: Final = "default"
"""There is one."""
LOOK_EVERY_S: Final = 10.0
"""How often it is looked up when keys were last used, while somebody lists them."""
PAGE_KEYS: Final = 100
"""Keys in one answer to a list; `offset` asks for those after."""

_log = logging.getLogger("mixgate.keys")
_NOT_THE_HOLDERS: Final = frozenset({"hash", "name", "disabled", "workspace_id"})
"""What the operator calls a key is none of its holder's business."""


class KeyDesk:
    """Answers the operator and the holders of keys. Every method gives the body of an answer.

    Args:
        office: Where keys are changed.
        purse: What they have spent.
        unix_s: The wall clock.
        read_last_used: When each was last used, in seconds of Unix time. Blocks, so a thread calls it.
    """

    def __init__(
        self,
        office: KeyOffice,
        purse: Purse,
        unix_s: Callable[[], float],
        read_last_used: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._read_last_used = read_last_used
        self._last_used: Mapping[str, int] = {}
        self._looked_unix_s = 0.0
        self.fetch: Callable[[], Awaitable[None]] | None = None
        """Fetches what keys spent, where others keep the sums."""
        self._office = office
        self._ring: KeyRing = office.ring
        self._purse = purse
        self._unix_s = unix_s

    async def look(self) -> None:
        """Find out when keys were last used, if that was some time ago. Comes before whatever shows keys."""
        if self.fetch is not None:
            await self.fetch()
        unix_s = self._unix_s()
        if abs(unix_s - self._looked_unix_s) < LOOK_EVERY_S:
            return
        self._looked_unix_s = unix_s
        try:
            self._last_used = await asyncio.to_thread(self._read_last_used)
        except StoreError as error:
            _log.info("when keys were last used cannot be read now: %s", error)

    def list_keys(self, query: dict[str, str]) -> dict[str, Any]:
        """`GET /keys`: from `offset` on, at most PAGE_KEYS; deleted ones never, disabled ones where asked for."""
        offset = query.get("offset", "0")
        if not offset.isascii() or not offset.isdigit() or len(offset) > 9:
            raise InvalidRequestError("offset is a number, 0 or more", param="offset")
        all_too = query.get("include_disabled", "true").lower() in {"true", "1"}
        kept = [one for one in self._ring.records() if one.deleted_us is None and (all_too or not one.disabled)]
        page = kept[int(offset) : int(offset) + PAGE_KEYS]
        return {"data": [self._item(record) for record in page], "total_count": len(kept)}

    async def create(self, body: bytes) -> dict[str, Any]:
        """`POST /keys`: the one answer that has the key's text.

        Raises:
            InvalidRequestError: It may not be, and why.
            StoreError: It cannot be written.
        """
        members = decode(body, NewMembers)
        parent = members.mixgate.parent
        wish = NewKey(
            name=members.name,
            parent=None if parent is None else self.find(parent).id,
            expires_us=None if members.expires_at is UNSET else unix_us(members.expires_at),
            limits=limits_of(NO_LIMITS, members),
        )
        return self._shown_once(await self._office.create(wish))

    def get(self, name: str) -> dict[str, Any]:
        """`GET /keys/{hash}`."""
        return {"data": self._item(self.find(name))}

    async def change(self, name: str, body: bytes) -> dict[str, Any]:
        """`PATCH /keys/{hash}`.

        Raises:
            InvalidRequestError: It may not be so, and why.
            NotFoundError: There is no such key.
            StoreError: It cannot be written.
        """
        members = decode(body, ChangedMembers)
        if members.mixgate.parent is not None:
            raise InvalidRequestError("a key stays in its team; make another one there", param="mixgate.parent")

        def wish(record: KeyRecord) -> Change:
            return Change(
                name=members.name,
                disabled=members.disabled,
                expires_us=UNSET if members.expires_at is UNSET else unix_us(members.expires_at),
                limits=limits_of(record.limits, members),
            )

        return {"data": self._item(await self._office.change(self.find(name).id, wish))}

    async def rotate(self, name: str, body: bytes) -> dict[str, Any]:
        """`POST /keys/{hash}/rotate`: a new text, shown once; the old one stays good for `overlap_s`."""
        members = decode(body or b"{}", RotateMembers)
        return self._shown_once(await self._office.rotate(self.find(name).id, members.overlap_s))

    async def delete(self, name: str) -> dict[str, Any]:
        """`DELETE /keys/{hash}`."""
        await self._office.delete(self.find(name).id)
        return {"deleted": True}

    def own(self, key_id: str) -> dict[str, Any]:
        """`GET /key`: what the caller's key may do and has done. Without an issued key: no limits, nothing known."""
        record = self._ring.get(key_id)
        if record is None:
            usage = _usage_members(0, 0, 0, 0)
            own: dict[str, Any] = {"label": "unlimited", **_limit_members(NO_LIMITS, None, {}), **usage}
            return {"data": own | _own_members(None, None, [])}
        item = self._item(record)
        shown = {name: item[name] for name in item if name not in _NOT_THE_HOLDERS}
        budgets = self._budgets(key_id)
        return {"data": shown | _own_members(record.expires_us, record.limits.requests_per_min, budgets)}

    def _budgets(self, key_id: str) -> list[dict[str, Any]]:
        """Every budget that bounds a key, its own and its teams', the one with least left first."""
        unix_s = self._unix_s()
        found: list[tuple[int, dict[str, Any]]] = []
        for record in self._ring.chain(key_id):
            by_window = _by_window(self._purse.usage(record.id, unix_s))
            for window in WINDOWS:
                budget = record.limits.budget(window)
                if budget is not None:
                    left = budget - by_window[window]
                    scope = "key_limit" if record.id == key_id else "workspace"
                    found.append((left, _budget_members(scope, window, budget, left, span_end(window, unix_s))))
        return [members for _, members in sorted(found, key=lambda one: one[0])]

    def find(self, name: str) -> KeyRecord:
        """A key by its hash or its public id.

        Raises:
            NotFoundError: There is none, or it is deleted.
        """
        record = self._ring.get_by_hash(name) or self._ring.get(name)
        if record is None or record.deleted_us is not None:
            raise NotFoundError("there is no such key")
        return record

    def _shown_once(self, issued: Issued) -> dict[str, Any]:
        return {"data": self._item(issued.record), "key": issued.text.reveal()}

    def _item(self, record: KeyRecord) -> dict[str, Any]:
        spent = self._purse.usage(record.id, self._unix_s())
        limits, last_used = record.limits, self._last_used.get(record.id)
        by_window = _by_window(spent)
        tightest = _tightest(limits, by_window)
        return {
            "hash": record.hash,
            "name": record.name,
            "label": f"mg-{record.id}...",
            "disabled": record.disabled,
            **_limit_members(limits, tightest, by_window),
            **_usage_members(*by_window.values()),
            "created_at": _iso(record.created_us),
            "updated_at": _iso(record.updated_us),
            "expires_at": _iso(record.expires_us),
            "creator_user_id": None,
            "external_user": None,
            "last_used_at": None if last_used is None else _iso(last_used * US_PER_S),
            "workspace_id": WORKSPACE,
            "mixgate": {
                "id": record.id,
                "parent": record.parent,
                "previous_good_until": _iso(record.previous_until_us or None),
                "models": limits.models,
                "providers": limits.providers,
                "budget": {window: _text_or_none(limits.budget(window)) for window in WINDOWS},
                "reserved": _text(spent.reserved_in_nusd),
                "requests_per_min": limits.requests_per_min,
                "tokens_per_min": limits.tokens_per_min,
                "concurrency": limits.concurrency,
                "max_price": {
                    "input": _per_mtok(limits.input_max_in_pusd),
                    "output": _per_mtok(limits.output_max_in_pusd),
                },
                "data": limits.data,
            },
        }


def _tightest(limits: KeyLimits, by_window: Mapping[Window, int]) -> Window | None:
    """OpenRouter's shape has one limit; of several, the one that will be met first."""
    found: Window | None = None
    least = 0
    for window in WINDOWS:
        budget = limits.budget(window)
        if budget is not None and (found is None or budget - by_window[window] < least):
            found, least = window, budget - by_window[window]
    return found


def _limit_members(limits: KeyLimits, window: Window | None, by_window: Mapping[Window, int]) -> dict[str, Any]:
    budget = None if window is None else limits.budget(window)
    left = None if window is None or budget is None else _number(max(0, budget - by_window[window]))
    return {
        "limit": None if budget is None else _number(budget),
        "limit_remaining": left,
        "limit_reset": None if window is None else RESETS[window],
        "include_byok_in_limit": False,
    }


def _usage_members(day: int, week: int, month: int, ever: int) -> dict[str, Any]:
    """Spending in OpenRouter's members. Nothing here is by a client's own provider key."""
    spent = {"usage": ever, "usage_daily": day, "usage_weekly": week, "usage_monthly": month}
    return {name: _number(amount) for name, amount in spent.items()} | {f"byok_{name}": 0 for name in spent}


def _by_window(spent: Usage) -> dict[Window, int]:
    return {
        "day": spent.day_in_nusd,
        "week": spent.week_in_nusd,
        "month": spent.month_in_nusd,
        "ever": spent.ever_in_nusd,
    }


def _budget_members(
    scope: str, window: Window, budget_in_nusd: int, left_in_nusd: int, ends_unix_s: int | None
) -> dict[str, Any]:
    return {
        "scope": scope,
        "budget_id": None,
        "guardrail_id": None,
        "include_byok": False,
        "limit_usd": _number(budget_in_nusd),
        "spend_usd": _number(budget_in_nusd - left_in_nusd),
        "remaining_usd": _number(max(0, left_in_nusd)),
        "reset_interval": RESETS[window],
        "resets_at": None if ends_unix_s is None else _iso(ends_unix_s * US_PER_S),
    }


def _own_members(expires_us: int | None, requests_per_min: int | None, budgets: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "budgets": budgets,
        "effective_budget": budgets[0] if budgets else None,
        "allowed_data_regions": [],
        "free_model_daily_requests": {"limit": -1, "used": 0, "remaining": -1},
        "organization_id": None,
        "workspace_id": WORKSPACE,
        "is_free_tier": False,
        "is_management_key": False,
        "is_provisioning_key": False,
        "creator_user_id": None,
        "expires_at": _iso(expires_us),
        "rate_limit": {
            "interval": "1m",
            "requests": -1 if requests_per_min is None else requests_per_min,
            "note": "-1: no limit",
        },
    }


def _number(amount_in_nusd: int) -> msgspec.Raw:
    """A JSON number, written from the integer: no float comes in between."""
    return msgspec.Raw(_text(amount_in_nusd).encode())


def _text_or_none(amount_in_nusd: int | None) -> str | None:
    return None if amount_in_nusd is None else _text(amount_in_nusd)


def _text(amount_in_nusd: int) -> str:
    whole, rest = divmod(amount_in_nusd, NUSD_PER_USD)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")


def _per_mtok(price_in_pusd: int | None) -> str | None:
    if price_in_pusd is None:
        return None
    whole, rest = divmod(price_in_pusd, PICO_PER_USD_MTOK)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")


def _iso(unix_us: int | None) -> str | None:
    if unix_us is None:
        return None
    return datetime.fromtimestamp(unix_us / US_PER_S, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

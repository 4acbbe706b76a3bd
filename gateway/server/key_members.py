"""Bodies by which the operator makes and changes keys: judged member by member, nothing that is unknown is taken."""

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from gateway.errors import InvalidRequestError
from gateway.keys.changes import US_PER_S
from gateway.keys.key import WINDOWS, DataWish, KeyLimits, Window
from gateway.keys.office import ROTATION_OVERLAP_S

BODY_MAX_BYTES: Final = 64 * 1024
NUSD_PER_USD: Final = 10**9
PICO_PER_USD_MTOK: Final = 10**6
RESETS: Final[dict[Window, str | None]] = {"day": "daily", "week": "weekly", "month": "monthly", "ever": None}

Reset = Literal["daily", "weekly", "monthly"]
Amount = Decimal | None | UnsetType
Many = tuple[str, ...] | None | UnsetType
Number = int | None | UnsetType


class BudgetMembers(Struct, frozen=True, forbid_unknown_fields=True):
    """USD by window; null: no such limit."""

    day: Amount = UNSET
    week: Amount = UNSET
    month: Amount = UNSET
    ever: Amount = UNSET


class PriceMembers(Struct, frozen=True, forbid_unknown_fields=True):
    """USD per million tokens; null: no such limit."""

    input: Amount = UNSET
    output: Amount = UNSET


class OwnMembers(Struct, frozen=True, forbid_unknown_fields=True):
    """What OpenRouter's shapes have no member for."""

    parent: str | None = None
    """Public id or hash of the team's key; for a new key only."""
    models: Many = UNSET
    providers: Many = UNSET
    budget: BudgetMembers = BudgetMembers()
    requests_per_min: Number = UNSET
    tokens_per_min: Number = UNSET
    concurrency: Number = UNSET
    max_price: PriceMembers = PriceMembers()
    data: DataWish | UnsetType = UNSET


class KeyMembers(Struct, frozen=True, forbid_unknown_fields=True):
    """What may be said of a key, new or old."""

    limit: Amount = UNSET
    """USD; null: unlimited. Takes the place of all budgets that the key has."""
    limit_reset: Reset | UnsetType | None = UNSET
    expires_at: datetime | UnsetType | None = UNSET
    include_byok_in_limit: bool = False
    """Accepted and ignored: every provider key here is the operator's own."""
    workspace_id: str | None = None
    """Accepted and ignored, as the next one is."""
    creator_user_id: str | None = None
    mixgate: OwnMembers = OwnMembers()


class NewMembers(KeyMembers, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body that makes a key."""

    name: str


class ChangedMembers(KeyMembers, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body that changes one."""

    name: str | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET


class RotateMembers(Struct, frozen=True, forbid_unknown_fields=True):
    """The body that gives a key a new text."""

    overlap_s: float = ROTATION_OVERLAP_S


Body = TypeVar("Body")


def decode(body: bytes, kind: type[Body]) -> Body:
    """A body as one of the shapes above.

    Raises:
        InvalidRequestError: It is none.
    """
    if len(body) > BODY_MAX_BYTES:
        raise InvalidRequestError(f"the body has more than {BODY_MAX_BYTES} bytes")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, InvalidOperation) as error:
        raise InvalidRequestError(f"the body is not what this path takes: {error}") from error


def limits_of(before: KeyLimits, members: KeyMembers) -> KeyLimits:
    """The limits as they are to be.

    Raises:
        InvalidRequestError: An amount is none.
    """
    own = members.mixgate
    wanted: dict[str, Any] = {
        name: value
        for name in ("models", "providers", "requests_per_min", "tokens_per_min", "concurrency", "data")
        if (value := getattr(own, name)) is not UNSET
    }
    for name, value in (("input_max_in_pusd", own.max_price.input), ("output_max_in_pusd", own.max_price.output)):
        if value is not UNSET:
            wanted[name] = _scaled(value, PICO_PER_USD_MTOK, "mixgate.max_price")
    wanted |= _single_limit(before, members)
    for window in WINDOWS:
        value = getattr(own.budget, window)
        if value is not UNSET:
            wanted[f"{window}_in_nusd"] = _scaled(value, NUSD_PER_USD, "mixgate.budget")
    return replace(before, **wanted)


def _single_limit(before: KeyLimits, members: KeyMembers) -> dict[str, int | None]:
    """What `limit` and `limit_reset` come to: one budget, and no others."""
    if members.limit is UNSET and members.limit_reset is UNSET:
        return {}
    had: list[Window] = [window for window in WINDOWS if before.budget(window) is not None]
    window: Window = had[0] if had else "ever"
    if members.limit_reset is not UNSET:
        window = next(window for window in WINDOWS if RESETS[window] == members.limit_reset)
    amount = before.budget(had[0]) if had else None
    if members.limit is not UNSET:
        amount = _scaled(members.limit, NUSD_PER_USD, "limit")
    budgets: dict[str, int | None] = {f"{one}_in_nusd": None for one in WINDOWS}
    return budgets | {f"{window}_in_nusd": amount}


def _scaled(amount: Decimal | None, unit: int, param: str) -> int | None:
    """An amount in our unit, exactly."""
    if amount is None:
        return None
    if not amount.is_finite() or not 0 <= amount <= NUSD_PER_USD:
        raise InvalidRequestError(f"{param}: an amount in USD, from 0 to a billion", param=param)
    scaled = amount * unit
    if scaled != scaled.to_integral_value():
        raise InvalidRequestError(f"{param}: {amount} USD has more decimals than are counted here", param=param)
    return int(scaled)


def unix_us(moment: datetime | None) -> int | None:
    """A time as keys keep it.

    Raises:
        InvalidRequestError: Nobody knows in which time zone it is.
    """
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InvalidRequestError("expires_at needs its time zone, as in 2027-01-01T00:00:00Z", param="expires_at")
    return round(moment.timestamp() * US_PER_S)

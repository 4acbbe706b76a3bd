"""What can be done with a key: made, rotated, changed, deleted. Pure: a record and a wish in, a record out."""

import re
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from gateway.config.secrets import Secret, looks_like_key
from gateway.errors import InvalidRequestError
from gateway.keys.budget import AMOUNT_MAX_IN_NUSD
from gateway.keys.credential import digest_of, mint
from gateway.keys.key import (
    ANCESTORS_MAX,
    KEYS_MAX,
    NAME_MAX_CHARS,
    NO_LIMITS,
    PERMITTED_MAX,
    STRICTNESS,
    WINDOWS,
    KeyLimits,
    KeyRecord,
    is_within,
)
from gateway.keys.ring import KeyRing

US_PER_S: Final = 1_000_000
OVERLAP_MAX_S: Final = 90 * 86_400
"""How long an old key stays good beside a new one, at most."""
RATE_MAX: Final = 1_000_000_000
"""Of requests or tokens per minute, and of requests at the same time."""
PRICE_MAX_IN_PUSD: Final = 10**15
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
"""Names are printed on terminals and pages: nothing that moves a cursor or turns text around."""


class NewKey(Struct, frozen=True, kw_only=True):
    """What a new key is to be."""

    name: str
    parent: str | None = None
    expires_us: int | None = None
    limits: KeyLimits = NO_LIMITS


class Change(Struct, frozen=True, kw_only=True):
    """What is to be different of a key."""

    name: str | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET
    expires_us: int | UnsetType | None = UNSET
    limits: KeyLimits | UnsetType = UNSET


class Issued(Struct, frozen=True):
    """A key with its text, which exists nowhere else."""

    record: KeyRecord
    text: Secret


def create(ring: KeyRing, pepper: bytes, wish: NewKey, *, entropy: bytes, now_us: int) -> Issued:
    """A new key.

    Raises:
        InvalidRequestError: It may not be, and why.
    """
    records = ring.records()
    if len(records) >= KEYS_MAX:
        raise InvalidRequestError(f"there are {KEYS_MAX} keys, deleted ones included, which is all that there may be")
    _check_name(wish.name, records, None)
    _check_expiry(wish.expires_us, now_us)
    _check_limits(wish.limits)
    if wish.parent is not None:
        _check_parent(ring, wish.parent, wish.limits, now_us)
    minted = mint(entropy)
    if ring.get(minted.id) is not None:
        raise InvalidRequestError("the new key's id is taken already; ask again")  # once in 10^14
    return Issued(
        KeyRecord(
            id=minted.id,
            name=wish.name,
            digest=digest_of(pepper, minted.text.reveal().encode()),
            created_us=now_us,
            updated_us=now_us,
            expires_us=wish.expires_us,
            parent=wish.parent,
            limits=wish.limits,
        ),
        minted.text,
    )


def rotate(record: KeyRecord, pepper: bytes, *, entropy: bytes, overlap_s: float, now_us: int) -> Issued:
    """The same key with a new text; the old one stays good for a while. Budgets, limits and records go on.

    Raises:
        InvalidRequestError: It is deleted, or the overlap is out of bounds.
    """
    _require_kept(record)
    if not 0 <= overlap_s <= OVERLAP_MAX_S:
        raise InvalidRequestError(f"an overlap is from 0 to {OVERLAP_MAX_S} seconds", param="overlap_s")
    minted = mint(entropy, record.id)
    changed = replace(
        record,
        digest=digest_of(pepper, minted.text.reveal().encode()),
        previous_digest=record.digest if overlap_s else b"",
        previous_until_us=now_us + round(overlap_s * US_PER_S) if overlap_s else 0,
        updated_us=_later(record, now_us),
    )
    return Issued(changed, minted.text)


def change(ring: KeyRing, record: KeyRecord, wish: Change, *, now_us: int) -> KeyRecord:
    """The same key, otherwise.

    Raises:
        InvalidRequestError: It may not be so, and why.
    """
    _require_kept(record)
    if wish.name is not UNSET:
        _check_name(wish.name, ring.records(), record.id)
    if wish.expires_us is not UNSET:
        _check_expiry(wish.expires_us, now_us)
    if wish.limits is not UNSET:
        _check_limits(wish.limits)
        if record.parent is not None:
            _check_subset(ring, record.parent, wish.limits)
    wishes = {name: value for name in wish.__struct_fields__ if (value := getattr(wish, name)) is not UNSET}
    return msgspec.structs.replace(record, **wishes, updated_us=_later(record, now_us))


def delete(record: KeyRecord, *, now_us: int) -> KeyRecord:
    """What is left of a deleted key: nothing that a credential could match, and its id, for the ledger names it."""
    return replace(
        record,
        digest=b"",
        previous_digest=b"",
        previous_until_us=0,
        deleted_us=now_us if record.deleted_us is None else record.deleted_us,
        updated_us=_later(record, now_us),
    )


def _later(record: KeyRecord, now_us: int) -> int:
    """When it changed: behind every change that it had, also by a gateway whose clock is ahead of ours."""
    return max(now_us, record.updated_us + 1)


def _require_kept(record: KeyRecord) -> None:
    if record.deleted_us is not None:
        raise InvalidRequestError(f"the key {record.id} is deleted; create another one")


def _check_name(name: str, records: Iterable[KeyRecord], key_id: str | None) -> None:
    if not 1 <= len(name) <= NAME_MAX_CHARS or _NAME.fullmatch(name) is None or not name.strip():
        raise InvalidRequestError(f"a key's name has 1 to {NAME_MAX_CHARS} printable characters", param="name")
    if looks_like_key(name):
        raise InvalidRequestError("the name looks like a key itself, and names are shown", param="name")
    for record in records:
        if record.name == name and record.id != key_id and record.deleted_us is None:
            raise InvalidRequestError(f"there is a key of that name already: {record.id}", param="name")


def _check_expiry(expires_us: int | None, now_us: int) -> None:
    if expires_us is not None and not now_us < expires_us < 1 << 62:
        raise InvalidRequestError("a key expires in the future", param="expires_at")


def _check_limits(limits: KeyLimits) -> None:
    for window in WINDOWS:
        _check_number(f"budget.{window}", limits.budget(window), AMOUNT_MAX_IN_NUSD)
    for field in ("requests_per_min", "tokens_per_min", "concurrency"):
        _check_number(field, getattr(limits, field), RATE_MAX)
    for field in ("input_max_in_pusd", "output_max_in_pusd"):
        _check_number("max_price", getattr(limits, field), PRICE_MAX_IN_PUSD)
    for field in ("models", "providers"):
        names: tuple[str, ...] | None = getattr(limits, field)
        if names is not None and (len(names) > PERMITTED_MAX or not all(0 < len(name) <= 200 for name in names)):
            raise InvalidRequestError(f"{field}: at most {PERMITTED_MAX} names of up to 200 characters", param=field)
    if limits.data not in STRICTNESS:
        raise InvalidRequestError(f"data is one of {', '.join(STRICTNESS)}", param="data")


def _check_number(field: str, number: int | None, most: int) -> None:
    if number is not None and not 0 <= number <= most:
        raise InvalidRequestError(f"{field} is out of bounds: from 0 to {most}", param=field)


def _check_parent(ring: KeyRing, parent: str, limits: KeyLimits, now_us: int) -> None:
    found = ring.get(parent)
    if found is None:
        raise InvalidRequestError(f"there is no key {parent!r} to be its team", param="parent")
    above = ring.chain(parent)
    for record in above:
        if (why := record.why_refused(now_us)) is not None:
            raise InvalidRequestError(f"the team's key {record.id} is {why}", param="parent")
    if len(above) > ANCESTORS_MAX:
        raise InvalidRequestError(f"at most {ANCESTORS_MAX} teams can be inside one another", param="parent")
    _check_subset(ring, parent, limits)


def _check_subset(ring: KeyRing, parent: str, limits: KeyLimits) -> None:
    for record in ring.chain(parent):
        if (field := is_within(limits, record.limits)) is not None:
            raise InvalidRequestError(f"{field}: the team {record.id} does not grant all of this", param=field)

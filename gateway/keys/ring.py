"""All issued keys in memory: who a credential belongs to, and what that key and the teams above it permit.

It needs no database to answer: while the store is down, keys work as they did.
"""

import hmac
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from gateway.keys.credential import digest_of, public_id
from gateway.keys.key import ANCESTORS_MAX, STRICTNESS, DataWish, KeyRecord

_NO_DIGEST: Final = bytes(32)


class Grants(Struct, frozen=True, gc=False):
    """What a key may use, its teams' limits included. None: no such limit."""

    models: tuple[str, ...] | None = None
    providers: tuple[str, ...] | None = None
    input_max_in_pusd: int | None = None
    output_max_in_pusd: int | None = None
    data: DataWish = "any"


NO_GRANTS: Final = Grants()


def _grants(chain: tuple[KeyRecord, ...]) -> Grants:
    """What all of a chain permit."""
    limits = [one.limits for one in chain]
    return Grants(
        _common(one.models for one in limits),
        _common(one.providers for one in limits),
        min((one.input_max_in_pusd for one in limits if one.input_max_in_pusd is not None), default=None),
        min((one.output_max_in_pusd for one in limits if one.output_max_in_pusd is not None), default=None),
        _strictest(one.data for one in limits),
    )


def _common(lists: Iterable[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    named = [names for names in lists if names is not None]
    if not named:
        return None
    return tuple(name for name in named[0] if all(name in names for names in named[1:]))


def _strictest(wishes: Iterable[DataWish]) -> DataWish:
    found: DataWish = "any"
    for wish in wishes:
        if STRICTNESS[wish] > STRICTNESS[found]:
            found = wish
    return found


class _Entry:
    __slots__ = ("chain", "digest", "expires_us", "grants", "previous_digest", "previous_until_us", "record", "refused")

    def __init__(self, record: KeyRecord, chain: tuple[KeyRecord, ...]) -> None:
        self.record = record
        self.chain = chain
        self.digest = record.digest
        self.previous_digest = record.previous_digest or _NO_DIGEST
        self.previous_until_us = record.previous_until_us
        self.grants = _grants(chain)
        # A team that is missing, or too many of them: nobody knows what bounds the key then.
        self.refused = chain[-1].parent is not None or any(one.disabled or one.deleted_us is not None for one in chain)
        ends = [one.expires_us for one in chain if one.expires_us is not None]
        self.expires_us = min(ends) if ends else None


_NO_RECORD: Final = KeyRecord(id="", name="", digest=_NO_DIGEST, created_us=0, updated_us=0)


_NOBODY: Final = _Entry(_NO_RECORD, (_NO_RECORD,))


class KeyRing:
    """The issued keys. Belongs to one event loop.

    Args:
        pepper: Of the digests.
        records: What the store has.
    """

    def __init__(self, pepper: bytes, records: Iterable[KeyRecord] = ()) -> None:
        self._pepper = pepper
        self._records = {record.id: record for record in records}
        self._entries: dict[str, _Entry] = {}
        self._by_hash: dict[str, str] = {}
        self._parents: set[str] = set()
        self.has_keys = False
        """Whether there is any key that is not deleted; a disabled or expired one is one too."""
        self._settle()

    def __repr__(self) -> str:
        """Without the pepper."""
        return f"KeyRing({len(self._records)} keys)"

    def find(self, credential: bytes, unix_us: int) -> KeyRecord | None:
        """Whose credential it is; None where it is nobody's, or is not good now.

        The same steps are done for an unknown id, a wrong secret and a good key.
        """
        entry = self._match(credential, unix_us)
        if entry is None or entry.refused or (entry.expires_us is not None and unix_us >= entry.expires_us):
            return None
        return entry.record

    def why_refused(self, credential: bytes, unix_us: int) -> str | None:
        """For the holder of a key that is not good now: `disabled`, `expired` or `deleted`; None for all others."""
        entry = self._match(credential, unix_us)
        return None if entry is None else self.why_not(entry.record.id, unix_us)

    def why_not(self, key_id: str, unix_us: int) -> str | None:
        """Why a key is not good at that time, or the team above it; None where it is, or where there is none."""
        for record in self.chain(key_id):
            if (why := record.why_refused(unix_us)) is not None:
                return why if record.id == key_id else f"in a team that is {why}"
        return None

    def _match(self, credential: bytes, unix_us: int) -> _Entry | None:
        entry = self._entries.get(public_id(credential), _NOBODY)
        digest = digest_of(self._pepper, credential)
        current = hmac.compare_digest(entry.digest, digest)
        previous = hmac.compare_digest(entry.previous_digest, digest)
        # Nobody's digests are zero, which no HMAC is; still it must never be anybody.
        if entry is _NOBODY or not (current or (previous and unix_us < entry.previous_until_us)):
            return None
        return entry

    def get(self, key_id: str) -> KeyRecord | None:
        """A key by its public id, a deleted one too."""
        return self._records.get(key_id)

    def get_by_hash(self, hash_: str) -> KeyRecord | None:
        """A key by the admin API's name for it."""
        return self._records.get(self._by_hash.get(hash_, ""))

    def chain(self, key_id: str) -> Sequence[KeyRecord]:
        """A key and the teams above it, itself first; empty where there is no such key."""
        entry = self._entries.get(key_id)
        return () if entry is None else entry.chain

    def grants(self, key_id: str) -> Grants:
        """What a key may use, its teams' limits included. A key that does not exist may use nothing."""
        entry = self._entries.get(key_id)
        return Grants(models=(), providers=()) if entry is None else entry.grants

    def records(self) -> list[KeyRecord]:
        """Every key, deleted ones too, oldest first."""
        return sorted(self._records.values(), key=lambda one: (one.created_us, one.id))

    def put(self, record: KeyRecord) -> None:
        """Add a key, or replace what is known of it. To be called once the store has it."""
        self._records[record.id] = record
        if record.id in self._parents:
            self._settle()  # what is below it follows
        else:
            self._add(record)
            self.has_keys = record.deleted_us is None or self._any_left()

    def _settle(self) -> None:
        self._parents = {record.parent for record in self._records.values() if record.parent is not None}
        for record in self._records.values():
            self._add(record)
        self.has_keys = self._any_left()

    def _add(self, record: KeyRecord) -> None:
        self._entries[record.id] = _Entry(record, self._chain_of(record))
        self._by_hash[record.hash] = record.id
        if record.parent is not None:
            self._parents.add(record.parent)

    def _any_left(self) -> bool:
        return any(record.deleted_us is None for record in self._records.values())

    def _chain_of(self, record: KeyRecord) -> tuple[KeyRecord, ...]:
        chain = [record]
        while chain[-1].parent is not None and len(chain) <= ANCESTORS_MAX:
            parent = self._records.get(chain[-1].parent)
            if parent is None:
                break
            chain.append(parent)
        return tuple(chain)

"""Changes keys: one change at a time, first in the store, then in memory, so that what was answered is kept."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from gateway.errors import NotFoundError
from gateway.keys.changes import Change, Issued, NewKey, change, create, delete, rotate
from gateway.keys.credential import ENTROPY_BYTES
from gateway.keys.key import KeyRecord
from gateway.keys.ring import KeyRing

ROTATION_OVERLAP_S: Final = 86_400.0
"""How long an old key stays good beside a new one, where nobody says otherwise."""

Save = Callable[[KeyRecord], Awaitable[None]]
Result = TypeVar("Result")
_log = logging.getLogger("mixgate.keys")


class KeyOffice:
    """The one place where keys change.

    Args:
        ring: The keys in memory.
        pepper: Of their digests.
        save: Writes a record; when it returns, the record is on the disk.
        unix_us: The wall clock, in microseconds.
    """

    def __init__(self, ring: KeyRing, pepper: bytes, save: Save, unix_us: Callable[[], int]) -> None:
        self.ring = ring
        self._pepper = pepper
        self._save = save
        self._unix_us = unix_us
        self._lock = asyncio.Lock()

    async def create(self, wish: NewKey) -> Issued:
        """Make a key.

        Raises:
            InvalidRequestError: It may not be, and why.
            StoreError: It cannot be written; there is no such key then.
        """

        def make() -> tuple[KeyRecord, Issued]:
            entropy = secrets.token_bytes(ENTROPY_BYTES)
            issued = create(self.ring, self._pepper, wish, entropy=entropy, now_us=self._unix_us())
            return issued.record, issued

        return await self._change("created", make)

    async def rotate(self, key_id: str, overlap_s: float = ROTATION_OVERLAP_S) -> Issued:
        """Give a key a new text; the old one stays good for `overlap_s`.

        Raises:
            NotFoundError: There is no such key.
            InvalidRequestError: It is deleted, or the overlap is out of bounds.
            StoreError: It cannot be written; nothing has changed.
        """

        def make() -> tuple[KeyRecord, Issued]:
            entropy = secrets.token_bytes(ENTROPY_BYTES)
            record = self._get(key_id)
            issued = rotate(record, self._pepper, entropy=entropy, overlap_s=overlap_s, now_us=self._unix_us())
            return issued.record, issued

        return await self._change("rotated", make)

    async def change(self, key_id: str, wish: Change | Callable[[KeyRecord], Change]) -> KeyRecord:
        """Change a key; where that depends on how it is, by asking once nobody else changes it.

        Raises:
            NotFoundError: There is no such key.
            InvalidRequestError: It may not be so, and why.
            StoreError: It cannot be written; nothing has changed.
        """

        def make() -> tuple[KeyRecord, KeyRecord]:
            record = self._get(key_id)
            wanted = wish(record) if callable(wish) else wish
            changed = change(self.ring, record, wanted, now_us=self._unix_us())
            return changed, changed

        return await self._change("changed", make)

    async def delete(self, key_id: str) -> KeyRecord:
        """Delete a key, and with it all of those below it. Idempotent.

        Raises:
            NotFoundError: There is no such key.
            StoreError: It cannot be written; nothing has changed.
        """

        def make() -> tuple[KeyRecord, KeyRecord]:
            deleted = delete(self._get(key_id), now_us=self._unix_us())
            return deleted, deleted

        return await self._change("deleted", make)

    async def _change(self, what: str, make: Callable[[], tuple[KeyRecord, Result]]) -> Result:
        # A client that leaves must not part the disk from the memory.
        changing = asyncio.ensure_future(self._change_alone(what, make))
        changing.add_done_callback(_look)
        return await asyncio.shield(changing)

    async def _change_alone(self, what: str, make: Callable[[], tuple[KeyRecord, Result]]) -> Result:
        async with self._lock:
            record, result = make()
            await self._save(record)
            self.ring.put(record)
        _log.info("the client key %s was %s", record.id, what)
        return result

    def _get(self, key_id: str) -> KeyRecord:
        record = self.ring.get(key_id)
        if record is None:
            raise NotFoundError(f"there is no key {key_id[:100]!r}")
        return record


def _look(changing: "asyncio.Future[Any]") -> None:
    """Somebody has looked at how it ended, even where whoever asked for it has left."""
    if not changing.cancelled():
        changing.exception()

"""Where answers are kept, as the cache sees it."""

from typing import Final, Protocol

TTL_MAX_S: Final = 86_400
"""Answers are kept for a day at most."""


class AnswerStore(Protocol):
    """Bytes that may be given again, each tenant's apart, within bounds of its own."""

    async def get(self, tenant: str, digest: str, unix_s: float) -> bytes | None:
        """What was put; None where there is nothing (any more), or nobody could say in time."""
        ...

    def put(self, tenant: str, digest: str, data: bytes, ttl_s: float, unix_s: float) -> None:
        """Keep it for `ttl_s`. Never waits; may be lost."""
        ...


class OwnFirst:
    """What never changes once it is put, kept in two places: here, and where others find it too.

    Args:
        own: Of this process, so that it has its own also while the other is away.
        shared: With other processes; None: there are none.
    """

    def __init__(self, own: AnswerStore, shared: AnswerStore | None) -> None:
        self._own = own
        self._shared = shared

    async def get(self, tenant: str, digest: str, unix_s: float) -> bytes | None:
        """What was put, here or elsewhere."""
        found = await self._own.get(tenant, digest, unix_s)
        if found is None and self._shared is not None:
            found = await self._shared.get(tenant, digest, unix_s)
        return found

    def put(self, tenant: str, digest: str, data: bytes, ttl_s: float, unix_s: float) -> None:
        """Keep it in both."""
        self._own.put(tenant, digest, data, ttl_s, unix_s)
        if self._shared is not None:
            self._shared.put(tenant, digest, data, ttl_s, unix_s)

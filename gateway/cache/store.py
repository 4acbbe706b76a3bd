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

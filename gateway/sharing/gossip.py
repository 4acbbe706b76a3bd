"""Tells other gateways which Endpoints are down here, and takes up what they tell."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from gateway.health import Health
from gateway.sharing.base import Hint, Hints

GOSSIP_EVERY_S: Final = 0.5
"""How often one says what is down, and hears what is."""


class Gossip:
    """What this process says and hears of Endpoints.

    Args:
        health: How they are doing here.
        hints: Where it is said.
        endpoint_ids: Those that several gateways can ask: none that runs on one machine.
        unix_time_s: The wall clock.
    """

    def __init__(
        self,
        health: Health,
        hints: Hints,
        endpoint_ids: Callable[[], Iterable[str]],
        unix_time_s: Callable[[], float],
    ) -> None:
        self._health = health
        self._hints = hints
        self._endpoint_ids = endpoint_ids
        self._unix_time_s = unix_time_s
        self._said: dict[str, float] = {}

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await asyncio.sleep(GOSSIP_EVERY_S)
            self.exchange(asyncio.get_running_loop().time())

    def exchange(self, now_s: float) -> None:
        """Say what is down, once for each time, and take up what others say."""
        unix_s = self._unix_time_s()
        ids = frozenset(self._endpoint_ids())
        for endpoint_id in ids:
            own = self._health.of(endpoint_id).observe(now_s)
            kind = own.standing
            if kind not in {"open", "parked"} or own.until_s <= now_s or self._said.get(endpoint_id) == own.until_s:
                continue
            self._said[endpoint_id] = own.until_s
            self._hints.tell(
                Hint(endpoint_id, "open" if kind == "open" else "parked", unix_s, unix_s + own.until_s - now_s)
            )
        self._health.hear(
            {
                hint.endpoint_id: (now_s - (unix_s - hint.since_unix_s), now_s + (hint.until_unix_s - unix_s))
                for hint in self._hints.heard(unix_s)
                if hint.endpoint_id in ids
            }
        )

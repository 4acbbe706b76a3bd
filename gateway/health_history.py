"""Health over restarts: minutes and changes go to the store as they come, and come back at the start."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.health import Health
from gateway.health.uptime import MINUTES_MAX
from gateway.observation import Standing
from gateway.state.errors import StoreError
from gateway.state.reader import Reader
from gateway.state.store import Store
from gateway.state.writer import EndpointEvent

KEEP_EVERY_S: Final = 10.0
"""How often minutes are handed to the store: what a crash may cost of them."""

_log = logging.getLogger("mixgate.health")


def recall(health: Health, path: Path, *, unix_s: float, now_s: float) -> None:
    """Give health what an earlier process kept of the last day. A store that cannot be read is none."""
    if not path.exists():
        return
    minute = int(unix_s // 60)
    try:
        with Reader(path) as reader:
            rows = reader.read_minutes(None, minute - MINUTES_MAX, minute + 1)
    except StoreError as error:
        _log.warning("uptime starts anew: %s", error)
        return
    health.restore(rows, now_unix_minute=minute, now_s=now_s)


def keep(health: Health, store: Store, unix_s: float) -> None:
    """Hand over what came since the last time."""
    rows = health.drain_minutes(int(unix_s // 60))
    if rows:
        store.write_minutes(rows)


async def keep_on(health: Health, store: Store, unix_time_s: Callable[[], float]) -> None:
    """Hand over what comes, until cancelled."""
    while True:
        await asyncio.sleep(KEEP_EVERY_S)
        keep(health, store, unix_time_s())


class Announcer:
    """Tells log and store of every change of a standing."""

    __slots__ = ("_unix_time_s", "store")

    def __init__(self, unix_time_s: Callable[[], float]) -> None:
        self._unix_time_s = unix_time_s
        self.store: Store | None = None
        """None until it is open."""

    def __call__(self, endpoint_id: str, standing: Standing, why: str, now_s: float) -> None:
        """A change: the word for it, and the cause."""
        del now_s  # the wall clock is what people read
        _log.log(logging.INFO if standing == "healthy" else logging.WARNING, "%s is %s: %s", endpoint_id, standing, why)
        if self.store is not None:
            self.store.write_event(EndpointEvent(self._unix_time_s(), endpoint_id, standing, why))

"""Looks now and then, and tells who wants to know. Off the way of requests: a thread reads, a task each sends."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.alerts.courier import Courier
from gateway.alerts.look import Lookout
from gateway.alerts.memory import FILE_NAME as MEMORY_NAME
from gateway.alerts.memory import Memory
from gateway.alerts.notice import Facts, Notice, notices_of
from gateway.config.alerts import AlertTarget
from gateway.config.catalogue import Catalogue
from gateway.state.connection import FILE_NAME
from gateway.state.errors import StoreError
from providers.base import Transport

EVERY_S: Final = 15.0
"""How often the store is looked through."""
_NAME_CHARS: Final = 16

_log = logging.getLogger("mixgate.alerts")


class Alerts:
    """One for the life of a gateway that has targets.

    Args:
        home: MIXGATE_HOME.
        catalogue: What is configured now.
        transport: For what is sent.
        unix_time_s: The wall clock.
        every_s: How often it looks; None: EVERY_S.
        wait: How tenacity waits between tries; for tests.
    """

    def __init__(
        self,
        home: Path,
        catalogue: Callable[[], Catalogue],
        transport: Transport,
        *,
        unix_time_s: Callable[[], float] = time.time,
        every_s: float | None = None,
        wait: Any = None,
    ) -> None:
        self._catalogue = catalogue
        self._transport = transport
        self._unix_time_s = unix_time_s
        self._every_s = every_s or EVERY_S
        self._wait = wait
        self._memory = Memory(home / MEMORY_NAME)
        self._lookout = Lookout(home / FILE_NAME, unix_time_s())
        self._couriers: dict[str, tuple[Courier, asyncio.Task[None]]] = {}
        self._failing = False

    async def run(self) -> None:
        """Look and tell, until cancelled."""
        try:
            while True:
                await asyncio.sleep(self._every_s)
                await self._step()
        finally:
            for _, task in self._couriers.values():
                task.cancel()

    async def _step(self) -> None:
        catalogue = self._catalogue()
        self._employ(catalogue.gateway.alerts)
        if not self._couriers:
            return
        now_s = self._unix_time_s()
        try:
            facts = await asyncio.to_thread(self._lookout.look, catalogue, now_s)
        except StoreError as error:
            if not self._failing:
                _log.warning("the store cannot be looked through for alerts: %s", error)
            self._failing = True
            return
        self._failing = False
        self._tell(facts, now_s)
        await asyncio.to_thread(self._memory.save, now_s)

    def _employ(self, targets: Sequence[AlertTarget]) -> None:
        """A courier for each target that is configured now, and for no other."""
        wanted = {name_of(target): target for target in targets}
        for name in self._couriers.keys() - wanted.keys():
            self._couriers.pop(name)[1].cancel()
        for name, target in wanted.items():
            known = self._couriers.get(name)
            if known is None:
                courier = Courier(target, self._transport, self._unix_time_s, wait=self._wait)
                self._couriers[name] = (courier, asyncio.create_task(courier.run()))
            else:
                known[0].target = target

    def _tell(self, facts: Facts, now_s: float) -> None:
        for name, (courier, _) in self._couriers.items():
            for notice in notices_of(facts, courier.target):
                if self._memory.is_new(f"{name}/{notice.event}/{notice.subject}", now_s):
                    courier.put(notice)


def name_of(target: AlertTarget) -> str:
    """What a target is remembered by: it says nothing of its URL."""
    return hashlib.sha256(target.url.reveal().encode()).hexdigest()[:_NAME_CHARS]


TEST_NOTICE: Final = Notice("test", "", "This is a test of Mixgate's alerts.", {})
"""What `mixgate alerts test` sends."""

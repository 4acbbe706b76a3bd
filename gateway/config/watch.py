"""Live reload: looks every second whether the configuration changed, and hands on the new Catalogue or what is wrong.

Polling, not inotify: it works the same on every system and mount, follows a symlink that is swapped, and costs one stat
per file. What is running stays in place until a whole, sound Catalogue is there to replace it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Never, TypeAlias

from gateway.config.catalogue import Catalogue
from gateway.config.rows import retire_ended
from gateway.errors import ConfigError

INTERVAL_S = 1.0
SETTLE_S = 0.1
SETTLE_LOOKS_MAX = 50

Signature: TypeAlias = tuple[object, ...]


def utc_today() -> date:
    """Today's date in UTC."""
    return datetime.now(UTC).date()


class Watcher:
    """Watches the file of a Catalogue, the key files that it names, and the date, by which models end.

    Args:
        current: The Catalogue in use.
        load: Reads the file anew; raises ConfigError. Runs in a thread.
        on_change: Takes the Catalogue that replaces the current one. Called on the event loop.
        on_error: Takes what is wrong with the file, once per change; the current Catalogue stays.
        interval_s: Seconds between two looks.
        sleep: How to wait; for tests.
        today: What day it is; for tests.
    """

    def __init__(
        self,
        current: Catalogue,
        load: Callable[[], Catalogue],
        *,
        on_change: Callable[[Catalogue], None],
        on_error: Callable[[ConfigError], None],
        interval_s: float = INTERVAL_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        today: Callable[[], date] = utc_today,
    ) -> None:
        self._current = current
        self._load = load
        self._on_change = on_change
        self._on_error = on_error
        self._interval_s = interval_s
        self._sleep = sleep
        self._today = today
        self._refused = False
        self._day: date = today()
        self._seen = self._signature()

    async def run(self) -> Never:
        """Look for ever; cancel to stop."""
        while True:
            await self._sleep(self._interval_s)
            await self.look()

    async def look(self) -> None:
        """Compare with what was there last, and load the file if it changed and has come to rest."""
        self._end_models()
        if self._signature() == self._seen:
            return
        # An editor may be half way through writing or renaming: what is read must not move any more.
        for _ in range(SETTLE_LOOKS_MAX):
            before = self._signature()
            await self._sleep(SETTLE_S)
            if self._signature() == before:
                break
        else:
            return
        self._seen = before
        try:
            # In a thread, or a big file would hold up running answers.
            catalogue = await asyncio.to_thread(self._load)
        except ConfigError as error:
            self._refused = True
            self._on_error(error)
            return
        if catalogue != self._current or self._refused:
            rewatched = catalogue.watched != self._current.watched
            self._current, self._refused = catalogue, False
            if rewatched:
                self._seen = self._signature()
            self._on_change(catalogue)

    def _end_models(self) -> None:
        """A model's last day passes whatever the file is like then: gone, half written or refused."""
        today = self._today()
        if today == self._day:
            return
        self._day = today
        current = retire_ended(self._current, today)
        if current is not self._current:
            self._current = current
            self._on_change(current)

    def _signature(self) -> Signature:
        files = (self._current.path, *sorted({*self._current.watched}))
        return (self._today(), *((path, _stamp(path)) for path in files))


def _stamp(path: Path) -> Signature | None:
    """What changes when a file is written or replaced. None: it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_dev, status.st_ino)

"""`mixgate serve` with a clock in its event loop: how late a timer fires is appended to the file LAG_FILE names.

Each record is two doubles: when (CLOCK_MONOTONIC, in seconds, which other processes read too) and how late, in seconds.
"""

import asyncio
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import gateway.processes
from gateway.cli import main

LAG_FILE = "BENCH_LAG_FILE"
EVERY_S = 0.005
RECORD = struct.Struct("dd")


async def watch_loop(path: Path) -> None:
    """Sleep in short steps for ever and write down how much longer each took."""
    with path.open("ab", buffering=RECORD.size * 100) as file:
        while True:
            due_s = time.monotonic() + EVERY_S  # the loop's own clock may be a millisecond coarse
            await asyncio.sleep(EVERY_S)
            now_s = time.monotonic()
            file.write(RECORD.pack(now_s, max(0.0, now_s - due_s)))


_serve = gateway.processes._serve  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the one place inside its event loop


async def _watched_serve(*arguments: Any) -> int:
    watching = asyncio.create_task(watch_loop(Path(os.environ[LAG_FILE])))
    try:
        return await _serve(*arguments)
    finally:
        watching.cancel()


if __name__ == "__main__":
    gateway.processes._serve = _watched_serve  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - as above
    sys.exit(main())

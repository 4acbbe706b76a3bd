"""`mixgate serve` as a user starts it: a process of its own."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

START_S = 20.0
COMPILED = "MIXGATE_TEST_COMPILED"
"""Names the folder of compiled modules that a process runs, as `make run` would; without it, the sources."""
MIXGATE = Path(sys.executable).with_name("mixgate")


class Served:
    """A running process and what it has printed so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""
        self.errors = ""
        self.url = ""
        self._reading = [
            asyncio.create_task(self._read(process.stdout, "output")),
            asyncio.create_task(self._read(process.stderr, "errors")),
        ]

    async def _read(self, stream: asyncio.StreamReader | None, name: str) -> None:
        assert stream is not None
        while line := await stream.readline():
            setattr(self, name, getattr(self, name) + line.decode())

    async def until(self, pattern: str, name: str = "output", timeout_s: float = START_S) -> re.Match[str]:
        """Wait for something to be printed."""
        async with asyncio.timeout(timeout_s):
            while (found := re.search(pattern, getattr(self, name))) is None:
                if self.process.returncode is not None and all(task.done() for task in self._reading):
                    raise AssertionError(f"ended with {self.process.returncode}: {self.output}{self.errors}")
                await asyncio.sleep(0.02)
        return found

    async def exit_code(self, timeout_s: float = START_S) -> int:
        async with asyncio.timeout(timeout_s):
            code = await self.process.wait()
            await asyncio.gather(*self._reading)
        return code


@asynccontextmanager
async def served(
    config: Path, *flags: str, env: Mapping[str, str] | None = None, port: int = 0
) -> AsyncIterator[tuple[Served, httpx.AsyncClient]]:
    """A gateway process that listens while the block runs, and a client that talks to it."""
    async with started(config, "--port", str(port), *flags, env=env) as running:
        running.url = (await running.until(r"base URL\s+(http://\S+)/v1")).group(1)
        async with httpx.AsyncClient(base_url=running.url, timeout=30, trust_env=False) as client:
            yield running, client


@asynccontextmanager
async def started(config: Path, *flags: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Served]:
    """`mixgate serve` with these flags, whatever becomes of it; ended with the block."""
    process = await asyncio.create_subprocess_exec(
        *(str(MIXGATE), "serve", "--config", str(config), *flags),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get(COMPILED, ""),
            "MIXGATE_HOME": str(config.parent / "home"),
            **(env or {}),
        },
    )
    running = Served(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await running.exit_code()

"""What can be seen of a gateway of several processes from outside: which there are, and who holds which connection."""

import asyncio
import os
import re
import signal
import time
from pathlib import Path

from tests.fakes.process import Served

BACK_S = 30.0
_ESTABLISHED = "01"


def children(pid: int) -> dict[str, int]:
    """The processes of a gateway, by what they are: `owner`, `worker 1` ..."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if b"gateway.cli.process" in words:
                found[words[words.index(b"gateway.cli.process") + 1].decode()] = int(child)
    return found


def workers(running: Served) -> dict[str, int]:
    return {title: pid for title, pid in children(running.process.pid).items() if title != "owner"}


def client_ports(pid: int, port: int) -> set[int]:
    """Ports of the clients whose connections a process holds."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            name = str(descriptor.readlink())
        except OSError:
            continue
        if name.startswith("socket:["):
            inodes.add(name[8:-1])
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == _ESTABLISHED and words[9] in inodes and int(words[1].split(":")[1], 16) == port:
            found.add(int(words[2].split(":")[1], 16))
    return found


def end(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)


async def until_back(running: Served, count: int) -> list[float]:
    """Wait until so many processes came back, and say how long each was away."""
    end_s = time.monotonic() + BACK_S
    while len(found := re.findall(r"is back after ([0-9.]+) s", running.errors)) < count:
        assert time.monotonic() < end_s, running.errors[-4000:]
        await asyncio.sleep(0.02)
    return [float(one) for one in found]


async def until(true, every_s: float = 0.01) -> None:
    """Wait for something that is bound to happen."""
    async with asyncio.timeout(BACK_S):
        while not true():  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(every_s)

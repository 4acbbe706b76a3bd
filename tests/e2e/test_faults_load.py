"""More requests than can be answered, and one caller who asks too much."""

import asyncio
import os
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.duo import Place, config_of
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.listener import FULL, listen
from tests.fakes.scripted import scripted, tells

SLOTS = 4
ANSWER_S = 0.1
FOR_S = 30.0 if FULL else 1.0
OVER = 5
AGAIN_S = 0.1
"""How long a refused client of the load generator waits: so that it offers five times of what can be answered."""
MEMORY_MAX_BYTES = 64 * 1024 * 1024


@dataclass
class Load:
    """What closed loops of clients saw."""

    answered_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)
    retry_after: set[str] = field(default_factory=set)

    def p(self, share):
        return sorted(self.answered_s)[min(len(self.answered_s) - 1, int(share * len(self.answered_s)))]


async def keep_asking(client, load, until_s, key):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    while time.monotonic() < until_s:
        began_s = time.monotonic()
        response = await client.post("/v1/chat/completions", json=chat(), headers=headers)
        took_s = time.monotonic() - began_s
        if response.status_code == 200:
            load.answered_s.append(took_s)
        else:
            load.refused_s.append(took_s)
            load.statuses.add(response.status_code)
            load.retry_after.add(response.headers["retry-after"])
            await asyncio.sleep(AGAIN_S)


async def ask_with(client, clients, *, key=None, for_s=FOR_S):
    load = Load()
    until_s = time.monotonic() + for_s
    await asyncio.gather(*(keep_asking(client, load, until_s, key) for _ in range(clients)))
    return load


def memory_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def small_gateway(folder, settings, env=None):
    async with scripted(tells(late_s=ANSWER_S)) as provider:
        config = config_of(Place(provider.base_url), gateway=f"gateway: {{{settings}}}")
        async with running_gateway(config, folder, env or {}) as running:
            yield running, provider


async def test_more_than_fits_is_refused_at_once_and_the_rest_answered_as_ever(tmp_path):
    async with small_gateway(tmp_path, f"in_flight_max: {SLOTS}") as (running, provider):
        peak = await ask_with(running.client, SLOTS)
        assert peak.refused_s == []
        before_bytes = memory_bytes()
        over = await ask_with(running.client, SLOTS * OVER)
        assert over.statuses == {503}
        assert all(1 <= int(seconds) <= 60 for seconds in over.retry_after)
        assert len(over.answered_s) >= (0.95 if FULL else 0.6) * len(peak.answered_s)
        assert over.p(0.99) <= (2 if FULL else 6) * peak.p(0.99)
        assert sorted(over.refused_s)[len(over.refused_s) // 2] <= (0.02 if FULL else 0.2)
        assert memory_bytes() - before_bytes < MEMORY_MAX_BYTES
        assert len(provider.calls) == len(peak.answered_s) + len(over.answered_s)
        assert (await listen(running.client, chat(stream=True))).complete


async def test_one_noisy_key_takes_nothing_from_the_others(tmp_path):
    keys = {"NOISY": "client-key-of-somebody-noisy", "QUIET": "client-key-of-somebody-quiet"}
    settings = "client_keys: [env:NOISY, env:QUIET], in_flight_max: 100, in_flight_per_key_max: 4"
    async with small_gateway(tmp_path, settings, keys) as (running, _):
        alone = await ask_with(running.client, 3, key=keys["QUIET"])
        noisy, beside = await asyncio.gather(
            ask_with(running.client, 30, key=keys["NOISY"]), ask_with(running.client, 3, key=keys["QUIET"])
        )
        assert alone.refused_s == beside.refused_s == []
        assert noisy.statuses == {429}
        assert all(1 <= int(seconds) <= 60 for seconds in noisy.retry_after)
        assert beside.p(0.99) <= (1.1 if FULL else 3.0) * alone.p(0.99) + 0.1
        assert len(beside.answered_s) >= (0.9 if FULL else 0.6) * len(alone.answered_s)

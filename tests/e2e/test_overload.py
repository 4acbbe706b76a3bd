"""Five times of what can be answered, and one key that asks ten times of what it may.

The gateway is a process of its own, so that neither the load nor the provider takes part in its figures. All bounds
are ratios within one run; a machine that does other things at the same time gets wider ones.
"""

import os
import sys
from asyncio import gather
from contextlib import asynccontextmanager
from pathlib import Path

from tests.fakes.duo import Place, config_of
from tests.fakes.listener import FULL
from tests.fakes.process import served
from tests.fakes.raw_clients import keep_asking, offer, quantile
from tests.fakes.scripted import scripted, tells

SLOTS = 8
ANSWER_S = 0.1
PEAK_FOR_S = 20.0 if FULL else 2.0
OVER_FOR_S = 600.0 if FULL else 4.0
OVER = 5
NOISE = 10
MEMORY_MAX_BYTES = 64 * 1024 * 1024
KEYS = {"NOISY": "client-key-of-somebody-noisy", "QUIET": "client-key-of-somebody-quiet"}


def memory_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def small_gateway(folder, settings, env=None):
    config = folder / "providers.yaml"
    async with scripted(tells(late_s=ANSWER_S)) as provider:
        config.write_text(config_of(Place(provider.base_url), gateway=f"gateway: {{{settings}}}"))
        async with served(config, env=env) as (running, _):
            yield running, provider


def report(record_property, name, figures):
    """Leave the figures where the tests' report has them, and in what pytest shows with `-s`."""
    record_property(name, figures)
    sys.stdout.write(f"\n{name}: {figures}\n")


async def test_overload_is_refused_at_once_and_what_is_let_in_is_answered_as_ever(tmp_path, record_property):
    async with small_gateway(tmp_path, f"in_flight_max: {SLOTS}") as (running, provider):
        await keep_asking(running.url, SLOTS, 0.5)  # what is made with the first requests is no growth
        peak = await keep_asking(running.url, SLOTS, PEAK_FOR_S)
        assert peak.refused_s == []
        peak_per_s = len(peak.answered_s) / PEAK_FOR_S
        before_bytes = memory_bytes(running.process.pid)
        over = await offer(running.url, OVER * peak_per_s, OVER_FOR_S)
        grown_bytes = memory_bytes(running.process.pid) - before_bytes
        goodput = len(over.answered_s) / OVER_FOR_S / peak_per_s
        slower = quantile(over.answered_s, 0.99) / quantile(peak.answered_s, 0.99)
        refused_s = [quantile(over.refused_s, share) for share in (0.5, 0.99)]
        report(
            record_property,
            "overload",
            f"peak {peak_per_s:.1f}/s; goodput x{goodput:.3f}; p99 of admitted x{slower:.2f}; refused in "
            f"{refused_s[0] * 1000:.2f} ms, p99 {refused_s[1] * 1000:.2f} ms; RSS +{grown_bytes} bytes",
        )
        assert set(over.statuses) == {200, 503}
        assert over.broken == 0
        assert over.retry_after_s == {1}
        assert goodput >= (0.95 if FULL else 0.7)
        assert slower <= (2.0 if FULL else 4.0)
        assert refused_s[0] <= (0.02 if FULL else 0.05)
        assert refused_s[1] <= (0.02 if FULL else 0.5)
        assert grown_bytes < MEMORY_MAX_BYTES
        assert len(provider.calls) >= len(peak.answered_s) + len(over.answered_s)
        after = await keep_asking(running.url, SLOTS, 1.0)
        assert after.refused_s == []


async def test_a_noisy_key_changes_nothing_for_another(tmp_path, record_property):
    per_key = 4
    settings = f"client_keys: [env:NOISY, env:QUIET], in_flight_max: 100, in_flight_per_key_max: {per_key}"
    async with small_gateway(tmp_path, settings, KEYS) as (running, _):
        await keep_asking(running.url, 3, 0.5, KEYS["QUIET"])
        alone = await keep_asking(running.url, 3, PEAK_FOR_S, KEYS["QUIET"])
        noisy_per_s = NOISE * per_key / ANSWER_S
        noise = offer(running.url, noisy_per_s, PEAK_FOR_S, KEYS["NOISY"])
        beside, noisy = await gather(keep_asking(running.url, 3, PEAK_FOR_S, KEYS["QUIET"]), noise)
        slower = quantile(beside.answered_s, 0.99) / quantile(alone.answered_s, 0.99)
        counts = f"{len(beside.answered_s)} answers for {len(alone.answered_s)}; the noisy one: {noisy.statuses}"
        report(record_property, "noisy key", f"p99 of the others x{slower:.3f}; {counts}")
        assert alone.refused_s == beside.refused_s == []
        assert set(noisy.statuses) == {200, 429}
        assert noisy.statuses[429] >= 5 * noisy.statuses[200]
        assert noisy.retry_after_s == {1}
        assert noisy.broken == 0
        assert slower <= (1.1 if FULL else 3.0)
        assert len(beside.answered_s) >= (0.9 if FULL else 0.6) * len(alone.answered_s)

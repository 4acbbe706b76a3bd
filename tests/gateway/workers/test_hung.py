"""A worker, or the owner, that lives and does nothing any more is killed and started again. Real processes."""

import asyncio
import logging
import os
import re
import signal
import time
from contextlib import asynccontextmanager, suppress

import httpx
import pytest

from gateway.state.connection import FILE_NAME
from gateway.workers import child
from gateway.workers.parent import Parent, listen
from tests.fakes.duo import Place, config_of
from tests.fakes.money import ASK
from tests.fakes.scripted import scripted, tells
from tests.fakes.workers import client_ports
from tests.gateway.ledger.ledger_kit import rows_of
from tests.gateway.workers.workers_kit import until

HUNG_S = 4.0
"""In place of half a minute."""
START_HUNG_S = 15.0
"""In place of five."""
PRICE = "{input: 1, output: 2}"


@asynccontextmanager
async def workers(folder, base_url, monkeypatch):
    """Two workers and their owner, whose parent is this process; gives it and where they answer."""
    monkeypatch.setenv("MIXGATE_HOME", str(folder / "home"))
    monkeypatch.setattr(child, "HUNG_S", HUNG_S)
    monkeypatch.setattr(child, "START_HUNG_S", START_HUNG_S)
    (folder / "home" / "run").mkdir(parents=True, mode=0o700)
    config = folder / "providers.yaml"
    config.write_text(config_of(Place(base_url, price=PRICE), route="policy: ordered, rescue: false"))
    parent = Parent(folder / "home", config, {}, listen("127.0.0.1", 0, 2), 5.0)
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(parent.run(lambda _, port: started.set_result(port)))
    try:
        async with asyncio.timeout(60):
            port = await started
        yield parent, port
    finally:
        parent._signals.put_nowait(signal.SIGINT)
        assert await running == 0


async def test_a_worker_that_hangs_is_killed_and_what_it_had_begun_is_in_the_ledger(tmp_path, monkeypatch, caplog):
    async with scripted(tells(stop_after=5, how="stall")) as provider:
        async with workers(tmp_path, provider.base_url, monkeypatch) as (parent, port):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
                asking = asyncio.create_task(client.post("/v1/chat/completions", json=ASK))
                await until(lambda: provider.calls)
                (hung,) = (one for one in parent.workers if client_ports(one.pid, port))
                pid = hung.pid
                os.kill(pid, signal.SIGSTOP)
                stopped_s = time.monotonic()
                await until(lambda: hung.starts == 2 and hung.ready)
                assert time.monotonic() - stopped_s >= HUNG_S - 2 * child.LOOK_EVERY_S
                assert hung.pid != pid
                assert [one.starts for one in parent.workers if one is not hung] == [1]
                with suppress(httpx.HTTPError):
                    await asking
                assert (await client.get("/readyz")).status_code == 200
    (row,) = rows_of(tmp_path / "home" / FILE_NAME).values()
    assert (row.outcome, row.usage_source) == ("failed", "recovered")
    words = [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]
    (said,) = [one for one in words if "it hangs, and is killed" in one]
    assert re.fullmatch(rf"{hung.title} has not said for \d+ s that it is alive: it hangs, and is killed", said)
    assert any(f"{hung.title} is gone: it hung. It is started again" in one for one in words)


@pytest.mark.full
async def test_an_owner_that_hangs_is_killed_too_and_a_parent_that_stood_still_kills_nobody(tmp_path, monkeypatch):
    async with scripted(tells()) as provider:
        async with workers(tmp_path, provider.base_url, monkeypatch) as (parent, port):
            time.sleep(HUNG_S + 1)  # noqa: ASYNC251 (that is the point)
            await asyncio.sleep(HUNG_S / 2)
            assert [one.starts for one in (parent.owner, *parent.workers)] == [1, 1, 1]
            os.kill(parent.owner.pid, signal.SIGSTOP)
            await until(lambda: parent.owner.starts == 2 and parent.owner.ready)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
                assert (await client.post("/v1/chat/completions", json=ASK)).status_code == 200
            assert [one.starts for one in parent.workers] == [1, 1]


@pytest.mark.full
async def test_a_worker_that_hangs_while_it_starts_is_killed_a_while_later(tmp_path, monkeypatch):
    async with scripted(tells()) as provider:
        async with workers(tmp_path, provider.base_url, monkeypatch) as (parent, _):
            one = parent.workers[0]
            os.kill(one.pid, signal.SIGKILL)
            await until(lambda: one.starts == 2 and one.pid is not None)
            os.kill(one.pid, signal.SIGSTOP)
            assert not one.ready
            stopped_s = time.monotonic()
            async with asyncio.timeout(60):
                while not (one.starts == 3 and one.ready):  # noqa: ASYNC110 (nobody tells)
                    await asyncio.sleep(0.05)
            assert time.monotonic() - stopped_s >= START_HUNG_S - 2 * child.LOOK_EVERY_S

"""Who signs out while those who keep sessions cannot be told is signed out all the same, as soon as they can."""

import asyncio
import time

import pytest

from gateway.config.catalogue import GatewaySettings
from gateway.config.secrets import Secret
from gateway.config.stores import RedisSettings
from gateway.dashboard.sessions import Moment, SharedSessions
from tests.fakes.fault_proxy import NO_FAULTS, Faults, fault_proxy
from tests.gateway.sharing.redis_kit import record, redis_store, running
from tests.gateway.sharing.test_contract import until_kept, until_signed_in
from tests.gateway.workers.workers_kit import owner_of, until, worker_of

RECORDS = (record("k"),)
WAIT_S = 20.0


def moment():
    return Moment(time.monotonic(), time.time())


async def until_gone(sessions, name):
    async with asyncio.timeout(WAIT_S):
        while await sessions.find(name, moment()) is not None:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.02)


async def test_a_sign_out_that_redis_does_not_hear_of_is_said_again_when_it_does(shared_server, prefix):
    await shared_server.settle(prefix)
    async with fault_proxy(shared_server.port) as proxy:
        far = redis_store(f"redis://127.0.0.1:{proxy.port}/0", RECORDS, prefix=prefix, name="far")
        near = redis_store(shared_server.url, RECORDS, prefix=prefix, name="near")
        async with running(far, near):
            for store in (far, near):
                await until_kept(store, time.time())
            here, there = (SharedSessions(one.answers, b"seal") for one in (far, near))
            name, _ = await here.begin("admin", b"digest", moment())
            await until_signed_in(here, name, moment())
            proxy.up = proxy.down = Faults(black_hole=True)
            await here.end(name)
            assert await here.find(name, moment()) is None, "whoever signed out here is signed out here at once"
            await asyncio.sleep(0.1)
            await until_signed_in(there, name, moment())  # nobody could be told
            proxy.up = proxy.down = NO_FAULTS
            await until_gone(there, name)
            assert await here.find(name, moment()) is None


@pytest.mark.full
async def test_a_sign_out_while_the_owner_is_away_is_said_to_the_next_one(tmp_path, shared_server):
    await shared_server.settle("signed-out:")
    settings = GatewaySettings(redis=RedisSettings(Secret(shared_server.url, "env:REDIS"), "a", "signed-out:"))
    async with owner_of(tmp_path, settings=settings) as owner, worker_of(tmp_path, "w1") as worker:
        await until(lambda: owner.shared.status().whole)
        await until_kept(worker, time.time())
        sessions = SharedSessions(worker.answers, b"seal")
        name, _ = await sessions.begin("admin", b"digest", moment())
        await until_signed_in(sessions, name, moment())
        await owner.aclose()
        await until(lambda: not worker.status().up)
        await sessions.end(name)
        async with owner_of(tmp_path, settings=settings) as second, worker_of(tmp_path, "w2") as other:
            await until(lambda: second.shared.status().whole and worker.status().up)
            await until_kept(other, time.time())
            assert await sessions.find(name, moment()) is None
            await until_gone(SharedSessions(other.answers, b"seal"), name)

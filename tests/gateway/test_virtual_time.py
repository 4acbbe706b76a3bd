"""Virtual time: in order, at once, and never hanging."""

import asyncio
import threading
import time

import pytest

from gateway.virtual_time import START_S, START_UNIX_S, NeverEndsError, VirtualClockLoop, run


def test_hours_pass_at_once_and_in_order():
    async def work():
        seen = []

        async def sleeper(name, delay_s):
            await asyncio.sleep(delay_s)
            seen.append((name, round(asyncio.get_running_loop().time() - START_S, 6)))

        await asyncio.gather(sleeper("hour", 3600), sleeper("minute", 60), sleeper("moment", 0.001))
        return seen

    started_s = time.monotonic()
    assert run(work()) == [("moment", 0.001), ("minute", 60.0), ("hour", 3600.0)]
    assert time.monotonic() - started_s < 30


def test_the_wall_clock_goes_with_it():
    async def work():
        await asyncio.sleep(90)
        return asyncio.get_running_loop().unix_time_s()

    assert run(work()) == pytest.approx(START_UNIX_S + 90)


def test_timeouts_come_when_they_are_due():
    async def work():
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(15):
                await asyncio.sleep(120)
        except TimeoutError:
            return loop.time() - START_S
        return None

    assert run(work()) == pytest.approx(15)


def test_a_wait_that_can_never_end_names_who_waits():
    async def forever():
        await asyncio.Event().wait()

    with pytest.raises(NeverEndsError, match=r"no timer is set.*forever"):
        run(forever())


def test_a_clock_that_only_ticks_comes_to_an_end():
    async def ticking():
        while True:  # noqa: ASYNC110  # the ticking is the point
            await asyncio.sleep(1)

    with pytest.raises(NeverEndsError, match="ran out"):
        run(ticking(), limit_s=100)


def test_the_clock_stands_still_while_a_thread_works():
    async def work():
        loop = asyncio.get_running_loop()
        gate = threading.Event()
        other = asyncio.create_task(asyncio.sleep(5))
        threading.Timer(0.05, gate.set).start()
        await asyncio.to_thread(gate.wait)
        now_s = loop.time()
        await other
        return now_s, loop.time()

    assert run(work()) == (START_S, START_S + 5)


def test_what_a_task_raises_comes_out():
    async def work():
        await asyncio.sleep(1)
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        run(work())


def test_a_loop_can_be_used_by_itself():
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(asyncio.sleep(10))
        assert runner.get_loop().time() == START_S + 10

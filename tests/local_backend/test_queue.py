"""Slots, the queue and its bounds, deadlines, and leaving early: in the queue, while prompted, while answered."""

import asyncio
import time

import pytest

QUEUE = 16


async def opened(demo, count, endless, **members):
    """Requests that are under way and stay so: `count` slots or places in the queue taken."""
    return [
        asyncio.get_running_loop().create_task(demo.open(f"Fill {number}", **endless, **members))
        for number in range(count)
    ]


async def drop(tasks):
    for task in tasks:
        task.cancel()
    for response in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(response, BaseException):
            response.close()


async def test_the_seventeenth_waiter_is_refused_at_once_with_a_time_to_come_back(run, endless):
    async with run(slots=1) as demo:
        await demo.backend.wait_ready("demo")
        tasks = await opened(demo, 1 + QUEUE, endless)
        await demo.settled(lambda stats: (stats.running, stats.waiting) == (1, QUEUE))
        took_s = []
        for _ in range(5):
            started = time.perf_counter()
            answer = await demo.ask("Hello")
            took_s.append(time.perf_counter() - started)
            assert (answer.status, answer.error["code"]) == (503, "local_queue_full")
            assert int(answer.headers["retry-after"]) >= 1
        assert min(took_s) < 0.1
        await drop(tasks)
        assert (await demo.ask("Hello")).status == 200


async def test_a_deadline_in_the_queue_is_kept(run, endless):
    async with run(slots=1) as demo:
        await demo.backend.wait_ready("demo")
        tasks = await opened(demo, 1, endless)
        await demo.settled(lambda stats: stats.running == 1)
        started = time.perf_counter()
        answer = await demo.ask("Hello", deadline_s=0.3)
        took_s = time.perf_counter() - started
        # Refused at once when the estimate already says that it is hopeless, else when the deadline comes.
        assert answer.status == 503
        assert answer.error["code"] in ("local_queue_deadline", "local_queue_full")
        assert took_s < 1.0
        assert answer.headers["retry-after"]
        assert (await demo.backend.stats("demo")).waiting == 0
        await drop(tasks)


async def test_a_deadline_that_is_over_while_the_request_runs_does_not_cut_it(demo):
    assert (await demo.ask("Tell me a story", temperature=0, deadline_s=0.05)).reasons() == {0: "stop"}


async def test_a_client_that_leaves_the_queue_never_reaches_the_engine(run, endless):
    async with run(slots=1) as demo:
        await demo.backend.wait_ready("demo")
        tasks = await opened(demo, 1, endless)
        await demo.settled(lambda stats: stats.running == 1)
        waiting = await opened(demo, 5, endless)
        await demo.settled(lambda stats: stats.waiting == 5)
        await drop(waiting)
        stats = await demo.settled(lambda stats: stats.waiting == 0)
        assert (stats.running, stats.admitted) == (1, 1)
        await drop(tasks)
        stats = await demo.settled(lambda stats: stats.running == 0)
        assert (await demo.ask("Hello")).status == 200
        assert (await demo.backend.stats("demo")).admitted == 2


@pytest.mark.parametrize("whole", [False, True])
async def test_leaving_while_answered_frees_the_slot_and_its_memory(demo, endless, whole):
    tasks = await opened(demo, 3, endless, stream=not whole)
    await demo.settled(lambda stats: stats.running == 3 and stats.generated_tokens > 20)
    started = time.perf_counter()
    await drop(tasks)
    stats = await demo.settled(lambda stats: stats.running == 0)
    assert time.perf_counter() - started < 0.5
    assert (stats.kv_running_tokens, stats.kv_kept_tokens) == (0, 0)


async def test_leaving_while_the_prompt_is_read_frees_the_slot(run):
    async with run(context_tokens=16384, slots=2) as demo:
        await demo.backend.wait_ready("demo")
        task = asyncio.get_running_loop().create_task(demo.open("word " * 7000, max_tokens=5))
        await demo.settled(lambda stats: stats.running == 1)
        await drop([task])
        stats = await demo.settled(lambda stats: stats.running == 0)
        assert stats.generated_tokens == 0
        assert stats.kv_kept_tokens == 0


async def test_closing_a_response_twice_is_harmless_and_reading_it_ends(demo, endless):
    response = await demo.open("Hi", **endless)
    assert await response.read()
    response.close()
    response.close()
    assert await response.read() == b""


async def test_everyone_waiting_is_served_in_the_end(run):
    async with run(slots=2) as demo:
        await demo.backend.wait_ready("demo")
        answers = await asyncio.gather(*(demo.ask("Tell me a joke", temperature=0) for _ in range(2 + QUEUE)))
        assert {answer.status for answer in answers} == {200}
        assert len({answer.text() for answer in answers}) == 1


async def test_a_hopeless_wait_is_refused_before_the_deadline(run, endless):
    async with run(slots=1, context_tokens=8192) as demo:
        await demo.backend.wait_ready("demo")
        for _ in range(3):
            await demo.ask("Tell me a story", temperature=0)
        tasks = await opened(demo, 8, endless)
        await demo.settled(lambda stats: stats.waiting == 7 and stats.generated_tokens > 300)
        answer = await demo.ask("Hello", deadline_s=0.001)
        assert answer.status == 503
        await drop(tasks)


async def test_a_full_queue_makes_room_for_who_has_less_in_it_and_who_has_most_is_refused(run, endless):
    async with run(slots=1) as demo:
        await demo.backend.wait_ready("demo")
        noisy = await opened(demo, 1 + QUEUE, endless, caller="noisy")
        await demo.settled(lambda stats: (stats.running, stats.waiting) == (1, QUEUE))
        more = await demo.ask("Me again", caller="noisy")
        assert (more.status, more.error["code"]) == (503, "local_queue_full")
        assert 1 <= int(more.headers["retry-after"]) <= 60
        quiet = await opened(demo, 2, endless, caller="quiet")
        async with asyncio.timeout(20):
            outdone = [await task for task in noisy[-2:]]  # the newest of whoever has most
        for answer in outdone:
            assert (answer.status, int(answer.headers["retry-after"]) >= 1) == (503, True)
        noisy = noisy[:-2]
        assert (await demo.settled(lambda stats: stats.waiting == QUEUE)).running == 1
        assert not any(task.done() for task in noisy[1:])
        await drop([*noisy, *quiet])
        await demo.settled(lambda stats: (stats.running, stats.waiting) == (0, 0))


async def test_callers_take_turns_for_the_slot(run, endless):
    async with run(slots=1) as demo:
        await demo.backend.wait_ready("demo")
        first = await opened(demo, 1, endless)
        await demo.settled(lambda stats: stats.running == 1)
        began = []

        async def ask(caller):
            response = await demo.open("Tell me a joke", temperature=0, max_tokens=30, caller=caller)
            began.append(caller)
            while await response.read():
                pass

        async with asyncio.TaskGroup() as group:
            for caller in ["noisy"] * 12 + ["quiet"] * 4:
                group.create_task(ask(caller))
            await demo.settled(lambda stats: stats.waiting == 16)
            await drop(first)
        last_quiet = len(began) - began[::-1].index("quiet")
        assert began.count("quiet") == 4
        assert last_quiet <= 10  # of 16: not behind the twelve that came before


async def test_a_wait_is_estimated_by_callers(run, endless):
    """What somebody else has piled up is no reason to refuse who has a deadline and nothing waiting."""
    async with run(slots=1, context_tokens=8192) as demo:
        await demo.backend.wait_ready("demo")
        for _ in range(3):
            await demo.ask("Tell me a story", temperature=0)
        noisy = await opened(demo, 1 + QUEUE, endless, caller="noisy")
        await demo.settled(lambda stats: stats.waiting == QUEUE and stats.generated_tokens > 300)
        quiet = asyncio.get_running_loop().create_task(demo.open("Hello", caller="quiet", max_tokens=20, deadline_s=60))
        await demo.settled(lambda stats: stats.waiting == QUEUE)
        await drop(noisy[:1])
        response = await asyncio.wait_for(quiet, 60)
        assert response.status == 200
        response.close()
        await drop(noisy[1:])


async def test_its_state_says_how_full_it_is(run, endless):
    async with run(slots=2) as demo:
        (before,) = demo.backend.models()
        assert before.start_s > 0
        await demo.backend.wait_ready("demo")
        (idle,) = demo.backend.models()
        assert (idle.running, idle.waiting, idle.slots, idle.queue, idle.start_s) == (0, 0, 2, QUEUE, 0.0)
        tasks = await opened(demo, 5, endless)
        await demo.settled(lambda stats: (stats.running, stats.waiting) == (2, 3))
        (busy,) = demo.backend.models()
        assert (busy.running, busy.waiting) == (2, 3)
        await drop(tasks)
        await demo.settled(lambda stats: stats.running == 0)
        (idle,) = demo.backend.models()
        assert (idle.running, idle.waiting) == (0, 0)

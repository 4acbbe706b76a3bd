"""A second Endpoint is asked when the first is slow to begin: the faster answers, the other is dropped."""

import asyncio
import itertools

from gateway.attempts import Limits
from tests.fakes.duo import Place, stage
from tests.fakes.gateway import chat
from tests.fakes.listener import FULL, listen
from tests.fakes.scripted import TEXT, tells

ASK = chat("Tell it.", stream=True)
ROUTE = "policy: ordered, hedge: true"
CHEAP = "{input: 0.1, output: 0.1}"
SLOW_S = 4.0 if FULL else 1.8
COUNT = 2000 if FULL else 120
EVERY = 40
"""One in so many is slow: fewer than what the budget lets be asked twice."""
AT_ONCE = 10


def slow_tail(every, slow):
    """Each so-manieth answer is slow to begin, once it is known how fast it usually is; kept in `slow`."""
    numbers = itertools.count(1)

    async def script(talk):
        number = next(numbers)
        late = number > 40 and number % every == 0
        if late:
            slow.append(talk.call)
        await tells(late_s=SLOW_S if late else 0.0)(talk)

    return script


async def ask_all(on, count):
    heard = []
    for start in range(0, count, AT_ONCE):
        heard += await asyncio.gather(*(listen(on.running.client, ASK) for _ in range(min(AT_ONCE, count - start))))
    assert all(told.complete and told.text == TEXT for told in heard)
    return [told.times_s[0] for told in heard]


async def test_a_slow_tail_is_cut_off_for_a_twentieth_of_attempts_at_most(tmp_path):
    places = {number: Place("", price=CHEAP) for number in range(2)}
    slow = []
    async with stage(tmp_path, slow_tail(EVERY, slow), tells(), places=places, route=ROUTE, limits=Limits()) as on:
        waits_s = await ask_all(on, COUNT)
        await asyncio.sleep(0.5)
        assert len(slow) >= 2
        assert on.tries[1] <= 0.05 * COUNT + 1
        assert on.tries[1] >= 0.5 * len(slow)
        dropped = [call for call in slow if call.left_s is not None]
        assert len(dropped) == on.tries[1]
        for call, answering in zip(dropped, on.providers[1].calls, strict=True):
            assert answering.at_s - call.at_s >= 0.95
            assert call.left_s - answering.at_s <= (0.25 if FULL else 2.0)
        # Whoever was dropped had been sent the prompt, which it bills.
        assert all(provider.billed_pusd > 0 for provider in on.providers)
        late = sum(wait_s >= SLOW_S for wait_s in waits_s)
        assert late <= len(slow) - on.tries[1]
        if FULL:
            assert sorted(waits_s)[int(0.99 * len(waits_s))] <= SLOW_S / 2


async def test_nobody_is_asked_twice_where_that_was_not_wanted(tmp_path):
    slow = []
    async with stage(tmp_path, slow_tail(44, slow), tells(), limits=Limits()) as on:
        await ask_all(on, 50)
        assert len(slow) == 1
        assert on.tries[1] == 0

"""One answer on its way to several: who hears what, and when it ends."""

import asyncio
from collections.abc import Sequence

import pytest

from gateway.cache.flight import Flight, LeftError
from providers.errors import ServerError
from providers.messages import Event, ExtrasDelta, TextDelta, ToolCallDelta


class Told:
    """An answer of so many words, each when it is let go."""

    def __init__(self, words: Sequence[str | Exception]):
        self.complete = False
        self.closed = 0
        self.asked = 0
        self._words = list(words)
        self._steps: asyncio.Queue[None] = asyncio.Queue()

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self._steps.put_nowait(None)

    async def next(self) -> Sequence[Event]:
        self.asked += 1
        await self._steps.get()
        word = self._words.pop(0)
        if isinstance(word, Exception):
            raise word
        self.complete = not self._words
        return [TextDelta(word)]

    def close(self) -> None:
        self.closed += 1


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def begun(words: Sequence[str | Exception], **settings: int) -> tuple[Flight[Told], Told, list[Flight[Told]]]:
    ended: list[Flight[Told]] = []
    flight: Flight[Told] = Flight("gen-1", **settings)
    told = Told(words)
    flight.begin(told, ended.append)
    return flight, told, ended


def text(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_everybody_hears_everything_and_late_ones_catch_up_at_once():
    flight, told, ended = begun(["a", "b", "c"])
    first = flight.listen()
    told.step(2)
    assert text(await first.next()) in {"a", "ab"}
    await settle()
    second = flight.listen()
    assert text(await second.next()) == "ab"
    assert not second.heard_all
    told.step()
    await settle()
    assert text(await second.next()) == "c"
    assert second.heard_all
    assert await second.next() == ()
    assert (told.closed, ended) == (1, [flight])
    assert flight.whole
    assert text(flight.events()) == "abc"


async def test_an_error_reaches_everybody_behind_what_came_before_it():
    flight, told, ended = begun(["a", ServerError("broken")])
    listeners = [flight.listen() for _ in range(3)]
    told.step(2)
    await settle()
    for listener in listeners:
        assert text(await listener.next()) == "a"
        with pytest.raises(ServerError):
            await listener.next()
    assert (told.closed, len(ended), flight.joinable) == (1, 1, False)


async def test_it_goes_on_for_those_who_stay_and_ends_with_the_last():
    flight, told, ended = begun(["a", "b"])
    first, second = flight.listen(), flight.listen()
    first.leave()
    first.leave()
    told.step()
    assert text(await second.next()) == "a"
    assert not ended
    second.leave()
    await settle()
    assert (told.closed, len(ended), flight.joinable) == (1, 1, False)


async def test_whoever_waits_for_its_beginning_hears_why_there_is_none():
    flight: Flight[Told] = Flight("gen-1")
    waiting = [asyncio.create_task(flight.listen().begun()) for _ in range(3)]
    await settle()
    waiting.pop().cancel()
    flight.fail(LeftError("gone"))
    for task in waiting:
        with pytest.raises(LeftError):
            await task


async def test_a_long_one_goes_as_fast_as_the_slowest_and_is_not_held():
    flight, told, _ = begun([letter * 100 for letter in "abcdef"], held_max_bytes=700)
    quick, slow = flight.listen(), flight.listen()
    told.step(6)
    heard = [await quick.next()]
    await settle()
    assert flight.joinable is False
    asked = told.asked
    await settle()
    assert told.asked == asked < 6, "it waits for the slow one"
    heard_slowly: list[Sequence[Event]] = []
    while not slow.heard_all:
        heard_slowly.append(await slow.next())
        if not quick.heard_all:
            heard.append(await quick.next())
    while not quick.heard_all:
        heard.append(await quick.next())
    whole = "".join(letter * 100 for letter in "abcdef")
    assert "".join(map(text, heard)) == "".join(map(text, heard_slowly)) == whole
    assert len(flight.events()) < 6


async def test_one_who_leaves_does_not_hold_up_the_others():
    flight, told, _ = begun(["a" * 1000, "b" * 1000], held_max_bytes=500)
    quick, slow = flight.listen(), flight.listen()
    told.step(2)
    await quick.next()
    await settle()
    slow.leave()
    assert text(await quick.next()) == "b" * 1000
    assert quick.heard_all


async def test_a_fault_of_ours_is_passed_on_too(caplog: pytest.LogCaptureFixture):
    flight, told, ended = begun([ZeroDivisionError("ours")])
    listener = flight.listen()
    told.step()
    with pytest.raises(ZeroDivisionError):
        await listener.next()
    assert ended
    assert "an answer that is shared failed" in caplog.text


async def test_calls_and_extras_have_a_size_too():
    class Large(Told):
        async def next(self) -> Sequence[Event]:
            self.complete = not self._words
            self._words = []
            return [ToolCallDelta(0, arguments="x" * 600), ExtrasDelta({"images": ["y" * 600]})]

    flight: Flight[Told] = Flight("gen-1", held_max_bytes=1000)
    listener = flight.listen()
    flight.begin(Large(["a", "b"]), lambda _: None)
    assert len(await listener.next()) == 2
    assert len(await listener.next()) == 2
    assert listener.heard_all
    assert not flight.joinable

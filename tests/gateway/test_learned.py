"""What gateways tell one another of warm caches."""

from types import SimpleNamespace

import pytest

from gateway.learned import Learned
from gateway.routing.ask import Ask
from gateway.sharing.memory import MemorySessions
from providers.base import Endpoint
from providers.messages import Usage

NOW = 1_795_348_800.0
PLACE = Endpoint(id="p/m", provider="p", model="m", upstream_model="m", base_url="http://127.0.0.1:1/v1")


def decided(conversation=b"talk", ids=("p/m", "q/m"), **ask):
    return SimpleNamespace(
        conversation=conversation,
        session="talk",
        unix_s=NOW,
        ask=Ask(prompt_tokens=3000, **ask),
        target=SimpleNamespace(ids=ids),
        plan=SimpleNamespace(route="m"),
    )


async def test_where_a_conversation_is_warm_is_known_to_the_others():
    here, there = Learned(), Learned()
    here.sessions = there.sessions = MemorySessions()
    assert await there.ask_others(decided()) is None
    here.learn(decided(), PLACE, Usage(input_tokens=2000, output_tokens=5), 1.0, route_known=True)
    ask = await there.ask_others(decided())
    assert ask is not None
    assert (ask.warm_endpoint, ask.warm_tokens) == ("p/m", 2000)
    assert await there.ask_others(decided(conversation=b"other")) is None
    assert await there.ask_others(decided(conversation=None)) is None
    assert await there.ask_others(decided(ids=("q/m",))) is None
    assert await there.ask_others(decided(warm_endpoint="q/m")) is None


@pytest.mark.parametrize("said", ["", "p/m", "p/m|", "p/m|x", "|5", "p/m|-1"])
async def test_what_makes_no_sense_is_not_heard(said):
    learned = Learned()
    learned.sessions = MemorySessions()
    learned.sessions.remember(b"talk".hex(), said, NOW)
    assert await learned.ask_others(decided()) is None

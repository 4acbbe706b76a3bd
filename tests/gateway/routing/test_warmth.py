"""Where a conversation's prompt is cached: what tells conversations apart, when one is worth it, and how long."""

import itertools
from typing import Any

import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import floats, integers, sampled_from

from gateway.routing.warmth import (
    CACHED_MIN_TOKENS,
    HASHED_MAX_CHARS,
    IDLE_MAX_S,
    Warmth,
    conversation_key,
    tokens_warmed,
)
from providers.base import Endpoint, Price
from providers.messages import ChatRequest, Message, Part


def ask(*texts: str, **members: Any) -> ChatRequest:
    roles = itertools.chain(["system"], itertools.cycle(["user", "assistant"]))
    return ChatRequest(
        messages=tuple(Message(role=role, content=text) for role, text in zip(roles, texts, strict=False)), **members
    )


def key(request: ChatRequest, **members: Any) -> bytes | None:
    chosen = {"caller": "k", "model": "m", "session": None, "prompt_tokens": CACHED_MIN_TOKENS, **members}
    return conversation_key(request, **chosen)


def test_the_next_turn_of_a_conversation_has_its_key_and_another_one_has_not():
    first = key(ask("be brief", "hello"))
    assert first is not None
    assert first == key(ask("be brief", "hello", "hi", "and now?"), prompt_tokens=5000)
    others = [
        key(ask("be long", "hello")),
        key(ask("be brief", "good day")),
        key(ask("be brief", "hello"), caller="other"),
        key(ask("be brief", "hello"), model="other"),
        key(ask("be briefh", "ello")),
        key(ask("be brief", "hello"), session="be brief"),
        key(ask("be brief", "hello", prompt_cache_key="be brief")),
        key(ask("be brief", "hello"), caller="km", model=""),
    ]
    assert len({first, *others}) == len(others) + 1


def test_a_session_counts_before_a_cache_key_and_that_before_the_words():
    assert key(ask("a", "b"), session="s") == key(ask("c", "d", prompt_cache_key="p"), session="s")
    assert key(ask("a", "b", prompt_cache_key="p")) == key(ask("c", "d", prompt_cache_key="p"))


def test_a_short_prompt_is_not_worth_a_key_unless_the_client_names_one():
    assert key(ask("a", "b"), prompt_tokens=CACHED_MIN_TOKENS - 1) is None
    assert key(ask("a", "b"), prompt_tokens=1, session="s") is not None
    assert key(ask("a", "b", prompt_cache_key="p"), prompt_tokens=1) is not None


def test_a_long_message_is_read_as_far_as_it_tells_conversations_apart():
    long = "x" * HASHED_MAX_CHARS
    assert key(ask(long, "u")) == key(ask(long + "y", "u"))
    assert key(ask(long[1:] + "y", "u")) != key(ask(long, "u"))


def test_parts_and_pictures_count():
    def shown(*parts: Part) -> bytes | None:
        return key(ChatRequest(messages=(Message(role="user", content=parts),)))

    text = Part(type="text", text="look")
    one, two = (Part(type="image_url", image_url={"url": url}) for url in ("http://a", "http://b"))
    assert len({shown(text), shown(text, one), shown(text, two), shown(one)}) == 4
    assert key(ChatRequest(messages=(Message(role="assistant"),))) is not None


@pytest.mark.parametrize(
    ("price", "cached", "session", "tokens"),
    [
        (None, 0, False, None),
        (None, None, False, None),
        (None, 100, False, 3000),
        (None, None, True, 3000),
        (Price(input_in_pusd=10), 100, False, 3000),
        (Price(input_in_pusd=10, cache_read_in_pusd=1), 100, False, 3000),
        (Price(input_in_pusd=10, cache_read_in_pusd=10), 100, True, None),
        (Price(input_in_pusd=0, cache_read_in_pusd=0), 100, True, 3000),
    ],
)
def test_a_return_is_worth_it_after_a_hit_or_in_a_session_if_it_may_save(
    price: Price | None, cached: int | None, session: bool, tokens: int | None
):
    endpoint = Endpoint(id="p/m", provider="p", model="m", upstream_model="m", base_url="", price=price)
    assert tokens_warmed(endpoint, prompt_tokens=3000, cached_tokens=cached, session=session) == tokens


def test_a_place_is_forgotten_ten_minutes_after_its_last_use():
    warmth = Warmth()
    warmth.remember(b"a", "p/m", 7, 100.0)
    assert warmth.find(b"a", 100.0 + IDLE_MAX_S) == ("p/m", 7)
    warmth.remember(b"a", "q/m", 9, 100.0 + IDLE_MAX_S)
    assert warmth.find(b"a", 101.0 + IDLE_MAX_S) == ("q/m", 9)
    assert warmth.find(b"a", 100.1 + 2 * IDLE_MAX_S) is None
    assert warmth.find(b"b", 0.0) is None
    assert len(warmth) == 0


MOST = 3


class Remembering(RuleBasedStateMachine):
    """Against a plain dict in order of use."""

    def __init__(self) -> None:
        super().__init__()
        self.warmth = Warmth(MOST)
        self.model: dict[bytes, tuple[str, int, float]] = {}
        self.now_s = 0.0

    @rule(key=sampled_from([b"a", b"b", b"c", b"d", b"e"]), endpoint=sampled_from(["p", "q"]), tokens=integers(0, 9))
    def remember(self, key: bytes, endpoint: str, tokens: int) -> None:
        self.warmth.remember(key, endpoint, tokens, self.now_s)
        self.model.pop(key, None)
        self.model[key] = (endpoint, tokens, self.now_s)
        while len(self.model) > MOST:
            self.model.pop(next(iter(self.model)))

    @rule(key=sampled_from([b"a", b"b", b"c", b"d", b"e"]))
    def find(self, key: bytes) -> None:
        place = self.model.get(key)
        if place is not None and self.now_s - place[2] > IDLE_MAX_S:
            del self.model[key]
            place = None
        assert self.warmth.find(key, self.now_s) == (place[:2] if place else None)

    @rule(seconds=floats(0, 400))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def is_bounded(self) -> None:
        assert len(self.warmth) <= MOST


TestRemembering = Remembering.TestCase

import pytest

from gateway.overflow import ESTIMATE_HIGH_TIMES, TOO_LONG, Counters, doubtful, shorten, too_long
from gateway.routing.ask import Ask
from gateway.routing.candidate import Plan
from gateway.routing.exclusion import Exclusion
from providers.messages import ChatRequest, Message
from providers.tokens import estimate_request
from tests.fakes.catalogues import decided, endpoint, table

HI = ChatRequest(messages=(Message(role="user", content="hi"),), model="m")


def long_request(words=4000, **members):
    return ChatRequest(messages=(Message(role="user", content="word " * words),), model="m", **members)


def excluded(*limits, wanted=5000, code=TOO_LONG):
    every = tuple(Exclusion(f"p{place}/x", code, "", wanted, limit) for place, limit in enumerate(limits))
    return Plan("m", "balanced", (), (), every)


class Tokenizer:
    async def count_off_loop(self, request):
        return len(request.messages) * 1000


async def test_tokenizers_are_loaded_once_and_only_for_models_that_have_one():
    loaded = []

    def load(template):
        loaded.append(template)
        return Tokenizer()

    counters = Counters(load)
    assert await counters.count(HI, "gpt-4o") is None
    assert loaded == []
    assert await counters.count(HI, "mixtral-8x7b-instruct") == 1000
    assert await counters.count(HI, "mixtral-8x7b-instruct") == 1000
    assert len(loaded) == 1


async def test_a_tokenizer_that_is_not_there_counts_nothing_and_is_looked_for_once():
    loaded = []
    counters = Counters(loaded.append)
    assert await counters.count(HI, "mixtral-8x7b-instruct") is None
    assert await counters.count(HI, "mixtral-8x7b-instruct") is None
    assert len(loaded) == 1


def test_an_exclusion_is_doubtful_where_the_estimate_may_be_too_high():
    limit = 1000
    most = int(limit * ESTIMATE_HIGH_TIMES)
    assert doubtful(excluded(limit, wanted=most).excluded)
    assert not doubtful(excluded(limit, wanted=most + 1).excluded)
    assert not doubtful(excluded(limit, wanted=limit + 1, code="output_limit").excluded)
    assert not doubtful(excluded(None, wanted=1).excluded)
    assert not doubtful(excluded(limit, wanted=None).excluded)
    assert not doubtful(())


@pytest.mark.parametrize("output_tokens", [None, 100])
def test_a_prompt_is_cut_to_the_largest_context_that_was_too_small(output_tokens):
    request = long_request(max_tokens=output_tokens)
    shorter = shorten(request, excluded(500, 2000, 800))
    assert shorter is not None
    left = estimate_request(shorter.request)
    assert left + (output_tokens or 0) <= 2000
    assert left > 800, "no more is cut than has to be"


def test_nothing_is_cut_where_size_is_not_in_the_way_or_cutting_does_not_help():
    assert shorten(long_request(), Plan("m", "balanced", ())) is None
    assert shorten(long_request(), excluded(2000, code="no_vision")) is None
    assert shorten(long_request(max_tokens=2000), excluded(2000)) is None


def test_the_error_says_the_numbers_and_what_would_fit():
    small, large, blind = endpoint("s/x", context_tokens=1000), endpoint("l/x", context_tokens=4000), endpoint("b/x")
    prepared = table([small, large, blind])
    plan = decided(prepared, Ask(prompt_tokens=6000, output_tokens=500))
    error = too_long(plan, prepared, 6000, {})
    assert (error.status, error.param) == (400, "messages")
    for part in ("about 6000 tokens", "500 more", "6500 together", "'m' has is 4000", "l/x", "context-compression"):
        assert part in str(error)
    assert "switched off" not in str(error)
    assert "mixgate check" in str(too_long(plan, prepared, 6000, {"z/x": "set KEY"}))


def test_who_would_be_large_enough_is_named_where_something_else_is_in_its_way():
    small, large = endpoint("s/x", context_tokens=1000), endpoint("l/x", context_tokens=9000)
    prepared = table([small, large])
    seeing = Plan("m", "balanced", (), (), (Exclusion("l/x", "no_vision", ""), *excluded(1000).excluded))
    assert "l/x would take it, but cannot do" in str(too_long(seeing, prepared, 4900, {}))


def test_where_size_is_not_in_the_way_nothing_is_said_of_it():
    assert too_long(excluded(100, code="no_vision"), table([endpoint("a/x")]), 10, {}) is None

"""What a client says of routing: every member of `provider`, what is refused and by which name, and the names asked."""

import json
from decimal import ROUND_FLOOR, Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequestError, ModelNotFoundError
from gateway.routing.ask import NO_PREFERENCES, Cutoffs, Preferences, PriceLimit
from gateway.routing.preferences import (
    QUANTIZATIONS,
    SLUGS_MAX,
    check_user,
    parameters_of,
    read_preferences,
    read_session,
    requested_names,
    split_suffix,
)
from gateway.server.openai_request import decode_chat
from providers.messages import ChatRequest
from providers.parameters import PARAMETERS


def ask(**members: Any) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **members}
    return decode_chat(json.dumps(body).encode())


def preferences(provider: dict[str, Any], suffix: str | None = None) -> Preferences:
    return read_preferences(ask(provider=provider), suffix)


def test_a_request_that_says_nothing_prefers_nothing():
    assert read_preferences(ask(), None) is NO_PREFERENCES
    assert read_preferences(ask(provider={}), None) is NO_PREFERENCES
    assert preferences({"order": None, "sort": None, "max_price": {}, "preferred_max_latency": {}}) == NO_PREFERENCES


def test_every_member_of_provider_arrives():
    found = preferences(
        {
            "order": ["a", "b", "a"],
            "allow_fallbacks": False,
            "require_parameters": True,
            "data_collection": "deny",
            "zdr": True,
            "enforce_distillable_text": True,
            "only": ["a"],
            "ignore": ["c"],
            "quantizations": ["fp8", "unknown"],
            "sort": {"by": "latency", "partition": "none"},
            "preferred_min_throughput": 50,
            "preferred_max_latency": {"p50": 1, "p99": 4.5, "p90": None},
            "max_price": {"prompt": 0.7, "completion": "1.10", "request": 0.001, "image": 0, "audio": 3},
            "a member of next year": 7,
        }
    )
    assert found == Preferences(
        order=("a", "b"),
        allow_fallbacks=False,
        require_parameters=True,
        data_collection="deny",
        zdr=True,
        distillable=True,
        only=("a",),
        ignore=("c",),
        quantizations=("fp8", "unknown"),
        sort="latency",
        across_models=True,
        min_throughput=Cutoffs(p50=50),
        max_latency=Cutoffs(p50=1, p99=4.5),
        max_price=PriceLimit(700_000, 1_100_000, 10**9, 0),
    )


@pytest.mark.parametrize(
    ("suffix", "found"),
    [
        (":nitro", Preferences(sort="throughput")),
        (":floor", Preferences(sort="price")),
        (":exacto", Preferences(sort="exacto")),
        (":free", Preferences(free_only=True)),
        (":online", NO_PREFERENCES),
    ],
)
def test_a_suffix_is_a_preference(suffix: str, found: Preferences):
    assert read_preferences(ask(), suffix) == found
    assert split_suffix(f"v/m{suffix}") == ("v/m", suffix)


def test_what_the_body_says_wins_over_the_suffix():
    assert preferences({"sort": "latency"}, ":floor").sort == "latency"
    assert preferences({"sort": {"partition": "none"}}, ":floor") == Preferences(sort="price", across_models=True)
    assert split_suffix("m:8b") == ("m:8b", None)


@pytest.mark.parametrize(
    ("provider", "param"),
    [
        ({"order": "a"}, "provider.order"),
        ({"order": ["a", 1]}, "provider.order[1]"),
        ({"order": [""]}, "provider.order[0]"),
        ({"only": ["a" * 257]}, "provider.only[0]"),
        ({"ignore": ["a"] * (SLUGS_MAX + 1)}, "provider.ignore"),
        ({"ignore": {"a": 1}}, "provider.ignore"),
        ({"allow_fallbacks": "false"}, "provider.allow_fallbacks"),
        ({"require_parameters": 1}, "provider.require_parameters"),
        ({"zdr": "yes"}, "provider.zdr"),
        ({"enforce_distillable_text": 0}, "provider.enforce_distillable_text"),
        ({"data_collection": "denied"}, "provider.data_collection"),
        ({"data_collection": False}, "provider.data_collection"),
        ({"quantizations": ["q4"]}, "provider.quantizations[0]"),
        ({"quantizations": "fp8"}, "provider.quantizations"),
        ({"sort": "cheapest"}, "provider.sort"),
        ({"sort": ["price"]}, "provider.sort"),
        ({"sort": {"by": "speed"}}, "provider.sort.by"),
        ({"sort": {"by": "price", "partition": "all"}}, "provider.sort.partition"),
        ({"preferred_min_throughput": "50"}, "provider.preferred_min_throughput"),
        ({"preferred_min_throughput": -1}, "provider.preferred_min_throughput"),
        ({"preferred_max_latency": True}, "provider.preferred_max_latency"),
        ({"preferred_max_latency": {"p95": 1}}, "provider.preferred_max_latency.p95"),
        ({"preferred_max_latency": {"p99": [1]}}, "provider.preferred_max_latency.p99"),
        ({"max_price": 1}, "provider.max_price"),
        ({"max_price": {"output": 1}}, "provider.max_price.output"),
        ({"max_price": {"prompt": -0.1}}, "provider.max_price.prompt"),
        ({"max_price": {"prompt": "$1"}}, "provider.max_price.prompt"),
        ({"max_price": {"completion": True}}, "provider.max_price.completion"),
        ({"max_price": {"audio": "much"}}, "provider.max_price.audio"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_name(provider: dict[str, Any], param: str):
    with pytest.raises(InvalidRequestError) as caught:
        preferences(provider)
    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: ")
    assert caught.value.status == 400


def test_every_quantization_of_the_language_is_understood():
    assert preferences({"quantizations": list(QUANTIZATIONS)}).quantizations == QUANTIZATIONS
    assert len(QUANTIZATIONS) == 12


@given(st.decimals(min_value=0, max_value=1000, places=9))
def test_a_price_limit_is_what_was_written_and_never_more(amount: Decimal):
    exact = int((amount * 10**6).to_integral_value(rounding=ROUND_FLOOR))
    assert preferences({"max_price": {"prompt": str(amount)}}).max_price == PriceLimit(input_in_pusd=exact)
    # As a number: the shortest text of a float is what JSON said.
    number = float(amount)
    found = preferences({"max_price": {"prompt": number}}).max_price
    assert found is not None
    assert found.input_in_pusd == int((Decimal(repr(number)) * 10**6).to_integral_value(rounding=ROUND_FLOOR))


@pytest.mark.parametrize("price", [1e300, 10**30, "1e999", "9" * 32])
def test_a_limit_without_end_is_kept_as_one_that_a_record_can_hold(price: object):
    limit = preferences({"max_price": {"prompt": price, "request": price}}).max_price
    assert limit is not None
    assert limit.input_in_pusd == limit.request_in_pusd
    assert msgspec.json.decode(msgspec.json.encode(limit), type=PriceLimit) == limit


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["by", "p50", "prompt", "x"]), inner),
    max_leaves=5,
)
WISHES = [
    *("order", "allow_fallbacks", "require_parameters", "data_collection", "zdr", "enforce_distillable_text", "only"),
    *("ignore", "quantizations", "sort", "preferred_min_throughput", "preferred_max_latency", "max_price", "other"),
]


@given(st.dictionaries(st.sampled_from(WISHES), anything, max_size=5))
def test_whatever_provider_holds_is_read_or_refused_by_a_name_within_it(provider: dict[str, Any]):
    request = ChatRequest(messages=ask().messages, provider=provider)
    refused = None
    try:
        found = read_preferences(request, None)
    except InvalidRequestError as error:
        refused = error.param
    if refused is None:
        assert msgspec.json.decode(msgspec.json.encode(found), type=Preferences) == found
    else:
        assert refused.startswith("provider.")


@pytest.mark.parametrize(
    ("members", "names"),
    [
        ({}, ("m",)),
        ({"models": []}, ("m",)),
        ({"models": ["b", "a"]}, ("m", "b", "a")),
        ({"models": ["b", "m", "b"]}, ("m", "b")),
        ({"model": "", "models": ["b"]}, ("b",)),
    ],
)
def test_model_comes_before_models_and_nothing_comes_twice(members: dict[str, Any], names: tuple[str, ...]):
    assert requested_names(ask(**members)) == names


def test_a_request_for_no_model_is_refused():
    with pytest.raises(ModelNotFoundError):
        requested_names(ask(model=""))
    with pytest.raises(InvalidRequestError) as caught:
        requested_names(ask(models=["a", ""]))
    assert caught.value.param == "models[1]"


def test_the_session_of_the_body_wins_over_that_of_the_header():
    assert read_session(ask(session_id="body"), "header") == "body"
    assert read_session(ask(), "header") == "header"
    assert read_session(ask(session_id=""), "") is None
    assert read_session(ask(session_id="s" * 256), "h" * 300) == "s" * 256
    with pytest.raises(InvalidRequestError) as caught:
        read_session(ask(), "h" * 257)
    assert caught.value.param == "x-session-id"


def test_ids_of_sessions_and_users_are_bounded():
    check_user(ask(user="u" * 256))
    check_user(ask())
    with pytest.raises(InvalidRequestError) as caught:
        check_user(ask(user="u" * 257))
    assert caught.value.param == "user"
    with pytest.raises(InvalidRequestError) as caught:
        ask(session_id="s" * 257)
    assert caught.value.param == "session_id"


@pytest.mark.parametrize(
    ("members", "names"),
    [
        ({}, ()),
        ({"n": 1, "logprobs": False, "tools": [], "response_format": {"type": "text"}, "modalities": ["text"]}, ()),
        ({"max_completion_tokens": 5, "stop": "x", "seed": 0}, ("max_tokens", "stop", "seed")),
        ({"n": 2, "logprobs": True, "top_logprobs": 2}, ("n", "logprobs", "top_logprobs")),
        ({"response_format": {"type": "json_object"}}, ("response_format",)),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}},
            ("response_format", "structured_outputs"),
        ),
        ({"functions": [{"name": "f"}], "function_call": "auto"}, ("tools", "tool_choice")),
        ({"reasoning_effort": "high"}, ("reasoning",)),
        ({"reasoning_effort": "none"}, ()),
        ({"reasoning": {"max_tokens": 9}, "verbosity": "low"}, ("reasoning", "verbosity")),
        ({"temperature": 0.0, "top_k": 1, "logit_bias": {}}, ("temperature", "top_k", "logit_bias")),
    ],
)
def test_the_parameters_of_a_request_are_those_that_ask_for_something(members: dict[str, Any], names: tuple[str, ...]):
    assert parameters_of(ask(**members)) == names
    assert set(names) <= set(PARAMETERS)

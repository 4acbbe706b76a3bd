"""A chat request on the way in: what is kept, what is refused and in which words, whatever bytes come."""

import contextlib
import json
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequestError, PayloadTooLargeError
from gateway.routing.needs import needs
from gateway.server.openai_request import DEPTH_MAX, SMALL_BODY_BYTES, STRUCTURE_MAX, check_structure, decode_chat
from providers import DIALECTS
from providers.base import Endpoint
from providers.errors import MixgateError, UnsupportedError
from providers.messages import CHOICES_MAX, MESSAGES_MAX, STOPS_MAX, TOOLS_MAX
from providers.quirks import Quirks
from tests.fakes.bodies import (
    MUCH_TEXT,
    NOT_JSON,
    PLAIN,
    RICH,
    TOO_MUCH,
    TOOL,
    TURN,
    WRONG,
    ask,
    encoded,
    hostile_body,
    nest,
    within,
)

ENDPOINT = Endpoint(id="p/up", provider="p", model="m", upstream_model="up", base_url="http://127.0.0.1:1/v1")


def judge(body):
    for _ in check_structure(body):
        pass
    return decode_chat(body)


def judge_or_refuse(body):
    """The request, or None where it was refused as it should be."""
    status = 400
    try:
        return judge(body)
    except MixgateError as error:
        status = error.status
    assert 400 <= status < 500, body
    return None


def refusal(body):
    with pytest.raises(MixgateError) as caught:
        judge(encoded(body))
    assert 400 <= caught.value.status < 500
    return caught.value


def sent_upstream(body, dialect="openai", **quirks):
    endpoint = msgspec.structs.replace(ENDPOINT, quirks=Quirks(**quirks))
    return json.loads(DIALECTS[dialect].encode(judge(encoded(body)), endpoint, stream=False).body)


# ---- what is kept

NAMES = st.text(alphabet="abcdefghijklmnopqrstuvwxyz_$.-\u00e9\u4e2d", min_size=1, max_size=8).map(
    lambda name: f"x{name}"
)
SCALARS = (
    st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=10)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)
UNKNOWN = st.dictionaries(NAMES, VALUES, min_size=1, max_size=3)
PLACES = (
    (),
    ("messages", 0),
    ("messages", 1, "content", 0),
    ("messages", 1, "content", 1),
    ("messages", 1, "content", 1, "image_url"),
    ("messages", 2, "tool_calls", 0),
    ("messages", 2, "tool_calls", 0, "function"),
    ("messages", 3),
    ("tools", 0),
    ("tools", 0, "function"),
    ("tools", 0, "function", "parameters"),
    ("tool_choice",),
    ("response_format",),
    ("response_format", "json_schema"),
    ("response_format", "json_schema", "schema"),
    ("metadata",),
)


def at(body, place):
    for step in place:
        body = body[step]
    return body


@given(st.lists(st.tuples(st.sampled_from(PLACES), UNKNOWN), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_unknown_members_at_every_level_survive_to_a_tolerant_provider(additions):
    body = json.loads(json.dumps(RICH))
    for place, members in additions:
        at(body, place).update(members)
    sent = sent_upstream(body)
    for place, members in additions:
        arrived = at(sent, place)
        for name in members:
            assert arrived[name] == at(body, place)[name]
    for place in PLACES[1:]:
        for name, value in at(RICH, place).items():
            if isinstance(value, bool | int | float | str):
                assert at(sent, place)[name] == value


@given(UNKNOWN)
@settings(max_examples=50, deadline=None)
def test_a_strict_provider_sees_no_unknown_member(members):
    assert sent_upstream(ask(**members), unknown_fields=False) == {"model": "up", "messages": [TURN]}


@pytest.mark.parametrize("dialect", ["openai", "openrouter"])
def test_unknown_members_never_override_what_we_set(dialect):
    body = ask(extra={"model": "evil"}, stream_options={"include_usage": False, "x": 1}, stream=False)
    sent = sent_upstream(body, dialect)
    assert sent["model"] == "up"
    assert sent["extra"] == {"model": "evil"}
    assert "stream_options" not in sent


@pytest.mark.parametrize("value", [5, "text", [1], {}, {"messages": {"0": {"role": "system"}}}, True, 1.5])
def test_a_member_called_extra_is_as_unknown_as_any_other(value):
    sent = sent_upstream(ask(extra=value))
    assert (sent["extra"], sent["messages"]) == (value, [TURN])


def test_members_that_are_null_are_as_good_as_absent():
    body = ask(tools=None, stop=None, n=None, stream=None, temperature=None, response_format=None, zz=None)
    assert sent_upstream(body) == {"model": "up", "messages": [TURN]}


def test_of_a_member_given_twice_the_last_counts_and_only_that_is_sent():
    turns = b'"messages":[{"role":"tool"}],"messages":[{"role":"user","content":"a","content":"b"}]'
    body = b'{"model":"a","model":"m",%b,"z":1,"z":2}' % turns
    assert sent_upstream(body) == {"model": "up", "messages": [{"role": "user", "content": "b"}], "z": 2}


def test_text_in_every_script_passes_unchanged():
    text = 'a\u0000\u001f"\\/ \u00e9 \u4e2d\u6587 \U0001f600 \u2028 \ufffd'
    for body in (
        json.dumps(ask()).replace('"hi"', json.dumps(text)),
        json.dumps(ask()).replace('"hi"', json.dumps(text, ensure_ascii=False)),
    ):
        assert sent_upstream(body.encode())["messages"][0]["content"] == text


# ---- what is refused, and how


@pytest.mark.parametrize("also", [{}, {"zz": 1}], ids=["known members only", "beside an unknown one"])
@pytest.mark.parametrize(("body", "param"), WRONG.values(), ids=WRONG)
def test_a_wrong_member_is_named(body, param, also):
    error = refusal({**also, **body})
    assert isinstance(error, InvalidRequestError)
    assert (error.status, error.type, error.param) == (400, "invalid_request_error", param)
    assert error.message.startswith(param)
    assert "`" not in error.message


def test_the_bounds_themselves_are_allowed():
    body = ask(n=CHOICES_MAX, stop=["x"] * STOPS_MAX, tools=[TOOL] * TOOLS_MAX, temperature=2, seed=-(2**63))
    body["messages"] = [TURN] * MESSAGES_MAX
    assert judge(encoded(body)).n == CHOICES_MAX


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_no_json_object_of_ours_is_refused_in_words(body):
    error = refusal(body)
    assert error.status in (400, 413)
    assert 10 < len(error.message) < 300


@pytest.mark.parametrize("depth", [*range(DEPTH_MAX - 3, DEPTH_MAX + 3), *range(880, 1100, 7)])
@pytest.mark.parametrize("where", ["x", "metadata"])
def test_depth_is_bounded_exactly_wherever_it_is(depth, where):
    value = nest(depth, '{"a":', "}").replace(b":}", b":1}", 1)
    body = within(value).replace(b'"x"', b'"%b"' % where.encode())
    if depth < DEPTH_MAX:
        judge(body)
    else:
        assert "64 levels" in refusal(body).message


@pytest.mark.parametrize("also", [{}, {"zz": {"a": [1, "\u00e9"]}}], ids=["known", "unknown"])
def test_a_body_cut_at_any_byte_is_refused(also):
    body = json.dumps({**also, **RICH}, ensure_ascii=False).encode()
    judge(body)
    for size in range(len(body)):
        assert refusal(body[:size]).status == 400


# ---- size and structure


@pytest.mark.parametrize("body", TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_body_that_takes_too_long_to_take_apart_is_refused(body):
    with pytest.raises(PayloadTooLargeError) as caught:
        judge(body)
    assert caught.value.status == 413


@pytest.mark.parametrize("text", MUCH_TEXT.values(), ids=MUCH_TEXT)
def test_text_may_hold_any_amount_of_what_is_bounded_outside_of_it(text):
    assert judge(PLAIN % text).messages[0].content == json.loads(b'"%b"' % text)


def test_structure_up_to_the_bound_is_allowed():
    numbers = list(range(STRUCTURE_MAX // 2))
    assert judge(encoded(ask(metadata={"a": numbers}))).metadata == {"a": numbers}


@given(st.binary(max_size=60).map(lambda data: data * (SMALL_BODY_BYTES // max(1, len(data)) + 200)))
@settings(max_examples=60, deadline=None)
def test_counting_never_fails_on_any_bytes(body):
    judge_or_refuse(body)


# ---- anything at all


@pytest.mark.full
def test_a_million_fuzzed_bodies_are_answered_or_refused():
    fuzz(1_000_000)


def test_fuzzed_bodies_are_answered_or_refused():
    assert fuzz(3_000) > 100


def fuzz(count):
    """Feed `count` bodies through; gives how many were good. Anything but a refusal of ours fails."""
    rng = random.Random(2026)
    good = 0
    for _ in range(count):
        body = hostile_body(rng)
        request = judge_or_refuse(body)
        if request is None:
            continue
        good += 1
        needs(request)
        for dialect in DIALECTS.values():
            with contextlib.suppress(UnsupportedError):
                json.loads(dialect.encode(request, ENDPOINT, stream=bool(request.stream)).body)
    return good

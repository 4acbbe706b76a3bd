"""A chat request on the way in: what is kept, what is refused and in which words, whatever bytes come."""

import contextlib
import json
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequestError, PayloadTooLargeError
from gateway.routing.plan import needs
from gateway.server.openai_request import (
    COSTLY_NUMBERS_MAX,
    DEPTH_MAX,
    SMALL_BODY_BYTES,
    STRUCTURE_MAX,
    check_structure,
    decode_chat,
)
from providers import DIALECTS
from providers.base import Endpoint
from providers.errors import MixgateError, UnsupportedError
from providers.messages import CHOICES_MAX, MESSAGES_MAX, STOPS_MAX, TOOLS_MAX
from providers.quirks import Quirks

ENDPOINT = Endpoint(id="p/up", provider="p", model="m", upstream_model="up", base_url="http://127.0.0.1:1/v1")
TURN = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
RICH = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief.", "name": "boss"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is this? \u20ac \U0001f600"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ],
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_tokens": 100,
    "temperature": 0.5,
    "top_p": 1,
    "stop": ["a", "b"],
    "seed": 7,
    "logit_bias": {"50256": -100},
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    "metadata": {"who": "me"},
    "user": "u",
}


def encoded(body):
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def ask(**members):
    return {"model": "m", "messages": [TURN], **members}


def nest(depth, opening="[", closing="]"):
    return f"{opening * depth}{closing * depth}".encode()


def within(member):
    """A request with these raw bytes as one member's value."""
    return b'{"model":"m","messages":[{"role":"user","content":"hi"}],"x":' + member + b"}"


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
    body = b'{"model":"a","model":"m","messages":[{"role":"tool"}],"messages":[{"role":"user","content":"a","content":"b"}],"z":1,"z":2}'
    assert sent_upstream(body) == {"model": "up", "messages": [{"role": "user", "content": "b"}], "z": 2}


def test_text_in_every_script_passes_unchanged():
    text = 'a\u0000\u001f"\\/ \u00e9 \u4e2d\u6587 \U0001f600 \u2028 \ufffd'
    for body in (
        json.dumps(ask()).replace('"hi"', json.dumps(text)),
        json.dumps(ask()).replace('"hi"', json.dumps(text, ensure_ascii=False)),
    ):
        assert sent_upstream(body.encode())["messages"][0]["content"] == text


# ---- what is refused, and how

WRONG = {
    "messages": (ask() | {"messages": "hi"}, "messages"),
    "messages null": (ask() | {"messages": None}, "messages"),
    "no message": (ask() | {"messages": []}, "messages"),
    "message": (ask() | {"messages": [1]}, "messages[0]"),
    "message null": (ask() | {"messages": [TURN, None]}, "messages[1]"),
    "role": (ask() | {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    "no role": (ask() | {"messages": [{"content": "x"}]}, "messages[0].role"),
    "content": (ask() | {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    "part": (ask() | {"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
    "tool call": (ask() | {"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].id"),
    "no messages": ({"model": "m"}, "messages"),
    "model": (ask(model=5), "model"),
    "long model": (ask(model="m" * 513), "model"),
    "temperature": (ask(temperature="hot"), "temperature"),
    "temperature over": (ask(temperature=2.5), "temperature"),
    "top_p": (ask(top_p=-0.1), "top_p"),
    "n": (ask(n=CHOICES_MAX + 1), "n"),
    "n zero": (ask(n=0), "n"),
    "n fraction": (ask(n=1.5), "n"),
    "n text": (ask(n="1"), "n"),
    "stop": (ask(stop=["x"] * (STOPS_MAX + 1)), "stop"),
    "stop element": (ask(stop=["x", 1]), "stop[1]"),
    "stream": (ask(stream="yes"), "stream"),
    "stream_options": (ask(stream_options=[]), "stream_options"),
    "seed": (ask(seed=2**63), "seed"),
    "max_tokens": (ask(max_tokens=-1), "max_tokens"),
    "max_completion_tokens": (ask(max_completion_tokens="10"), "max_completion_tokens"),
    "logprobs": (ask(logprobs=3), "logprobs"),
    "top_logprobs": (ask(top_logprobs=21), "top_logprobs"),
    "logit_bias": (ask(logit_bias={"1": "x"}), "logit_bias"),
    "tools": (ask(tools={}), "tools"),
    "too many tools": (ask(tools=[TOOL] * (TOOLS_MAX + 1)), "tools"),
    "tool": (ask(tools=[{"type": "function", "function": {}}]), "tools[0].function.name"),
    "parameters": (ask(tools=[{"function": {"name": "f", "parameters": []}}]), "tools[0].function.parameters"),
    "too many messages": (ask() | {"messages": [TURN] * (MESSAGES_MAX + 1)}, "messages"),
    "response_format": (ask(response_format="json"), "response_format"),
    "no response_format type": (ask(response_format={}), "response_format.type"),
    "models": (ask(models="m"), "models"),
    "metadata": (ask(metadata=[]), "metadata"),
}


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


NOT_JSON = {
    "nothing": b"",
    "blanks": b" \n\t ",
    "NUL": b"\0",
    "text": b"hello",
    "single quotes": b"{'model': 'm'}",
    "trailing comma": b'{"model":"m",}',
    "comment": b'{"model":"m"} // hi',
    "two values": b'{"model":"m"}{"model":"m"}',
    "NaN": within(b"NaN"),
    "temperature NaN": b'{"temperature":NaN,"messages":[{"role":"user","content":"hi"}]}',
    "Infinity": within(b"Infinity"),
    "-Infinity": within(b"[-Infinity]"),
    "1e999": within(b"1e999"),
    "-1e999": within(b"[[-1e999]]"),
    "temperature 1e999": b'{"temperature":1e999,"messages":[{"role":"user","content":"hi"}]}',
    "5,000 digits": within(b"9" * 5000),
    "seed of 5,000 digits": b'{"seed":' + b"9" * 5000 + b',"messages":[{"role":"user","content":"hi"}]}',
    "leading zero": within(b"01"),
    "hexadecimal": within(b"0x1"),
    "plus": within(b"+1"),
    "lone high surrogate": b'{"messages":[{"role":"user","content":"\\ud800"}]}',
    "lone low surrogate": b'{"messages":[{"role":"user","content":"\\udc00"}]}',
    "surrogates the wrong way round": within(b'"\\ude00\\ud83d"'),
    "surrogate in a key": b'{"\\ud800":1,"messages":[{"role":"user","content":"x"}]}',
    "surrogate as raw UTF-8": within(b'"\xed\xa0\x80"'),
    "invalid UTF-8": within(b'"\xff"'),
    "overlong UTF-8": within(b'"\xc0\xaf"'),
    "UTF-8 cut short": within(b'"\xe2\x82"'),
    "invalid UTF-8 in a key": b'{"\xff":1}',
    "invalid UTF-8 in text": b'{"messages":[{"role":"user","content":"\xff"}]}',
    "raw line break in a string": within(b'"a\nb"'),
    "byte order mark": b"\xef\xbb\xbf" + encoded(ask()),
    "UTF-16": json.dumps(ask()).encode("utf-16"),
    "UTF-16 without a mark": json.dumps(ask()).encode("utf-16-le"),
    "UTF-32": json.dumps(ask()).encode("utf-32"),
    "broken after an unknown member": b'{"zz":1, bad',
    "depth 65": within(nest(DEPTH_MAX)),
    "depth 500": within(nest(500)),
    "depth 1,000": within(nest(1_000)),
    "depth 100,000": within(nest(100_000)),
    "depth 100,000 of objects": within(nest(100_000, '{"a":', "}").replace(b":}", b":1}", 1)),
    "depth 1,000,000 unclosed": b"[" * 1_000_000,
    "known member of depth 1,000": b'{"messages":[{"role":"user","content":"hi"}],"metadata":{"a":'
    + nest(1_000)
    + b"}}",
    "array": b"[]",
    "string": b'"hi"',
    "number": b"5",
    "null": b"null",
    "true": b"true",
}


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

PLAIN = b'{"messages":[{"role":"user","content":"%b"}]}'
TOO_MUCH = {
    "12 MB of tiny keys": b'{"messages":[],' + b",".join(b'"%d":1' % n for n in range(1_100_000)) + b"}",
    "20 MB of brackets": b"[" * 20_000_000,
    "20 MB of braces": b"{" * 20_000_000,
    "empty arrays": within(b"[" + b",".join([b"[]"] * (STRUCTURE_MAX + 1)) + b"]"),
    "empty strings": within(b"[" + b",".join([b'""'] * (STRUCTURE_MAX + 1)) + b"]"),
    "slow floats": within(b"[" + b",".join([b"8.5e-320"] * (COSTLY_NUMBERS_MAX + 1)) + b"]"),
    "long integers": within(b"[" + b",".join([b"1" * 100] * (COSTLY_NUMBERS_MAX + 1)) + b"]"),
    "parts": encoded(ask() | {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 40}] * 2048}),
}
MUCH_TEXT = {
    "backslashes": b"\\\\" * 9_000_000,
    "backslashes and commas": b"," * 300_000 + b"\\\\" * 5_000_000,
    "quotes and commas": b"," * 300_000 + b'\\"' * 5_000_000,
    "code": b'if (a[\\"x\\"] == {1,2,3}) { b(1e5, 2e-7); }\\n' * 100_000,
    "digits of a number": b"12345678901234567890,1e5," * 100_000,
    "line breaks": b"\\n" * 5_000_000,
    "UTF-8": "\u00e9,".encode() * 3_000_000,
}


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

HOSTILE = (
    *(
        b'{}[]",:\\ \n\0',
        b"null",
        b"true",
        b"1e999",
        b"-0",
        b"NaN",
        b"\xff",
        b"\xef\xbb\xbf",
        b'"\\ud800"',
        b'"\\u0000"',
    ),
    *(b'"extra":', b'"messages":', b'"model":', b'"role":"user",', b'"n":99,', b'"zz":[],', b"9" * 400, b"[" * 200),
)
SEEDS = (encoded(RICH), encoded(ask()), encoded(ask(zz={"a": [1, {"b": None}]}, provider={"order": ["a"]})))


def mutate(rng, body):
    """One to four small damages."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(body) + 1)
        end = min(len(body), start + rng.choice((0, 1, 1, 2, 5, 30)))
        kind = rng.random()
        if kind < 0.3:
            new = bytes([rng.randrange(256)])
        elif kind < 0.6:
            new = rng.choice(HOSTILE)
        elif kind < 0.8:
            place = rng.randrange(len(body) + 1)
            new = body[place : place + rng.randrange(40)]
        else:
            new = b""
        body = body[:start] + new + body[end:]
    return body


def swap_values(rng, value):
    """Valid JSON with some value replaced by one of another type."""
    if rng.random() < 0.05:
        return rng.choice((None, True, 0, -1, 1.5, 2**70, "", "x", [], {}, [None], {"": None}, [[1]]))
    if isinstance(value, dict):
        return {name: swap_values(rng, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [swap_values(rng, inner) for inner in value]
    return value


def hostile_body(rng):
    kind = rng.random()
    if kind < 0.6:
        return mutate(rng, rng.choice(SEEDS))
    if kind < 0.9:
        return encoded(swap_values(rng, RICH))
    return rng.randbytes(rng.randrange(200))


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

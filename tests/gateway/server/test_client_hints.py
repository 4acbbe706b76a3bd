import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.attempts import NO_HINTS
from gateway.server.client_hints import (
    RETRIES_MAX,
    TIMEOUT_MAX_S,
    TIMEOUT_MIN_S,
    VALUE_MAX_BYTES,
    read_hints,
)

MS, RETRIES, SESSION = b"x-request-timeout-ms", b"x-stainless-retry-count", b"x-session-id"
READ, OVERALL = b"x-stainless-read-timeout", b"x-stainless-timeout"
numbers = st.one_of(
    st.binary(max_size=VALUE_MAX_BYTES + 5),
    st.integers().map(lambda number: b"%d" % number),
    st.floats().map(lambda number: repr(number).encode()),
)


def hints(fields, *, stream=False):
    return read_hints(fields, stream=stream)


@pytest.mark.parametrize("fields", [{}, {RETRIES: b"0"}, {b"accept": b"*/*", b"x-stainless-lang": b"python"}])
def test_a_client_that_says_nothing_costs_nothing(fields):
    assert hints(fields) is NO_HINTS
    assert hints({**fields, READ: b"600", OVERALL: b"600"}, stream=True) is NO_HINTS


@pytest.mark.parametrize(
    ("fields", "stream", "expected_s"),
    [
        ({MS: b"1500"}, False, 1.5),
        ({MS: b"1500"}, True, 1.5),
        ({MS: b"1"}, False, TIMEOUT_MIN_S),
        ({MS: b"999999999999"}, False, TIMEOUT_MAX_S),
        ({READ: b"20"}, False, 20.0),
        ({OVERALL: b"20.5"}, False, 20.5),
        ({READ: b"20", OVERALL: b"30"}, False, 20.0),
        ({READ: b"20", OVERALL: b"10", MS: b"40000"}, False, 10.0),
        ({READ: b"20", MS: b"40000"}, True, 40.0),
        ({READ: b"soon", MS: b"40000"}, False, 40.0),
    ],
)
def test_the_shortest_patience_counts_and_a_read_timeout_only_where_an_answer_comes_in_one(fields, stream, expected_s):
    assert hints(fields, stream=stream).total_timeout_s == expected_s


@pytest.mark.parametrize(
    "value", [b"", b"soon", b"nan", b"inf", b"-inf", b"-1", b"0", b"1e400", b"0x10", b"\xff", b"1" * 33]
)
def test_what_makes_no_sense_is_no_hint(value):
    for name in (MS, READ, OVERALL):
        assert hints({name: value}).total_timeout_s is None
    assert hints({RETRIES: value}).retries == 0


@pytest.mark.parametrize(("value", "expected"), [(b"1", 1), (b"2.9", 2), (b"1e9", RETRIES_MAX), (b"-3", 0)])
def test_retries_are_counted_within_bounds(value, expected):
    assert hints({RETRIES: value}).retries == expected


def test_a_session_is_text_of_a_bounded_length():
    assert hints({SESSION: b"chat-\xe4"}).session == "chat-\xe4"
    assert hints({SESSION: b"s" * 10_000}).session == "s" * 10_000  # judged with the body's own


@given(
    st.dictionaries(st.sampled_from([MS, RETRIES, READ, OVERALL]), numbers),
    st.none() | st.binary(max_size=300),
    st.booleans(),
)
def test_no_header_can_raise_or_leave_the_bounds(fields, session, stream):
    given_fields = fields if session is None else {**fields, SESSION: session}
    read = read_hints(given_fields, stream=stream)
    assert read.total_timeout_s is None or TIMEOUT_MIN_S <= read.total_timeout_s <= TIMEOUT_MAX_S
    assert 0 <= read.retries <= RETRIES_MAX
    assert (read.session is None) == (session is None)

"""W3C trace context: what is taken for one, and what is made of it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.trace_context import Propagator, read_traceparent, span_id, trace_headers

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", True),
    ],
)
def test_what_the_standard_knows_is_taken(text, sampled):
    context = read_traceparent(text)
    assert (context.trace_id, context.parent_id, context.sampled) == (TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 200}",
    ],
)
def test_anything_else_is_none(text):
    assert read_traceparent(text) is None


@given(st.text(max_size=200), st.text(min_size=1, max_size=40))
def test_whatever_a_client_sends_what_goes_out_is_sound(text, generation_id):
    (header,) = trace_headers(Propagator(0.5), generation_id, text)(1).values()
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", header)


def test_nothing_is_sent_where_nobody_traces():
    assert trace_headers(None, "gen-1", f"00-{TRACE}-{SPAN}-01") is None


def test_the_clients_trace_goes_on_and_its_word_decides():
    for sample in (0.0, 1.0):
        of = trace_headers(Propagator(sample), "gen-1", f"00-{TRACE}-{SPAN}-01")
        assert of(2) == {"traceparent": f"00-{TRACE}-{span_id('gen-1', 2)}-01"}
        assert not Propagator(sample).context("gen-1", f"00-{TRACE}-{SPAN}-00").sampled


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_about_the_share_that_was_asked_for_is_sampled(share):
    propagator = Propagator(share)
    count = sum(propagator.context(f"gen-{number}", "").sampled for number in range(4000))
    assert abs(count / 4000 - share) < 0.04
    assert share not in {0.0, 1.0} or count == share * 4000

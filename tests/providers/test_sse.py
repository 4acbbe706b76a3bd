import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.sse import EVENT_MAX_BYTES, EventTooLongError, SseParser


def reference(text):
    """The HTML standard's own algorithm, line by line, on a whole stream; what has no blank line at the end counts."""
    data, payloads = [], []
    for line in [*text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n"), ""]:
        if line == "":
            if data:
                payloads.append("\n".join(data))
            data = []
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            if name == "data":
                data.append(value.removeprefix(" "))
    return payloads


def parse(pieces):
    parser = SseParser()
    payloads = [payload for piece in pieces for payload in parser.feed(piece)]
    return [payload.decode() for payload in payloads + parser.finish()]


def split(data, cuts):
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
LINES = st.sampled_from(
    [
        "",
        "data: {}",
        "data:x",
        "data:  two blanks",
        "data: ",
        "data:",
        ": comment",
        ":",
        "event: message",
        "id: 7",
        "retry: 10",
        "data: a: b",
        "dataset: no",
        " data: no",
        "Data: no",
        "data: \u4e2d\u00e9",
    ]
)


@st.composite
def streams(draw, ends=LINE_ENDS):
    end = draw(ends)
    mixed = draw(st.booleans())
    text = "".join(line + (draw(ends) if mixed else end) for line in draw(st.lists(LINES, max_size=12)))
    return draw(st.sampled_from(["", "\ufeff"])) + text + draw(st.sampled_from(["", "data: cut", "dat", ": c"]))


@given(streams(), st.lists(st.integers(0, 400), max_size=8))
@settings(max_examples=400, deadline=None)
def test_any_split_of_any_stream_reads_as_the_standard_says(text, cuts):
    assert parse(split(text.encode(), cuts)) == reference(text)


@given(streams())
@settings(max_examples=200, deadline=None)
def test_byte_by_byte_is_no_different(text):
    data = text.encode()
    assert parse([data[place : place + 1] for place in range(len(data))]) == reference(text)


@given(st.lists(st.binary(max_size=30), max_size=10))
@settings(max_examples=200, deadline=None)
def test_no_bytes_at_all_make_it_fail(pieces):
    whole = SseParser()
    parser = SseParser()
    got = [payload for piece in pieces for payload in parser.feed(piece)] + parser.finish()
    assert got == whole.feed(b"".join(pieces)) + whole.finish()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_event_is_there_as_soon_as_its_blank_line_is(end):
    parser = SseParser()
    assert parser.feed(f"data: a{end}".encode()) == []
    assert parser.feed(end.encode()) == [b"a"]
    assert parser.feed(f": comment{end}{end}".encode()) == []
    assert parser.feed(f"data: b{end}data: c{end}{end}data: d".encode()) == [b"b\nc"]
    assert parser.finish() == [b"d"]
    assert parser.finish() == []


def test_an_event_over_the_bound_is_refused():
    parser = SseParser()
    parser.feed(b"data: ")
    piece = b"x" * 65536
    for _ in range(EVENT_MAX_BYTES // len(piece) - 1):
        parser.feed(piece)
    with pytest.raises(EventTooLongError):
        parser.feed(piece)


@pytest.mark.parametrize("line", [b"data: 1\n", b"data: 1\r\n", b"x", b"\r\ndata:"[2:] + b"\r"], ids=repr)
def test_an_event_that_drips_in_costs_no_more_than_its_length(line):
    """Quadratic work would take minutes here, linear work takes a tenth of a second."""
    parser = SseParser()
    started_s = time.process_time()
    for _ in range((EVENT_MAX_BYTES - 100) // len(line)):
        parser.feed(line)
    assert time.process_time() - started_s < 20

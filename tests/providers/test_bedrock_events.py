"""The event stream: botocore's judgement of every message, whatever the pieces it comes in, and bounds."""

import struct
import time
from binascii import crc32
from itertools import pairwise

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.bedrock_events import FRAME_MAX_BYTES, EventStreamParser, Frame
from tests.fakes.bedrock import event, exception, frame

NAMES = st.sampled_from(["chunk", "messageStop", "contentBlockDelta"])
FRAMES = st.lists(st.builds(event, NAMES, st.binary(max_size=400)) | st.builds(exception, NAMES, st.text()), max_size=8)


def split(data, cuts):
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def read(pieces):
    parser = EventStreamParser()
    return [found for piece in pieces for found in parser.feed(piece)], parser.broken


def by_botocore(data):
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    for message in buffer:
        failed = message.headers[":message-type"] != "event"
        name = message.headers[":exception-type" if failed else ":event-type"]
        yield Frame(name, message.payload, failed)


@given(FRAMES, st.lists(st.integers(0, 10_000), max_size=30))
@settings(deadline=None)
def test_any_pieces_give_the_messages_that_botocore_reads(frames, cuts):
    data = b"".join(frames)
    assert read(split(data, cuts)) == (list(by_botocore(data)), None)
    assert read([data[place : place + 1] for place in range(len(data))]) == (list(by_botocore(data)), None)


@given(FRAMES.filter(bool), st.integers(0, 10_000), st.integers(1, 255), st.lists(st.integers(0, 10_000), max_size=5))
@settings(deadline=None)
def test_a_changed_byte_is_noticed_and_only_what_came_before_it_is_read(frames, place, change, cuts):
    data = bytearray(b"".join(frames))
    place %= len(data)
    data[place] ^= change
    whole = list(by_botocore(b"".join(frames)))
    ends = [len(b"".join(frames[: count + 1])) for count in range(len(frames))]
    good = sum(end <= place for end in ends)
    found, broken = read(split(bytes(data), cuts))
    assert found == whole[:good]
    assert broken is not None or len(found) < len(whole)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_nonsense_never_raises(data, cuts):
    found, _ = read(split(data, cuts))
    assert found == []


def prelude(total, headers):
    head = struct.pack("!II", total, headers)
    return head + struct.pack("!I", crc32(head))


@pytest.mark.parametrize(
    "data",
    [
        prelude(FRAME_MAX_BYTES + 1, 10),
        prelude(2**32 - 1, 10),
        prelude(2**31, 2**31),
        prelude(0, 0) + b"\0" * 20,
        prelude(12, 0) + b"\0" * 20,
        prelude(15, 0) + b"\0" * 20,
        prelude(20, 200) + b"\0" * 20,
    ],
)
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_absurd_lengths_are_refused_before_anything_is_waited_for(data, size):
    found, broken = read([data[start : start + size] for start in range(0, len(data), size)])
    assert found == []
    assert broken is not None


def test_headers_that_are_none_break_the_stream_and_no_more_is_read():
    head = b"\x01a\x63\x00"
    start = prelude(16 + len(head), len(head)) + head
    bad = start + struct.pack("!I", crc32(start))
    found, broken = read([event("chunk", b"{}") + bad, event("chunk", b"{}")])
    assert [one.name for one in found] == ["chunk"]
    assert broken is not None


def test_exceptions_and_errors_are_failures():
    found, _ = read(
        [
            exception("throttlingException", "slow"),
            frame(b"", message_type="error", error_code="InternalFailure", error_message="oops"),
            frame(b"{}"),
        ]
    )
    assert found == [
        Frame("throttlingException", b'{"message": "slow"}', failed=True),
        Frame("InternalFailure", b"oops", failed=True),
        Frame("unknown", b"{}", failed=True),
    ]


def test_a_large_message_in_small_pieces_costs_no_more_than_its_length():
    data = event("image", b"x" * 8_000_000)
    began_s = time.process_time()
    found, broken = read(split(data, range(0, len(data), 1400)))
    spent_s = time.process_time() - began_s
    assert broken is None
    assert len(found[0].payload) == 8_000_000
    assert spent_s < 2  # a copy per piece would be 45 GB

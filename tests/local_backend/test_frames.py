import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_backend.frames import FRAME_MAX_BYTES, FrameDecoder, FrameError, Kind, encode_frame

frames = st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=300)), max_size=12)


@given(frames, st.lists(st.integers(1, 40), min_size=1))
def test_frames_survive_any_chopping(sent, cuts):
    data = b"".join(encode_frame(kind, number, payload) for kind, number, payload in sent)
    decoder, got, at, turn = FrameDecoder(), [], 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        got += decoder.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    assert got == sent


@given(st.binary(max_size=64))
def test_noise_is_an_error_or_waits_for_more(noise):
    with contextlib.suppress(FrameError):
        FrameDecoder().feed(noise)


def test_a_frame_over_the_bound_is_refused_on_both_sides():
    with pytest.raises(FrameError):
        encode_frame(Kind.CHAT, 1, bytes(FRAME_MAX_BYTES))
    with pytest.raises(FrameError):
        FrameDecoder().feed((FRAME_MAX_BYTES + 1).to_bytes(4, "big") + bytes(8))


def test_an_unknown_kind_is_refused():
    with pytest.raises(FrameError):
        FrameDecoder().feed(encode_frame(Kind.CHAT, 1)[:-1] + b"\xff")

"""Frames however they are cut, and when what ended is started again."""

import signal
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.state.frames import FRAME_MAX_BYTES, HEAD, FrameDecoder, FrameError, encode_frame, read_frame
from gateway.workers.exits import (
    LOOK_EVERY_S,
    LOOK_LATE_TIMES,
    READY_BACK_OFFS_S,
    START_BACK_OFFS_S,
    RestartPolicy,
    Silence,
    explain_exit,
)
from gateway.workers.messages import Rows, Settle, decode, encode

FRAMES = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=300)), max_size=8)


@given(FRAMES, st.integers(1, 50))
def test_frames_come_out_as_they_went_in_however_they_are_cut(frames, size):
    data = b"".join(encode_frame(*one) for one in frames)
    decoder, found = FrameDecoder(), []
    for at in range(0, len(data), size):
        found += decoder.feed(data[at : at + size])
    assert found == frames


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_end_a_connection(data):
    try:
        for _, payload in FrameDecoder().feed(data):
            decode(payload)
    except (FrameError, ValueError):
        pass


def test_what_is_too_long_is_neither_said_nor_heard():
    with pytest.raises(FrameError):
        encode_frame(1, bytes(FRAME_MAX_BYTES + 1))
    with pytest.raises(FrameError):
        FrameDecoder().feed(HEAD.pack(FRAME_MAX_BYTES + 1, 0))


def test_a_blocking_reader_gets_whole_frames_and_is_told_of_the_end():
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(encode_frame(7, b"abc"))
        theirs.close()
        assert read_frame(ours) == (7, b"abc")
        with pytest.raises(ConnectionResetError):
            read_frame(ours)


def test_messages_keep_their_kind_and_their_numbers():
    assert decode(encode(Settle("g", "g/1", None))) == Settle("g", "g/1", None)
    rows = [["g/1", 2**62, None, True, "text"]]
    assert decode(encode(Rows(rows, []))).rows == rows


def test_a_single_end_costs_no_pause_and_many_do_not_end_all():
    policy = RestartPolicy()
    assert [policy.after_end(0.5) for _ in range(8)] == [*READY_BACK_OFFS_S, 1.0, 1.0]
    assert policy.after_end(120.0) == 0.0


def test_what_never_becomes_ready_is_tried_less_and_less_often():
    policy = RestartPolicy()
    assert [policy.after_end(None) for _ in range(5)] == [*START_BACK_OFFS_S, 30.0]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (-signal.SIGKILL, "memory ran out"),
        (-signal.SIGSEGV, "native"),
        (-99, "signal 99"),
        (0, "itself"),
        (3, "status 3"),
    ],
)
def test_an_exit_is_put_into_words(status, words):
    assert words in explain_exit(status)


def test_a_process_is_silent_for_as_long_as_it_is_not_heard_of():
    silence = Silence()
    assert [silence.look(LOOK_EVERY_S) for _ in range(40)] == [LOOK_EVERY_S * looks for looks in range(1, 41)]
    for _ in range(1000):
        silence.end()
        assert silence.look(LOOK_EVERY_S) == LOOK_EVERY_S


def test_time_in_which_the_parent_stood_still_is_not_held_against_its_children():
    silence = Silence()
    assert silence.look(3600.0) == LOOK_LATE_TIMES * LOOK_EVERY_S
    assert silence.look(LOOK_EVERY_S) == (LOOK_LATE_TIMES + 1) * LOOK_EVERY_S

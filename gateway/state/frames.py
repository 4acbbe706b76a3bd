"""What passes between the processes: frames on a unix socket, each a number and one message. Sans I/O.

A frame is `length (u32) | number (u32) | payload`, big-endian; `length` counts the payload, which is msgpack. A number
of 0 asks for no answer; an answer has the number of what it answers. No frame is longer than FRAME_MAX_BYTES, in either
direction: whoever announces one is cut off.
"""

import socket
import struct
from typing import Final

HEAD: Final = struct.Struct("!II")
FRAME_MAX_BYTES: Final = 16 * 2**20
"""No payload is larger."""
NUMBER_MAX: Final = 2**32 - 1


class FrameError(ValueError):
    """The other side does not speak this protocol, or something is too large for it."""


def encode_frame(number: int, payload: bytes) -> bytes:
    """One frame's bytes.

    Raises:
        FrameError: The payload is over FRAME_MAX_BYTES.
    """
    if len(payload) > FRAME_MAX_BYTES:
        raise FrameError(f"a message of {len(payload)} bytes is over the limit of {FRAME_MAX_BYTES}")
    return HEAD.pack(len(payload), number) + payload


class FrameDecoder:
    """Cuts a byte stream, however it is chopped, into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that these bytes complete, each as its number and payload.

        Raises:
            FrameError: A length over the bound: the stream is useless from there on.
        """
        buffer = self._buffer
        buffer += data
        frames: list[tuple[int, bytes]] = []
        start = 0
        while len(buffer) - start >= HEAD.size:
            length, number = HEAD.unpack_from(buffer, start)
            if length > FRAME_MAX_BYTES:
                raise FrameError(f"a frame announces {length} bytes")
            end = start + HEAD.size + length
            if len(buffer) < end:
                break
            frames.append((number, bytes(buffer[start + HEAD.size : end])))
            start = end
        del buffer[:start]
        return frames


def read_frame(connection: socket.socket) -> tuple[int, bytes]:
    """The next frame of a blocking socket.

    Raises:
        OSError: It ended, or did not come in time.
        FrameError: It is too large.
    """
    length, number = HEAD.unpack(_read(connection, HEAD.size))
    if length > FRAME_MAX_BYTES:
        raise FrameError(f"a frame announces {length} bytes")
    return number, _read(connection, length)


def _read(connection: socket.socket, size_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < size_bytes:
        piece = connection.recv(min(size_bytes - len(data), 1 << 20))
        if not piece:
            raise ConnectionResetError("the other process hung up")
        data += piece
    return bytes(data)

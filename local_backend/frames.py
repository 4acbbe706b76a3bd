"""The words between gateway and worker: frames on a unix socket. Sans I/O.

A frame is `length (u32) | exchange (u32) | kind (u8) | payload`, big-endian; `length` counts what follows it. The
payload is JSON, except for LINES and LAST, whose payload is JSON lines that the gateway passes on untouched.
"""

import struct
from enum import IntEnum

from msgspec import Struct

_HEAD = struct.Struct("!IIB")
_LENGTH_BYTES = 4
_REST_BYTES = _HEAD.size - _LENGTH_BYTES

FRAME_MAX_BYTES = 16 * 2**20
"""No frame is larger, in either direction."""


class Kind(IntEnum):
    """What a frame says."""

    SPEC = 1
    """To the worker, first: the model to load (WorkerSpec)."""
    READY = 2
    """From the worker: loaded, with its facts (WorkerFacts)."""
    REFUSED = 3
    """From the worker: will not load, with the cause (Refusal). The worker then ends."""
    CHAT = 4
    """To the worker: one request."""
    CANCEL = 5
    """To the worker: nobody wants this exchange any more."""
    HEAD_ERROR = 6
    """From the worker: refused before the first line (Refusal). Ends the exchange."""
    LINES = 7
    """From the worker: lines of the answer."""
    LAST = 8
    """From the worker: the last lines of the answer. Ends the exchange."""
    STATS_WANTED = 9
    """To the worker: say how you are."""
    STATS = 10
    """From the worker: WorkerStats."""
    WAITING = 11
    """From the worker: the exchange is queued; it cannot be what crashes the worker."""
    RUNNING = 12
    """From the worker: an exchange that was queued has a slot now."""


class FrameError(ValueError):
    """The other side does not speak this protocol."""


class WorkerSpec(Struct, frozen=True, kw_only=True):
    """What the worker is to load."""

    name: str
    path: str
    demo_path: str
    """The bundled tiny model, decoded once before a foreign file is touched."""
    slots: int
    context_tokens: int
    """Per slot."""
    queue: int
    threads: int | None = None
    """`None` lets the worker decide by its CPU and the model's size."""
    lock_path: str | None = None
    """Held for as long as a big model is loaded, so that there is one at a time."""


class ChatHead(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What precedes the body in a CHAT frame, on a line of its own."""

    whole: bool = False
    """The answer is wanted in one piece."""
    waited_s: float = 0.0
    """How much of the request's deadline is used up already."""
    caller: str = ""
    """Whose request it is, in a word that says nothing else: those of one caller wait in one lane."""


class WorkerFacts(Struct, frozen=True, kw_only=True):
    """What a loaded model is."""

    pid: int
    size_bytes: int
    context_tokens: int
    slots: int
    threads: int
    vocabulary_tokens: int
    load_s: float
    big: bool
    description: str
    second_thread: bool = False
    """Whether steps of several rows may take one thread more."""


class Refusal(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why not."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None


class WorkerStats(Struct, frozen=True, kw_only=True):
    """How the worker is doing."""

    running: int
    waiting: int
    kv_running_tokens: int
    """KV cells held by running sequences."""
    kv_kept_tokens: int
    """KV cells kept for a later prompt that begins alike."""
    steps: int
    admitted: int
    """Sequences that ever reached the engine's batch."""
    generated_tokens: int
    prompt_tokens: int
    rss_bytes: int


def encode_frame(kind: Kind, exchange: int, payload: bytes = b"") -> bytes:
    """One frame's bytes.

    Raises:
        FrameError: The payload is over FRAME_MAX_BYTES.
    """
    if len(payload) > FRAME_MAX_BYTES - _REST_BYTES:
        raise FrameError(f"a frame of {len(payload)} bytes is over the limit of {FRAME_MAX_BYTES}")
    return _HEAD.pack(len(payload) + _REST_BYTES, exchange, kind) + payload


class FrameDecoder:
    """Cuts a byte stream, however it is chopped, into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[Kind, int, bytes]]:
        """The frames that these bytes complete, as (kind, exchange, payload).

        Raises:
            FrameError: A length over the bound, or an unknown kind. The stream is useless from there on.
        """
        buffer = self._buffer
        buffer += data
        frames: list[tuple[Kind, int, bytes]] = []
        start = 0
        while len(buffer) - start >= _HEAD.size:
            length, exchange, kind = _HEAD.unpack_from(buffer, start)
            if not _REST_BYTES <= length <= FRAME_MAX_BYTES:
                raise FrameError(f"a frame announces {length} bytes")
            end = start + _LENGTH_BYTES + length
            if len(buffer) < end:
                break
            frames.append((_known(kind), exchange, bytes(buffer[start + _HEAD.size : end])))
            start = end
        del buffer[:start]
        return frames


def _known(kind: int) -> Kind:
    try:
        return Kind(kind)
    except ValueError:
        raise FrameError(f"a frame of unknown kind {kind}") from None

"""What the parent and its children say to one another: on a socket pair that ends with either of them."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec
from msgspec import Struct

from gateway.state.frames import FrameDecoder, FrameError, encode_frame


class Start(Struct, frozen=True, tag=True):
    """To a child, first: what it is to be."""

    role: Literal["owner", "worker"]
    name: str
    """Of this process and no other, ever: its journal has it."""
    number: int
    """Of a worker, from 1; 0 for the owner."""
    workers: int
    config: str
    overrides: dict[str, str]
    """Settings of the `gateway` section that were given as flags."""
    sockets: tuple[tuple[int, ...], ...] = ()
    """Descriptors that listen, a group for each worker."""
    living: tuple[str, ...] = ()
    """To the owner: workers that are there already."""


class Drain(Struct, frozen=True, tag=True):
    """To a worker: stop as after this signal. Once more: hurry."""

    signal: int


class StandIn(Struct, frozen=True, tag=True):
    """To a worker: accept this group's connections too, as its own worker is gone."""

    group: int


class StepBack(Struct, frozen=True, tag=True):
    """To a worker: its own worker is back."""

    group: int


class Began(Struct, frozen=True, tag=True):
    """To the owner: a worker is about to be started."""

    name: str


class Ended(Struct, frozen=True, tag=True):
    """To the owner: a worker is gone, however it ended."""

    name: str


class Finish(Struct, frozen=True, tag=True):
    """To the owner: no worker is left, and none will come."""


class Ready(Struct, frozen=True, tag=True):
    """From a child: it is at work."""


class Alive(Struct, frozen=True, tag=True):
    """From a child, every ALIVE_EVERY_S: its event loop runs."""


ToChild: TypeAlias = Start | Drain | StandIn | StepBack | Began | Ended | Finish
Control: TypeAlias = ToChild | Ready | Alive

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(
    Start | Drain | StandIn | StepBack | Began | Ended | Finish | Ready | Alive
).decode

ALIVE_EVERY_S: Final = 1.0
"""How often an owner or a worker says that it is alive."""


class ControlLink(asyncio.Protocol):
    """One end of it.

    Args:
        heard: Told what the other end says.
        lost: Told that the other end is gone.
    """

    def __init__(self, heard: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._heard = heard
        self._lost = lost
        self._decoder = FrameDecoder()
        self._transport: asyncio.WriteTransport | None = None

    @property
    def up(self) -> bool:
        """Whether the other end is there."""
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """The other end is gone."""
        self._transport = None
        self._lost()

    def data_received(self, data: bytes) -> None:
        """Frames, or pieces of them."""
        try:
            for _, payload in self._decoder.feed(data):
                self._heard(_decode(payload))
        except (FrameError, msgspec.MsgspecError):
            self.close()

    def say(self, message: Control) -> None:
        """Tell the other end, if it is there."""
        if self._transport is not None:
            self._transport.write(encode_frame(0, _encode(message)))

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


async def say_alive(link: ControlLink) -> None:
    """Say again and again that this process's event loop runs, until cancelled."""
    while True:
        link.say(Alive())
        await asyncio.sleep(ALIVE_EVERY_S)

"""One end of a connection between a worker and the owner: both ask, both answer, and what is told is told in order."""

import asyncio
import inspect
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from gateway.state.frames import NUMBER_MAX, FrameDecoder, FrameError, encode_frame
from gateway.workers.messages import NO_VALUE, Reply, decode, encode
from providers.errors import MixgateError

UNSENT_MAX_BYTES: Final = 64 * 2**20
"""What may wait to be read by the other side; one that is further behind is cut off."""
SOCKET_NAME: Final = "owner.sock"
FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
_PEER: Final = struct.Struct("3i")
"""Of SO_PEERCRED: process, user, group."""

Answerer = Callable[[Any], Any]
"""Answers a message: with a value, or something to be awaited for it."""

_log = logging.getLogger("mixgate.workers")


class AwayError(Exception):
    """The other process is not there, or ended before it answered."""


class DeclinedError(Exception):
    """The other process says why not: a word for the kind, and words."""

    def __init__(self, kind: str, message: str, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s


class Link(asyncio.Protocol):
    """One end.

    Args:
        answer: Answers what the other end asks or tells.
        lost: Told that the connection is gone, once.
    """

    def __init__(self, answer: Answerer, lost: Callable[[], None]) -> None:
        self._answer = answer
        self._lost = lost
        self._decoder = FrameDecoder()
        self._transport: asyncio.WriteTransport | None = None
        self._waiting: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._number = 0
        self._answering: set[asyncio.Future[Any]] = set()

    @property
    def up(self) -> bool:
        """Whether it is there."""
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """It is gone: whoever waits for an answer gets none."""
        self._transport = None
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(AwayError())
        for one in list(self._answering):
            one.cancel()
        self._lost()

    def data_received(self, data: bytes) -> None:
        """Frames, or pieces of them."""
        try:
            for number, payload in self._decoder.feed(data):
                self._take(number, decode(payload))
        except (FrameError, msgspec.MsgspecError) as error:
            _log.error("another process of this gateway said what is not understood, and is cut off: %s", error)
            self.close()

    def tell(self, message: Any) -> None:
        """Say something; lost where nobody is there."""
        self._write(0, message)

    def begin(self, message: Any) -> "asyncio.Future[msgspec.Raw]":
        """Say something now; the Future is the answer. It fails with AwayError or DeclinedError.

        Raises:
            AwayError: Nobody is there.
        """
        if self._transport is None:
            raise AwayError
        self._number = number = self._number % NUMBER_MAX + 1
        self._write(number, message)
        future: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        future.add_done_callback(lambda _: self._waiting.pop(number, None))
        return future

    async def ask(self, message: Any, kind: Any) -> Any:
        """Say something and wait for the answer, which is of that type.

        Raises:
            AwayError: There is none.
            DeclinedError: It is no.
        """
        return msgspec.msgpack.decode(await self.begin(message), type=kind)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Hang up at once."""
        if self._transport is not None:
            self._transport.abort()

    def _take(self, number: int, message: Any) -> None:
        if isinstance(message, Reply):
            future = self._waiting.get(number)
            if future is not None and not future.done():
                if message.error is None:
                    future.set_result(message.value)
                else:
                    kind, _, words = message.error.partition(": ")
                    future.set_exception(DeclinedError(kind, words, message.retry_after_s))
            return
        try:
            value = self._answer(message)
        except Exception as error:  # noqa: BLE001 - whoever asked is told; logged where it is a fault of ours
            self._decline(number, error)
            return
        if inspect.isawaitable(value):
            answering = asyncio.ensure_future(self._answer_later(number, value))
            self._answering.add(answering)
            answering.add_done_callback(self._answering.discard)
        else:
            self._reply(number, value)

    async def _answer_later(self, number: int, value: Awaitable[Any]) -> None:
        try:
            found = await value
        except Exception as error:  # noqa: BLE001 - whoever asked is told; logged where it is a fault of ours
            self._decline(number, error)
        else:
            self._reply(number, found)

    def _reply(self, number: int, value: Any) -> None:
        if number:
            self._write(number, Reply(msgspec.Raw(encode(value))))

    def _decline(self, number: int, error: Exception) -> None:
        if not isinstance(error, (MixgateError, DeclinedError)):
            _log.error("what another process of this gateway asked for failed", exc_info=error)
        kind = error.kind if isinstance(error, DeclinedError) else str(getattr(error, "code", "failed"))
        after_s: float | None = getattr(error, "retry_after_s", None)
        if number:
            self._write(number, Reply(NO_VALUE, f"{kind}: {error or type(error).__name__}", after_s))

    def _write(self, number: int, message: Any) -> None:
        transport = self._transport
        if transport is None:
            return
        transport.write(encode_frame(number, encode(message)))
        if transport.get_write_buffer_size() > UNSENT_MAX_BYTES:
            _log.error("another process of this gateway does not read what it is told, and is cut off")
            transport.abort()


def socket_path(home: Path) -> Path:
    """Where the owner listens."""
    return home / "run" / SOCKET_NAME


def open_listener(path: Path) -> socket.socket:
    """The owner's socket, for this user alone. Whoever had it before is gone: to be called under a lock.

    Raises:
        OSError: It cannot be made.
    """
    path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            before = os.umask(0o177)
            try:
                # The name of a socket has 107 bytes at most, which the path of a home may be longer than.
                listener.bind(f"/proc/self/fd/{folder}/{path.name}")
            finally:
                os.umask(before)
        finally:
            os.close(folder)
        path.chmod(FILE_MODE)
        listener.listen()
        listener.setblocking(False)  # noqa: FBT003  # the socket API
    except BaseException:
        listener.close()
        raise
    return listener


def connect(path: Path, timeout_s: float) -> socket.socket:
    """A blocking connection to the owner.

    Raises:
        OSError: It is not there, or does not belong to this user.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(f"/proc/self/fd/{folder}/{path.name}")
        if not is_ours(connection):
            raise PermissionError(f"{path} is another user's")  # noqa: TRY301 (closed below like all else)
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(folder)
    return connection


def is_ours(connection: socket.socket) -> bool:
    """Whether the process at the other end is this user's, or root's."""
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _, user, _ = _PEER.unpack(peer)
    return user in {os.geteuid(), 0}

"""The gateway's side of the socket: many answers over one connection. Never blocks, holds no native code."""

import asyncio
import hashlib
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, cast

import msgspec

from local_backend.errors import EngineError, LocalError, WorkerCrashedError
from local_backend.frames import (
    ChatHead,
    FrameDecoder,
    FrameError,
    Kind,
    Refusal,
    WorkerFacts,
    WorkerSpec,
    WorkerStats,
    encode_frame,
)
from local_backend.lines import error_line, refusal_of

_encoder = msgspec.json.Encoder()
_refusals: Final = msgspec.json.Decoder(Refusal)
_facts: Final = msgspec.json.Decoder(WorkerFacts)
_stats: Final = msgspec.json.Decoder(WorkerStats)

CALLER_MAX_CHARS: Final = 64
"""Of the word that tells callers apart."""
_EXCHANGES: Final = 2**32


def fingerprint(body: bytes) -> bytes:
    """What tells a request from others, to recognise one that ends workers."""
    return hashlib.blake2b(body, digest_size=16).digest()


class LocalResponse:
    """An answer on its way: providers' WireResponse by shape."""

    body: bytes | None = None
    """Its lines are read, even where they come all at once."""

    def __init__(
        self, status: int, headers: Mapping[str, str], body: bytes = b"", on_close: Callable[[], None] | None = None
    ) -> None:
        self.status = status
        self.headers = headers
        self._pieces: list[bytes] = [body] if body else []
        self._complete = on_close is None
        self._on_close = on_close
        self._arrived: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """The bytes that came since the last call; `b""` once the body is complete."""
        while not self._pieces and not self._complete:
            self._arrived = asyncio.get_running_loop().create_future()
            try:
                await self._arrived
            finally:
                self._arrived = None
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        return data

    def close(self, *, ended: bool = False) -> None:  # noqa: ARG002  # the seam's: our body ends with its last line
        """Nobody wants the rest: the worker stops within one step. Idempotent."""
        on_close, self._on_close = self._on_close, None
        if on_close is not None and not self._complete:
            on_close()
        self._complete = True
        self._pieces.clear()
        self._wake()

    def add(self, data: bytes, *, last: bool) -> None:
        """More of the body came."""
        if self._complete:
            return
        if data:
            self._pieces.append(data)
        self._complete = last
        self._wake()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


def refusal_response(refusal: Refusal) -> LocalResponse:
    """A request that got no line: an HTTP-like status with a reason."""
    headers = {"content-type": "application/json"}
    if refusal.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(refusal.retry_after_s))
    error = {"message": refusal.message, "code": refusal.code, "param": refusal.param}
    return LocalResponse(refusal.status, headers, _encoder.encode({"error": error}))


class _Exchange:
    """One request under way: first its head is awaited, then its body grows."""

    __slots__ = ("fingerprint", "head", "response", "waiting", "whole")

    def __init__(self, head: asyncio.Future[LocalResponse], mark: bytes, *, whole: bool) -> None:
        self.head = head
        self.fingerprint = mark
        self.response: LocalResponse | None = None
        self.waiting = False
        self.whole = whole


class WorkerLink(asyncio.Protocol):
    """The connection to one worker process, from its SPEC to its end."""

    def __init__(self, spec: WorkerSpec) -> None:
        loop = asyncio.get_running_loop()
        self._spec = spec
        self._loop = loop
        self._decoder = FrameDecoder()
        self._exchanges: dict[int, _Exchange] = {}
        self._stats: dict[int, asyncio.Future[WorkerStats]] = {}
        self._number = 0
        self._frames: deque[tuple[Kind, int, bytes]] = deque()
        """What the worker said that was not passed on yet."""
        self._transport: asyncio.WriteTransport | None = None
        self.verdict: asyncio.Future[WorkerFacts | Refusal | None] = loop.create_future()
        """The facts of a loaded model, why it will not load, or None when the worker ended before saying."""
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done once the worker hung up."""
        self.answered: Callable[[bytes], None] | None = None
        """Told the fingerprint of each request whose answer came to its end."""

    @property
    def busy(self) -> int:
        """Requests under way."""
        return len(self._exchanges)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what to load."""
        # uvloop's transports are not instances of asyncio's classes.
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.write(encode_frame(Kind.SPEC, 0, _encoder.encode(self._spec)))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """The worker is gone. What is under way waits for `fail`, which knows why."""
        self._transport = None
        while self._frames:
            self._take_next()
        if not self.verdict.done():
            self.verdict.set_result(None)
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Frames, or pieces of them."""
        idle = not self._frames
        try:
            self._frames.extend(self._decoder.feed(data))
        except FrameError:
            self.close()
        if idle and self._frames:
            self._pass_on()

    def _pass_on(self) -> None:
        """One frame now, the next in the loop's next turn.

        A worker speaks for all its streams at once, and remote requests must not wait for all of them.
        """
        if self._frames:
            self._take_next()
        if self._frames:
            self._loop.call_soon(self._pass_on)

    def _take_next(self) -> None:
        try:
            self._take(*self._frames.popleft())
        except msgspec.MsgspecError:
            self._frames.clear()
            self.close()

    def _take(self, kind: Kind, number: int, payload: bytes) -> None:
        if kind in (Kind.READY, Kind.REFUSED):
            if not self.verdict.done():
                self.verdict.set_result((_facts if kind is Kind.READY else _refusals).decode(payload))
        elif kind is Kind.STATS:
            stats = _stats.decode(payload)
            waiter = self._stats.pop(number, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(stats)
        elif (exchange := self._exchanges.get(number)) is not None:
            self._take_answer(kind, number, exchange, payload)

    def _take_answer(self, kind: Kind, number: int, exchange: _Exchange, payload: bytes) -> None:
        if kind in (Kind.WAITING, Kind.RUNNING):
            exchange.waiting = kind is Kind.WAITING
            return
        # Before the exchange is let go of: if this cannot be read, `fail` must still find it.
        refusal = _refusals.decode(payload) if kind is Kind.HEAD_ERROR else None
        last = kind is not Kind.LINES
        if last:
            del self._exchanges[number]
            if self.answered is not None:
                self.answered(exchange.fingerprint)
        if refusal is not None:
            self._settle(exchange, refusal_response(refusal))
            return
        if exchange.response is None:
            exchange.response = LocalResponse(
                200, {"content-type": "application/jsonl"}, on_close=lambda: self._drop(number)
            )
            self._settle(exchange, exchange.response)
        exchange.response.add(payload, last=last)

    @staticmethod
    def _settle(exchange: _Exchange, response: LocalResponse) -> None:
        if not exchange.head.done():
            exchange.head.set_result(response)

    @property
    def waiting(self) -> int:
        """Requests that wait in the worker's queue."""
        return sum(exchange.waiting for exchange in self._exchanges.values())

    async def send(self, body: bytes, *, whole: bool, waited_s: float, caller: str = "") -> LocalResponse:
        """Ask the worker. Returns once the first line is here, or the whole body if `whole`.

        Cancelling drops the request in the worker.

        Raises:
            LocalError: The worker is gone, or the request is too large to be sent.
        """
        transport = self._transport
        if transport is None:
            raise WorkerCrashedError("the local worker is gone", retry_after_s=1.0)
        self._number = number = (self._number + 1) % _EXCHANGES
        head = _encoder.encode(ChatHead(whole=whole, waited_s=waited_s, caller=caller[:CALLER_MAX_CHARS]))
        try:
            frame = encode_frame(Kind.CHAT, number, head + b"\n" + body)
        except FrameError as error:
            raise EngineError(str(error)) from error
        exchange = self._exchanges[number] = _Exchange(self._loop.create_future(), fingerprint(body), whole=whole)
        transport.write(frame)
        try:
            return await exchange.head
        except asyncio.CancelledError:
            self._drop(number)
            raise

    async def stats(self) -> WorkerStats:
        """How the worker is doing.

        Raises:
            LocalError: The worker is gone.
        """
        if self._transport is None:
            raise WorkerCrashedError("the local worker is gone", retry_after_s=1.0)
        self._number = number = (self._number + 1) % _EXCHANGES
        waiter: asyncio.Future[WorkerStats] = self._loop.create_future()
        self._stats[number] = waiter
        self._transport.write(encode_frame(Kind.STATS_WANTED, number))
        return await waiter

    def _drop(self, number: int) -> None:
        if self._exchanges.pop(number, None) is not None and self._transport is not None:
            self._transport.write(encode_frame(Kind.CANCEL, number))

    def fail(self, error: LocalError) -> list[bytes]:
        """End everything under way with an error: never silently. Returns the fingerprints of what was running."""
        refusal = refusal_of(error)
        exchanges, self._exchanges = self._exchanges, {}
        for exchange in exchanges.values():
            if exchange.response is None:
                self._settle(exchange, refusal_response(refusal))
            else:
                exchange.response.add(error_line(refusal), last=True)
        for waiter in self._stats.values():
            if not waiter.done():
                waiter.set_exception(error)
        self._stats.clear()
        return [exchange.fingerprint for exchange in exchanges.values() if not exchange.waiting]

    def close(self) -> None:
        """Hang up; the worker then ends."""
        if self._transport is not None:
            self._transport.close()

"""The worker's side of the socket: frames in, Jobs to the engine, lines back. Runs on the worker's event loop."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, cast

import msgspec
from msgspec import structs

from local_backend.answers import TEXT_EVERY_S, Exchange
from local_backend.chat import Segment
from local_backend.engine import Engine
from local_backend.errors import LocalError, QueueDeadlineError
from local_backend.frames import ChatHead, FrameDecoder, Kind, WorkerSpec, encode_frame
from local_backend.jobs import Happening, Job
from local_backend.lines import refusal_of
from local_backend.loading import Loaded, resident_bytes
from local_backend.requests import ChatBody, build_job, decode_body, render, wants_grammar

INLINE_MAX_BYTES: Final = 32 * 1024
"""Larger bodies are tokenised off the event loop."""

_encoder = msgspec.json.Encoder()
_head_decoder = msgspec.json.Decoder(ChatHead)


class WorkerProtocol(asyncio.Protocol):
    """Serves one gateway over one socket.

    Args:
        loaded: The model and its facts.
        spec: What was asked to be loaded.
        done: Set when the gateway is gone.
    """

    def __init__(self, loaded: Loaded, spec: WorkerSpec, done: asyncio.Event) -> None:
        self._loaded = loaded
        self._done = done
        self._decoder = FrameDecoder()
        self._exchanges: dict[int, Exchange] = {}
        self._loop = asyncio.get_running_loop()
        self._preparing = ThreadPoolExecutor(1, "prepare")
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.WriteTransport | None = None
        self._told: dict[int, Exchange] = {}
        """Answers with something that was not sent yet."""
        self._sent_s = 0.0
        self._sending: asyncio.TimerHandle | None = None
        facts = loaded.facts
        self._engine = Engine(
            loaded.model,
            slots=facts.slots,
            context_tokens=facts.context_tokens,
            queue=spec.queue,
            threads=facts.threads,
            sink=self._hear,
            abortable=facts.big,
            second_thread=facts.second_thread,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start, and say what is loaded."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._engine.start()
        self._send(Kind.READY, 0, _encoder.encode(self._loaded.facts))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """The gateway is gone."""
        self._done.set()

    def data_received(self, data: bytes) -> None:
        """Frames, or pieces of them."""
        for kind, number, payload in self._decoder.feed(data):
            if kind is Kind.CHAT:
                self._open(number, payload)
            elif kind is Kind.CANCEL:
                self._cancel(number)
            elif kind is Kind.STATS_WANTED:
                stats = structs.replace(self._engine.stats(), rss_bytes=resident_bytes())
                self._send(Kind.STATS, number, _encoder.encode(stats))

    def _send(self, kind: Kind, number: int, payload: bytes = b"") -> None:
        if self._transport is not None:
            self._transport.write(encode_frame(kind, number, payload))

    def _open(self, number: int, payload: bytes) -> None:
        head_bytes, _, data = payload.partition(b"\n")
        head = _head_decoder.decode(head_bytes)
        exchange = self._exchanges[number] = Exchange(number, whole=head.whole, caller=head.caller)
        try:
            body = decode_body(data)
            if body.deadline_s is not None:
                left_s = max(0.0, body.deadline_s - head.waited_s)
                body = structs.replace(body, deadline_s=left_s)
                exchange.deadline = self._loop.call_later(left_s, self._expire, exchange)
            segments = render(body, self._loaded.template)
            if len(data) <= INLINE_MAX_BYTES and not (wants_grammar(body) or body.logprobs):
                self._queue(exchange, self._build(exchange, body, segments))
                return
        except LocalError as error:
            self._refuse(exchange, error)
            return
        task = self._loop.create_task(self._prepare(exchange, body, segments))
        self._tasks.add(task)
        task.add_done_callback(self._prepared)

    async def _prepare(self, exchange: Exchange, body: ChatBody, segments: list[Segment]) -> None:
        """The long way, off the loop: a large prompt, a grammar, numpy's import."""
        try:
            job = await self._loop.run_in_executor(self._preparing, self._build, exchange, body, segments)
            if exchange.number in self._exchanges:
                self._queue(exchange, job)
        except LocalError as error:
            self._refuse(exchange, error)

    def _prepared(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._loop.call_exception_handler({"message": "a request could not be prepared", "exception": error})

    def _build(self, exchange: Exchange, body: ChatBody, segments: list[Segment]) -> Job:
        prompt = self._loaded.template.tokenize(segments)
        vocabulary = self._loaded.model.vocabulary
        context_tokens = self._loaded.facts.context_tokens
        return build_job(
            exchange.number, body, prompt, vocabulary, context_tokens=context_tokens, caller=exchange.caller
        )

    def _queue(self, exchange: Exchange, job: Job) -> None:
        exchange.choices = job.choices
        exchange.logprobs = job.logprobs
        exchange.input_tokens = len(job.prompt)
        self._engine.admit(job)
        exchange.queued = True
        if self._engine.waits(job.id):
            exchange.waiting = True
            self._send(Kind.WAITING, exchange.number)

    def _refuse(self, exchange: Exchange, error: LocalError) -> None:
        if self._exchanges.pop(exchange.number, None) is None:
            return
        if exchange.deadline is not None:
            exchange.deadline.cancel()
        self._send(Kind.HEAD_ERROR, exchange.number, _encoder.encode(refusal_of(error)))

    def _expire(self, exchange: Exchange) -> None:
        """The deadline passed. A request that has a slot goes on; who asked decides how long to wait for the rest."""
        if exchange.started or exchange.number not in self._exchanges:
            return
        if not exchange.queued or self._engine.withdraw(exchange.number):
            message = "the deadline passed while the request waited for a slot of the local model"
            self._refuse(exchange, QueueDeadlineError(message, retry_after_s=1.0))

    def _cancel(self, number: int) -> None:
        exchange = self._exchanges.pop(number, None)
        self._told.pop(number, None)
        if exchange is None:
            return
        if exchange.deadline is not None:
            exchange.deadline.cancel()
        self._engine.cancel(number)

    def _hear(self, happenings: list[Happening]) -> None:
        """From the engine's thread."""
        self._loop.call_soon_threadsafe(self._report, happenings)

    def _report(self, happenings: list[Happening]) -> None:
        told = self._told
        for happening in happenings:
            exchange = self._exchanges.get(happening.job)
            if exchange is None:
                continue
            refusal = exchange.note(happening)
            if refusal is not None:
                del self._exchanges[exchange.number]
                told.pop(exchange.number, None)
                self._send(Kind.HEAD_ERROR, exchange.number, _encoder.encode(refusal))
            else:
                told[exchange.number] = exchange
        due_s = self._sent_s + TEXT_EVERY_S
        if self._loop.time() >= due_s:
            self._send_told()
            return
        self._write([exchange for exchange in told.values() if exchange.hasty])
        if told and self._sending is None:
            self._sending = self._loop.call_at(due_s, self._send_told)

    def _send_told(self) -> None:
        """Send on whatever there is of any answer."""
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        self._sent_s = self._loop.time()
        self._write(list(self._told.values()))

    def _write(self, exchanges: list[Exchange]) -> None:
        frames = b"".join(frame for exchange in exchanges for frame in self._frames(exchange.number, exchange))
        for exchange in exchanges:
            del self._told[exchange.number]
        if frames and self._transport is not None:
            self._transport.write(frames)

    def _frames(self, number: int, exchange: Exchange) -> Iterator[bytes]:
        if exchange.started and exchange.deadline is not None:
            exchange.deadline.cancel()
            exchange.deadline = None
        if exchange.started and exchange.waiting:
            exchange.waiting = False
            yield encode_frame(Kind.RUNNING, number)
        lines = exchange.take()
        if exchange.over:
            self._exchanges.pop(number, None)
            yield encode_frame(Kind.LAST, number, lines)
        elif lines:
            yield encode_frame(Kind.LINES, number, lines)
